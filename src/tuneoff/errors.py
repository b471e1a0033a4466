"""What can go wrong through no fault of ours: one clear line each, exit code 2 at the command line."""

from collections.abc import Iterable
from difflib import get_close_matches


class TuneoffError(Exception):
    """Base of every error that a user can cause and mend."""


class ConfigError(TuneoffError, ValueError):
    """A study, strategy or option that cannot be used as written."""


class DataError(TuneoffError, ValueError):
    """A dataset that cannot be used as it stands."""


class ModelError(TuneoffError, ValueError):
    """An encoder that cannot be loaded or is not supported."""


class StoreError(TuneoffError, OSError):
    """A study folder that cannot be read or written."""


class DivergedError(TuneoffError, ArithmeticError):
    """Training left the finite numbers."""


def unknown(kind: str, name: str, allowed: Iterable[str]) -> str:
    """One line for a name that is not among the allowed ones, with the nearest right one.

    >>> unknown("strategy", "lroa", ["lora", "full"])
    "strategy 'lroa' is unknown; did you mean 'lora'? Choose from lora, full"
    """
    allowed = list(allowed)
    near = get_close_matches(str(name).lower(), [str(a) for a in allowed], n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}? Choose from" if near else "choose from"
    return f"{kind} {name!r} is unknown; {hint} {', '.join(allowed)}"


def listed(items: Iterable[object], most: int = 5) -> str:
    """The first few items in words: '3, 8, 9 and 41 more'."""
    words = [str(item) for item in items]
    rest = len(words) - most
    return ", ".join(words) if rest <= 0 else f"{', '.join(words[:most])} and {rest} more"
