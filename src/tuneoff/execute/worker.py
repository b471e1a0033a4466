"""The worker process: imports once, then makes each run in a child of its own, whose memory and crash are its own.

It reads a JSON line per job from standard input and writes JSON lines about the jobs to standard output.
"""

import ctypes
import gc
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRESS_SECONDS = 0.2  # between two reports of a run's progress
CAN_FORK = sys.platform != "darwin"  # macOS forbids much after a fork: there each run starts, and imports, afresh
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Serve jobs until standard input ends; with --one JOB, make that one."""
    _die_with_parent()
    # what libraries print must not mix with our lines
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    if "--one" in sys.argv:
        _make(json.loads(sys.argv[-1]), channel)
        return
    if CAN_FORK:
        _import_all()
    _say(channel, event="ready")
    running: dict[int, str] = {}  # process -> run id
    for happened in _happenings():
        if isinstance(happened, bytes):
            job = json.loads(happened)
            running[_start(job, channel)] = job["run_id"]
        else:
            process, status = happened
            run_id = running.pop(process)
            if status != 0:
                _say(channel, event="crashed", run_id=run_id, code=os.waitstatus_to_exitcode(status))


def _import_all() -> None:
    """What runs need, so that none pays for it."""
    gc.disable()  # looking for garbage is a fifth of the time
    import transformers

    import tuneoff.execute.one  # noqa: F401

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    gc.freeze()  # a run's garbage collector need not look at any of it again
    gc.enable()


def _happenings() -> Iterator[bytes | tuple[int, int]]:
    """Jobs as they come, and processes as they end (with their status), until standard input ends."""
    bell, ringer = os.pipe()
    os.set_blocking(ringer, False)
    signal.set_wakeup_fd(ringer)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler, so that the bell rings
    rest = b""
    while True:
        ready, _, _ = select.select([sys.stdin.fileno(), bell], [], [])
        if bell in ready:
            os.read(bell, 4096)
            while (ended := _ended()) is not None:
                yield ended
        if sys.stdin.fileno() in ready:
            came = os.read(sys.stdin.fileno(), 2**16)
            if not came:
                return
            *lines, rest = (rest + came).split(b"\n")
            yield from lines


def _ended() -> tuple[int, int] | None:
    try:
        process, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (process, status) if process else None


def _start(job: dict[str, Any], channel: Any) -> int:
    """Begin a job in a process of its own; give that process."""
    if not CAN_FORK:
        command = [sys.executable, "-m", "tuneoff.execute.worker", "--one", json.dumps(job)]
        # not subprocess, which waits for processes behind our back
        says = [(os.POSIX_SPAWN_DUP2, channel.fileno(), sys.stdout.fileno())]
        return os.posix_spawn(sys.executable, command, os.environ, file_actions=says)
    child = os.fork()
    if child == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _die_with_parent()
        _make(job, channel)
        os._exit(0)
    return child


def _die_with_parent() -> None:
    """A run whose study was killed ends too, instead of training on unseen (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _make(job: dict[str, Any], channel: Any) -> None:
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    _import_all()

    import torch

    from tuneoff.execute.one import run_one
    from tuneoff.execute.search import search_one
    from tuneoff.runs import RunStore
    from tuneoff.spec import RunSpec, SearchJob

    torch.set_num_threads(job["threads"])
    last = 0.0

    def report(share: float) -> None:
        nonlocal last
        if time.monotonic() - last > PROGRESS_SECONDS:
            last = time.monotonic()
            _say(channel, event="progress", run_id=job["run_id"], share=share)

    store = RunStore(Path(job["store"]))
    if job["kind"] == "search":
        search_one(SearchJob.model_validate(job["run"]), store.searches, report)
    else:
        run_one(RunSpec.model_validate(job["run"]), store, report)
    sys.stdout.flush()
    sys.stderr.flush()
    _say(channel, event="done", run_id=job["run_id"])


def _say(channel: Any, **message: Any) -> None:
    # a line at once, and short: lines of several runs do not mix
    try:
        channel.write(json.dumps(message) + "\n")
        channel.flush()
    except BrokenPipeError:
        os._exit(1)  # the study is gone: a run that went on would be stored as failed


if __name__ == "__main__":
    main()
