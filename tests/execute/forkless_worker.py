"""The real worker on a system that has no fork."""

from tuneoff.execute import worker

worker.CAN_FORK = False
worker.main()
