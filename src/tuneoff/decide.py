"""From probabilities to labels: the likeliest class, or every label that reaches its threshold.

# N examples  C classes
"""

import numpy as np
from sklearn.metrics import precision_recall_curve

_USUAL = 0.5  # where validation says nothing of a label


def decide(probabilities: np.ndarray, thresholds: np.ndarray | None) -> np.ndarray:
    """What is predicted. (N, C) -> (N,) ids; with thresholds, (C,), rows of 0 and 1, (N, C)."""
    return probabilities.argmax(1) if thresholds is None else (probabilities >= thresholds).astype(np.int64)


def best_thresholds(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray | None:
    """For each label the threshold with the highest F1 (Lipton et al., ECML 2014); None where examples have one label.

    To be found on validation. labels: (N,) or (N, C), probabilities: (N, C) -> (C,).
    """
    if labels.ndim == 1:
        return None
    return np.array([_best(labels[:, c], probabilities[:, c]) for c in range(labels.shape[1])])


def _best(labels: np.ndarray, probabilities: np.ndarray) -> float:
    if not labels.any():
        return _USUAL
    precision, recall, values = precision_recall_curve(labels, probabilities)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)[:-1]
    at = int(np.flatnonzero(f1 == f1.max())[-1])
    # half-way to the next lower probability: what comes near the last accepted one is accepted too
    return float((values[at] + (values[at - 1] if at else 0.0)) / 2)
