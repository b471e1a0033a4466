"""Stored predictions scored on a part of the examples, or with other labels."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tuneoff.comparison.errors import Predictions
from tuneoff.scoring import stats
from tuneoff.scoring.metrics import direction


def rescored(
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
    ends = np.cumsum([len(runs) for runs in predicted.values()])
    for (group, whole), of_runs in zip(scores.items(), np.split(resampled, ends[:-1]), strict=True):
        runs = zip(predicted[group], probabilities[group], strict=True)
        values = np.array([stats.score_of(metric, kept_labels, *run, positive) for run in runs])
        folds = None
        if whole.folds is not None:
            of_runs, folds = stats.widened_for_folds(of_runs, len(kept_labels)), whole.folds[is_kept]
        of_groups[group] = replace(whole, scores=values, resampled=of_runs, folds=folds)
    return dict(sorted(of_groups.items(), key=lambda item: -direction(metric) * item[1].scores.mean()))
