"""Metrics of predictions: accuracy, precision, recall, F1, Matthews correlation, log loss.

Every metric except log loss is a function of counts per class, and counts are sums over examples. The bootstrap
(stats.py) therefore scores all resamples of the test split with one matrix product. Labels and predictions are ids,
(N,), or for multi-label data rows of 0 and 1, (N, C).

# N examples  C classes  ... any leading axes (resamples)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tuneoff.errors import ConfigError, DataError, unknown


@dataclass(frozen=True)
class Counts:
    """Counts of correct, predicted and actual labels per class, and of examples."""

    correct: np.ndarray  # (..., C) true positives
    predicted: np.ndarray  # (..., C)
    actual: np.ndarray  # (..., C)
    exact: np.ndarray  # (...) examples with every label predicted correctly
    examples: np.ndarray  # (...)


def indicators(labels: np.ndarray, predicted: np.ndarray, num_labels: int) -> np.ndarray:
    """Contribution of each example to the counts. labels, predicted: (N,) or (N, C) -> (N, 3C + 2) of 0 and 1.

    Columns: correct, predicted and actual for each class, then exact, then 1. Raises DataError if the lengths differ.
    """
    if len(labels) != len(predicted):
        raise DataError(f"{len(labels)} labels but {len(predicted)} predictions; pass one prediction per label")
    is_actual, is_predicted = (as_rows(ids, num_labels) for ids in (labels, predicted))
    exact = (is_actual == is_predicted).all(1, keepdims=True)
    return np.concatenate([is_actual & is_predicted, is_predicted, is_actual, exact, np.ones_like(exact)], axis=1)


def as_rows(labels: np.ndarray, num_labels: int) -> np.ndarray:
    """Convert labels to boolean rows, one column per class. (N,) ids or (N, C) of 0 and 1 -> (N, C) bool."""
    return labels.astype(bool) if labels.ndim == 2 else labels[:, None] == np.arange(num_labels)


def counts_from(sums: np.ndarray) -> Counts:
    """Split sums of indicators over examples, (..., 3C + 2), into counts."""
    sums = sums.astype(np.float64)
    correct, predicted, actual = np.split(sums[..., :-2], 3, axis=-1)
    return Counts(correct, predicted, actual, exact=sums[..., -2], examples=sums[..., -1])


def count(labels: np.ndarray, predicted: np.ndarray, num_labels: int) -> Counts:
    """Count one set of predictions. labels, predicted: (N,) or (N, C)."""
    return counts_from(indicators(labels, predicted, num_labels).sum(0))


def accuracy(counts: Counts) -> np.ndarray:
    """Share of examples predicted correctly; for multi-label data, in every label (subset accuracy)."""
    return counts.exact / counts.examples


def precision(counts: Counts) -> np.ndarray:
    """Share of the predictions of each class that are correct; 0 for a class that is never predicted. (..., C)."""
    return _ratio(counts.correct, counts.predicted)


def recall(counts: Counts) -> np.ndarray:
    """Share of the examples of each class that are predicted as it; 0 for a class without examples. (..., C)."""
    return _ratio(counts.correct, counts.actual)


def f1(counts: Counts) -> np.ndarray:
    """Harmonic mean of precision and recall of each class. (..., C)."""
    return _ratio(2 * counts.correct, counts.predicted + counts.actual)


def micro_f1(counts: Counts) -> np.ndarray:
    """F1 of the pooled labels of all examples."""
    return _ratio(2 * counts.correct.sum(-1), (counts.predicted + counts.actual).sum(-1))


def matthews(counts: Counts) -> np.ndarray:
    """Matthews correlation coefficient for any number of classes (Gorodkin, 2004); 0 where it is undefined."""
    total = counts.actual.sum(-1)
    covariance = counts.correct.sum(-1) * total - (counts.predicted * counts.actual).sum(-1)
    spread = (total**2 - (counts.predicted**2).sum(-1)) * (total**2 - (counts.actual**2).sum(-1))
    return _ratio(covariance, np.sqrt(spread))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(np.shape(numerator)), where=denominator > 0)


def _macro(per_class: Callable[[Counts], np.ndarray]) -> Callable[[Counts], np.ndarray]:
    """Unweighted mean over the classes that occur among the labels or the predictions."""

    def score(counts: Counts) -> np.ndarray:
        occurs = counts.predicted + counts.actual > 0
        return _ratio((per_class(counts) * occurs).sum(-1), occurs.sum(-1))

    return score


def _weighted(per_class: Callable[[Counts], np.ndarray]) -> Callable[[Counts], np.ndarray]:
    """Mean over classes, weighted by their number of examples."""
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
# multi-label: Matthews correlation is not defined there; for single-label data micro F1 equals accuracy
MULTILABEL_SCORES = {"micro_f1": micro_f1, **{name: score for name, score in SCORES.items() if name != "mcc"}}
ALL_SCORES = SCORES | MULTILABEL_SCORES
METRICS = (*ALL_SCORES, "log_loss")
# lowest and highest possible value
BOUNDS = {**dict.fromkeys(ALL_SCORES, (0.0, 1.0)), "mcc": (-1.0, 1.0), "log_loss": (0.0, math.inf)}


def check_metric(name: str) -> str:
    """Return the name of a metric. Raises ConfigError if it is unknown."""
    if name not in METRICS:
        raise ConfigError(unknown("metric", name, METRICS))
    return name


def metric_for(metric: str | None, is_multilabel: bool) -> str:
    """Return the metric of a study: by default micro F1 for multi-label data, else accuracy.

    Raises ConfigError for a metric that is not defined for such data.
    """
    if metric is None:
        return "micro_f1" if is_multilabel else "accuracy"
    if metric not in (MULTILABEL_SCORES if is_multilabel else SCORES) and metric != "log_loss":
        raise ConfigError(
            "metric mcc is not defined for multi-label data; use micro_f1 or macro_f1"
            if is_multilabel
            else "metric micro_f1 equals accuracy for single-label data; use accuracy"
        )
    return metric


def direction(metric: str) -> int:
    """Sign of improvement: 1 if higher is better, -1 for log loss."""
    return -1 if metric == "log_loss" else 1


def is_better(metric: str, score: float, than: float) -> bool:
    """Return True if a score is strictly better than another."""
    return direction(metric) * score > direction(metric) * than


def display_name(metric: str) -> str:
    """Name of a metric in reports.

    >>> display_name("macro_f1")
    'macro f1'
    """
    return metric.replace("_", " ")


def points(difference: float, metric: str) -> str:
    """Difference of two scores in words; a point is a hundredth. Log loss has no points.

    >>> points(0.0042, "accuracy"), points(0.0042, "log_loss"), points(-0.0001, "accuracy")
    ('0.4 points', '0.004', '0.0 points')
    """
    if metric == "log_loss":
        return f"{round(difference, 3) + 0.0:.3f}"  # -0.0 + 0.0 is 0.0
    return f"{round(100 * difference, 1) + 0.0:.1f} points"


def log_losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Negative log probability of each true label, in nats. labels: (N,) or (N, C), probabilities: (N, C) -> (N,).

    For multi-label data, the mean binary cross-entropy over all C labels. Probabilities below 1e-15 are clipped to
    1e-15, so that one confident error does not make the mean infinite.
    """
    if labels.ndim == 2:
        return -np.log(np.clip(np.where(labels, probabilities, 1 - probabilities), 1e-15, 1)).mean(1)
    return -np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-15, 1))


