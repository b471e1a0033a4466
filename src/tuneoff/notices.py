"""Notices: one line for the user from below the command line, to standard error. A job sends its lines to the study."""

import sys
from collections.abc import Callable

from tuneoff.formats import show_control_characters


def _print(text: str) -> None:
    print(f"tuneoff: {show_control_characters(text)}", file=sys.stderr, flush=True)


_receiver: Callable[[str], None] = _print


def notice(text: str) -> None:
    """Tell the user something that needs no action."""
    _receiver(text)


def send_notices_to(receiver: Callable[[str], None]) -> None:
    """Pass this process' notices to a function, as a job's process does."""
    global _receiver
    _receiver = receiver
