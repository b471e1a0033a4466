"""Learning curves: what strategies score with less of train, and whether more labels would help more than another.

A comparison is of the runs on all of train; those on parts of it stand here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneoff import stats
from tuneoff.data.splits import Subset
from tuneoff.metrics import direction, spoken
from tuneoff.runs import RunRecord


@dataclass(frozen=True)
class Point:
    """What one strategy scores on test with so many training examples."""

    label: str  # the strategy's
    model: str | None
    size: str  # of the part of train: 5 %, 8 a class, or all
    examples: int
    score: float  # mean over seeds, each with examples of its own
    interval: tuple[float, float]  # 95 %, over examples and seeds
    seeds: int


@dataclass(frozen=True)
class Gain:
    """What the last step of a strategy's curve brought."""

    per_doubling: float  # of the metric as it is: below 0 is better for log loss
    interval: tuple[float, float]  # 95 %
    before: int  # training examples from which the step went
    after: int


def size_of(record: RunRecord) -> str:
    """Of what part of train a run is: 5 %, 8 a class, or all."""
    return Subset.model_validate(record.spec["subset"]).label if is_part(record) else "all"


def is_part(record: RunRecord) -> bool:
    """Whether a run saw a part of train alone."""
    return bool(record.spec.get("subset"))


def point(members: Sequence[RunRecord], score: float, interval: tuple[float, float]) -> Point:
    """One point of a curve. members: the runs of all seeds."""
    first = members[0]
    examples = first.train_examples or 0
    return Point(first.label, first.model, size_of(first), examples, score, interval, len(members))


def gain(one: stats.Runs, other: stats.Runs, before: int, after: int, num_test: int, luck: stats.Luck | None) -> Gain:
    """What twice the labels brought, between two sizes of train. one: the runs on the smaller."""
    doublings = math.log2(after / before)
    gap = stats.difference(other, one, num_test, luck)
    low, high = stats.interval(gap)
    return Gain(gap.value / doublings, (low / doublings, high / doublings), before, after)


def advise(
    rows: Sequence[Any], gains: Mapping[str, Gain], names: Mapping[str, str], recommended: str, metric: str
) -> str:
    """Would more labels help more than another strategy? rows: those on all of train; gains: by their groups."""
    learners = [row for row in rows if row.group in gains]
    chosen = next((row for row in learners if row.group == recommended), None)
    if chosen is None:
        return ""
    found, sign = gains[chosen.group], direction(metric)
    each = sign * found.per_doubling
    low, high = sorted(sign * end for end in found.interval)
    sizes = f"From {found.before:,} to {found.after:,} training examples"
    said = f"{sizes} {names[chosen.group]} gained {each:+.3f} {spoken(metric)} for each doubling"
    said += f" (95 % interval {low:+.3f} to {high:+.3f}). "
    if low <= 0:
        return said + "That more labels help it at all is not shown."
    better = max(learners, key=lambda row: sign * row.score)
    step = sign * (better.score - chosen.score)
    if better is chosen or step <= 0:
        return said + "No other strategy scores higher: if its curve goes on, more labels are what would help."
    most = "more labels would help more" if each > step else "it helps more than twice the labels would"
    return said + f"The best strategy, {names[better.group]}, is {step:.3f} better: if curves go on, {most}."
