"""The verdict if doubtful labels are wrong: the stored predictions scored with these examples left out or re-labelled.

# N scored examples
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tuneoff.comparison.errors import Predictions
from tuneoff.comparison.rescore import Rescored, rescore
from tuneoff.comparison.rows import Row, row_names
from tuneoff.formats import join_names
from tuneoff.scoring import stats

_MIN_EXAMPLES = 20  # that are left; fewer say nothing about an order


@dataclass(frozen=True)
class LabelNoise:
    """Scores of every strategy if the doubtful labels of the scored examples are wrong."""

    doubtful: int  # examples
    left_out: Rescored  # without them
    relabelled: Rescored  # with the label that the strategies together suggest
    summary: str  # sentence for readers: does the verdict stand?


def label_noise(
    rows: Sequence[Row],
    labels: np.ndarray,
    predictions: Mapping[str, Predictions],
    scores: Mapping[str, stats.RunScores],
    doubtful: pd.DataFrame,
    metric: str,
    cost: str,
    margin: float,
    picked: str | None,
    positive: int | None = None,
) -> LabelNoise | None:
    """Score the stored predictions of each row as if the doubtful labels were wrong; None without such labels.

    rows: on all examples, best first. labels: (N,). scores: of each group on all examples. doubtful: the table of
    likely_label_errors(). picked: group of the verdict on all examples.
    """
    if not rows or not len(doubtful) or len(labels) - len(doubtful) < _MIN_EXAMPLES:
        return None
    suspects = doubtful["example"].to_numpy()
    is_kept, changed = np.ones(len(labels), bool), labels.copy()
    is_kept[suspects] = False
    changed[suspects] = doubtful["likely"].to_numpy()
    left_out = rescore(rows, labels, predictions, scores, is_kept, metric, cost, margin, positive)
    everything = np.ones(len(labels), bool)
    relabelled = rescore(rows, changed, predictions, scores, everything, metric, cost, margin, positive)
    return LabelNoise(len(suspects), left_out, relabelled, _summary(rows, len(suspects), left_out, relabelled, picked))


def _summary(rows: Sequence[Row], doubtful: int, left_out: Rescored, relabelled: Rescored, picked: str | None) -> str:
    names, learners = row_names(rows), {row.group for row in rows if row.learns}
    before = [row.group for row in rows if row.group in learners]
    cases = {"left out": left_out, "re-labelled": relabelled}
    if picked is None:
        stands = [case for case, scored in cases.items() if scored.recommended is None]
    else:
        stands = [case for case, scored in cases.items() if scored.recommended == picked]
    subject = "If the doubtful label is wrong" if doubtful == 1 else f"If all {doubtful:,} doubtful labels are wrong"
    if len(stands) == 2:
        text = f"{subject}, the verdict stands: "
        text += f"the pick stays {names[picked]}" if picked else "no strategy is picked"
        text += ", with these examples left out as well as re-labelled"
    else:
        picks = {case: scored.recommended for case, scored in cases.items() if case not in stands}
        by_pick = {pick: [case for case in picks if picks[case] == pick] for pick in picks.values()}
        changes = [
            f"{names[pick] if pick else 'nothing'} is picked with these examples {' as well as '.join(where)}"
            for pick, where in by_pick.items()
        ]
        text = f"{subject}, the verdict changes: {join_names(changes)}"
        text += f", instead of {names[picked]}" if picked else ""
    moved = [case for case, scored in cases.items() if [g for g in scored.estimates if g in learners] != before]
    order = f"changes where they are {join_names(moved)}" if moved else "is the same"
    return f"{text}. The order of the strategies that use the text {order}."
