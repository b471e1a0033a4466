"""Metrics of predictions: accuracy, precision, recall, F1, kappas, Matthews correlation, areas under curves, log loss.

Most metrics are functions of counts per class, and counts are sums over examples; those of ordered labels need the
distances between true and predicted ids too, which are also sums over examples. The bootstrap (stats.py) therefore
scores all resamples of the test split with one matrix product. Log loss is a mean over examples. The areas under
curves (ranking.py) and a metric of the user's own (custom.py) are no sums; they are computed for each resample. Labels
and predictions are ids, (N,), or for multi-label data rows of 0 and 1, (N, C).

# N examples  C classes  ... any leading axes (resamples)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tuneoff.errors import ConfigError, DataError, join_limited, unknown
from tuneoff.scoring.custom import check_own_name, is_own, own_score
from tuneoff.scoring.ranking import RANKING_SCORES, ranking_score


@dataclass(frozen=True)
class MetricOptions:
    """What metrics depend on besides labels and predictions: the roles of the labels, and a metric of the user's own.

    Made by metric_options().
    """

    is_multilabel: bool = False
    positive: int | None = None  # id of the class of f1, precision and recall; None for neither two classes nor a name
    is_ordered: bool = False  # ids are in the order of the labels
    label_names: tuple[str, ...] = ()
    own: tuple[str, ...] = ()  # metrics as module:name that may be imported

    @property
    def positive_name(self) -> str:
        """Name of the positive class; empty if there is none."""
        return "" if self.positive is None else self.label_names[self.positive]


def metric_options(
    label_names: Sequence[str],
    is_multilabel: bool,
    positive: str | None = None,
    is_ordered: bool = False,
    own: Sequence[str | None] = (),
) -> MetricOptions:
    """Return the options of the metrics on data. positive: the class of f1; of two classes by default the second.

    own: names of metrics, of which those of the user's own are computed. Raises ConfigError for a positive class that
    there is not, and for ordered labels in multi-label data.
    """
    names = tuple(label_names)
    if positive is not None and positive not in names:
        raise ConfigError(f"positive class {positive!r} is none of the labels; choose from {join_limited(names, 12)}")
    if is_ordered and is_multilabel:
        raise ConfigError("ordered is for one label per example, and the data is multi-label; leave it out")
    is_binary = len(names) == 2 and not is_multilabel
    index = names.index(positive) if positive is not None else 1 if is_binary else None
    own_names = tuple(dict.fromkeys(name for name in own if name and is_own(name)))
    return MetricOptions(is_multilabel, index, is_ordered, names, own_names)


@dataclass(frozen=True)
class Counts:
    """Counts of correct, predicted and actual labels per class, and of examples."""

    correct: np.ndarray  # (..., C) true positives
    predicted: np.ndarray  # (..., C)
    actual: np.ndarray  # (..., C)
    exact: np.ndarray  # (...) examples with every label predicted correctly
    examples: np.ndarray  # (...)
    distances: np.ndarray | None = None  # (..., 2) between true and predicted ids, absolute and squared; single labels


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


def id_distances(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Distance of each example's predicted id from the true one, absolute and squared. (N,), (N,) -> (N, 2)."""
    distance = np.abs(labels.astype(np.int64) - predicted)
    return np.stack([distance, distance**2], axis=1)


def counts_from(sums: np.ndarray, distances: np.ndarray | None = None) -> Counts:
    """Split sums of indicators over examples, (..., 3C + 2), into counts. distances: sums of id_distances, (..., 2)."""
    sums = sums.astype(np.float64)
    correct, predicted, actual = np.split(sums[..., :-2], 3, axis=-1)
    return Counts(correct, predicted, actual, sums[..., -2], sums[..., -1], distances)


def count(labels: np.ndarray, predicted: np.ndarray, num_labels: int) -> Counts:
    """Count one set of predictions. labels, predicted: (N,) or (N, C)."""
    sums = indicators(labels, predicted, num_labels).sum(0)
    return counts_from(sums, None if labels.ndim == 2 else id_distances(labels, predicted).sum(0).astype(np.float64))


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


def balanced_accuracy(counts: Counts) -> np.ndarray:
    """Mean recall of the classes that have examples. A macro recall also counts classes that are only predicted."""
    return _ratio(recall(counts).sum(-1), (counts.actual > 0).sum(-1))


def kappa(counts: Counts) -> np.ndarray:
    """Agreement of labels and predictions beyond that of chance (Cohen, 1960); 0 where chance agrees everywhere."""
    by_chance = (counts.predicted * counts.actual).sum(-1) / counts.examples**2
    return _ratio(counts.exact / counts.examples - by_chance, 1 - by_chance)


