"""Calibration agrees with scikit-learn and with what was put in."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from tuneoff.calibration import brier, calibrate, reliability, scaled, temperature


def draw(count, sharpness, num_labels=3, seed=0):
    """Labels drawn from known probabilities, and these made `sharpness` times too sure."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (count, num_labels))
    truth = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (rng.random((count, 1)) > truth.cumsum(1)).sum(1)
    return labels, scaled(truth, 1 / sharpness)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_found(sharpness):
    labels, probabilities = draw(20_000, sharpness)
    assert temperature(labels, probabilities) == pytest.approx(sharpness, rel=0.05)


def test_calibrated_probabilities_have_little_error_and_sure_ones_much():
    labels, honest = draw(20_000, 1.0)
    assert reliability(labels, honest).error < 0.015
    assert reliability(labels, scaled(honest, 1 / 3)).error > 0.1


def test_reliability_agrees_with_scikit_learn():
    labels, probabilities = draw(3000, 2.0, num_labels=2)
    found = reliability(labels, probabilities, bins=10)
    right = probabilities.argmax(1) == labels
    share, confidence = calibration_curve(right, probabilities.max(1), n_bins=10)
    np.testing.assert_allclose(found.accuracy, share)
    np.testing.assert_allclose(found.confidence, confidence)
    assert found.examples.sum() == 3000
    assert (found.low <= found.accuracy).all()
    assert (found.accuracy <= found.high).all()


def test_brier_agrees_with_scikit_learn():
    labels, probabilities = draw(500, 1.0, num_labels=2)
    assert brier(labels, probabilities) == pytest.approx(2 * brier_score_loss(labels, probabilities[:, 1]))


def test_one_example_and_sure_ones_are_no_trouble():
    one = reliability(np.array([0]), np.array([[1.0, 0.0]]))
    assert (one.error, one.examples.tolist()) == (0.0, [1])
    assert temperature(np.array([0, 1]), np.array([[1.0, 0.0], [0.0, 1.0]])) > 0


def test_a_strategy_is_calibrated_on_validation_and_judged_on_test():
    rng = np.random.default_rng(0)
    truth = rng.dirichlet([1, 1, 1], 6000)
    labels = np.array([rng.choice(3, p=row) for row in truth])
    too_sure = [scaled(truth, 0.5)] * 2
    found = calibrate(labels[:3000], [c[:3000] for c in too_sure], labels[3000:], [c[3000:] for c in too_sure])
    assert found.temperature == pytest.approx(2, rel=0.1)
    assert found.scaled_error < 0.03 < 0.1 < found.error
    assert found.reliability.examples.sum() == 6000
