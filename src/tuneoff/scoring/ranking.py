"""Areas under the ROC and the precision-recall curve, of all examples and of bootstrap resamples of them.

Both depend on the order of the examples by a class's probability, not on counts. The order is the same in every
resample: a resample only changes how often each example counts. So the examples are sorted once for each class, and a
resample is a row of weights in that order, whose cumulative sums give the whole curve. Examples with equal
probabilities share one point of the curve. That takes R x N additions for each class, against R sorts of N examples.

With two classes the score is that of one of them (ROC AUC is the same for both). With more, and for multi-label data,
it is the mean over the classes, each against the rest, that have both examples and others (one-versus-rest: Provost &
Domingos, 2000; scikit-learn's multi_class="ovr", average="macro").

# N examples  C classes  R resamples  G distinct probabilities
"""

from collections.abc import Callable

import numpy as np

_BLOCK_SIZE = 2**20  # weights that are sorted at once: 8 MiB for each of a few temporary arrays


def _roc_auc(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Probability that a positive example ranks above a negative one; a tie counts one half.

    positives, negatives: weights by distinct probability, lowest first. (R, G), (R, G) -> (R,).
    """
    below = np.cumsum(negatives, axis=1)
    below -= negatives / 2
    return np.einsum("rg,rg->r", positives, below) / (positives.sum(1) * negatives.sum(1))


def _pr_auc(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Average precision: precision at each threshold, weighted by the recall that it adds (no interpolation).

    positives, negatives: weights by distinct probability, lowest first. (R, G), (R, G) -> (R,).
    """
    positives, negatives = positives[:, ::-1], negatives[:, ::-1]  # a threshold accepts the highest first
    true = np.cumsum(positives, axis=1)
    accepted = np.maximum(true + np.cumsum(negatives, axis=1), 1e-12)  # 0 before the first example of a resample
    return np.einsum("rg,rg->r", positives, true / accepted) / positives.sum(1)


RANKING_SCORES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {"roc_auc": _roc_auc, "pr_auc": _pr_auc}


def ranking_score(
    metric: str,
    labels: np.ndarray,
    probabilities: np.ndarray,
    positive: int | None = None,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Score by ROC AUC or PR AUC. labels: (N,) or (N, C), probabilities: (N, C), weights: (R, N) -> (R,).

    positive: the class that counts, of two. weights: how often each example counts; None for once, R = 1. A resample
    without examples, or without others, of a class leaves that class out; without any class left its score is 0.5 for
    ROC AUC and 0 for PR AUC.
    """
    num_labels = probabilities.shape[1]
    is_binary = labels.ndim == 1 and num_labels == 2
    classes = [1 if positive is None else positive] if is_binary else range(num_labels)
    weights = np.ones((1, len(labels))) if weights is None else weights
    total, count = np.zeros(len(weights)), np.zeros(len(weights))
    for index in classes:
        is_actual = labels[:, index].astype(bool) if labels.ndim == 2 else labels == index
        if is_actual.any() and not is_actual.all():
            scores, is_defined = _of_class(metric, is_actual, probabilities[:, index], weights)
            total[is_defined] += scores[is_defined]
            count += is_defined
    undefined = 0.5 if metric == "roc_auc" else 0.0
    return np.divide(total, count, out=np.full(len(weights), undefined), where=count > 0)


def _of_class(
    metric: str, is_actual: np.ndarray, probabilities: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the score of one class in each resample, and where it is defined. (N,), (N,), (R, N) -> (R,), (R,)."""
    order = np.argsort(probabilities, kind="stable")
    ordered = probabilities[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))  # of runs of equal probabilities
    is_positive = is_actual[order]
    scores, is_defined = np.empty(len(weights)), np.empty(len(weights), bool)
    step = max(1, _BLOCK_SIZE // max(1, len(order)))
    for first in range(0, len(weights), step):
        rows = slice(first, first + step)
        block = weights[rows][:, order].astype(np.float64)
        positives, negatives = block * is_positive, block * ~is_positive
        if len(starts) < len(order):
            positives, negatives = (np.add.reduceat(part, starts, axis=1) for part in (positives, negatives))
        is_defined[rows] = (positives.sum(1) > 0) & (negatives.sum(1) > 0)
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample where it is not defined
            scores[rows] = RANKING_SCORES[metric](positives, negatives)
    return scores, is_defined