def quadratic_kappa(counts: Counts) -> np.ndarray:
    """Kappa of ordered labels, whose disagreements weigh as the square of their distance (Cohen, 1968).

    1 minus the measured mean squared distance over that of independent labels and predictions with the same shares:
    with classes i and j, the sum of (i - j)^2 * actual_i * predicted_j is made of three sums over classes.
    """
    assert counts.distances is not None
    ids = np.arange(counts.actual.shape[-1])
    squares = (counts.actual * ids**2).sum(-1) + (counts.predicted * ids**2).sum(-1)
    products = (counts.actual * ids).sum(-1) * (counts.predicted * ids).sum(-1)
    by_chance = squares - 2 * products / counts.examples
    return np.where(by_chance > 0, 1 - _ratio(counts.distances[..., 1], by_chance), 0.0)


def mae(counts: Counts) -> np.ndarray:
    """Mean absolute error of ordered labels, in steps from one label to the next."""
    assert counts.distances is not None
    return counts.distances[..., 0] / counts.examples


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


# defined for all data with one label per example
SCORES: dict[str, Callable[[Counts], np.ndarray]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": _macro(f1),
    "weighted_f1": _weighted(f1),
    "macro_precision": _macro(precision),
    "weighted_precision": _weighted(precision),
    "macro_recall": _macro(recall),
    "weighted_recall": _weighted(recall),
    "kappa": kappa,
    "mcc": matthews,
}
_SINGLE_LABEL_ONLY = ("balanced_accuracy", "kappa", "mcc")  # agreement and classes of one label per example
MULTILABEL_SCORES = {"micro_f1": micro_f1, **{n: score for n, score in SCORES.items() if n not in _SINGLE_LABEL_ONLY}}
# of one class, the positive one
POSITIVE_SCORES: dict[str, Callable[[Counts], np.ndarray]] = {"f1": f1, "precision": precision, "recall": recall}
ORDERED_SCORES: dict[str, Callable[[Counts], np.ndarray]] = {"quadratic_kappa": quadratic_kappa, "mae": mae}
COUNT_SCORES = SCORES | MULTILABEL_SCORES | POSITIVE_SCORES | ORDERED_SCORES
NEED_PROBABILITIES = (*RANKING_SCORES, "log_loss")  # and a metric of the user's own, which may use them
METRICS = (*COUNT_SCORES, *NEED_PROBABILITIES)
_LOWER_IS_BETTER = ("log_loss", "mae")
_BOUNDS = {
    **dict.fromkeys(METRICS, (0.0, 1.0)),
    **dict.fromkeys(("mcc", "kappa", "quadratic_kappa"), (-1.0, 1.0)),
    **dict.fromkeys(_LOWER_IS_BETTER, (0.0, math.inf)),
}
_DISPLAY_NAMES = {"roc_auc": "ROC AUC", "pr_auc": "PR AUC", "mae": "mean absolute error"}


def check_metric(name: str) -> str:
    """Return the name of a metric. Raises ConfigError if it is unknown. Nothing of the user's own is imported."""
    if isinstance(name, str) and is_own(name):
        return check_own_name(name)
    if name not in METRICS:
        raise ConfigError(unknown("metric", name, METRICS) + "; a function of your own is module:name")
    return name


def metric_for(metric: str | None, options: MetricOptions) -> str:
    """Return the metric of a study: by default micro F1 for multi-label data, else accuracy.

    Raises ConfigError for a metric that is not defined for such data.
    """
    if metric is None:
        return "micro_f1" if options.is_multilabel else "accuracy"
    if metric in POSITIVE_SCORES and options.positive is None:
        raise ConfigError(
            f"metric {metric} is of one positive class, and the data has {len(options.label_names)} labels: "
            f"{join_limited(options.label_names)}; name it (positive: NAME, --positive NAME), or use macro_{metric}"
        )
    if options.is_multilabel and metric in (*_SINGLE_LABEL_ONLY, *ORDERED_SCORES):
        raise ConfigError(f"metric {metric} is not defined for multi-label data; use micro_f1 or macro_f1")
    if metric in ORDERED_SCORES and not options.is_ordered:
        raise ConfigError(
            f"metric {metric} is of ordered labels; say that {join_limited(options.label_names)} are in order "
            "(ordered: true, --ordered), after labels: has put them in order"
        )
    if metric == "micro_f1" and not options.is_multilabel:
        raise ConfigError("metric micro_f1 equals accuracy for single-label data; use accuracy")
    return metric


