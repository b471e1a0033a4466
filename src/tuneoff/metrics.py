"""Scores of predictions. Every one but log loss is a function of three counts per class.

That makes a score on a resample of the test split a matrix product away (stats.py).

# N examples  C classes  ... any leading axes (resamples)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tuneoff.errors import ConfigError, DataError, unknown


@dataclass(frozen=True)
class Counts:
    """Per class: how many were predicted right, how many predicted, how many there are. Each (..., C)."""

    correct: np.ndarray
    predicted: np.ndarray
    actual: np.ndarray


def indicators(labels: np.ndarray, predicted: np.ndarray, num_labels: int) -> np.ndarray:
    """What each example adds to the counts. labels, predicted: (N,) ids -> (N, 3C) of 0 and 1."""
    if len(labels) != len(predicted):
        raise DataError(f"{len(labels)} labels against {len(predicted)} predictions; give as many of each")
    classes = np.arange(num_labels)
    is_actual = labels[:, None] == classes
    is_predicted = predicted[:, None] == classes
    return np.concatenate([is_actual & is_predicted, is_predicted, is_actual], axis=1)


def counts_from(sums: np.ndarray) -> Counts:
    """Sums of indicators over examples, (..., 3C), as counts."""
    return Counts(*np.split(sums.astype(np.float64), 3, axis=-1))


def count(labels: np.ndarray, predicted: np.ndarray, num_labels: int) -> Counts:
    """Counts of one set of predictions. labels, predicted: (N,) ids."""
    return counts_from(indicators(labels, predicted, num_labels).sum(0))


def accuracy(counts: Counts) -> np.ndarray:
    """Share of examples predicted right."""
    return counts.correct.sum(-1) / counts.actual.sum(-1)


def precision(counts: Counts) -> np.ndarray:
    """Per class, the share of its predictions that are right; 0 where it is never predicted. (..., C)."""
    return _ratio(counts.correct, counts.predicted)


def recall(counts: Counts) -> np.ndarray:
    """Per class, the share of its examples that are found; 0 where it has none. (..., C)."""
    return _ratio(counts.correct, counts.actual)


def f1(counts: Counts) -> np.ndarray:
    """Per class, the harmonic mean of precision and recall. (..., C)."""
    return _ratio(2 * counts.correct, counts.predicted + counts.actual)


def matthews(counts: Counts) -> np.ndarray:
    """Matthews correlation for any number of classes (Gorodkin, 2004); 0 where it is undefined."""
    total = counts.actual.sum(-1)
    covariance = counts.correct.sum(-1) * total - (counts.predicted * counts.actual).sum(-1)
    spread = (total**2 - (counts.predicted**2).sum(-1)) * (total**2 - (counts.actual**2).sum(-1))
    return _ratio(covariance, np.sqrt(spread))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros(np.shape(above)), where=below > 0)


def _macro(per_class: Callable[[Counts], np.ndarray]) -> Callable[[Counts], np.ndarray]:
    """Mean over the classes that occur among labels or predictions."""

    def score(counts: Counts) -> np.ndarray:
        occurs = counts.predicted + counts.actual > 0
        return (per_class(counts) * occurs).sum(-1) / occurs.sum(-1)

    return score


def _weighted(per_class: Callable[[Counts], np.ndarray]) -> Callable[[Counts], np.ndarray]:
    """Mean over classes, weighted by how many examples each has."""
    return lambda counts: (per_class(counts) * counts.actual).sum(-1) / counts.actual.sum(-1)


SCORES: dict[str, Callable[[Counts], np.ndarray]] = {
    "accuracy": accuracy,
    "macro_f1": _macro(f1),
    "weighted_f1": _weighted(f1),
    "macro_precision": _macro(precision),
    "weighted_precision": _weighted(precision),
    "macro_recall": _macro(recall),
    "weighted_recall": _weighted(recall),
    "mcc": matthews,
}
METRICS = (*SCORES, "log_loss")
# the lowest and the highest value of each
BOUNDS = {**dict.fromkeys(SCORES, (0.0, 1.0)), "mcc": (-1.0, 1.0), "log_loss": (0.0, math.inf)}


def check_metric(name: str) -> str:
    """The name itself, or a ConfigError that lists the right ones."""
    if name not in METRICS:
        raise ConfigError(unknown("metric", name, METRICS))
    return name


def direction(metric: str) -> int:
    """1 where higher is better, -1 for log loss."""
    return -1 if metric == "log_loss" else 1


def is_better(metric: str, score: float, than: float) -> bool:
    """Whether a score beats another."""
    return direction(metric) * score > direction(metric) * than


def spoken(metric: str) -> str:
    """A metric's name for people.

    >>> spoken("macro_f1")
    'macro f1'
    """
    return metric.replace("_", " ")


def log_losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """-log of the probability of each true label, in nats. labels: (N,), probabilities: (N, C) -> (N,).

    Probabilities below 1e-15 count as 1e-15, so that one confident mistake does not make the mean infinite.
    """
    return -np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-15, 1))


def evaluate(labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Every metric. labels, predicted: (N,), probabilities: (N, C).

    >>> evaluate(np.array([0, 1]), np.array([0, 1]), np.eye(2))["accuracy"]
    1.0
    """
    counts = count(labels, predicted, probabilities.shape[1])
    scores = {name: float(score(counts)) for name, score in SCORES.items()}
    return {**scores, "log_loss": float(log_losses(labels, probabilities).mean())}


def per_class(labels: np.ndarray, predicted: np.ndarray, label_names: tuple[str, ...]) -> list[dict[str, float | str]]:
    """Precision, recall, F1 and number of examples of each class."""
    counts = count(labels, predicted, len(label_names))
    columns = zip(label_names, precision(counts), recall(counts), f1(counts), counts.actual, strict=True)
    return [
        {"label": name, "precision": float(p), "recall": float(r), "f1": float(f), "examples": int(n)}
        for name, p, r, f, n in columns
    ]


def confusion(labels: np.ndarray, predicted: np.ndarray, num_labels: int) -> np.ndarray:
    """Examples by true (row) and predicted (column) label. (C, C)."""
    return np.bincount(labels * num_labels + predicted, minlength=num_labels**2).reshape(num_labels, num_labels)
