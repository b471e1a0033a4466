"""Batches without padding: the tokens of several examples end to end.

# N examples  B examples in a batch  W sequences in it  T tokens in it, with the few that fill it up
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tuneoff.data.encode import TokenTable, token_rows


@dataclass(frozen=True)
class PackedBatch:
    """The tokens of B examples, of one or several sequences each, in one row.

    A few repeated tokens at the end, which nothing reads, may fill it up.
    """

    num_tokens: int  # without those that fill up
    ids: Tensor  # (1, T) int64
    positions: Tensor  # (1, T) int64, from 0 in every example
    segments: Tensor | None  # (1, T) int64: 0 for the first text, 1 for the second; None where the encoder has none
    lengths: Tensor  # (W,) int64, sums to num_tokens
    labels: Tensor  # (B,) int64, or (B, C) of 0 and 1
    windows: Tensor | None = None  # (B,) sequences of each example; None where each has one

    def to(self, device: torch.device) -> "PackedBatch":
        """The same batch on a device."""
        if device.type == "cpu":
            return self
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)  # type: ignore[arg-type]

    @property
    def starts(self) -> Tensor:
        """Where each sequence's first token stands. (W,) int64."""
        return self.lengths.cumsum(0) - self.lengths


def filled(rows: np.ndarray) -> np.ndarray:
    """Rows of tokens with the first one repeated until their number is one that comes often.

    Fast kernels are made for each new number of tokens, which costs as much as a product (docs/log.md). At least
    the multiples of 16 are kept, at most a sixteenth is added.
    """
    step = max(16, 2 ** (len(rows).bit_length() - 5))
    return np.pad(rows, (0, -len(rows) % step), constant_values=rows[0])


def pack(table: TokenTable, examples: np.ndarray) -> PackedBatch:
    """The given examples of a table as one packed batch."""
    sequences, windows = table.sequences(examples)
    lengths = np.diff(table.offsets)[sequences] if windows is not None else table.lengths[examples]
    rows = filled(token_rows(table.offsets, sequences))
    starts = np.cumsum(lengths) - lengths
    num_tokens = int(lengths.sum())
    positions = np.zeros(len(rows), np.int64)
    positions[:num_tokens] = np.arange(num_tokens) - np.repeat(starts, lengths)
    segments = None if table.segments is None else torch.from_numpy(table.segments[rows].astype(np.int64))[None]
    return PackedBatch(
        num_tokens=num_tokens,
        ids=torch.from_numpy(table.ids[rows].astype(np.int64))[None],
        positions=torch.from_numpy(positions)[None],
        segments=segments,
        lengths=torch.from_numpy(lengths),
        labels=torch.from_numpy(table.labels[examples].astype(np.int64)),
        windows=None if windows is None else torch.from_numpy(windows),
    )


def training_order(
    lengths: np.ndarray, batch_size: int, seed: int, epoch: int, weights: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Every example once, shuffled, in batches; the same for every strategy at one seed and epoch.

    Within a batch the longest come first, so that attention can take those of like length together.
    weights: with which as many examples are drawn instead, some of them several times. (N,)
    """
    rng = np.random.default_rng([seed, epoch])
    if weights is None:
        order = rng.permutation(len(lengths))
    else:
        order = rng.choice(len(lengths), len(lengths), p=weights / weights.sum())
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        yield batch[np.argsort(-lengths[batch], kind="stable")]


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


def largest_batch(table: TokenTable, batch_size: int) -> int:
    """Tokens of the largest batch of one epoch, as training_order draws it for the first seed."""
    order = np.random.default_rng([0, 0]).permutation(len(table))
    return int(np.add.reduceat(table.lengths[order], np.arange(0, len(order), batch_size)).max())
