"""Options of the data: source, columns, splits and limits; subsets of train; truncation. Plain models, no data."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tuneoff.errors import ConfigError

SPLITS = ("train", "validation", "test")
SplitName = Literal["train", "validation", "test"]
LongTexts = Literal["head", "tail", "head_tail", "windows"]


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _as_strings(value: Any) -> Any:
    """Return a mapping of labels as strings: YAML reads 1 as a number."""
    return {str(label): str(kept) for label, kept in value.items()} if isinstance(value, dict) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]


def _parse_label_map(given: Any) -> Any:
    """Parse 0=negative+4=positive+2= into a mapping; an empty label is none."""
    if isinstance(given, str):
        pairs = [part.partition("=") for part in given.split("+")]
        if not all(equals for _, equals, _ in pairs):
            raise ConfigError(f"labels {given!r} are not theirs=ours; write e.g. labels=0=negative+4=positive")
        given = {theirs.strip(): ours.strip() or None for theirs, _, ours in pairs}
    if isinstance(given, dict):  # YAML reads 0 and true as no strings
        return {_as_label(theirs): None if ours is None else _as_label(ours) for theirs, ours in given.items()}
    return given


def _as_label(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class DataSpec(BaseModel):
    """Data source, its columns, its splits and how many examples of each to use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str | None = Field(
        None, description="a file, a folder with one file per split, packaged:NAME, or hf:NAME[/CONFIG]"
    )
    splits: dict[SplitName, str] = Field(
        {}, description="split -> a file, or the source's own name of that split (test: validation)"
    )
    text: str | None = Field(None, description="text column; detected by common names if not set")
    text_pair: str | None = Field(None, description="column of the second text of a sentence pair")
    label: str | None = Field(
        None, description="label column; for multi-label data it may hold lists; detected by common names if not set"
    )
    label_separator: str | None = Field(
        None, min_length=1, description="multi-label: separator of the labels in the label column, | for news|sport"
    )
    label_columns: Names = Field(
        (), description="multi-label: columns of 0 and 1, one per label, instead of a label column"
    )
    labels: tuple[str, ...] | None = Field(None, description="label names in the order of their ids")
    # a tenth each, as in Rotten Tomatoes' official splits
    validation_fraction: float = Field(
        0.1, gt=0, lt=1, description="share of train to hold out as validation if there is none"
    )
    test_fraction: float = Field(0.1, gt=0, lt=1, description="share of train to hold out as test if there is none")
    split_seed: int = Field(0, ge=0, description="random seed of held-out splits and of limits")
    # off: published splits are there to be compared with
    ignore_splits: bool = Field(
        False,
        description="pool the splits that are given, and divide all examples anew (in a study also splits: ignore)",
    )
    group: str | None = Field(
        None, description="group column (author, patient, thread): no group is in two splits, against leakage"
    )
    slices: Names = Field((), description="columns by which test scores are also shown separately")
    limits: dict[SplitName, int] = Field(
        {},
        description="largest number of examples of a split, stratified by label; of a split that is held out from "
        "train, its size",
    )
    drop_unlabelled: bool = Field(False, description="drop examples without a label instead of stopping")
    drop_empty: bool = Field(False, description="drop examples with an empty text instead of stopping")
    drop_leaks: bool = Field(
        False, description="drop training and validation examples whose text, also nearly, is in a later split"
    )
    drop_duplicates: bool = Field(
        False, description="drop examples that repeat an earlier one of their split but for case, space or punctuation"
    )
    drop_contradicting: bool = Field(
        False, description="drop all examples of a text that has more than one label in its split"
    )
    corrections: str | None = Field(
        None, description="CSV file of corrected labels, from inspect --review, to apply to the data"
    )
    merge_labels: Annotated[bool | dict[str, str], BeforeValidator(_as_strings)] = Field(
        False, description="merge label variants (case, space, punctuation, typos) into the most frequent spelling"
    )

    @model_validator(mode="before")
    @classmethod
    def _read_ignored_splits(cls, given: Any) -> Any:
        """Read `splits: ignore`."""
        if not isinstance(given, dict) or not isinstance(given.get("splits"), str):
            return given
        if given["splits"] != "ignore":
            raise ConfigError(
                f"splits {given['splits']!r} is neither a mapping of splits nor ignore; write splits: ignore, or "
                "splits: {test: FILE}"
            )
        return {**given, "splits": {}, "ignore_splits": True}


