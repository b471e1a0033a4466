"""Sources of randomness of a run, and the grid of their seeds where they vary apart."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from tuneoff.errors import ConfigError, short_repr, unknown

# head: initial weights of the head, and parameters that a strategy adds | order: of the training examples | dropout
# split: which of the labelled examples that are not in test are training examples, and which are for validation
SPLIT = "split"
SOURCES = ("head", "order", "dropout", SPLIT)

MAX_SEEDS = 1000
Seeds = tuple[int, ...] | dict[str, tuple[int, ...]]


def parse_seeds(given: Any) -> Seeds | None:
    """Parse seeds: 3 stands for 0, 1 and 2; a mapping has such seeds for each source of randomness.

    Raises ConfigError, in one line.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):
        return _parse_list("seeds", given)
    wrong = next((source for source in given if source not in SOURCES), None)
    if wrong is not None:
        raise ConfigError(f"seeds: {unknown('source', str(wrong), SOURCES)}")
    if not given:
        raise ConfigError(f"seeds: no source; name one or more of {', '.join(SOURCES)}")
    return {source: _parse_list(f"seeds: {source}", given[source]) for source in SOURCES if source in given}


def _parse_list(where: str, given: Any) -> tuple[int, ...]:
    count = given if _is_count(given) else len(given) if isinstance(given, (list, tuple)) else 0
    if count > MAX_SEEDS:
        raise ConfigError(f"{where}: {short_repr(count)} seeds; at most {MAX_SEEDS:,} runs of a strategy are compared")
    values = range(given) if _is_count(given) else given
    if not isinstance(values, (range, list, tuple)) or not all(map(_is_count, values)):
        raise ConfigError(
            f"{where} {short_repr(given)}: write a number of seeds such as 3, or the seeds themselves: [1, 2, 42]"
        )
    if not values:
        raise ConfigError(f"{where}: no value; give at least 1")
    return tuple(dict.fromkeys(values))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32


def crossed(seeds: Mapping[str, Sequence[int]], sources: Sequence[str]) -> list[dict[str, int]]:
    """Cross the seeds of some of the sources, as Dodge et al. (2020) do: every combination is one cell of the grid."""
    names = [source for source in seeds if source in sources]
    return [dict(zip(names, cell, strict=True)) for cell in itertools.product(*(seeds[name] for name in names))]


def cell_number(cell: Mapping[str, int]) -> int:
    """Return the number of a cell of the grid, which stays the same when the grid grows.

    Cells are counted in shells: first the cell of zeros, then those whose largest seed is 1, then 2, and so on. A grid
    of n x n cells has the numbers 0 to n^2 - 1.

    >>> [cell_number({"head": head, "order": order}) for head in range(2) for order in range(2)]
    [0, 1, 2, 3]
    >>> [cell_number({"head": 0, "order": 2}), cell_number({"head": 2, "order": 2}), cell_number({"head": 7})]
    [4, 8, 7]
    """
    values = list(cell.values())
    largest = max(values, default=0)
    number, is_in_shell = largest ** len(values) if largest else 0, False  # cells of the inner shells come first
    for position, value in enumerate(values):
        left = len(values) - position - 1
        # cells of the shell with the same values so far and a smaller one here
        number += value * (largest + 1) ** left - (0 if is_in_shell else value * largest**left)
        is_in_shell = is_in_shell or value == largest
    return number


def cell_name(cell: Mapping[str, int]) -> str:
    """Return a cell in words: "seeds head 0, order 1"."""
    return "seeds " + ", ".join(f"{source} {seed}" for source, seed in cell.items())
