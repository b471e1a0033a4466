"""Main program of the worker process: import once, then run each job in a forked child of its own.

A child has its own memory and can crash without harm to the other jobs. The process reads one JSON line per job from
standard input and writes events as JSON lines to standard output. All libraries are imported before it is ready, so
that the memory and times of a job do not depend on when it starts. Where nothing may fork (macOS, Windows), or a
library has started CUDA, which a forked child cannot use then, each job starts a new process, which imports the
libraries itself.
"""

import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from tuneoff.errors import StopRequested
from tuneoff.signals import stop_signals

PROGRESS_SECONDS = 0.2  # between two progress events of a job
# macOS forbids much after a fork, and Windows has none
CAN_FORK = hasattr(os, "fork") and sys.platform != "darwin"
_OPTIONAL_LIBRARIES = ("optuna", "peft")  # that only some jobs need
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Run jobs until standard input ends; with --one JOB, run that job; with --device, be a device of a job."""
    _die_with_parent()
    _handle_stop_signals(lambda *_: None)  # a scheduler may signal every process; the main process asks when it is time
    # libraries may print to standard output, which must not mix with events
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    if "--one" in sys.argv:
        _run(json.loads(sys.argv[-1]), channel)
        return
    if "--device" in sys.argv:
        _import_libraries()
        from tuneoff.execute.devices import run_device

        sys.exit(run_device(json.loads(sys.argv[-1])))
    if CAN_FORK:
        _import_libraries()
    _send(channel, event="ready")
    running: dict[int, str] = {}  # process id -> job id
    children = _ForkedChildren() if CAN_FORK and not _has_started_cuda() else _SpawnedChildren()
    for event in children.events():
        if isinstance(event, bytes):
            job = json.loads(event)
            if "stop" in job:
                _stop_children(running)
            elif "kill" in job:
                _kill_child(running, job["kill"])
            else:
                running[children.start(job, channel)] = job["job_id"]
        else:
            process, code = event
            job_id = running.pop(process)
            if code != 0:
                _send(channel, event="crashed", job_id=job_id, code=code)


@functools.cache
def _import_libraries() -> None:
    """Import everything that jobs need, so that children start with it.

    A library that only some jobs need may be broken: the job that needs it fails, with the reason, and no other job.
    """
    gc.disable()  # garbage collection is a fifth of the import time
    # peft imports it where it is installed, and its import starts CUDA; no strategy here trains quantized weights
    modules: dict[str, Any] = sys.modules
    modules.setdefault("bitsandbytes", None)  # an import of it is an ImportError
    # first: for each function that it knows, it looks into every module that is there
    _import_optional("skops.io")
    import transformers

    import tuneoff.execute.run
    import tuneoff.execute.search  # noqa: F401

    for library in _OPTIONAL_LIBRARIES:
        _import_optional(library)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    gc.freeze()  # children need not scan it again, which would copy its pages
    gc.enable()


def _import_optional(library: str) -> None:
    """Import a library that only some jobs need."""
    with contextlib.suppress(Exception):  # whatever its import raises
        importlib.import_module(library)


def _has_started_cuda() -> bool:
    """Return True if a library that was imported has started CUDA."""
    import torch

    return torch.cuda.is_initialized()


class _ForkedChildren:
    """Children forked from this process, which has imported everything. It has a single thread, as forks need."""

    def events(self) -> Iterator[bytes | tuple[int, int]]:
        """Yield job lines as they arrive and (process id, exit code) as children end, until standard input ends."""
        wakeup_read, wakeup_write = os.pipe()
        os.set_blocking(wakeup_write, False)
        signal.set_wakeup_fd(wakeup_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler, so that the wakeup descriptor is written to
        rest = b""
        while True:
            ready, _, _ = select.select([sys.stdin.fileno(), wakeup_read], [], [])
            if wakeup_read in ready:
                os.read(wakeup_read, 4096)
                while (ended := self._ended_child()) is not None:
                    yield ended
            if sys.stdin.fileno() in ready:
                received = os.read(sys.stdin.fileno(), 2**16)
                if not received:
                    return
                *lines, rest = (rest + received).split(b"\n")
                yield from lines

    def _ended_child(self) -> tuple[int, int] | None:
        try:
            process, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        return (process, os.waitstatus_to_exitcode(status)) if process else None

    def start(self, job: dict[str, Any], channel: TextIO) -> int:
        """Start a job and return the id of its process."""
        signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals())  # until the child has its own handlers
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _die_with_parent()
                _run(job, channel)
                code = 0
            finally:
                os._exit(code)  # whatever happens, the child never goes on as the worker
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stop_signals())
        return child


class _SpawnedChildren:
    """Children that are new processes. A thread waits for each: Windows cannot wait for a pipe and for children."""

    def __init__(self) -> None:
        self._events: queue.Queue[bytes | tuple[int, int] | None] = queue.Queue()

    def events(self) -> Iterator[bytes | tuple[int, int]]:
        """Yield job lines as they arrive and (process id, exit code) as children end, until standard input ends."""
        threading.Thread(target=self._read_jobs, daemon=True).start()
        while (event := self._events.get()) is not None:
            yield event

    def _read_jobs(self) -> None:
        for line in sys.stdin.buffer:
            self._events.put(line)
        self._events.put(None)

    def start(self, job: dict[str, Any], channel: TextIO) -> int:
        """Start a job and return the id of its process."""
        command = [sys.executable, "-m", "tuneoff.execute.worker", "--one", json.dumps(job)]
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=channel)
        threading.Thread(target=lambda: self._events.put((child.pid, child.wait())), daemon=True).start()
        return child.pid


def _die_with_parent() -> None:
    """End this process when its parent is killed, instead of training on unnoticed (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _handle_stop_signals(handler: Callable[[int, Any], None] | signal.Handlers) -> None:
    for number in stop_signals():
        signal.signal(number, handler)


def _raise_stop(number: int, _: Any) -> None:
    raise StopRequested(number)


def _stop_children(running: Iterable[int]) -> None:
    """Ask jobs to stop. On Windows, which has no signals, they end at once: their last checkpoints stay."""
    for process in running:
        with contextlib.suppress(OSError):  # it has ended
            os.kill(process, signal.SIGTERM)


def _kill_child(running: Mapping[int, str], job_id: str) -> None:
    """Kill the process of a job, if it runs. running: process id -> job id."""
    for process, its_job in running.items():
        if its_job == job_id:
            with contextlib.suppress(OSError):  # it has ended
                os.kill(process, getattr(signal, "SIGKILL", signal.SIGTERM))


def _run(message: dict[str, Any], channel: TextIO) -> None:
    if message.get("gpu"):  # before CUDA starts
        os.environ["CUDA_VISIBLE_DEVICES"] = message["gpu"]
    log = os.open(message["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    try:
        _handle_stop_signals(_raise_stop)  # a training replaces it while it trains (engine/resume.py)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, stop_signals())
        _run_job(message, channel)
        _handle_stop_signals(signal.SIG_IGN)
        _send(channel, event="done", job_id=message["job_id"])
    except StopRequested:
        _handle_stop_signals(signal.SIG_IGN)
        _send(channel, event="stopped", job_id=message["job_id"])
    except Exception as error:  # runs store their own errors; here are those around them
        _send(channel, event="crashed", job_id=message["job_id"], code=1, reason=_describe(error))
        with contextlib.suppress(OSError):  # a full disk, which the reason names
            traceback.print_exc()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()


def _run_job(message: dict[str, Any], channel: TextIO) -> None:
    _import_libraries()

    import torch

    from tuneoff.cache import share_checks
    from tuneoff.execute.inputs import CachedInputs
    from tuneoff.execute.job import run_job
    from tuneoff.notices import send_notices_to
    from tuneoff.runs import StudyStore
    from tuneoff.spec.run import Job

    share_checks(message.get("checks"))
    send_notices_to(lambda text: _send(channel, event="notice", text=text))
    torch.set_num_threads(message["threads"])
    last_sent = 0.0

    def report(share: float) -> None:
        nonlocal last_sent
        if time.monotonic() - last_sent > PROGRESS_SECONDS:
            last_sent = time.monotonic()
            _send(channel, event="progress", job_id=message["job_id"], share=share)

    job, store = Job.model_validate(message["job"]), StudyStore(Path(message["folder"]))
    if message.get("devices", 1) == 1:
        run_job(job, CachedInputs(), store, report, message["halvings"])
        return
    from tuneoff.execute.devices import LocalDevices

    with LocalDevices(message["devices"], message["threads"]) as devices:
        run_job(job, CachedInputs(), store, report, message["halvings"], devices)


def _describe(error: Exception) -> str:
    from tuneoff.errors import TuneoffError, one_line

    text = str(error) if isinstance(error, TuneoffError) else f"{type(error).__name__}: {error}"
    return one_line(text, 1000)  # a longer line than a pipe takes at once would mix with those of other jobs


def _send(channel: TextIO, **event: str | float) -> None:
    # one short line, flushed at once: lines of several jobs do not mix
    try:
        channel.write(json.dumps(event) + "\n")
        channel.flush()
    except OSError:  # a broken pipe, which Windows calls an invalid argument
        os._exit(1)  # the study is gone: a job that went on would be stored as failed


if __name__ == "__main__":
    main()
