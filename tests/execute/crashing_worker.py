"""The real worker, but a run of the strategy head is killed as the system kills for want of memory."""

import os
import signal

from tuneoff.execute import one, worker

plain = one.run_one


def run_or_die(spec, *arguments):
    if spec.strategy.name == "head":
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(spec, *arguments)


one.run_one = run_or_die
worker.main()
