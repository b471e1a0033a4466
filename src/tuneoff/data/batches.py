"""Batches without padding: the tokens of several examples end to end.

On a GPU the processor only queues work, and every number that it reads back makes it wait for all that it queued. So
whatever the processor needs of a batch (lengths, counts) stays on the host, and the batch goes over in one copy.

# N examples  B examples of a batch  W sequences of a batch  T tokens of a batch, with those that fill up its bucket
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tuneoff.data.tokens import TokenTable, token_positions

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BUCKET_STEP, GPU_BUCKET_STEP = 16, 64  # the least steps between numbers of tokens
_LONGEST_STEP = 32  # the least of the rounded lengths of PackedBatch.longest


class VaryingLengthsError(Exception):
    """The lengths of a batch were asked for where its shapes alone are known (engine/graphs.py)."""


@dataclass(frozen=True)
class PackedBatch:
    """Tokens of B examples, each of one or several sequences, in one row.

    It may end with a few repeated tokens that fill up its bucket; nothing reads their outputs.
    """

    num_tokens: int  # without those that fill up the bucket
    ids: Tensor  # (1, T) int64
    positions: Tensor  # (1, T) int64, from 0 in every sequence
    segments: Tensor | None  # (1, T) int64: 0 for the first text, 1 for the second; None if the encoder has none
    lengths: Tensor  # (W,) int64, sums to num_tokens
    labels: Tensor  # (B,) int64, or multi-label (B, C) of 0 and 1
    windows: Tensor | None = None  # (B,) sequences of each example; None if each has one
    states: Tensor | None = None  # (T,) or (W,) rows of cached states to start from; None: start from the tokens
    host_lengths: Tensor | None = None  # lengths on the host, for a batch on a GPU
    # (W + 2,) int32: the first token of each sequence and T, for a batch on a GPU. The tokens that fill up are a
    # sequence of their own, which may be empty: fused kernels (encoder/fused.py) write no others
    offsets: Tensor | None = None
    fixed_longest: int | None = None  # longest, where the lengths themselves may change (engine/graphs.py)

    def to(self, device: torch.device) -> PackedBatch:
        """Return the batch on a device, to which it goes in one copy that the processor does not wait for."""
        if device.type == "cpu":
            return self
        moved = {name: value for name, value in vars(self).items() if hasattr(value, "device")}
        moved["offsets"] = self._offsets()
        moved = dict(zip(moved, to_device(list(moved.values()), device), strict=True))
        moved["offsets"] = moved["offsets"].int()
        return replace(self, **moved, host_lengths=self.lengths)

    def _offsets(self) -> Tensor:
        """First token of each sequence, and of the one that fills up the bucket, and T. (W + 2,) int64.

        Also where nothing fills it up: FlashAttention draws dropout by the number of sequences.
        """
        import torch

        ends = self.lengths.cumsum(0)
        return torch.cat([ends.new_zeros(1), ends, ends.new_tensor([self.ids.shape[1]])])

    @property
    def sequence_lengths(self) -> list[int]:
        """Lengths of the sequences as numbers, without waiting for a GPU. Raises VaryingLengthsError."""
        if self.fixed_longest is not None:
            raise VaryingLengthsError
        lengths: list[int] = (self.lengths if self.host_lengths is None else self.host_lengths).tolist()
        return lengths

    @property
    def longest(self) -> int:
        """Length of the longest sequence, also of that which fills up the bucket, rounded up to a power of two."""
        if self.fixed_longest is not None:
            return self.fixed_longest
        longest = max(*self.sequence_lengths, self.ids.shape[1] - self.num_tokens, _LONGEST_STEP)
        return 1 << (longest - 1).bit_length()

    @property
    def starts(self) -> Tensor:
        """Position of the first token of each sequence. (W,) int64."""
        return self.lengths.cumsum(0) - self.lengths


def pack(table: TokenTable, examples: np.ndarray, step: int = BUCKET_STEP) -> PackedBatch:
    """Pack some examples of a table into a batch. examples: (B,) indices. step: of the sizes of buckets."""
    import torch  # slow to import: estimates need the order of batches only

    sequences, windows = table.sequences(examples)
    lengths = table.offsets[sequences + 1] - table.offsets[sequences]
    tokens = pad_to_bucket(token_positions(table.offsets, sequences), step)
    starts = np.cumsum(lengths) - lengths
    num_tokens = int(lengths.sum())
    positions = np.zeros(len(tokens), np.int64)
    positions[:num_tokens] = np.arange(num_tokens) - np.repeat(starts, lengths)
    segments = None if table.segments is None else torch.from_numpy(table.segments[tokens].astype(np.int64))[None]
    return PackedBatch(
        num_tokens=num_tokens,
        ids=torch.from_numpy(table.ids[tokens].astype(np.int64))[None],
        positions=torch.from_numpy(positions)[None],
        segments=segments,
        lengths=torch.from_numpy(lengths),
        labels=torch.from_numpy(table.labels[examples].astype(np.int64)),
        windows=None if windows is None else torch.from_numpy(windows),
    )


def to_device(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Copy int64 tensors to a GPU in one copy, from memory that the driver reads while the processor goes on."""
    import torch

    # pinned: a copy from other memory is made by the processor, which waits for the GPU first. torch's allocator of
    # pinned memory does not give it away before the copy has ended
    flat = torch.cat([tensor.flatten() for tensor in tensors]).pin_memory().to(device, non_blocking=True)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def pad_to_bucket(tokens: np.ndarray, least: int = BUCKET_STEP) -> np.ndarray:
    """Repeat the first token at the end until the number of tokens is a bucket size. tokens: (T,) positions.

    Reason: matrix products are compiled for their shape. oneDNN makes a kernel for every new number of tokens, which
    costs about as much as the product itself; products of 300 to 600 tokens ran at 140 to 298 GFLOP/s with a new
    number in each step, at 400 to 430 with numbers that recur (docs/log.md, "The engine, second cuts").

    Algorithm: bucket sizes are multiples of a step, which is a sixteenth of the largest power of two that is not above
    the count, but at least 16. So there are at most 16 sizes between a power of two and the next, few enough to recur.
    On a GPU, whose graphs are of one shape, the step is at least 64.

    Trade-off: at most 15 tokens, or in large batches a sixteenth, are computed for nothing. They repeat the first
    token, so that all lookups stay valid, and belong to no sequence, so that attention and the head leave them out.
    """
    step = max(least, 2 ** (len(tokens).bit_length() - 5))
    return np.pad(tokens, (0, -len(tokens) % step), constant_values=tokens[0])


