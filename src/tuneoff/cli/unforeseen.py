"""The last resort: an error that nothing foresaw is one line on the screen, and its traceback a file."""

import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tuneoff.formats import show_control_characters

DEBUG = "TUNEOFF_DEBUG"  # environment variable: 1 shows tracebacks
EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h
_MAX_LINE = 300


def print_unforeseen(error: BaseException) -> None:
    """Print what happened in one line to standard error, and write the traceback to a file that it names."""
    if os.environ.get(DEBUG) == "1":
        traceback.print_exception(error)
        return
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:_MAX_LINE]
    place = _store("".join(traceback.format_exception(error)))
    hint = f"the traceback is in {place}" if place else f"{DEBUG}=1 shows the traceback"
    line = f"tuneoff: unforeseen error, please report it: {reason}; {hint}"
    print(show_control_characters(line), file=sys.stderr)


def _store(text: str) -> Path | None:
    """Write a traceback under the cache, or where it cannot be written under the temporary folder."""
    from tuneoff.cache import cache_folder

    name = f"traceback-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    for folder in (cache_folder() / "tracebacks", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return folder / name
    return None
