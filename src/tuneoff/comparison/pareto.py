"""Which strategies none beats in both score and cost."""

from collections.abc import Sequence


def front(costs: Sequence[float], scores: Sequence[float]) -> list[bool]:
    """For each, whether no other costs at most as much and scores at least as high, one of the two strictly.

    >>> front([1, 2, 3, 2], [0.5, 0.8, 0.7, 0.8])
    [True, True, False, True]
    """
    both = list(zip(costs, scores, strict=True))
    return [not any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in both) for cost, score in both]
