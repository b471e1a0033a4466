"""Areas under curves agree with scikit-learn, on all examples and on every resample."""

import numpy as np
import pytest
from sklearn import metrics as sk

from tuneoff.scoring.ranking import ranking_score
from tuneoff.scoring.stats import example_weights, num_resamples, resampled_scores


def draw(num_labels, size, digits=None, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(num_labels, size=size)
    probabilities = rng.dirichlet(np.ones(num_labels), size)
    probabilities[np.arange(size), labels] += 0.3
    probabilities /= probabilities.sum(1, keepdims=True)
    return labels, probabilities if digits is None else probabilities.round(digits)


@pytest.mark.parametrize("digits", [None, 1], ids=["distinct", "ties"])
@pytest.mark.parametrize("positive", [0, 1])
def test_areas_of_two_classes_agree_with_scikit_learn(positive, digits):
    labels, probabilities = draw(2, 120, digits)
    of_class, scores = labels == positive, probabilities[:, positive]
    assert ranking_score("roc_auc", labels, probabilities, positive) == pytest.approx(
        sk.roc_auc_score(of_class, scores)
    )
    expected = sk.average_precision_score(of_class, scores)
    assert ranking_score("pr_auc", labels, probabilities, positive) == pytest.approx(expected)


def test_areas_of_several_classes_are_means_of_one_against_the_rest():
    labels, probabilities = draw(5, 200)
    expected = sk.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert ranking_score("roc_auc", labels, probabilities) == pytest.approx(expected)
    expected = sk.average_precision_score(np.eye(5)[labels], probabilities, average="macro")
    assert ranking_score("pr_auc", labels, probabilities) == pytest.approx(expected)


def test_areas_of_multi_label_data_are_means_over_the_labels():
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(2, size=(80, 3)), rng.random((80, 3))
    for metric, reference in (("roc_auc", sk.roc_auc_score), ("pr_auc", sk.average_precision_score)):
        expected = reference(labels, probabilities, average="macro")
        assert ranking_score(metric, labels, probabilities) == pytest.approx(expected)


@pytest.mark.parametrize("num_labels", [2, 4])
@pytest.mark.parametrize("digits", [None, 1], ids=["distinct", "ties"])
def test_a_resample_scores_as_its_examples_do(num_labels, digits):
    labels, probabilities = draw(num_labels, 60, digits)
    weights = example_weights(60, 20, np.random.default_rng(1))
    for metric in ("roc_auc", "pr_auc"):
        resampled = ranking_score(metric, labels, probabilities, weights=weights)
        for score, counts in zip(resampled, weights.astype(int), strict=True):
            rows = np.repeat(np.arange(60), counts)
            assert score == pytest.approx(ranking_score(metric, labels[rows], probabilities[rows])[0])


def test_large_splits_are_scored_in_blocks(monkeypatch):
    labels, probabilities = draw(2, 50)
    weights = example_weights(50, 30, np.random.default_rng(1))
    whole = ranking_score("pr_auc", labels, probabilities, weights=weights)
    monkeypatch.setattr("tuneoff.scoring.ranking._BLOCK_SIZE", 100)
    assert (ranking_score("pr_auc", labels, probabilities, weights=weights) == whole).all()


def test_a_class_without_examples_is_left_out():
    labels, probabilities = np.array([0, 0, 1, 1]), draw(3, 4)[1]
    both = [sk.roc_auc_score(labels == c, probabilities[:, c]) for c in (0, 1)]
    assert ranking_score("roc_auc", labels, probabilities) == pytest.approx(np.mean(both))
    nothing = np.zeros(4, int)
    assert ranking_score("roc_auc", nothing, probabilities[:, :2]) == 0.5
    assert ranking_score("pr_auc", nothing, probabilities[:, :2]) == 0


def test_equal_probabilities_rank_nothing():
    labels, probabilities = np.array([0, 1, 1, 1]), np.full((4, 2), 0.5)
    assert ranking_score("roc_auc", labels, probabilities) == 0.5
    assert ranking_score("pr_auc", labels, probabilities) == 0.75  # the share of the class


def test_the_bootstrap_shows_the_standard_error_of_an_area():
    """Against the formula of Hanley & McNeil (1982) for the standard error of a ROC AUC."""
    labels, probabilities = draw(2, 400)
    resampled = resampled_scores("roc_auc", labels, [labels], [probabilities], seed=0)
    assert resampled.shape == (1, 2000)
    area, positives = ranking_score("roc_auc", labels, probabilities)[0], labels.sum()
    negatives = 400 - positives
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = area * (1 - area) + (positives - 1) * (q1 - area**2) + (negatives - 1) * (q2 - area**2)
    assert resampled.std() == pytest.approx(np.sqrt(variance / (positives * negatives)), rel=0.1)


@pytest.mark.parametrize(
    ("metric", "examples", "labels", "expected"),
    [("accuracy", 10**6, 151, 2000), ("roc_auc", 1000, 2, 2000), ("pr_auc", 10_000, 77, 259), ("roc_auc", 10**6, 77, 200), ("m:s", 9, 2, 200)],
)  # fmt: skip
def test_slow_metrics_get_fewer_resamples(metric, examples, labels, expected):
    assert num_resamples(metric, examples, labels) == expected
