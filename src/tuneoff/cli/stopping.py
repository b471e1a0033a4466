"""Signals that ask the command line to stop: Ctrl-C, SIGTERM of a scheduler, SIGHUP of a closed terminal.

Nothing slow is imported here, so that a signal during the imports ends in one line too.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tuneoff.errors import StopRequested
from tuneoff.signals import heeded_stop_signals

_asked: list[int] = []


@contextmanager
def stops_in_one_line() -> Iterator[None]:
    """A context in which these signals raise StopRequested, and end the process with one line and 128 + the signal."""
    handled = heeded_stop_signals()
    for number in handled:
        signal.signal(number, _raise)
    try:
        yield
    except BaseException as error:
        asked = error.number if isinstance(error, StopRequested) else asked_to_stop()
        if asked is None or isinstance(error, SystemExit):
            raise
        for number in handled:  # another one ends the process at once, without a traceback of its clean-up
            signal.signal(number, signal.SIG_DFL)
        print(f"tuneoff: {stopped_by(asked)}", file=sys.stderr)
        sys.exit(StopRequested(asked).exit_code)


def stopped_by(number: int) -> str:
    """Write by which signal the process was stopped."""
    return "stopped by Ctrl-C" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"


def asked_to_stop() -> int | None:
    """Return the first of these signals, or None. A library that it interrupts may raise another error for it."""
    return _asked[0] if _asked else None


def _raise(number: int, _: Any) -> None:
    _asked.append(number)
    raise StopRequested(number)
