"""Bootstrap intervals agree with theory and with scipy."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from tuneoff import stats
from tuneoff.metrics import evaluate


def predictions(num_examples=400, accuracy=0.8, num_labels=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(num_labels, size=num_examples)
    predicted = np.where(rng.random(num_examples) < accuracy, labels, (labels + 1) % num_labels)
    chances = np.eye(num_labels)[predicted] * 0.7 + 0.1
    return labels, predicted, chances / chances.sum(1, keepdims=True)


def test_weights_are_resamples():
    weights = stats.example_weights(50, 200, np.random.default_rng(0))
    assert weights.shape == (200, 50)
    assert (weights.sum(1) == 50).all()
    assert weights.std() == pytest.approx(1, abs=0.05)  # multinomial


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "mcc", "log_loss"])
def test_a_resampled_score_is_the_score_of_the_resample(metric):
    labels, predicted, chances = predictions(60)
    scores = stats.resampled_scores(metric, labels, [predicted], [chances], seed=3, resamples=5)[0]
    weights = stats.example_weights(60, 5, np.random.default_rng(3)).astype(int)
    for score, row in zip(scores, weights, strict=True):
        drawn = np.repeat(np.arange(60), row)
        assert score == pytest.approx(evaluate(labels[drawn], predicted[drawn], chances[drawn])[metric], abs=1e-6)


def test_the_interval_of_an_accuracy_agrees_with_scipy():
    labels, predicted, chances = predictions(400)
    scores = stats.resampled_scores("accuracy", labels, [predicted], [chances], seed=0, resamples=10_000)[0]
    expected = scipy_stats.bootstrap(
        [(labels == predicted).astype(float)],
        np.mean,
        n_resamples=10_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert stats.interval(scores) == pytest.approx((expected.low, expected.high), abs=0.004)


def test_sets_are_compared_on_the_same_resamples():
    labels, predicted, chances = predictions()
    same = stats.resampled_scores("accuracy", labels, [predicted, predicted], [chances, chances], seed=0, resamples=50)
    assert (same[0] == same[1]).all()


def test_blocks_do_not_change_what_is_drawn(monkeypatch):
    labels, predicted, chances = predictions(100)
    whole = stats.resampled_scores("accuracy", labels, [predicted], [chances], seed=0, resamples=40)
    monkeypatch.setattr(stats, "_CELLS", 700)
    assert (stats.resampled_scores("accuracy", labels, [predicted], [chances], seed=0, resamples=40) == whole).all()


def test_the_mean_over_drawn_seeds_by_hand():
    scores = np.array([[1.0, 2.0], [3.0, 5.0]])  # two seeds, two resamples
    draws = np.array([[0, 0], [0, 1]])
    # the first resample draws one seed twice: 2 + sqrt(2) * (1 - 2); the second both
    assert stats.mean_over_seeds(scores, draws).tolist() == pytest.approx([2 - np.sqrt(2), 3.5])
    assert stats.mean_over_seeds(scores[:1], np.zeros((2, 1), int)).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("num_seeds", [2, 3, 5])
def test_drawn_seeds_vary_as_new_seeds_would(num_seeds):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(2000):
        seeds = rng.normal(size=(num_seeds, 1))
        draws = stats.seed_draws(num_seeds, 200, rng)
        found.append(stats.mean_over_seeds(np.repeat(seeds, 200, axis=1), draws).var())
    # the variance of a mean of seeds of variance 1
    assert np.mean(found) == pytest.approx(1 / num_seeds, rel=0.08)
