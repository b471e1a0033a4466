"""What a fit of any kind takes and gives, and what all kinds measure alike."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from tuneoff.data.batches import PackedBatch, pack
from tuneoff.data.dataset import Dataset
from tuneoff.data.splits import Part
from tuneoff.data.tokens import TokenTable
from tuneoff.engine.loop import Trained
from tuneoff.engine.precision import inference, resolve
from tuneoff.engine.resume import Checkpoint
from tuneoff.engine.training_state import State
from tuneoff.execute.devices import Devices
from tuneoff.execute.inputs import JobInputs
from tuneoff.machine import device
from tuneoff.scoring.selection import Selection
from tuneoff.scoring.thresholds import labels_from_probabilities
from tuneoff.spec.run import RunSpec


@dataclass
class Fitted:
    """A fitted strategy."""

    probabilities: dict[str, np.ndarray]  # split -> (N, C)
    costs: dict[str, float]  # keys of costs.py
    classify_one: Callable[[int], object]  # classify the i-th timed example, starting from its text
    save: Callable[[Path], None]
    parameters: dict[str, int] = field(default_factory=dict)
    trained: Trained | None = None
    thresholds: np.ndarray | None = None  # (C,) chosen on validation, for multi-label data; (1,) for two classes
    selected_options: dict[str, Any] = field(default_factory=dict)  # of the strategy, selected on validation
    # probabilities of another split of a dataset, in fp32 as the final predictions
    predict_split: Callable[[Dataset, str], np.ndarray] | None = None
    # how far training moved the encoder's representations; None for a strategy that trains none of it
    measure_movement: Callable[[], dict[str, Any]] | None = None
    # a context with the added weights merged into the encoder's; None for a strategy that has none
    merged: Callable[[], AbstractContextManager[None]] | None = None
    classify_sample: Callable[[], int] | None = None  # classify some examples in batches; returns their number

    def predicted(self, split: str) -> np.ndarray:
        """Return the predicted labels of a split: (N,) ids, or (N, C) of 0 and 1."""
        return labels_from_probabilities(self.probabilities[split], self.thresholds)


@dataclass(frozen=True)
class FitRequest:
    """Arguments that every kind of fit takes."""

    spec: RunSpec
    dataset: Dataset
    inputs: JobInputs
    eval_splits: Sequence[str]
    on_progress: Callable[[float], None]
    should_stop: Callable[[float], bool]
    parts: dict[str, Part]  # the examples that the run reads, by purpose
    checkpoint: Checkpoint | None
    halvings: int
    on_end: Callable[[State], None] | None = None
    devices: Devices | None = None

    def labels(self, purpose: str) -> np.ndarray:
        """Return the labels of the examples of a purpose, (N,) or (N, C)."""
        return self.parts[purpose].labels(self.dataset)

    def texts(self, purpose: str) -> list[str]:
        """Return the texts of the examples of a purpose; the two texts of a pair as one, joined by a line break.

        They are empty for a strategy that does not depend on them: a list of millions takes gigabytes.
        """
        if not self.spec.definition.learns:
            return [""] * self.parts[purpose].num_examples(self.dataset)
        return joined_texts(self.parts[purpose].table(self.dataset))

    @property
    def selection(self) -> Selection:
        """How the run selects on validation."""
        return self.spec.selection(self.dataset.label_names, self.dataset.is_multilabel)

    @property
    def timed(self) -> Part:
        """The examples whose classification is timed: test, or without a test split, train."""
        return timed_part(self.parts)

    def dtype_of(self, split: str) -> torch.dtype:
        """Return the precision of vectors of a stored split from an encoder that is frozen as a whole.

        fp32 where they are the inputs of final predictions, and for all labelled examples where each run divides them,
        so that every run reads the same cached vectors.
        """
        is_pool = self.spec.fold is not None or self.spec.final is not None or self.dataset.is_pooled
        if is_pool or split in {self.parts[purpose].split for purpose in self.eval_splits}:
            return torch.float32
        return resolve(self.spec.recipe.precision, device())


def timed_part(parts: dict[str, Part]) -> Part:
    """Return the examples whose classification is timed: test, or without a test split, train."""
    return parts["test"] if "test" in parts else parts["train"]


def joined_texts(table: pa.Table) -> list[str]:
    """Return the texts of some examples; the two texts of a pair as one, joined by a line break."""
    texts = table["text"].to_pylist()
    if "text_pair" not in table.column_names:
        return texts
    return [f"{first}\n{second}" for first, second in zip(texts, table["text_pair"].to_pylist(), strict=True)]


def tables_and_model(request: FitRequest, purposes: Sequence[str]) -> tuple[dict[str, TokenTable], Any]:
    """Return the tokens of the stored splits with some purposes, and the pretrained model."""
    spec, dataset = request.spec, request.dataset
    splits = dict.fromkeys(request.parts[purpose].split for purpose in purposes)
    tables = request.inputs.tokens(spec, dataset, tuple(splits))
    return tables, request.inputs.model(spec, dataset).to(device())


def classify_from_text(
    request: FitRequest, model: Any, tables: dict[str, TokenTable], classify: Callable[[PackedBatch], object]
) -> Callable[[int], None]:
    """Return a function that classifies the i-th timed example in fp32, tokenization included."""
    tokenizer, where = request.inputs.tokenizer(request.spec), device()
    max_length = request.spec.recipe.max_length
    timed, dataset = request.timed, request.dataset
    rows, stored = timed.row_numbers(dataset), dataset.splits[timed.split]

    def classify_one(index: int) -> None:
        texts = stored.select([c for c in ("text", "text_pair") if c in stored.column_names])
        # tokenized for the time it takes; the same tokens are in the table already
        tokenizer(*texts.slice(rows[index], 1).to_pylist()[0].values(), truncation=True, max_length=max_length)
        model.eval()
        with inference():
            classify(pack(tables[timed.split], rows[index : index + 1]).to(where))

    return classify_one


def throughput(by_split: dict[str, np.ndarray], seconds: float) -> dict[str, float]:
    """Return the throughput of predictions that took some seconds; nothing for none."""
    count = sum(map(len, by_split.values()))
    return {"predictions_per_second": count / seconds} if count and seconds > 0 else {}
