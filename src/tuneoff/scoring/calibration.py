"""Calibration: agreement of predicted probabilities with observed accuracy, and temperature scaling.

# N examples  C classes  b bins
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from tuneoff.scoring.metrics import log_losses

BINS = 15  # of equal width in confidence, as in Guo et al., "On Calibration of Modern Neural Networks", ICML 2017
_MIN_TEMPERATURE, _MAX_TEMPERATURE = 0.05, 20.0


@dataclass(frozen=True)
class Reliability:
    """Reliability diagram: accuracy by confidence, one entry per bin that is not empty."""

    confidence: np.ndarray  # (b,) mean probability of the predicted class
    accuracy: np.ndarray  # (b,) share predicted correctly
    examples: np.ndarray  # (b,)

    @property
    def error(self) -> float:
        """Expected calibration error: mean gap between confidence and accuracy, weighted by examples."""
        return float(np.average(np.abs(self.confidence - self.accuracy), weights=self.examples))


def reliability(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> Reliability:
    """Bin predictions by confidence. labels: (N,), probabilities: (N, C)."""
    confidence, is_right = probabilities.max(1), probabilities.argmax(1) == labels
    bin_index = np.minimum((confidence * bins).astype(int), bins - 1)
    counts = np.bincount(bin_index, minlength=bins)
    is_used = counts > 0
    counts = counts[is_used]
    confidence_sums, right_counts = (
        np.bincount(bin_index, weights=values, minlength=bins)[is_used] for values in (confidence, is_right)
    )
    return Reliability(confidence_sums / counts, right_counts / counts, counts)


def brier_score(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean squared distance between probabilities and one-hot labels, summed over classes: 0 to 2 (Brier, 1950)."""
    truth = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - truth) ** 2).sum(1).mean())


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Fit the temperature with the lowest log loss (Guo et al., 2017). Above 1: the predictions were overconfident.

    Fit it on the validation split. labels: (N,), probabilities: (N, C).
    """

    def loss(log_temperature: float) -> float:
        return float(log_losses(labels, apply_temperature(probabilities, float(np.exp(log_temperature)))).mean())

    bounds = np.log([_MIN_TEMPERATURE, _MAX_TEMPERATURE])
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Divide the logits of probabilities by a temperature. (N, C) -> (N, C).

    >>> apply_temperature(np.array([[0.8, 0.2]]), 1.0).round(3).tolist()
    [[0.8, 0.2]]
    """
    logits = np.log(np.clip(probabilities, 1e-15, 1)) / temperature
    unnormalised = np.exp(logits - logits.max(1, keepdims=True))
    return unnormalised / unnormalised.sum(1, keepdims=True)


@dataclass(frozen=True)
class Calibration:
    """Calibration of one strategy on test: means over its seeds."""

    reliability: Reliability  # of all seeds pooled
    error: float  # expected calibration error
    brier: float
    temperature: float | None  # fitted on validation; None without predictions of it
    scaled_error: float | None  # expected calibration error after temperature scaling


def calibrate(
    labels: np.ndarray, runs: Sequence[np.ndarray], validation: Sequence[tuple[np.ndarray, np.ndarray]] = ()
) -> Calibration:
    """Measure the calibration of one strategy on test, before and after temperature scaling.

    labels: (N,) of test; runs: probabilities on test, one (N, C) per seed; validation: labels and probabilities of the
    validation examples of each seed, if there are any. Multi-label data, labels (N, C), is treated as N * C binary
    predictions.
    """
    if labels.ndim == 2:
        runs = [_as_binary(probabilities) for probabilities in runs]
        validation = [(truth.ravel(), _as_binary(probabilities)) for truth, probabilities in validation]
        labels = labels.ravel()
    temperatures = [fit_temperature(truth, probabilities) for truth, probabilities in validation]
    scaled_runs = [apply_temperature(run, temperature) for run, temperature in zip(runs, temperatures, strict=False)]
    return Calibration(
        reliability(np.tile(labels, len(runs)), np.concatenate(runs)),
        error=float(np.mean([reliability(labels, probabilities).error for probabilities in runs])),
        brier=float(np.mean([brier_score(labels, probabilities) for probabilities in runs])),
        temperature=float(np.mean(temperatures)) if temperatures else None,
        scaled_error=float(np.mean([reliability(labels, run).error for run in scaled_runs])) if temperatures else None,
    )


def _as_binary(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities of absence and presence of each label. (N, C) -> (N * C, 2)."""
    return np.stack([1 - probabilities.ravel(), probabilities.ravel()], axis=1)
