"""What a user may ask of data, and what comes of it."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

SPLITS = ("train", "validation", "test")
# columns that runs do not see: what must not be split, and by what scores are parted
GROUP, SLICE = "group", "slice:"
SplitName = Literal["train", "validation", "test"]


def _as_tuple(given: Any) -> Any:
    return (given,) if isinstance(given, str) else given


Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]


class DataSpec(BaseModel):
    """Where examples come from, and how they are read, split and cut."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str | None = Field(
        None, description="a file, a folder with one file a split, packaged:NAME, or hf:NAME[/CONFIG]"
    )
    splits: dict[SplitName, str] = Field(
        {}, description="our split -> a file, or the source's own name of that split (test: validation)"
    )
    text: str | None = Field(None, description="column of the text; found by common names if not given")
    text_pair: str | None = Field(None, description="column of the second text, if examples are pairs")
    label: str | None = Field(
        None, description="column of the label, or of lists of labels; found by common names if not given"
    )
    label_separator: str | None = Field(
        None, min_length=1, description="what parts several labels in the label column: news|sport"
    )
    label_columns: Names = Field(
        (), description="columns of 0 and 1, one a label, instead of a label column: examples with several labels"
    )
    labels: tuple[str, ...] | None = Field(None, description="the label names in the order of their ids")
    # a tenth each is what Rotten Tomatoes' official splits hold
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="share of train carved off if there is none")
    test_fraction: float = Field(0.1, gt=0, lt=1, description="the same for a missing test split")
    split_seed: int = Field(0, ge=0, description="which carving and which subset")
    group: str | None = Field(None, description="column of what stands in one split alone: author, patient, thread")
    slices: Names = Field((), description="columns by whose values test scores are parted: source, language")
    limits: dict[SplitName, int] = Field({}, description="at most so many examples of a split, classes in proportion")
    drop_unlabelled: bool = Field(False, description="leave out examples without a label instead of stopping")
    drop_empty: bool = Field(False, description="leave out examples with an empty text instead of stopping")


@dataclass(frozen=True)
class Dataset:
    """Examples in Arrow: per split a table with columns text, perhaps text_pair, and label.

    A label is an id (int64); where an example may have several, or none, a list of C times 0 or 1.
    """

    name: str
    splits: dict[str, pa.Table]
    label_names: tuple[str, ...]
    notes: tuple[str, ...]  # how splits, subsets and columns came about, in words
    fingerprint: str

    @property
    def is_pair(self) -> bool:
        """Whether an example has two texts."""
        return "text_pair" in self.splits["train"].column_names

    @property
    def is_multilabel(self) -> bool:
        """Whether an example may have several labels, or none."""
        return is_multilabel(self.splits["train"])

    @property
    def num_labels(self) -> int:
        """Number of classes."""
        return len(self.label_names)

    def num_examples(self, split: str) -> int:
        """Examples in a split."""
        return self.splits[split].num_rows


def is_multilabel(table: pa.Table) -> bool:
    """Whether the examples of a split may have several labels, or none."""
    return pa.types.is_fixed_size_list(table.schema.field("label").type)


def labels_of(table: pa.Table) -> np.ndarray:
    """The labels of a split: ids, (N,), or rows of 0 and 1, (N, C)."""
    column = table["label"].combine_chunks()
    if not is_multilabel(table):
        return column.to_numpy(zero_copy_only=False)
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1).astype(np.int64)


def label_counts(labels: np.ndarray, num_labels: int) -> np.ndarray:
    """Examples of each label. (N,) or (N, C) -> (C,)."""
    return labels.sum(0) if labels.ndim == 2 else np.bincount(labels, minlength=num_labels)