def without_own(metric: str | None, is_multilabel: bool) -> str | None:
    """Return a metric, or in place of a function of the user's own the default one, for which nothing is imported."""
    return metric_for(None, MetricOptions(is_multilabel)) if metric and is_own(metric) else metric


def depends_on_positive(metric: str) -> bool:
    """Return True for a metric that is of the positive class, where the data has two classes."""
    return metric in POSITIVE_SCORES or metric == "pr_auc"


def is_defined(metric: str, labels: np.ndarray, positive: int | None = None) -> bool:
    """Return True if a metric says something on labels, (N,) or (N, C): not where a class that it is about is missing.

    >>> is_defined("recall", np.array([0, 0]), positive=1), is_defined("roc_auc", np.array([1, 1]))
    (False, False)
    >>> is_defined("accuracy", np.array([1, 1])), is_defined("recall", np.array([1, 1]), positive=1)
    (True, True)
    """
    if labels.ndim == 2:
        return metric not in RANKING_SCORES or bool((labels.min(0) < labels.max(0)).any())
    if metric in POSITIVE_SCORES:
        return bool((labels == positive).any())
    return metric not in (*RANKING_SCORES, "mcc", "kappa", "quadratic_kappa") or len(np.unique(labels)) > 1


def needs_probabilities(metric: str) -> bool:
    """Return True for a metric that predicted labels alone do not give."""
    return metric in NEED_PROBABILITIES or is_own(metric)


def bounds(metric: str) -> tuple[float, float]:
    """Lowest and highest possible value of a metric; of a metric of the user's own they are unknown."""
    return _BOUNDS.get(metric, (-math.inf, math.inf))


def direction(metric: str) -> int:
    """Sign of improvement: 1 if higher is better, -1 for log loss and mean absolute error."""
    return -1 if metric in _LOWER_IS_BETTER else 1


def is_better(metric: str, score: float, than: float) -> bool:
    """Return True if a score is strictly better than another."""
    return direction(metric) * score > direction(metric) * than


def display_name(metric: str) -> str:
    """Name of a metric in reports.

    >>> display_name("macro_f1")
    'macro f1'
    """
    return metric if is_own(metric) else _DISPLAY_NAMES.get(metric, metric.replace("_", " "))


def has_points(metric: str) -> bool:
    """Return True if differences of a metric are given in points, which are hundredths."""
    return metric not in _LOWER_IS_BETTER and not is_own(metric)


def apart(gap: float, metric: str) -> str:
    """Distance of a worse score from a better one, in words.

    >>> apart(0.0042, "accuracy"), apart(0.04, "log_loss")
    ('0.4 points below', '0.040 above')
    """
    return f"{points(gap, metric)} {'below' if direction(metric) > 0 else 'above'}"


def points(difference: float, metric: str) -> str:
    """Difference of two scores in words; a point is a hundredth. Log loss has no points.

    >>> points(0.0042, "accuracy"), points(0.0042, "log_loss"), points(-0.0001, "accuracy")
    ('0.4 points', '0.004', '0.0 points')
    """
    if not has_points(metric):
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


def from_counts(metric: str, counts: Counts, positive: int | None) -> np.ndarray:
    """Score by a metric that is a function of counts. positive: id of the positive class."""
    scores = COUNT_SCORES[metric](counts)
    return scores[..., positive] if metric in POSITIVE_SCORES else scores


def evaluate(
    labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, options: MetricOptions | None = None
) -> dict[str, float]:
    """Compute every metric that is defined for the data. labels, predicted: (N,) or (N, C), probabilities: (N, C).

    >>> evaluate(np.array([0, 1]), np.array([0, 1]), np.eye(2))["accuracy"]
    1.0
    """
    options = options or MetricOptions(is_multilabel=labels.ndim == 2)
    counts = count(labels, predicted, probabilities.shape[1])
    scores = {name: float(from_counts(name, counts, options.positive)) for name in _count_scores(options)}
    for name in RANKING_SCORES:
        scores[name] = float(ranking_score(name, labels, probabilities, options.positive)[0])
    scores["log_loss"] = float(log_losses(labels, probabilities).mean())
    return scores | {name: own_score(name, labels, predicted, probabilities) for name in options.own}


def _count_scores(options: MetricOptions) -> list[str]:
    """Names of the metrics of counts that are defined for the data."""
    names = list(MULTILABEL_SCORES if options.is_multilabel else SCORES)
    names += POSITIVE_SCORES if options.positive is not None else []
    return names + list(ORDERED_SCORES if options.is_ordered else [])


def metric_names(options: MetricOptions) -> list[str]:
    """Names of the metrics that evaluate() computes."""
    return [*_count_scores(options), *NEED_PROBABILITIES, *options.own]


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
