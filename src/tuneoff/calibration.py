"""Whether a probability means what it says. Arrays in, numbers out.

# N examples  C classes  b bins
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from statsmodels.stats.proportion import proportion_confint

from tuneoff.metrics import log_losses

BINS = 15  # of equal width in confidence, as in Guo et al., "On Calibration of Modern Neural Networks", ICML 2017
_LOWEST, _HIGHEST = 0.05, 20.0  # temperatures tried


@dataclass(frozen=True)
class Reliability:
    """What happened where a classifier was so sure; one entry a bin that holds any example."""

    confidence: np.ndarray  # (b,) mean probability of the predicted class
    accuracy: np.ndarray  # (b,) share predicted right
    low: np.ndarray  # (b,) 95 % interval of that share (Wilson)
    high: np.ndarray
    examples: np.ndarray  # (b,)

    @property
    def error(self) -> float:
        """Expected calibration error: the mean gap of confidence and accuracy, weighted by examples."""
        return float(np.average(np.abs(self.confidence - self.accuracy), weights=self.examples))


def reliability(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> Reliability:
    """Predictions by how sure they are. labels: (N,), probabilities: (N, C)."""
    confidence, is_right = probabilities.max(1), probabilities.argmax(1) == labels
    found = np.minimum((confidence * bins).astype(int), bins - 1)
    examples = np.bincount(found, minlength=bins)
    held = examples > 0
    counts = examples[held]
    sure, right = (np.bincount(found, weights=values, minlength=bins)[held] for values in (confidence, is_right))
    low, high = proportion_confint(right, counts, method="wilson")
    return Reliability(sure / counts, right / counts, np.asarray(low), np.asarray(high), counts)


def brier(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean squared distance of the probabilities from the truth, over all classes: 0 to 2 (Brier, 1950)."""
    truth = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - truth) ** 2).sum(1).mean())


def temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The temperature that makes the labels likeliest; above 1, predictions were too sure (Guo et al., 2017).

    To be found on validation. labels: (N,), probabilities: (N, C).
    """

    def loss(log_of_it: float) -> float:
        return float(log_losses(labels, scaled(probabilities, float(np.exp(log_of_it)))).mean())

    return float(np.exp(minimize_scalar(loss, bounds=np.log([_LOWEST, _HIGHEST]), method="bounded").x))


def scaled(probabilities: np.ndarray, by: float) -> np.ndarray:
    """Probabilities whose logits are divided by a temperature. (N, C) -> (N, C).

    >>> scaled(np.array([[0.8, 0.2]]), 1.0).round(3).tolist()
    [[0.8, 0.2]]
    """
    logits = np.log(np.clip(probabilities, 1e-15, 1)) / by
    unnormalised = np.exp(logits - logits.max(1, keepdims=True))
    return unnormalised / unnormalised.sum(1, keepdims=True)


@dataclass(frozen=True)
class Calibration:
    """How far the probabilities of a strategy can be taken at their word, on test. Means over its seeds."""

    reliability: Reliability  # of all seeds together
    error: float  # expected calibration error
    brier: float
    temperature: float  # found on validation
    scaled_error: float  # expected calibration error with that temperature


def calibrate(
    labels: np.ndarray, runs: Sequence[np.ndarray], validation: np.ndarray, validation_runs: Sequence[np.ndarray]
) -> Calibration:
    """The calibration of one strategy. labels: (N,), runs: one (N, C) a seed; the same of the validation split.

    Where an example may have several labels, (N, C), each label of each example is a question of its own.
    """
    if labels.ndim == 2:
        runs, validation_runs = ([_yes_or_no(chances) for chances in found] for found in (runs, validation_runs))
        labels, validation = labels.ravel(), validation.ravel()
    found = [temperature(validation, chances) for chances in validation_runs]
    cooled = [scaled(chances, by) for chances, by in zip(runs, found, strict=True)]
    return Calibration(
        reliability(np.tile(labels, len(runs)), np.concatenate(runs)),
        error=float(np.mean([reliability(labels, chances).error for chances in runs])),
        brier=float(np.mean([brier(labels, chances) for chances in runs])),
        temperature=float(np.mean(found)),
        scaled_error=float(np.mean([reliability(labels, chances).error for chances in cooled])),
    )


def _yes_or_no(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities of not having and of having each label. (N, C) -> (N * C, 2)."""
    return np.stack([1 - probabilities.ravel(), probabilities.ravel()], axis=1)
