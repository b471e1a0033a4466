"""A worker process: imports once, then makes each run in a child of its own, whose memory and crash are its own.

It reads a JSON line per job from standard input and writes JSON lines about it to standard output.
"""

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

PROGRESS_SECONDS = 0.2  # between two reports of a run's progress
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Serve jobs until standard input ends."""
    _die_with_parent()
    # what libraries print must not mix with our lines
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    import transformers

    from tuneoff.execute.one import run_one  # noqa: F401  imported before the first fork, so that no run pays for it

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    _say(channel, event="ready")
    for line in sys.stdin:
        job = json.loads(line)
        if not hasattr(os, "fork") or sys.platform == "darwin":  # macOS forbids much after a fork
            _make(job, channel)
            continue
        child = os.fork()
        if child == 0:
            _die_with_parent()
            _make(job, channel)
            channel.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status != 0:
            _say(channel, event="crashed", code=os.waitstatus_to_exitcode(status))


def _die_with_parent() -> None:
    """A run whose study was killed ends too, instead of training on unseen (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _make(job: dict[str, Any], channel: Any) -> None:
    import torch

    from tuneoff.execute.one import run_one
    from tuneoff.runs import RunStore
    from tuneoff.spec import RunSpec

    torch.set_num_threads(job["threads"])
    last = 0.0

    def report(share: float) -> None:
        nonlocal last
        if time.monotonic() - last > PROGRESS_SECONDS:
            last = time.monotonic()
            _say(channel, event="progress", share=share)

    record = run_one(RunSpec.model_validate(job["run"]), RunStore(Path(job["store"])), report)
    _say(channel, event="done", status=record.status)


def _say(channel: Any, **message: Any) -> None:
    channel.write(json.dumps(message) + "\n")
    channel.flush()


if __name__ == "__main__":
    main()
