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
    for group, whole in scores.items():
        predicted = list(predictions[group].predicted[:, is_kept])
        probabilities = list(predictions[group].probabilities[:, is_kept])
        # one seed gives the same resamples for every group
        resampled = stats.resampled_scores(metric, kept_labels, predicted, probabilities, seed=0, positive=positive)
        if whole.folds is not None:
            resampled = stats.widened_for_folds(resampled, len(kept_labels))
        runs = zip(predicted, probabilities, strict=True)
        of_runs = [stats.score_of(metric, kept_labels, *run, positive) for run in runs]
        folds = None if whole.folds is None else whole.folds[is_kept]
        of_groups[group] = replace(whole, scores=np.array(of_runs), resampled=resampled, folds=folds)
    return dict(sorted(of_groups.items(), key=lambda item: -direction(metric) * item[1].scores.mean()))