def training_batches(
    lengths: np.ndarray, batch_size: int, seed: int, epoch: int, weights: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Shuffle all examples once and yield them in batches, (B,) indices. lengths: (N,) tokens of each example.

    The order depends only on seed and epoch, so that it is the same for every strategy. Within a batch the longest
    examples come first, so that attention can group examples of similar length. weights: (N,); if set, N examples are
    drawn with replacement and with probabilities in proportion to their weights.
    """
    rng = np.random.default_rng([seed, epoch])
    if weights is None:
        order = rng.permutation(len(lengths))
    else:
        order = rng.choice(len(lengths), len(lengths), p=weights / weights.sum())
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        yield batch[np.argsort(-lengths[batch], kind="stable")]


def length_sorted_batches(lengths: np.ndarray, max_tokens: int) -> Iterator[np.ndarray]:
    """Yield all examples once, longest first, in batches of at most max_tokens tokens, counted as if padded.

    An example that is longer than max_tokens is a batch of its own. Batches of similar lengths need little padding
    inside attention, and with the largest batch first, a lack of memory shows at once.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, max_tokens // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size


def largest_batch(table: TokenTable, batch_size: int) -> int:
    """Return the tokens of the largest batch of the first epoch, in the order of training_batches for seed 0."""
    order = np.random.default_rng([0, 0]).permutation(len(table))
    return int(np.add.reduceat(table.lengths[order], np.arange(0, len(order), batch_size)).max())
