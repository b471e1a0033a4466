"""Tab completion in bash of values that hold a colon: studies:NAME."""

import io
import os
from collections.abc import Callable
from contextlib import redirect_stdout

_MODE = "_TUNEOFF_COMPLETE"  # environment variables of typer's completion script
_WORDS, _POSITION = "COMP_WORDS", "COMP_CWORD"


def is_bash_completion() -> bool:
    """Tell whether bash started this process to complete a command line."""
    return os.environ.get(_MODE) == "complete_bash" and _WORDS in os.environ and _POSITION in os.environ


def complete_in_bash(run_app: Callable[[], None]) -> None:
    """Print the completions of a command line. run_app: runs typer, which prints them and exits.

    bash splits words at colons and replaces only the part after the last one: studies:q is the three words `studies`,
    `:` and `q`, and the completion has to be `quickstart`. typer reads three arguments there, and completes none.
    Therefore the words are joined before typer reads them, and what bash keeps is removed from typer's completions.
    """
    words = os.environ[_WORDS].split("\n")
    joined, kept = join_at_colons(words, int(os.environ[_POSITION]))
    os.environ[_WORDS], os.environ[_POSITION] = "\n".join(joined), str(len(joined) - 1)
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            run_app()
    finally:
        print("\n".join(line.removeprefix(kept) for line in printed.getvalue().splitlines()))


def join_at_colons(words: list[str], position: int) -> tuple[list[str], str]:
    """Join the words that bash split at colons; return the words up to the completed one, and its part that bash keeps.

    >>> join_at_colons(["tuneoff", "run", "studies", ":", "q"], 4)
    (['tuneoff', 'run', 'studies:q'], 'studies:')
    >>> join_at_colons(["tuneoff", "run", "st"], 2)
    (['tuneoff', 'run', 'st'], '')
    """
    joined, kept = [""], ""
    for word in [*words, ""][: position + 1]:  # the completed word is missing if it is empty
        if word == ":":
            joined[-1] += word
            kept = joined[-1]
        elif joined[-1].endswith(":") and joined[-1] == kept:
            joined[-1] += word
        else:
            joined.append(word)
            kept = ""
    return joined[1:], kept
