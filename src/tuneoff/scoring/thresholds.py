"""Predictions from probabilities: the most likely class, or for multi-label data every label above its threshold.

Two classes may have a threshold too, chosen on validation: an array of one number, the probability from which the
second class is predicted. Multi-label data has at least two thresholds, so that the length tells them apart.

# N examples  C classes  T candidate thresholds
"""

import numpy as np

from tuneoff.scoring.custom import is_own, own_score
from tuneoff.scoring.metrics import Counts, direction, from_counts

_DEFAULT_THRESHOLD = 0.5  # of a label without validation examples
_MAX_OWN_CANDIDATES = 100  # thresholds that are tried with a function of the user's, which may be slow


def labels_from_probabilities(probabilities: np.ndarray, thresholds: np.ndarray | None) -> np.ndarray:
    """Predict labels. (N, C) -> (N,) ids; with thresholds, (C,), multi-label rows of 0 and 1, (N, C).

    One threshold, (1,), is that of the second of two classes: (N,) ids.
    """
    if thresholds is not None and len(thresholds) == 1:
        return (probabilities[:, 1] >= thresholds[0]).astype(np.int64)
    return probabilities.argmax(1) if thresholds is None else (probabilities >= thresholds).astype(np.int64)


def best_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray | None:
    """Choose the threshold of each label that maximises its F1 (Lipton et al., ECML 2014); None for single-label data.

    Choose them on the validation split. labels: (N,) or (N, C), probabilities: (N, C) -> (C,).
    """
    if labels.ndim == 1:
        return None
    return np.array([_best_threshold(labels[:, c], probabilities[:, c]) for c in range(labels.shape[1])])


def best_binary_threshold(
    labels: np.ndarray, probabilities: np.ndarray, metric: str, positive: int | None
) -> np.ndarray:
    """Choose the probability from which the second of two classes is predicted, with the best score by a metric.

    Candidates lie half-way between neighbouring probabilities; of equally good ones the nearest to one half is chosen,
    which depends least on the few examples of a validation split. labels: (N,), probabilities: (N, 2) -> (1,).
    """
    distinct, places = np.unique(probabilities[:, 1], return_inverse=True)
    ends = np.concatenate([[0.0], distinct, [1.0]])
    candidates = np.append((ends[1:] + ends[:-1]) / 2, _DEFAULT_THRESHOLD)  # (T,): accepting all, ..., none, and 0.5
    if is_own(metric):
        candidates = np.append(np.quantile(candidates, np.linspace(0, 1, _MAX_OWN_CANDIDATES)), _DEFAULT_THRESHOLD)
        scores = np.array(
            [
                own_score(metric, labels, labels_from_probabilities(probabilities, np.array([t])), probabilities)
                for t in candidates
            ]
        )
    else:
        scores = from_counts(metric, _binary_counts(labels, distinct, places, candidates), positive)
    scores = direction(metric) * scores
    best = candidates[np.isclose(scores, scores.max(), rtol=0, atol=1e-12)]
    return best[np.abs(best - _DEFAULT_THRESHOLD).argmin()][None]


def _binary_counts(labels: np.ndarray, distinct: np.ndarray, places: np.ndarray, candidates: np.ndarray) -> Counts:
    """Count the predictions of each candidate threshold. labels, places: (N,), candidates: (T,).

    distinct: the probabilities that occur, ascending; places: of each example among them.
    """
    examples, positives = len(labels), int(labels.sum())
    sizes = np.bincount(places, minlength=len(distinct)), np.bincount(places, labels, minlength=len(distinct))
    below, positives_below = (np.concatenate([[0], np.cumsum(size)]) for size in sizes)
    first = np.searchsorted(distinct, candidates)  # of the probabilities that a candidate accepts
    accepted, true = examples - below[first], positives - positives_below[first]
    rejected = examples - accepted
    correct = np.stack([rejected - positives_below[first], true], axis=1)
    wrong = examples - correct.sum(1)
    return Counts(
        correct,
        np.stack([rejected, accepted], axis=1),
        np.tile([examples - positives, positives], (len(candidates), 1)).astype(float),
        correct.sum(1),
        np.full(len(candidates), float(examples)),
        np.stack([wrong, wrong], axis=1),  # ids are 0 and 1
    )


def _best_threshold(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Threshold of one label. labels, probabilities: (N,)."""
    if not labels.any():
        return _DEFAULT_THRESHOLD
    from sklearn.metrics import precision_recall_curve  # slow to import, and used only here

    precision, recall, candidates = precision_recall_curve(labels, probabilities)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)[:-1]
    best = int(np.flatnonzero(f1 == f1.max())[-1])  # of equal F1, the highest threshold
    # half-way to the next lower probability, so that probabilities just below the last accepted one are accepted too
    return float((candidates[best] + (candidates[best - 1] if best else 0.0)) / 2)
