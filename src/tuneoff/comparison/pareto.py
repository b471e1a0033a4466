"""Pareto front of score and cost."""

from collections.abc import Sequence


def pareto_front(costs: Sequence[float], scores: Sequence[float]) -> list[bool]:
    """Mask of the strategies on the Pareto front.

    A strategy is off the front if another one costs at most as much and scores at least as high, and is strictly better
    in one of the two.

    >>> pareto_front([1, 2, 3, 2], [0.5, 0.8, 0.7, 0.8])
    [True, True, False, True]
    """
    points = list(zip(costs, scores, strict=True))
    return [not any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in points) for cost, score in points]
