"""Batches without padding: the tokens of several examples end to end.

# N examples  B examples in a batch  T tokens in a batch
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tuneoff.data.encode import TokenTable


@dataclass(frozen=True)
class PackedBatch:
    """The tokens of B examples in one row."""

    ids: Tensor  # (1, T) int64
    positions: Tensor  # (1, T) int64, from 0 in every example
    segments: Tensor | None  # (1, T) int64: 0 for the first text, 1 for the second; None where the encoder has none
    lengths: Tensor  # (B,) int64, sums to T
    labels: Tensor  # (B,) int64

    def to(self, device: torch.device) -> "PackedBatch":
        """The same batch on a device."""
        if device.type == "cpu":
            return self
        segments = None if self.segments is None else self.segments.to(device)
        return PackedBatch(
            self.ids.to(device), self.positions.to(device), segments, self.lengths.to(device), self.labels.to(device)
        )

    @property
    def starts(self) -> Tensor:
        """Where each example's first token stands. (B,) int64."""
        return self.lengths.cumsum(0) - self.lengths


def token_rows(offsets: np.ndarray, examples: np.ndarray) -> np.ndarray:
    """Positions in the flat table of all tokens of the given examples, in order. (T,) int64."""
    lengths = offsets[examples + 1] - offsets[examples]
    starts = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(offsets[examples] - starts, lengths)


def pack(table: TokenTable, examples: np.ndarray) -> PackedBatch:
    """The given examples of a table as one packed batch."""
    lengths = table.lengths[examples]
    rows = token_rows(table.offsets, examples)
    starts = np.cumsum(lengths) - lengths
    positions = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    segments = None if table.segments is None else torch.from_numpy(table.segments[rows].astype(np.int64))[None]
    return PackedBatch(
        ids=torch.from_numpy(table.ids[rows].astype(np.int64))[None],
        positions=torch.from_numpy(positions)[None],
        segments=segments,
        lengths=torch.from_numpy(lengths),
        labels=torch.from_numpy(table.labels[examples].astype(np.int64)),
    )


def training_order(num_examples: int, batch_size: int, seed: int, epoch: int) -> Iterator[np.ndarray]:
    """Every example once, shuffled, in batches; the same for every strategy at one seed and epoch."""
    order = np.random.default_rng([seed, epoch]).permutation(num_examples)
    for start in range(0, num_examples, batch_size):
        yield order[start : start + batch_size]


def by_length(lengths: np.ndarray, max_tokens: int) -> Iterator[np.ndarray]:
    """Every example once, longest first, in batches of at most max_tokens tokens counted as if padded.

    Sorting by length keeps attention's inner padding small; the longest first shows at once whether memory suffices.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, max_tokens // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size
