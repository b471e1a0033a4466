"""Scores of predictions. Every one but log loss is a function of counts.

That makes a score on a resample of the test split a matrix product away (stats.py). Labels and predictions are ids,
(N,), or where an example may have several labels, or none, rows of 0 and 1, (N, C).

# N examples  C classes  ... any leading axes (resamples)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import multilabel_confusion_matrix

from tuneoff.errors import ConfigError, DataError, unknown


@dataclass(frozen=True)
class Counts:
    """Per class: how many were predicted right, how many predicted, how many there are, each (..., C). And in all."""

    correct: np.ndarray
    predicted: np.ndarray
    actual: np.ndarray
    exact: np.ndarray  # (...) examples of which nothing is predicted wrong
    examples: np.ndarray  # (...)


def indicators(labels: np.ndarray, predicted: np.ndarray, num_labels: int) -> np.ndarray:
    """What each example adds to the counts. labels, predicted: (N,) or (N, C) -> (N, 3C + 2) of 0 and 1."""
    if len(labels) != len(predicted):
        raise DataError(f"{len(labels)} labels against {len(predicted)} predictions; give as many of each")
    is_actual, is_predicted = (as_rows(ids, num_labels) for ids in (labels, predicted))
    exact = (is_actual == is_predicted).all(1, keepdims=True)
    return np.concatenate([is_actual & is_predicted, is_predicted, is_actual, exact, np.ones_like(exact)], axis=1)


def as_rows(labels: np.ndarray, num_labels: int) -> np.ndarray:
    """Labels as rows of truth values, whatever they came as. (N,) or (N, C) -> (N, C)."""
    return labels.astype(bool) if labels.ndim == 2 else labels[:, None] == np.arange(num_labels)


def counts_from(sums: np.ndarray) -> Counts:
    """Sums of indicators over examples, (..., 3C + 2), as counts."""
    sums = sums.astype(np.float64)
    correct, predicted, actual = np.split(sums[..., :-2], 3, axis=-1)
    return Counts(correct, predicted, actual, exact=sums[..., -2], examples=sums[..., -1])


def count(labels: np.ndarray, predicted: np.ndarray, num_labels: int) -> Counts:
    """Counts of one set of predictions. labels, predicted: (N,) or (N, C)."""
    return counts_from(indicators(labels, predicted, num_labels).sum(0))


def accuracy(counts: Counts) -> np.ndarray:
    """Share of examples predicted right; of several labels, all of them (subset accuracy)."""
    return counts.exact / counts.examples


def precision(counts: Counts) -> np.ndarray:
    """Per class, the share of its predictions that are right; 0 where it is never predicted. (..., C)."""
    return _ratio(counts.correct, counts.predicted)


def recall(counts: Counts) -> np.ndarray:
    """Per class, the share of its examples that are found; 0 where it has none. (..., C)."""
    return _ratio(counts.correct, counts.actual)


def f1(counts: Counts) -> np.ndarray:
    """Per class, the harmonic mean of precision and recall. (..., C)."""
    return _ratio(2 * counts.correct, counts.predicted + counts.actual)


def micro_f1(counts: Counts) -> np.ndarray:
    """F1 over all labels of all examples together."""
    return _ratio(2 * counts.correct.sum(-1), (counts.predicted + counts.actual).sum(-1))


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
        return _ratio((per_class(counts) * occurs).sum(-1), occurs.sum(-1))

    return score


def _weighted(per_class: Callable[[Counts], np.ndarray]) -> Callable[[Counts], np.ndarray]:
    """Mean over classes, weighted by how many examples each has."""
    return lambda counts: _ratio((per_class(counts) * counts.actual).sum(-1), counts.actual.sum(-1))


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
# of several labels an example: Matthews' correlation is not defined there; with one, micro F1 is the accuracy
MULTILABEL_SCORES = {"micro_f1": micro_f1, **{name: score for name, score in SCORES.items() if name != "mcc"}}
ALL_SCORES = SCORES | MULTILABEL_SCORES
METRICS = (*ALL_SCORES, "log_loss")
# the lowest and the highest value of each
BOUNDS = {**dict.fromkeys(ALL_SCORES, (0.0, 1.0)), "mcc": (-1.0, 1.0), "log_loss": (0.0, math.inf)}


def check_metric(name: str) -> str:
    """The name itself, or a ConfigError that lists the right ones."""
    if name not in METRICS:
        raise ConfigError(unknown("metric", name, METRICS))
    return name


def metric_for(asked: str | None, is_multilabel: bool) -> str:
    """The metric of a study: what was asked for, or what is usual. Raises ConfigError for what is not defined."""
    if asked is None:
        return "micro_f1" if is_multilabel else "accuracy"
    if asked not in (MULTILABEL_SCORES if is_multilabel else SCORES) and asked != "log_loss":
        reason = "mcc is not defined where an example may have several labels; use micro_f1 or macro_f1"
        raise ConfigError(reason if is_multilabel else "micro_f1 of one label an example is its accuracy; use accuracy")
    return asked


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
    """-log of the probability of each true label, in nats. labels: (N,) or (N, C), probabilities: (N, C) -> (N,).

    Where an example may have several labels, the mean over all that there are, given or not. Probabilities below
    1e-15 count as 1e-15, so that one confident mistake does not make the mean infinite.
    """
    if labels.ndim == 2:
        return -np.log(np.clip(np.where(labels, probabilities, 1 - probabilities), 1e-15, 1)).mean(1)
    return -np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-15, 1))


def evaluate(labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Every metric. labels, predicted: (N,) or (N, C), probabilities: (N, C).

    >>> evaluate(np.array([0, 1]), np.array([0, 1]), np.eye(2))["accuracy"]
    1.0
    """
    counts = count(labels, predicted, probabilities.shape[1])
    asked = MULTILABEL_SCORES if labels.ndim == 2 else SCORES
    scores = {name: float(score(counts)) for name, score in asked.items()}
    return {**scores, "log_loss": float(log_losses(labels, probabilities).mean())}


def per_class(labels: np.ndarray, predicted: np.ndarray, label_names: tuple[str, ...]) -> list[dict[str, float | str]]:
    """Precision, recall, F1, number of examples and of predictions of each class."""
    counts = count(labels, predicted, len(label_names))
    scores = (precision(counts), recall(counts), f1(counts))
    columns = zip(label_names, *scores, counts.actual, counts.predicted, strict=True)
    return [
        {
            "label": name,
            "precision": float(p),
            "recall": float(r),
            "f1": float(f),
            "examples": int(n),
            "predicted": int(m),
        }
        for name, p, r, f, n, m in columns
    ]


def confusion(labels: np.ndarray, predicted: np.ndarray, num_labels: int) -> np.ndarray:
    """Examples by true (row) and predicted (column) label, (C, C); of several labels an example, (C, 2, 2) a label."""
    if labels.ndim == 2:
        return multilabel_confusion_matrix(labels, predicted)
    return np.bincount(labels * num_labels + predicted, minlength=num_labels**2).reshape(num_labels, num_labels)
