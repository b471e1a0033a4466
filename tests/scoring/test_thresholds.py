"""A threshold of two classes is the best of all on validation, and predicts as it was chosen."""

import numpy as np
import pytest

from tuneoff.scoring.metrics import evaluate, metric_options
from tuneoff.scoring.selection import Selection
from tuneoff.scoring.thresholds import best_binary_threshold, best_thresholds, labels_from_probabilities

OPTIONS = metric_options(["no", "yes"], False, is_ordered=True)


def draw(size=60, digits=2):
    rng = np.random.default_rng(0)
    labels = (rng.random(size) < 0.2).astype(int)
    second = (0.5 * rng.random(size) + 0.2 * labels).round(digits)  # below one half nearly everywhere
    return labels, np.stack([1 - second, second], axis=1)


@pytest.mark.parametrize("metric", ["f1", "accuracy", "balanced_accuracy", "mcc", "kappa", "quadratic_kappa", "mae"])
def test_no_other_threshold_scores_better(metric):
    labels, probabilities = draw()
    sign = -1 if metric == "mae" else 1

    def score(threshold):
        predicted = labels_from_probabilities(probabilities, np.array([threshold]))
        return sign * evaluate(labels, predicted, probabilities, OPTIONS)[metric]

    (chosen,) = best_binary_threshold(labels, probabilities, metric, OPTIONS.positive)
    best = max(score(threshold) for threshold in np.linspace(0, 1, 501))
    assert score(chosen) == pytest.approx(best)


def test_of_equal_thresholds_the_nearest_to_one_half_is_chosen():
    labels, probabilities = np.array([0, 1]), np.array([[0.9, 0.1], [0.1, 0.9]])
    assert best_binary_threshold(labels, probabilities, "accuracy", 1).tolist() == [0.5]
    assert best_binary_threshold(labels, np.full((2, 2), 0.5), "f1", 1)[0] <= 0.5  # all are the positive class


def test_only_a_run_that_is_asked_for_it_has_a_threshold():
    labels, probabilities = draw()
    plain, chosen = Selection("f1", OPTIONS), Selection("f1", OPTIONS, chooses_threshold=True)
    assert plain.thresholds(labels, probabilities) is None
    assert best_thresholds(labels, probabilities) is None
    assert chosen.score(labels, probabilities) > plain.score(labels, probabilities)
    predicted = labels_from_probabilities(probabilities, chosen.thresholds(labels, probabilities))
    assert chosen.evaluate(labels, probabilities) == evaluate(labels, predicted, probabilities, OPTIONS)
