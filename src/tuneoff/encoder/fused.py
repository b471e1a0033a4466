"""Attention within packed examples on a GPU, by the fused kernels of torch: no padding, and no scores in memory.

Two kernels take packed sequences and their bounds. FlashAttention (Dao, "FlashAttention-2", ICLR 2024) is for bf16 and
fp16 on GPUs from the A100 on, with windows. The memory-efficient one (Rabe & Staats, 2021; xFormers) is for fp32, also
on older GPUs, and for fp16 on these; it has no windows. Both have their gradients registered with torch, and with
deterministic algorithms (engine/precision.py) both add them in a fixed order. FlashAttention draws dropout from the
GPU's generator and draws it again in the backward pass instead of storing it. So does the memory-efficient kernel, but
for packed sequences it counts the random numbers from another place in the backward pass than in the forward pass
(kernel_forward.h of torch 2.13 computes the place before it knows the lengths, with 0 keys; kernel_backward.h with the
longest; pytorch issue 115590): it is used without dropout only.

torch.nn.attention.varlen is the public way to the first of them, but without dropout, so that nothing with dropout in
attention (BERT) can train with it; the operators themselves are private and called in compat.py.

Where neither fits (a CPU, other head sizes, relative positions, ROCm) attention is computed by grids
(encoder/attention.py).

Rows of queries, keys and values that belong to no sequence are not written by these kernels: what memory held before,
NaN at worst, would get into the gradients of weights. So the tokens that fill up a batch are a sequence of their own.
Where queries are first tokens only, of which the filling has none, keys and values of the filling are set to zero, and
with them their gradients.

# W sequences  T tokens  A heads  D size of a head
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from tuneoff.compat import efficient_attention, flash_attention, has_efficient_attention, has_flash_attention
from tuneoff.data.batches import PackedBatch

_FLASH_CAPABILITY = (8, 0)  # A100; of the GPU
_LARGEST_HEAD = 128  # above it, flash's backward pass with dropout needs certain GPUs
_HEAD_STEP = 8  # head sizes are multiples of it, for the alignment of both kernels


@dataclass(frozen=True)
class Bounds:
    """Where the sequences of queries, and of keys and values, begin and end."""

    queries: Tensor  # (W + 1,) int32 on the GPU
    keys: Tensor  # (W + 1,) int32 on the GPU
    longest_query: int
    longest_key: int
    # (T,) on the GPU: the rows of keys and values that belong to a sequence; None if all do
    is_key: Tensor | None


Kernel = Callable[[Tensor, Tensor, Tensor, Bounds, float, float, int | None], Tensor]


def bounds_of(batch: PackedBatch, is_first_only: bool) -> Bounds:
    """Return the bounds of a batch on a GPU. is_first_only: the queries are the first token of each sequence."""
    assert batch.offsets is not None
    if is_first_only:  # what fills up the batch has no first token
        keys = batch.offsets[: len(batch.lengths) + 1]
        queries = torch.arange(len(keys), dtype=torch.int32, device=keys.device)
        is_key = torch.arange(batch.ids.shape[1], device=keys.device) < keys[-1]
        return Bounds(queries, keys, 1, batch.longest, is_key)
    return Bounds(batch.offsets, batch.offsets, batch.longest, batch.longest, None)


def fused_kernel(query: Tensor, batch: PackedBatch, window: int | None, rate: float) -> Kernel | None:
    """Choose a kernel for queries, (T, A, D), of a batch; None if attention is to be computed by grids.

    rate: of dropout on the weights.
    """
    size = query.shape[-1]
    if batch.offsets is None or query.device.type != "cuda" or torch.version.hip is not None:
        return None
    if size % _HEAD_STEP or size > _LARGEST_HEAD:
        return None
    # builds for Windows have the operator's name without its kernels
    can_flash = has_flash_attention() and torch.backends.cuda.is_flash_attention_available()
    if can_flash and _capability(query.device) >= _FLASH_CAPABILITY and query.dtype in (torch.bfloat16, torch.float16):
        return _flash
    can_be_efficient = has_efficient_attention() and window is None and rate == 0
    return _efficient if can_be_efficient and query.dtype in (torch.float32, torch.float16) else None


def _of_sequences(states: Tensor, bounds: Bounds) -> Tensor:
    """Return keys or values, (T, A, D), with zeros, and zero gradients, in rows that belong to no sequence."""
    return states if bounds.is_key is None else torch.where(bounds.is_key[:, None, None], states, 0.0)


@cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def _flash(
    query: Tensor, key: Tensor, value: Tensor, bounds: Bounds, rate: float, scaling: float, window: int | None
) -> Tensor:
    """Attention by FlashAttention. window: tokens at this distance or further are not attended to."""
    return flash_attention(
        query,
        _of_sequences(key, bounds),
        _of_sequences(value, bounds),
        (bounds.queries, bounds.keys),
        (bounds.longest_query, bounds.longest_key),
        rate,
        scaling,
        None if window is None else window - 1,
    )


def _efficient(
    query: Tensor, key: Tensor, value: Tensor, bounds: Bounds, rate: float, scaling: float, window: int | None
) -> Tensor:
    """Attention by the memory-efficient kernel, which has no window, and no dropout that its gradient knows."""
    assert window is None
    assert rate == 0
    return efficient_attention(
        query,
        _of_sequences(key, bounds),
        _of_sequences(value, bounds),
        (bounds.queries, bounds.keys),
        (bounds.longest_query, bounds.longest_key),
        rate,
        scaling,
    )