class OtherTestSpec(BaseModel):
    """A test set from elsewhere, which the trained models also predict. It takes no part in training or selection."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(min_length=1, description="a file, a folder, packaged:NAME or hf:NAME")
    split: str | None = Field(None, description="the source's name of the split; by default test, else validation")
    text: str | None = Field(None, description="text column; by default that of the study, or detected")
    text_pair: str | None = Field(None, description="column of the second text of a pair")
    label: str | None = Field(None, description="label column; by default that of the study, or detected")
    labels: Annotated[dict[str, str | None], BeforeValidator(_parse_label_map)] = Field(
        {}, description="label there -> label of the study; none leaves its examples out"
    )
    limit: int | None = Field(None, ge=1, description="examples at most, stratified by label")

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, given: Any) -> Any:
        """Parse a source, with options after colons: tweets.csv:text=tweet:labels=0=negative+4=positive."""
        if not isinstance(given, str):
            return given
        source, *options = re.split(r":(?=\w+=)", given)
        return {"source": source.strip(), **dict(option.split("=", 1) for option in options)}


class Evaluation(BaseModel):
    """Scoring on folds, so that every labelled example is a test example once, or on one test split."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    folds: int | None = Field(None, ge=2, le=1000, description="number of folds; None for one split")


ONE_SPLIT = Evaluation(folds=None)


class Fold(BaseModel):
    """One fold of a study: its examples are the test examples of a run that trains on the other folds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    index: int = Field(ge=0)
    of: int = Field(ge=2)
    # of the validation examples, which are held out from the other folds
    validation_fraction: float
    split_seed: int

    @property
    def settings(self) -> list[float]:
        """What all folds of a study share: part of a run's fingerprint."""
        return [self.of, self.validation_fraction, self.split_seed]


class Subset(BaseModel):
    """A subset of train, one point of a learning curve: a fraction, or a number of examples per class."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    fraction: float | None = Field(None, gt=0, lt=1)
    per_class: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _has_one_size(self) -> "Subset":
        if (self.fraction is None) == (self.per_class is None):
            raise ConfigError("a subset of train needs either a fraction or a number per class")
        return self

    @property
    def label(self) -> str:
        """Name in reports."""
        return f"{100 * self.fraction:g} %" if self.fraction else f"{self.per_class} per class"

    @property
    def key(self) -> str:
        """Part of a run's fingerprint; never changes, so that stored runs stay valid."""
        return f"{100 * self.fraction:g} %" if self.fraction else f"{self.per_class} a class"


@dataclass(frozen=True)
class TruncationPolicy:
    """Maximum sequence length, and which tokens of a longer text are kept."""

    max_length: int  # of a sequence, special tokens included
    long_texts: LongTexts = "head"
    overlap: float = 0.25  # share of a window that the next window repeats
    max_windows: int = 8

    def describe(self) -> str:
        """Return the policy in words, for reports and model cards."""
        longest = f"{self.max_length} tokens"
        windows = f"up to {self.max_windows} windows of {longest} with an overlap of {self.overlap_tokens}"
        return {
            "head": f"the first {longest}",
            "tail": f"the last {longest}",
            "head_tail": f"{longest}: the first {self.head_tokens} and the last {self.max_length - self.head_tokens}",
            "windows": f"{windows}; their logits (for a probe, their embeddings) are averaged",
        }[self.long_texts]

    @property
    def head_tokens(self) -> int:
        """Tokens from the start in head_tail: a quarter (Sun et al., CCL 2019: 128 of 510)."""
        return self.max_length // 4

    @property
    def overlap_tokens(self) -> int:
        """Tokens that neighbouring windows share."""
        return int(self.overlap * self.max_length)
