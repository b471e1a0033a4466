"""Label noise by confident learning: examples whose label is probably wrong, from probabilities of held-out models.

Source: Northcutt, Jiang & Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 2021.
# N examples  C classes
"""

import numpy as np
import pandas as pd

LABEL_ERROR_COLUMNS = ["example", "label", "likely", "label_probability", "likely_probability"]
_TOLERANCE = 1e-6  # of a probability that equals its threshold, as in cleanlab


def likely_label_errors(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Examples whose label is probably wrong, worst first.

    The threshold of a class is the mean probability that the examples with this label have for it. An example is
    assigned the most probable class whose threshold it reaches; if that is not its label and is more probable, the
    label is likely wrong. Thresholds per class compensate for classes with generally high or low probabilities, and
    need no tuning. The trade-off: only confident cases are listed, about half of the label errors planted in a test.
    The method is for single-label data; for multi-label data the table is empty.

    labels: (N,), probabilities: (N, C). Columns: example, label, likely, label_probability, likely_probability.
    """
    if labels.ndim == 2:
        return pd.DataFrame(columns=LABEL_ERROR_COLUMNS)
    label_probability = probabilities[np.arange(len(labels)), labels]
    likely, likely_probability = _confident_classes(labels, probabilities)
    examples = np.flatnonzero((likely != labels) & (likely_probability > label_probability))
    table = pd.DataFrame(
        {
            "example": examples,
            "label": labels[examples],
            "likely": likely[examples],
            "label_probability": label_probability[examples],
            "likely_probability": likely_probability[examples],
        }
    )
    gap = table["likely_probability"] - table["label_probability"]
    return table.iloc[np.argsort(-gap.to_numpy(), kind="stable")].reset_index(drop=True)


def confident_joint(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Count the confident examples by label and most probable confident class. (C, C): rows labels, columns classes.

    Off the diagonal are the pairs of classes that labels confuse.
    """
    num_labels = probabilities.shape[1]
    likely, likely_probability = _confident_classes(labels, probabilities)
    is_confident = likely_probability >= 0
    cells = labels[is_confident] * num_labels + likely[is_confident]
    return np.bincount(cells, minlength=num_labels**2).reshape(num_labels, num_labels)


def _confident_classes(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the most probable class whose threshold each example reaches, and its probability; -1 for none. (N,)."""
    num_labels = probabilities.shape[1]
    counts = np.bincount(labels, minlength=num_labels)
    own = probabilities[np.arange(len(labels)), labels]
    sums = np.bincount(labels, weights=own, minlength=num_labels)
    # a class without examples has an infinite threshold: no example is assigned to it
    thresholds = np.divide(sums, counts, out=np.full(num_labels, np.inf), where=counts > 0)
    confident = np.where(probabilities >= thresholds - _TOLERANCE, probabilities, -1.0)  # (N, C)
    return confident.argmax(1), confident.max(1)
