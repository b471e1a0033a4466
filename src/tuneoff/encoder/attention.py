"""Attention within each packed example, the only place where sequences meet.

Examples whose lengths round up to the same size form a grid, so that little of attention's work is padding. The
backward pass is written out: on a CPU torch's fused attention is several times slower there in bf16 (docs/log.md).

# B examples  b of them in a grid  T tokens  C cells of all grids  L length of a grid  A heads  D size of a head
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from tuneoff.data.batches import PackedBatch
from tuneoff.dropout import keep_mask

# lengths are rounded up to multiples of this: whole vectors, and shapes that come again, for which kernels are ready
# (docs/log.md)
_STEP = 32


@dataclass(frozen=True)
class Grid:
    """Neighbouring examples of like length, one a row."""

    examples: slice
    cells: slice  # of all C
    size: tuple[int, int]  # (b, L)
    lengths: Tensor  # (b,)

    def mask(self, window: int | None) -> Tensor | None:
        """What is added to scores: 0, or the lowest number where a position is padded or too far. (b, L or 1, L)."""
        longest = self.size[1]
        positions = torch.arange(longest, device=self.lengths.device)
        hidden = (positions >= self.lengths[:, None])[:, None]  # (b, 1, L)
        if window is not None and window < longest:
            hidden = hidden | ((positions[:, None] - positions).abs() >= window)
        if not hidden.any():
            return None
        return torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, torch.finfo(torch.float32).min)


@dataclass
class Packing:
    """How packed tokens stand in grids; made once a batch, used by every block."""

    grids: list[Grid]
    sources: Tensor  # (C,) the token in each cell; padding holds the first
    cells: Tensor  # (T,) the cell of each token; what only fills the batch up has none
    # keys and values of all tokens, each (T, A * D), where a block runs on the examples' first tokens alone
    beside: tuple[Tensor, Tensor] | None = None
    _masks: dict[int | None, list[Tensor | None]] = field(default_factory=dict)

    def masks(self, window: int | None) -> list[Tensor | None]:
        """One mask a grid."""
        if window not in self._masks:
            self._masks[window] = [grid.mask(window) for grid in self.grids]
        return self._masks[window]


def packing(batch: PackedBatch) -> Packing:
    """The grids of a batch."""
    rounded = -(-batch.lengths // _STEP) * _STEP
    sizes, counts = (found.tolist() for found in torch.unique_consecutive(rounded, return_counts=True))
    grids, examples, cells = [], 0, 0
    for longest, count in zip(sizes, counts, strict=True):
        here = slice(examples, examples + count)
        grids.append(Grid(here, slice(cells, cells + count * longest), (count, longest), batch.lengths[here]))
        examples, cells = here.stop, cells + count * longest
    row_starts = rounded.cumsum(0) - rounded
    cell_of = torch.repeat_interleave(row_starts, batch.lengths) + batch.positions[0, : batch.num_tokens]
    tokens = torch.arange(batch.num_tokens, device=cell_of.device)
    return Packing(grids, tokens.new_zeros(cells).index_copy(0, cell_of, tokens), cell_of)


def packed_attention(
    module, query, key, value, attention_mask, dropout=0.0, scaling=None, sliding_window=None, packing=None, **_
):
    """transformers' attention function on packed tokens. query, key, value: (1, A, T, D) -> (1, T, A, D).

    With keys and values beside, query is that of the examples' first tokens: (1, A, B, D) -> (1, B, A, D).
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))  # (T, A, D)
    if packing.beside is not None:
        key, value = (states.view(-1, *query.shape[1:]) for states in packing.beside)
    rate = dropout if module.training else 0.0
    return _Attend.apply(query * scaling, key, value, packing, rate, sliding_window)[None], None


_KEPT = 6  # what the forward pass keeps of a grid


