"""Scores on the clean part of the scored examples: without leaked texts, and without repeats of an earlier one.

# N scored examples
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tuneoff.comparison.errors import Predictions
from tuneoff.comparison.rescore import rescore
from tuneoff.comparison.rows import Row, row_names
from tuneoff.comparison.verdict import MIN_EXAMPLES
from tuneoff.data.dataset import COPY
from tuneoff.data.doctor.copies import CLEAN, LEAKED
from tuneoff.formats import fixed, join_names
from tuneoff.scoring import stats
from tuneoff.scoring.metrics import display_name

_MIN_EXAMPLES = 20  # clean ones; fewer say nothing about an order


@dataclass(frozen=True)
class CleanScores:
    """Scores of every strategy on the examples whose text no training example has, and the pick there."""

    examples: int  # clean ones
    leaked: int  # left out, because their text is also in train or validation (with folds, in another fold)
    repeated: int  # left out, because an earlier example has their text
    estimates: dict[str, tuple[float, float, float]]  # group -> score and its 95 % interval, best first
    recommended: str | None  # group that would be picked there
    summary: str  # sentences for readers: what was left out, and what it changes

    @property
    def order(self) -> list[str]:
        """Groups by their score on the clean part, best first."""
        return list(self.estimates)


def clean_scores(
    rows: Sequence[Row],
    labels: np.ndarray,
    predictions: Mapping[str, Predictions],
    scores: Mapping[str, stats.RunScores],
    examples: pd.DataFrame | None,
    metric: str,
    cost: str,
    margin: float,
    picked: str | None,
    positive: int | None = None,
) -> CleanScores | None:
    """Score the stored predictions of each row on the clean examples; None if all are clean, or if it is unknown.

    rows: on all examples, best first. labels: (N,) or (N, C). scores: of each group on all examples. examples: the
    scored ones with the column COPY; earlier versions did not store it. picked: group of the verdict on all examples.
    positive: id of the positive class.
    """
    if not rows or examples is None or COPY not in examples.columns:
        return None
    codes = examples[COPY].to_numpy()
    is_clean = codes == CLEAN
    num_clean = int(is_clean.sum())
    if num_clean == len(codes) or num_clean < _MIN_EXAMPLES:
        return None
    scored = rescore(rows, labels, predictions, scores, is_clean, metric, cost, margin, positive)
    values, recommended = scored.estimates, scored.recommended
    leaked = int((codes == LEAKED).sum())
    counts = (num_clean, leaked, len(codes) - num_clean - leaked)
    return CleanScores(*counts, values, recommended, _summary(rows, values, counts, metric, picked, recommended))


def _summary(
    rows: Sequence[Row],
    values: Mapping[str, tuple[float, float, float]],
    counts: tuple[int, int, int],
    metric: str,
    picked: str | None,
    recommended: str | None,
) -> str:
    (num_clean, leaked, repeated), names = counts, row_names(rows)
    total, is_folded = sum(counts), any(row.fold_scores for row in rows)
    noun, places = ("labelled", "another fold") if is_folded else ("test", "train or validation")
    parts = [f"{leaked:,} are also in {places}"] if leaked else []
    parts += [f"{repeated:,} repeat an earlier one"] if repeated else []
    text = f"Of {total:,} {noun} examples {join_names(parts)}. On the {num_clean:,} others"
    before, after = [row.group for row in rows if row.learns], [group for group in values if _learns(rows, group)]
    order = "the order of the strategies is the same"
    if before != after:
        order = f"the order of the strategies changes ({', '.join(names[group] for group in after[:3])}"
        order += ", ...)" if len(after) > 3 else ")"
    if picked == recommended and picked is not None:
        drop = f"{display_name(metric)} {fixed(values[picked][0])} instead of {_whole(rows, picked)}"
        return f"{text}, {order} and the pick stays {names[picked]}, with {drop}."
    if recommended is None or picked is None:
        change = "no strategy would be picked" if recommended is None else f"{names[recommended]} would be picked"
        return f"{text}, {order}, and {change}."
    few = f", on fewer than {MIN_EXAMPLES} examples" if num_clean < MIN_EXAMPLES <= total else ""
    return f"{text}, {order}, and the pick changes from {names[picked]} to {names[recommended]}{few}."


def _learns(rows: Sequence[Row], group: str) -> bool:
    return next(row.learns for row in rows if row.group == group)


def _whole(rows: Sequence[Row], group: str) -> str:
    return fixed(next(row.score for row in rows if row.group == group))
