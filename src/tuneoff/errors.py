"""Errors that a user can cause and fix. Each is one clear line; the command line exits with code 2."""

import reprlib
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

_MAX_LINE = 2000  # characters of a message: names and values of the user may be of any length
_MAX_NAME, _MAX_SEARCHED, _MAX_LISTED = 100, 10_000, 60  # of what a message names and searches
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict, _SHORT.maxtuple, _SHORT.maxset = 3, 3, 3, 3, 3


class TuneoffError(Exception):
    """Base class of every error that a user can cause and fix. Its text is one line, whatever it quotes."""

    def __str__(self) -> str:
        line = " ".join(super().__str__().split())
        return line if len(line) <= _MAX_LINE else f"{line[: _MAX_LINE - 2]} …"


class ConfigError(TuneoffError, ValueError):
    """A study, strategy or option that cannot be used as written."""


class DataError(TuneoffError, ValueError):
    """A dataset that cannot be used as it is."""


class ModelError(TuneoffError, ValueError):
    """An encoder that cannot be loaded or is not supported."""


class StoreError(TuneoffError, OSError):
    """A study folder that cannot be read or written."""


class ExportError(TuneoffError, ValueError):
    """A model that cannot be exported, or an export that does not give the model's probabilities."""


class LibraryError(TuneoffError, ImportError):
    """A library that cannot be imported."""


class DivergedError(TuneoffError, ArithmeticError):
    """Training that diverged: a loss, gradient or probability is not finite.

    trained: the history until then (engine/loop.py), None if there is none.
    """

    def __init__(self, message: str, trained: Any = None) -> None:
        super().__init__(message)
        self.trained = trained


class NoMemoryError(TuneoffError, MemoryError):
    """Work that does not fit in memory even in the smallest parts."""


class DeviceError(TuneoffError, RuntimeError):
    """Devices that train one run together, of which one is missing or has failed."""

    def __init__(self, message: str, was_killed: bool = False) -> None:
        super().__init__(message)
        self.was_killed = was_killed


class StopRequested(BaseException):
    """A signal asked this process to stop: Ctrl-C, SIGTERM, or SIGHUP of a closed terminal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    @property
    def exit_code(self) -> int:
        """The exit code by the convention of shells: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.number


@contextmanager
def requires(library: str) -> Iterator[None]:
    """A context for imports of a library that only some jobs need. Raises LibraryError if they fail."""
    try:
        yield
    except Exception as error:  # the import of a broken library may raise anything
        raise LibraryError(f"{library} cannot be imported ({error}); install or update {library}") from error


def unknown(kind: str, name: str, allowed: Iterable[str]) -> str:
    """Write the error message for a name that is not allowed, with the most similar allowed name.

    >>> unknown("strategy", "lroa", ["lora", "full"])
    "strategy 'lroa' is unknown; did you mean 'lora'? Choose from lora, full"
    """
    allowed = list(allowed)
    is_short = isinstance(name, str) and len(name) <= _MAX_NAME and len(allowed) <= _MAX_SEARCHED
    similar = get_close_matches(name.lower(), [str(a) for a in allowed], n=1, cutoff=0.6) if is_short else []
    hint = f"did you mean {similar[0]!r}? Choose from" if similar else "choose from"
    return f"{kind} {short_repr(name)} is unknown; {hint} {join_limited(allowed, _MAX_LISTED)}"


def short_repr(value: object) -> str:
    """Write any value in at most about a hundred characters, also one that a few aliases in YAML make endless.

    >>> short_repr("lora"), short_repr([[["a", [1, 2]]] * 9] * 9)
    ("'lora'", "[[['a', [...]], ['a', [...]], ['a', [...]], ...], ...]")
    """
    return _SHORT.repr(value)


def one_line(error: object, limit: int = 300) -> str:
    """Write an error of a library in one line of at most `limit` characters, cut at a space.

    >>> one_line(ValueError("no file\\n at https://example.org/a/b"), 16)
    'no file at …'
    """
    return textwrap.shorten(str(error), limit, placeholder=" …") or type(error).__name__


def join_limited(items: Iterable[object], limit: int = 5) -> str:
    """Join the first items with commas and count the rest.

    >>> join_limited([3, 8, 9, 12], limit=3)
    '3, 8, 9 and 1 more'
    """
    texts = [str(item) for item in items]
    rest = len(texts) - limit
    return ", ".join(texts) if rest <= 0 else f"{', '.join(texts[:limit])} and {rest} more"
