"""Dataset: an Arrow table per split, in memory or mapped, label names and a fingerprint of the content."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from tuneoff.data.doctor.finding import Finding

# columns that no run reads: groups, each within one split, and slices, for scores on parts of test
GROUP, SLICE = "group", "slice:"
# column of the scored examples in a study's folder: codes of data/doctor/copies.py for leaked and repeated texts
COPY = "copy"
# columns of train where it is divided anew for each run. With folds: the fold of each example; where the division into
# train and validation varies: 1 for an example of the stored validation split. In both cases: an id that is shared by
# examples which must stay together
FOLD, HELD_OUT, UNIT = "fold", "held_out", "unit"
# columns of a dataset that is read for a review of its labels: the split and the row of the source, from 1
SOURCE_SPLIT, ROW = "source_split", "row"


@dataclass(frozen=True)
class Dataset:
    """Examples in Arrow: a table per split with the columns text, for pairs text_pair, and label.

    A single label is an id (int64). Multi-label data has a list of C zeros and ones per example, which may be all 0.
    With folds, train holds every labelled example, there is no validation split, and test only where one was given.
    Where runs differ in the division into train and validation, train holds both.
    """

    name: str
    splits: dict[str, pa.Table]
    label_names: tuple[str, ...]
    notes: tuple[str, ...]  # for readers: how splits and subsets were made, and which examples were dropped
    fingerprint: str
    folds: int | None = None  # number of folds; None: one split
    # how it was read; a dataset from the cache does not know
    columns: dict[str, str] = field(default_factory=dict)  # text, text_pair and label -> the user's column
    separator: str = ","  # of the fields of a .csv file
    held_out: tuple[str, ...] = ()  # splits that were made from train
    left_out: dict[str, int] = field(default_factory=dict)  # split reduced by a limit -> examples left out
    findings: tuple[Finding, ...] = ()  # of the source's other columns

    @property
    def is_pair(self) -> bool:
        """An example has two texts."""
        return "text_pair" in self.splits["train"].column_names

    @property
    def is_multilabel(self) -> bool:
        """An example may have any number of labels, also none."""
        return is_multilabel(self.splits["train"])

    @property
    def is_pooled(self) -> bool:
        """Train holds the validation examples too, and each run divides them."""
        return HELD_OUT in self.splits["train"].column_names

    @property
    def num_labels(self) -> int:
        """Number of classes."""
        return len(self.label_names)

    @property
    def scored_split(self) -> str:
        """The split that strategies are scored on: test, or with folds all of train."""
        return "train" if self.folds else "test"

    def num_examples(self, split: str) -> int:
        """Return the number of examples of a split."""
        return self.splits[split].num_rows


def is_multilabel(table: pa.Table) -> bool:
    """Tell whether the examples of a split are multi-label."""
    return pa.types.is_fixed_size_list(table.schema.field("label").type)


def labels_of(table: pa.Table) -> np.ndarray:
    """Return the labels of a split: ids, (N,), or for multi-label data zeros and ones, (N, C)."""
    column = table["label"].combine_chunks()
    if not is_multilabel(table):
        return column.to_numpy(zero_copy_only=False)
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1).astype(np.int64)


def label_counts(labels: np.ndarray, num_labels: int) -> np.ndarray:
    """Count the examples of each label. (N,) or multi-label (N, C) -> (C,)."""
    return labels.sum(0) if labels.ndim == 2 else np.bincount(labels, minlength=num_labels)


def is_member(labels: np.ndarray, label: int) -> np.ndarray:
    """Mask of the examples of a label. (N,) or multi-label (N, C) -> (N,) bool."""
    return labels[:, label].astype(bool) if labels.ndim == 2 else labels == label