def evaluate(labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """Compute every metric that is defined for the data. labels, predicted: (N,) or (N, C), probabilities: (N, C).

    >>> evaluate(np.array([0, 1]), np.array([0, 1]), np.eye(2))["accuracy"]
    1.0
    """
    counts = count(labels, predicted, probabilities.shape[1])
    functions = MULTILABEL_SCORES if labels.ndim == 2 else SCORES
    scores = {name: float(score(counts)) for name, score in functions.items()}
    return {**scores, "log_loss": float(log_losses(labels, probabilities).mean())}


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class, and the counts that they are shares of."""

    label: str
    precision: float  # 0 without predictions
    recall: float  # 0 without examples
    f1: float
    examples: int  # whose label it is
    predicted: int  # examples that it is predicted for


def per_class(labels: np.ndarray, predicted: np.ndarray, label_names: tuple[str, ...]) -> list[ClassScores]:
    """Compute the scores of each class. labels, predicted: (N,) or (N, C)."""
    counts = count(labels, predicted, len(label_names))
    scores = (precision(counts), recall(counts), f1(counts))
    columns = zip(label_names, *scores, counts.actual, counts.predicted, strict=True)
    return [ClassScores(name, float(p), float(r), float(f), int(n), int(m)) for name, p, r, f, n, m in columns]


def confusion(labels: np.ndarray, predicted: np.ndarray, num_labels: int) -> np.ndarray:
    """Confusion matrix, (C, C): rows are true classes, columns predicted ones.

    For multi-label data one such matrix per label, (C, 2, 2).
    """
    if labels.ndim == 2:
        from sklearn.metrics import multilabel_confusion_matrix  # slow to import, and used only here

        return multilabel_confusion_matrix(labels, predicted)
    return np.bincount(labels * num_labels + predicted, minlength=num_labels**2).reshape(num_labels, num_labels)
