"""Run a function in a forked child with limits of time and memory, and tell how it ended.

A library may crash the process that calls it, hang, or take all memory. In a child each of these is an outcome.
"""

import contextlib
import json
import os
import resource
import select
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tuneoff.errors import TuneoffError

SECONDS, MEMORY_BYTES = 10.0, 2 * 2**30
ACCEPTED, REFUSED, TRACEBACK, CRASH, HANG = "accepted", "refused", "traceback", "crash", "hang"


@dataclass(frozen=True)
class Outcome:
    """How a call ended, and the message, traceback or signal."""

    kind: str  # one of the constants above
    text: str = ""
    peak_bytes: int = 0  # above what the process had before
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        """A result, or a refusal in one line, within the limit of memory."""
        is_line = self.kind == ACCEPTED or (self.kind == REFUSED and bool(self.text) and "\n" not in self.text)
        return is_line and len(self.text) <= 2000 and self.peak_bytes <= MEMORY_BYTES


def guarded(function: Callable[..., Any], *arguments: Any, seconds: float = SECONDS) -> Outcome:
    """Call a function in a child of this process."""
    read, write = os.pipe()
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # later versions of Python warn of forks in processes with threads
        child = os.fork()
    if child == 0:
        os.close(read)
        with contextlib.suppress(BaseException):
            os.write(write, json.dumps(_outcome(function, arguments)).encode())
        os._exit(0)
    os.close(write)
    content, is_over = b"", False
    while not is_over and time.monotonic() - started < seconds:
        ready, _, _ = select.select([read], [], [], max(0.0, started + seconds - time.monotonic()))
        if ready:
            part = os.read(read, 2**16)
            content, is_over = content + part, not part
    os.close(read)
    if not is_over:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    elapsed = time.monotonic() - started
    if not is_over:
        return Outcome(HANG, f"not done after {seconds:g} s", 0, elapsed)
    if not content:
        return Outcome(CRASH, f"the process ended with {os.waitstatus_to_exitcode(status)}", 0, elapsed)
    kind, text, peak = json.loads(content)
    return Outcome(kind, text, peak, elapsed)


def _outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[str, str, int]:
    before = _peak_bytes()
    kind, text = called(function, *arguments)
    return kind, text, _peak_bytes() - before


def called(function: Callable[..., Any], *arguments: Any) -> tuple[str, str]:
    """Call a function; return how it ended, with the message or the traceback."""
    try:
        function(*arguments)
    except TuneoffError as error:
        return REFUSED, str(error)
    except BaseException:
        return TRACEBACK, traceback.format_exc()[-3000:]
    return ACCEPTED, ""


def _peak_bytes() -> int:
    # the largest of this process since it was forked: the parent's pages count, so that only the difference means much
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
