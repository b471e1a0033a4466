"""Signals that ask a process to stop: Ctrl-C, SIGTERM of a scheduler, SIGHUP of a closed terminal."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows lacks the last


def stop_signals() -> list[int]:
    """Return the numbers of these signals on this system."""
    return [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]


def heeded_stop_signals() -> list[int]:
    """Return those that this process does not ignore: nohup lets it ignore SIGHUP."""
    return [number for number in stop_signals() if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def stops_call(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """A context in which the heeded ones call a handler. In a thread, which can have no handlers, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = {number: signal.signal(number, handler) for number in heeded_stop_signals()}
    try:
        yield
    finally:
        for number, handler_before in earlier.items():
            signal.signal(number, handler_before)