class _Attend(torch.autograd.Function):
    """softmax(q k') v by grids. query: (T, A, D), or (B, A, D) for first tokens; key, value: (T, A, D)."""

    @staticmethod
    def forward(ctx: Any, query, key, value, packing, rate, window):
        """Scores go through softmax in fp32."""
        is_first_only = packing.beside is not None
        keys, values = (_cells(states, packing) for states in (key, value))
        queries = query if is_first_only else _cells(query, packing)
        mixed, kept = torch.empty_like(queries), []
        for grid, mask in zip(packing.grids, packing.masks(None if is_first_only else window), strict=True):
            here, count = grid.examples if is_first_only else grid.cells, grid.size[0]
            q, k, v = (_by_head(part, count) for part in (queries[here], keys[grid.cells], values[grid.cells]))
            scores = torch.bmm(q, k.transpose(1, 2)).float()  # (b A, L, L)
            if mask is not None:
                scores.view(count, -1, *scores.shape[1:]).add_(mask[:, None])
            weights = scores.softmax(-1).to(q.dtype)
            keep = keep_mask(weights, rate) if rate > 0 else None
            dropped = weights if keep is None else weights * keep
            _by_token(torch.bmm(dropped, v), mixed[here], count)
            kept.append((q, k, v, weights, keep, dropped))
        # as torch's own, so that checkpointing can do without them
        ctx.save_for_backward(*[part for grid in kept for part in grid])
        ctx.packing, ctx.num_tokens = packing, len(key)
        return mixed if is_first_only else _tokens(mixed, packing, len(query))

    @staticmethod
    def backward(ctx: Any, gradient):
        """The chain rule by grids."""
        packing, is_first_only = ctx.packing, ctx.packing.beside is not None
        gradients = gradient if is_first_only else _cells(gradient, packing, is_gradient=True)
        to_query = torch.empty_like(gradients)
        to_key, to_value = (gradients.new_empty((len(packing.sources), *gradients.shape[1:])) for _ in ("key", "value"))
        saved = ctx.saved_tensors
        kept = [saved[start : start + _KEPT] for start in range(0, len(saved), _KEPT)]
        for grid, (q, k, v, weights, keep, dropped) in zip(packing.grids, kept, strict=True):
            here, count = grid.examples if is_first_only else grid.cells, grid.size[0]
            g = _by_head(gradients[here], count)
            _by_token(torch.bmm(dropped.transpose(1, 2), g), to_value[grid.cells], count)
            to_weights = torch.bmm(g, v.transpose(1, 2))
            if keep is not None:
                to_weights.mul_(keep)
            to_scores = torch._softmax_backward_data(to_weights, weights, -1, weights.dtype)
            _by_token(torch.bmm(to_scores, k), to_query[here], count)
            _by_token(torch.bmm(to_scores.transpose(1, 2), q), to_key[grid.cells], count)
        if not is_first_only:
            to_query = _tokens(to_query, packing, ctx.num_tokens)
        to_key, to_value = (_tokens(part, packing, ctx.num_tokens) for part in (to_key, to_value))
        return to_query, to_key, to_value, None, None, None


def _cells(tokens: Tensor, packing: Packing, is_gradient: bool = False) -> Tensor:
    """(T, A, D) -> (C, A, D). A gradient is zero where padded; states may be anything finite there."""
    if is_gradient:
        empty = tokens.new_zeros((len(packing.sources), *tokens.shape[1:]))
        return empty.index_copy_(0, packing.cells, tokens[: len(packing.cells)])
    return tokens.index_select(0, packing.sources)


def _tokens(cells: Tensor, packing: Packing, count: int) -> Tensor:
    """(C, A, D) -> (T, A, D), zeros for what only fills the batch up."""
    tokens = cells.new_zeros((count, *cells.shape[1:]))
    torch.index_select(cells, 0, packing.cells, out=tokens[: len(packing.cells)])
    return tokens


def _by_head(cells: Tensor, count: int) -> Tensor:
    """(b L, A, D) -> (b A, L, D)."""
    _, heads, size = cells.shape
    return cells.view(count, -1, heads, size).transpose(1, 2).reshape(count * heads, -1, size)


def _by_token(states: Tensor, into: Tensor, count: int) -> None:
    """(b A, L, D) -> (b L, A, D)."""
    _, longest, size = states.shape
    into.view(count, longest, -1, size).copy_(states.view(count, -1, longest, size).transpose(1, 2))


AttentionInterface.register("tuneoff_packed", packed_attention)
