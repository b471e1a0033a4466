"""What a user may ask of data, and what comes of it."""

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

SPLITS = ("train", "validation", "test")
SplitName = Literal["train", "validation", "test"]


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
    label: str | None = Field(None, description="column of the label; found by common names if not given")
    labels: tuple[str, ...] | None = Field(None, description="the label names in the order of their ids")
    # a tenth each is what Rotten Tomatoes' official splits hold
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="share of train carved off if there is none")
    test_fraction: float = Field(0.1, gt=0, lt=1, description="the same for a missing test split")
    split_seed: int = Field(0, ge=0, description="which carving and which subset")
    limits: dict[SplitName, int] = Field({}, description="at most so many examples of a split, classes in proportion")
    drop_unlabelled: bool = Field(False, description="leave out examples without a label instead of stopping")
    drop_empty: bool = Field(False, description="leave out examples with an empty text instead of stopping")


@dataclass(frozen=True)
class Dataset:
    """Examples in Arrow: per split a table with columns text, perhaps text_pair, and label (int64 ids)."""

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
    def num_labels(self) -> int:
        """Number of classes."""
        return len(self.label_names)

    def num_examples(self, split: str) -> int:
        """Examples in a split."""
        return self.splits[split].num_rows
