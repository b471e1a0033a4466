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
    """Labels and probabilities of two equal runs that temperature 2 calibrates, for two splits of 3,000 examples."""
    labels, probabilities = draw_overconfident(6000, 2.0)
    splits = (slice(3000), slice(3000, None))
    return [(labels[split], [probabilities[split]] * 2) for split in splits]


def test_the_temperature_is_fitted_on_validation_and_applied_to_test(overconfident):
    (labels, runs), (validation, validation_runs) = overconfident
    measured = calibrate(labels, runs, validation, validation_runs)
    assert measured.temperature == pytest.approx(2, rel=0.1)
    assert measured.scaled_error is not None
    assert measured.scaled_error < 0.03 < 0.1 < measured.error
    assert measured.reliability.examples.sum() == 6000


def test_without_predictions_of_validation_there_is_no_temperature(overconfident):
    (labels, runs), (validation, validation_runs) = overconfident
    measured = calibrate(labels, runs, validation)
    assert (measured.temperature, measured.scaled_error) == (None, None)
    assert measured.error == calibrate(labels, runs, validation, validation_runs).error


def test_multilabel_data_is_calibrated_as_binary_predictions(overconfident):
    (labels, runs), (validation, validation_runs) = overconfident
    one_hot, validation_one_hot = np.eye(3, dtype=int)[labels], np.eye(3, dtype=int)[validation]
    measured = calibrate(one_hot, runs, validation_one_hot, validation_runs)
    binary_runs, binary_validation_runs = (
        [np.stack([1 - run.ravel(), run.ravel()], axis=1) for run in split] for split in (runs, validation_runs)
    )
    binary = calibrate(one_hot.ravel(), binary_runs, validation_one_hot.ravel(), binary_validation_runs)
    assert (measured.error, measured.brier, measured.temperature) == (binary.error, binary.brier, binary.temperature)
    assert measured.reliability.examples.sum() == 2 * 3 * 3000
