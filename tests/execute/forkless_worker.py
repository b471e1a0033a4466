"""The real worker on a system without fork."""

from tuneoff.execute import worker

worker.CAN_FORK = False
worker.main()
