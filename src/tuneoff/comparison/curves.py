"""Learning curves: test scores by the size of train, and the gain from more labels.

The comparison itself is of the runs on all of train; runs on subsets of train appear only in the curves.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuneoff.comparison.rows import CurvePoint, Row, row_names
from tuneoff.data.spec import Subset
from tuneoff.formats import signed
from tuneoff.runs import RunRecord
from tuneoff.scoring import stats
from tuneoff.scoring.metrics import direction, display_name


@dataclass(frozen=True)
class Gain:
    """Gain from the last step of a learning curve: from the largest subset of train to all of it."""

    per_doubling: float  # change of the metric per doubling of the labels; for log loss below 0 is better
    interval: tuple[float, float]  # 95 % confidence interval
    before: int  # training examples
    after: int


def subset_name(record: RunRecord) -> str:
    """Return the name of the subset of train that a run saw: "5 %", "8 per class" or "all"."""
    return Subset.model_validate(record.spec["subset"]).label if record.is_subset else "all"


def curve_point(members: Sequence[RunRecord], score: float, interval: tuple[float, float]) -> CurvePoint:
    """Return one point of a curve. members: the runs of all seeds."""
    first = members[0]
    examples = first.train_examples or 0
    return CurvePoint(first.label, first.model, subset_name(first), examples, score, interval, len(members))


def gain_per_doubling(gap: stats.ScoreEstimate, before: int, after: int) -> Gain:
    """Return the gain per doubling of the labels. gap: score with `after` examples minus score with `before`."""
    doublings = math.log2(after / before)
    low, high = stats.interval(gap)
    return Gain(gap.value / doublings, (low / doublings, high / doublings), before, after)


def advise(rows: Sequence[Row], gains: Mapping[str, Gain], recommended: str | None, metric: str) -> str:
    """Advise on more labels against another strategy. rows: on all of train; gains: by group.

    Returns an empty string if the recommended group has no learning curve.
    """
    learners = [row for row in rows if row.group in gains]
    chosen = next((row for row in learners if row.group == recommended), None)
    if chosen is None:
        return ""
    gain, sign, names = gains[chosen.group], direction(metric), row_names(rows)
    improvement = sign * gain.per_doubling
    change_low, change_high = gain.interval
    worst_change = min(sign * end for end in gain.interval)
    sentence = (
        f"Each doubling of the training examples from {gain.before:,} to {gain.after:,} changed "
        f"{display_name(metric)} of {names[chosen.group]} by {signed(gain.per_doubling)} "
        f"(95 % confidence interval {signed(change_low)} to {signed(change_high)}). "
    )
    if worst_change <= 0:
        return sentence + f"It is not shown that more labels help {names[chosen.group]}."
    best = max((row for row in rows if row.learns), key=lambda row: sign * row.score)
    gap = sign * (best.score - chosen.score)
    if best is chosen or gap <= 0:
        return sentence + "No other strategy scores higher: if the learning curve continues, more labels would help."
    effect = "more" if improvement > gap else "less"
    return sentence + (
        f"The best strategy, {names[best.group]}, is {gap:.3f} better: if the learning curve continues, twice the "
        f"labels would help {effect}."
    )
