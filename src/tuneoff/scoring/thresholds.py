"""Predictions from probabilities: the most likely class, or for multi-label data every label above its threshold.

# N examples  C classes
"""

import numpy as np

_DEFAULT_THRESHOLD = 0.5  # of a label without validation examples


def labels_from_probabilities(probabilities: np.ndarray, thresholds: np.ndarray | None) -> np.ndarray:
    """Predict labels. (N, C) -> (N,) ids; with thresholds, (C,), multi-label rows of 0 and 1, (N, C)."""
    return probabilities.argmax(1) if thresholds is None else (probabilities >= thresholds).astype(np.int64)


def best_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray | None:
    """Choose the threshold of each label that maximises its F1 (Lipton et al., ECML 2014); None for single-label data.

    Choose them on the validation split. labels: (N,) or (N, C), probabilities: (N, C) -> (C,).
    """
    if labels.ndim == 1:
        return None
    return np.array([_best_threshold(labels[:, c], probabilities[:, c]) for c in range(labels.shape[1])])


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
