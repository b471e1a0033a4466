"""Stored predictions scored on a part of the examples, or with other labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuneoff.comparison.errors import Predictions
from tuneoff.comparison.rows import EQUIVALENT, Row
from tuneoff.comparison.verdict import judge
from tuneoff.scoring import stats
from tuneoff.scoring.decision import joint_scores
from tuneoff.scoring.metrics import bounds, direction


@dataclass(frozen=True)
class Rescored:
    """Scores of every strategy on other examples or labels, and the pick there."""

    estimates: dict[str, tuple[float, float, float]]  # group -> score and its 95 % interval, best first
    recommended: str | None  # group that would be picked there


def rescore(
    rows: Sequence[Row],
    labels: np.ndarray,
    predictions: Mapping[str, Predictions],
    scores: Mapping[str, stats.RunScores],
    is_kept: np.ndarray,
    metric: str,
    cost: str,
    margin: float,
    positive: int | None = None,
) -> Rescored:
    """Score stored predictions on a part of the examples or with other labels, and apply the rule of the verdict.

    labels: (N,) or (N, C). is_kept: (N,) bool. rows: on all examples, best first. scores: of each group on
    all examples. positive: id of the positive class, for the metrics that have one.
    """
    sign, count = direction(metric), int(is_kept.sum())
    in_order = scores_on(is_kept, labels, predictions, scores, metric, positive)
    pooled = stats.pooled_seed_variance(list(in_order.values()))
    estimates = {}
    for group, runs in in_order.items():
        estimate = stats.estimate_score(runs, count, pooled)
        estimates[group] = (estimate.value, *stats.interval(estimate, bounds(metric)))
    by_group, best = {row.group: row for row in rows}, next(iter(estimates.values()))[0]
    new_rows = [
        # a standing is for sentences, which are not used
        replace(by_group[group], score=value, difference=sign * (value - best), standing=EQUIVALENT)
        for group, (value, _, _) in estimates.items()
    ]
    joint = joint_scores(list(in_order.values()), sign, count, pooled)
    return Rescored(estimates, judge(new_rows, (), joint, metric, cost, margin, count).recommended)


def scores_on(
    is_kept: np.ndarray,
    labels: np.ndarray,
    predictions: Mapping[str, Predictions],
    scores: Mapping[str, stats.RunScores],
    metric: str,
    positive: int | None = None,
) -> dict[str, stats.RunScores]:
    """Score each group on the kept examples and on resamples of them, best group first.

    is_kept: (N,) bool. labels: (N,) or (N, C). scores: of each group on all examples. positive: id of the positive
    class, for the metrics that have one.
    """
    kept_labels, of_groups = labels[is_kept], {}
    predicted = {group: list(predictions[group].predicted[:, is_kept]) for group in scores}
    probabilities = {group: list(predictions[group].probabilities[:, is_kept]) for group in scores}
    # the runs of all groups in one call: drawing the resamples takes longer than scoring them
    resampled = stats.resampled_scores(
        metric,
        kept_labels,
        [run for runs in predicted.values() for run in runs],
        [run for runs in probabilities.values() for run in runs],
        seed=0,
        positive=positive,
    )
    unit = stats.unit_of(metric, resampled, len(kept_labels))
    ends = np.cumsum([len(runs) for runs in predicted.values()])
    for (group, whole), of_runs in zip(scores.items(), np.split(resampled, ends[:-1]), strict=True):
        runs = zip(predicted[group], probabilities[group], strict=True)
        values = np.array([stats.score_of(metric, kept_labels, *run, positive) for run in runs])
        folds = is_right = None
        if whole.folds is not None:
            of_runs, folds = stats.widened_for_folds(of_runs, len(kept_labels)), whole.folds[is_kept]
            is_right = ~predictions[group].is_wrong(labels)[0, is_kept]
        deciding = stats.deciding_examples(metric, kept_labels, predicted[group], positive)
        of_groups[group] = replace(
            whole,
            scores=values,
            resampled=of_runs,
            folds=folds,
            unit=unit,
            num_deciding=deciding,
            is_right=is_right,
        )
    return dict(sorted(of_groups.items(), key=lambda item: -direction(metric) * item[1].scores.mean()))
