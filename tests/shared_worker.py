"""The real worker, whose jobs run in the folder and with the variables of the test that they are of (workers.py)."""

import os
import sys
from typing import Any, TextIO

from tuneoff.execute import worker
from tuneoff.execute.worker_process import _ENVIRONMENT

_run = worker._run


def run_where_its_test_is(message: dict[str, Any], channel: TextIO) -> None:
    """Run a job, in a process of its own."""
    os.chdir(message["cwd"])
    sys.path[0] = message["cwd"]
    os.environ.clear()
    os.environ.update(_ENVIRONMENT | message["environment"])
    _run(message, channel)


if __name__ == "__main__":
    worker._run = run_where_its_test_is
    worker.main()
