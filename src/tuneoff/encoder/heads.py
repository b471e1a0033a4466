"""The classification head that a checkpoint has already: its rows in the order of the data's labels, or a new head.

A checkpoint that was fine-tuned for classification has an output layer with a row for each of its labels. If its labels
have the names of the data's, its rows are of use in the data's order. Otherwise they belong to other classes, and a new
output layer is drawn, as for a checkpoint without one.
"""

from collections.abc import Sequence

from tuneoff.cache import fingerprint
from tuneoff.encoder.config import load_checkpoint_config, model_fingerprint
from tuneoff.errors import join_limited


def head_labels(name: str) -> tuple[str, ...] | None:
    """Return the labels of a checkpoint's own head, in the order of its rows; None for a checkpoint without a head."""
    config = load_checkpoint_config(name)
    if not any(architecture.endswith("ForSequenceClassification") for architecture in config.architectures or ()):
        return None
    return tuple(str(label) for _, label in sorted(config.id2label.items()))


def head_rows(stored: Sequence[str], label_names: Sequence[str]) -> list[int] | None:
    """Return the row of each of the data's labels; None if the names are not the same. Upper and lower case are equal.

    >>> head_rows(["NEGATIVE", "POSITIVE"], ["positive", "negative"])
    [1, 0]
    >>> head_rows(["LABEL_0", "LABEL_1"], ["negative", "positive"])
    >>> head_rows(["a", "A"], ["a", "A"])
    [0, 1]
    """
    if list(stored) == list(label_names):  # also of names that differ in case only
        return list(range(len(stored)))
    row_of = {label.casefold(): row for row, label in enumerate(stored)}
    rows = [row_of.get(label.casefold()) for label in label_names]
    is_same = len(stored) == len(label_names) and sorted(row for row in rows if row is not None) == list(
        range(len(rows))
    )
    return [row for row in rows if row is not None] if is_same else None


def replaced_head(name: str, label_names: Sequence[str]) -> str | None:
    """Return the finding that a checkpoint's own head is of no use for the data; None if it is, or if it has none."""
    stored = head_labels(name)
    if stored is None or head_rows(stored, label_names) is not None:
        return None
    return (
        f"replaced head: {name} has a head for other labels ({join_limited(stored)}) than the data's; its output layer "
        "is drawn anew"
    )


def start_fingerprint(name: str, label_names: Sequence[str]) -> str:
    """Return a fingerprint of the weights that training on some labels starts from, but for those that a seed draws.

    That of the checkpoint, unless rows of its head were moved or replaced: earlier versions took every head with the
    right number of rows as it was.
    """
    weights, stored = model_fingerprint(name), head_labels(name)
    if stored is None or len(stored) != len(label_names):
        return weights
    rows = head_rows(stored, label_names)
    return weights if rows == list(range(len(stored))) else fingerprint(weights, "head", rows)
