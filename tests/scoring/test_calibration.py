"""Calibration measures agree with scikit-learn and recover planted values."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from tuneoff.scoring.calibration import apply_temperature, brier_score, calibrate, fit_temperature, reliability


def draw_overconfident(count, temperature, num_labels=3):
    """Draw labels from random probabilities; return them with probabilities that the temperature calibrates."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (count, num_labels))
    truth = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (rng.random((count, 1)) > truth.cumsum(1)).sum(1)
    return labels, apply_temperature(truth, 1 / temperature)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_fitting_recovers_the_planted_temperature(temperature):
    labels, probabilities = draw_overconfident(20_000, temperature)
    assert fit_temperature(labels, probabilities) == pytest.approx(temperature, rel=0.05)


def test_calibrated_probabilities_have_a_small_error_and_overconfident_ones_a_large_one():
    assert reliability(*draw_overconfident(20_000, 1.0)).error < 0.015
    assert reliability(*draw_overconfident(20_000, 3.0)).error > 0.1


def test_reliability_agrees_with_scikit_learn():
    labels, probabilities = draw_overconfident(3000, 2.0, num_labels=2)
    diagram = reliability(labels, probabilities, bins=10)
    is_right = probabilities.argmax(1) == labels
    accuracy, confidence = calibration_curve(is_right, probabilities.max(1), n_bins=10)
    np.testing.assert_allclose(diagram.accuracy, accuracy)
    np.testing.assert_allclose(diagram.confidence, confidence)
    assert diagram.examples.sum() == 3000


def test_brier_score_agrees_with_scikit_learn():
    labels, probabilities = draw_overconfident(500, 1.0, num_labels=2)
    # scikit-learn's binary score is of one class; ours sums over both
    assert brier_score(labels, probabilities) == pytest.approx(2 * brier_score_loss(labels, probabilities[:, 1]))


def test_a_single_certain_example_is_one_bin_without_error():
    diagram = reliability(np.array([0]), np.array([[1.0, 0.0]]))
    assert (diagram.error, diagram.examples.tolist()) == (0.0, [1])


def test_the_temperature_of_certain_predictions_is_finite():
    assert np.isfinite(fit_temperature(np.array([0, 1]), np.eye(2)))


@pytest.fixture
def overconfident():
    """Labels and probabilities of two equal runs that temperature 2 calibrates; those of their validation examples."""
    labels, probabilities = draw_overconfident(6000, 2.0)
    return labels[:3000], [probabilities[:3000]] * 2, [(labels[3000:], probabilities[3000:])] * 2


def test_the_temperature_is_fitted_on_validation_and_applied_to_test(overconfident):
    measured = calibrate(*overconfident)
    assert measured.temperature == pytest.approx(2, rel=0.1)
    assert measured.scaled_error is not None
    assert measured.scaled_error < 0.03 < 0.1 < measured.error
    assert measured.reliability.examples.sum() == 6000


def test_without_predictions_of_validation_there_is_no_temperature(overconfident):
    labels, runs, _ = overconfident
    measured = calibrate(labels, runs)
    assert (measured.temperature, measured.scaled_error) == (None, None)
    assert measured.error == calibrate(*overconfident).error


def test_each_run_may_have_validation_examples_of_its_own(overconfident):
    labels, runs, [(truth, probabilities), _] = overconfident
    sharper = probabilities**2 / (probabilities**2).sum(1, keepdims=True)  # temperature 4 calibrates these
    halves = [(truth[:1000], probabilities[:1000]), (truth[1000:], sharper[1000:])]
    assert calibrate(labels, runs, halves).temperature == pytest.approx(3, rel=0.1)


def test_multilabel_data_is_calibrated_as_binary_predictions(overconfident):
    labels, runs, validation = overconfident
    one_hot = np.eye(3, dtype=int)
    measured = calibrate(one_hot[labels], runs, [(one_hot[truth], run) for truth, run in validation])

    def as_binary(run):
        return np.stack([1 - run.ravel(), run.ravel()], axis=1)

    binary_validation = [(one_hot[truth].ravel(), as_binary(run)) for truth, run in validation]
    binary = calibrate(one_hot[labels].ravel(), [as_binary(run) for run in runs], binary_validation)
    assert (measured.error, measured.brier, measured.temperature) == (binary.error, binary.brier, binary.temperature)
    assert measured.reliability.examples.sum() == 2 * 3 * 3000
