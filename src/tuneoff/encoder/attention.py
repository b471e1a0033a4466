"""Attention within each packed example: softmax(q k' / sqrt(D)) v by grids of similar lengths, with its own backward.

Algorithm: the examples of a batch are sorted by length. Each length is rounded up to a multiple of 32, and neighbours
with the same rounded length L form a grid of (b, L) cells, in which attention is two batched matrix products over
(b A, L, L) scores. So an example is padded by at most 31 tokens. The plain way pads every example to the longest one of
the batch, and the cost grows with the square of that length. Trade-off: tokens are copied into cells, and back.

The backward pass is written out instead of left to autograd or to torch's fused attention, which is several times
slower in bf16 on a CPU (docs/log.md). With P = softmax(S), dropout mask M and output gradient dO (all per grid and
head), it is (Vaswani et al., NeurIPS 2017; written out in Dao et al., FlashAttention, NeurIPS 2022, appendix B.2):

    dV = (P * M)' dO    dP = (dO V') * M    dS = P * (dP - rowsum(dP * P))    dQ = dS K    dK = dS' Q

Trade-off: unlike FlashAttention, this keeps P, M and P * M for the backward pass, 3 A L numbers per token. With 12
heads and 64 tokens that is 2,304; the feed-forward layer of a model 384 wide keeps 3,072. Above 85 tokens attention
keeps more. With gradient checkpointing (engine/checkpoint.py) neither is kept.

On a GPU, kernels that torch brings do the same without grids where they can (encoder/fused.py).

# B examples  b examples of a grid  T tokens  C cells of all grids  L length of a grid  A heads  D size of a head
"""

import itertools
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface

from tuneoff.compat import softmax_backward
from tuneoff.data.batches import PackedBatch
from tuneoff.encoder.dropout import keep_mask
from tuneoff.encoder.fused import Bounds, bounds_of, fused_kernel

# lengths are rounded up to multiples of 32: whole vector registers, and few different shapes, because oneDNN compiles
# a kernel for every new one; multiples of 16 have less padding but more calls, and were not faster (docs/log.md)
_LENGTH_STEP = 32


@dataclass(frozen=True)
class Grid:
    """Neighbouring examples with the same rounded length L, one per row."""

    examples: slice  # of all B
    cells: slice  # of all C
    size: tuple[int, int]  # (b, L)
    lengths: Tensor  # (b,)
    shortest: int  # of the lengths: known on the host, so that no mask is made to find out that it is empty

    def mask(self, window: int | None) -> Tensor | None:
        """Mask to add to scores, (b, L or 1, L): 0, or the lowest fp32 for padded and, given a window, distant keys.

        window: tokens at this distance or further are not attended to. None if nothing is masked.
        """
        longest = self.size[1]
        if window is not None and window >= longest:
            window = None
        if self.shortest == longest and window is None:
            return None
        positions = torch.arange(longest, device=self.lengths.device)
        is_masked = (positions >= self.lengths[:, None])[:, None]  # (b, 1, L)
        if window is not None:
            is_masked = is_masked | ((positions[:, None] - positions).abs() >= window)
        # not -inf: a padded query may have no key within its window, and its softmax would be NaN
        lowest = torch.finfo(torch.float32).min
        return torch.zeros(is_masked.shape, device=is_masked.device).masked_fill_(is_masked, lowest)


class PositionTerms(Protocol):
    """Relative positions that a model adds to scores (encoder/relative.py)."""

    def add(self, scores: Tensor, query: Tensor, key: Tensor, grid: int, tensors: tuple[Tensor, ...]) -> None:
        """Add the terms of a grid to its scores, (b, A, L or 1, L) in fp32. query, key: (b A, L or 1, D), (b A, L, D).

        tensors: what the terms are computed from, and what has gradients.
        """

    def backward(
        self,
        d_scores: Tensor,
        states: tuple[Tensor, Tensor],
        d_states: tuple[Tensor, Tensor],
        grid: int,
        tensors: tuple[Tensor, ...],
        d_tensors: list[Tensor | None],
    ) -> None:
        """Add what the terms of a grid give to d_states, of query and key, and to d_tensors (fp32; None: not needed).

        d_scores: (b, A, L or 1, L).
        """


@dataclass(frozen=True)
class _Cells:
    """Positions of packed tokens in grids."""

    grids: list[Grid]
    token_of_cell: Tensor  # (C,) index of the token in each cell; padding cells hold token 0
    cell_of_token: Tensor  # (T,) index of the cell of each token; tokens that only fill up the batch have none


@dataclass
class Packing:
    """What every block shares of a packed batch. Its parts are made once per batch, when a block first needs them."""

    batch: PackedBatch
    # keys and values of all tokens, each (T, A * D), for a block that runs on the examples' first tokens only
    full_keys_values: tuple[Tensor, Tensor] | None = None
    # what all blocks share of relative positions (encoder/relative.py); None before the first block, or without them
    positions: Any = None
    _shared: dict[Any, Any] = field(default_factory=dict)  # the same in copies made by replace

    @property
    def _cells(self) -> _Cells:
        if "cells" not in self._shared:
            self._shared["cells"] = _build_cells(self.batch)
        return self._shared["cells"]

    @property
    def grids(self) -> list[Grid]:
        """The grids of the batch."""
        return self._cells.grids

    @property
    def token_of_cell(self) -> Tensor:
        """Index of the token in each cell. (C,)."""
        return self._cells.token_of_cell

    @property
    def cell_of_token(self) -> Tensor:
        """Index of the cell of each token. (T,)."""
        return self._cells.cell_of_token

    def masks(self, window: int | None) -> list[Tensor | None]:
        """Return the mask of each grid, computed once per window size."""
        key = ("masks", window)
        if key not in self._shared:
            self._shared[key] = [grid.mask(window) for grid in self.grids]
        return self._shared[key]

    def bounds(self) -> Bounds:
        """Return the bounds of the sequences that a fused kernel attends within."""
        key = ("bounds", self.full_keys_values is not None)
        if key not in self._shared:
            self._shared[key] = bounds_of(self.batch, is_first_only=self.full_keys_values is not None)
        return self._shared[key]


def build_packing(batch: PackedBatch) -> Packing:
    """Return the packing of a batch. Correct in any order of lengths; fewest grids if sorted by length."""
    return Packing(batch)


def _build_cells(batch: PackedBatch) -> _Cells:
    """Assign the tokens of a batch to grids: neighbours with the same rounded length share one."""
    grids, num_examples, num_cells = [], 0, 0
    for longest, group in itertools.groupby(batch.sequence_lengths, lambda n: -(-n // _LENGTH_STEP) * _LENGTH_STEP):
        lengths = list(group)
        examples = slice(num_examples, num_examples + len(lengths))
        cells = slice(num_cells, num_cells + len(lengths) * longest)
        grids.append(Grid(examples, cells, (len(lengths), longest), batch.lengths[examples], min(lengths)))
        num_examples, num_cells = examples.stop, cells.stop
    rounded = -(-batch.lengths // _LENGTH_STEP) * _LENGTH_STEP
    row_starts = rounded.cumsum(0) - rounded  # first cell of each example
    # output_size: without it, a GPU is asked for the sum of the lengths
    first_cells = torch.repeat_interleave(row_starts, batch.lengths, output_size=batch.num_tokens)
    cell_of_token = first_cells + batch.positions[0, : batch.num_tokens]
    tokens = torch.arange(batch.num_tokens, device=cell_of_token.device)
    return _Cells(grids, tokens.new_zeros(num_cells).index_copy(0, cell_of_token, tokens), cell_of_token)


def packed_attention(
    module, query, key, value, attention_mask, dropout=0.0, scaling=None, sliding_window=None, packing=None, **_
):
    """Attention function for transformers' AttentionInterface. query, key, value: (1, A, T, D) -> (1, T, A, D).

    With packing.full_keys_values, query holds the examples' first tokens: (1, A, B, D) -> (1, B, A, D).
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))  # (T, A, D)
    if packing.full_keys_values is not None:
        # queries: first tokens only; keys and values: all tokens. Those that the block computed are not used
        key, value = (states.view(-1, *query.shape[1:]) for states in packing.full_keys_values)
    rate = dropout if module.training else 0.0
    if (kernel := fused_kernel(query, packing.batch, sliding_window, rate)) is not None:
        return kernel(query, key, value, packing.bounds(), rate, scaling, sliding_window)[None], None
    # the query is scaled, not the scores: (T, A, D) has fewer elements than (b A, L, L)
    return attend(query * scaling, key, value, packing, rate, sliding_window)[None], None


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    packing: Packing,
    rate: float,
    window: int | None = None,
    terms: PositionTerms | None = None,
    tensors: tuple[Tensor, ...] = (),
) -> Tensor:
    """Attention of scaled queries, (T, A, D) or of first tokens (B, A, D), to keys and values, (T, A, D).

    rate: of dropout on the weights. terms: added to scores, computed from tensors.
    """
    return _PackedAttention.apply(query, key, value, packing, rate, window, terms, *tensors)


_SAVED_PER_GRID = 6  # tensors that the forward pass keeps of each grid: q, k, v, weights, keep, dropped


class _PackedAttention(torch.autograd.Function):
    """softmax(q k') v by grids. query: (T, A, D), or (B, A, D) of first tokens; key, value: (T, A, D)."""

    @staticmethod
    def forward(ctx: Any, query, key, value, packing, rate, window, terms=None, *tensors):
        """Compute attention, with softmax in fp32. Returns the shape of query. rate: of dropout on the weights."""
        is_first_only = packing.full_keys_values is not None
        keys, values = (_to_cells(states, packing) for states in (key, value))
        queries = query if is_first_only else _to_cells(query, packing)
        mixed, saved = torch.empty_like(queries), []
        # no window for first tokens: models with windows compute all tokens (encoder/packed.py, reads_first_tokens)
        masks = packing.masks(None if is_first_only else window)
        for index, (grid, mask) in enumerate(zip(packing.grids, masks, strict=True)):
            rows, count = grid.examples if is_first_only else grid.cells, grid.size[0]
            q, k, v = (_split_heads(part, count) for part in (queries[rows], keys[grid.cells], values[grid.cells]))
            # fp32: in bf16, softmax over 45 columns takes four times as long (docs/log.md), and rounds more
            scores = torch.bmm(q, k.transpose(1, 2)).float()  # (b A, L or 1, L)
            by_head = scores.view(count, -1, *scores.shape[1:])  # (b, A, L or 1, L)
            if terms is not None:
                terms.add(by_head, q, k, index, tensors)
            if mask is not None:
                by_head.add_(mask[:, None])  # the same mask for A
            weights = scores.softmax(-1).to(q.dtype)
            keep = keep_mask(weights, rate) if rate > 0 else None
            dropped = weights if keep is None else weights * keep
            _merge_heads(torch.bmm(dropped, v), mixed[rows], count)
            saved.append((q, k, v, weights, keep, dropped))
        # save_for_backward, not attributes of ctx: gradient checkpointing discards these tensors through its hooks
        ctx.save_for_backward(*tensors, *[part for grid in saved for part in grid])
        ctx.packing, ctx.num_tokens, ctx.terms, ctx.num_tensors = packing, len(key), terms, len(tensors)
        return mixed if is_first_only else _to_tokens(mixed, packing, len(query))

    @staticmethod
    def backward(ctx: Any, gradient):
        """Gradients of query, key and value, by the formulas in the module docstring. gradient: as the output."""
        packing, is_first_only = ctx.packing, ctx.packing.full_keys_values is not None
        gradients = gradient if is_first_only else _to_cells(gradient, packing, is_gradient=True)
        d_query = torch.empty_like(gradients)
        d_key, d_value = (gradients.new_empty((len(packing.token_of_cell), *gradients.shape[1:])) for _ in range(2))
        saved = ctx.saved_tensors  # read once: with gradient checkpointing, each reading recomputes them
        tensors, saved = saved[: ctx.num_tensors], saved[ctx.num_tensors :]
        is_needed = ctx.needs_input_grad[-len(tensors) :] if tensors else ()
        d_tensors = [
            torch.zeros(part.shape, device=part.device) if needed else None
            for part, needed in zip(tensors, is_needed, strict=True)
        ]
        by_grid = [saved[start : start + _SAVED_PER_GRID] for start in range(0, len(saved), _SAVED_PER_GRID)]
        for index, (grid, (q, k, v, weights, keep, dropped)) in enumerate(zip(packing.grids, by_grid, strict=True)):
            rows, count = grid.examples if is_first_only else grid.cells, grid.size[0]
            d_output = _split_heads(gradients[rows], count)
            _merge_heads(torch.bmm(dropped.transpose(1, 2), d_output), d_value[grid.cells], count)
            d_weights = torch.bmm(d_output, v.transpose(1, 2))
            if keep is not None:
                d_weights.mul_(keep)
            d_scores = softmax_backward(d_weights, weights)
            d_q, d_k = torch.bmm(d_scores, k), torch.bmm(d_scores.transpose(1, 2), q)
            if ctx.terms is not None:
                ctx.terms.backward(
                    d_scores.view(count, -1, *d_scores.shape[1:]), (q, k), (d_q, d_k), index, tensors, d_tensors
                )
            _merge_heads(d_q, d_query[rows], count)
            _merge_heads(d_k, d_key[grid.cells], count)
        if not is_first_only:
            d_query = _to_tokens(d_query, packing, ctx.num_tokens)
        d_key, d_value = (_to_tokens(part, packing, ctx.num_tokens) for part in (d_key, d_value))
        return d_query, d_key, d_value, None, None, None, None, *d_tensors


def _to_cells(tokens: Tensor, packing: Packing, is_gradient: bool = False) -> Tensor:
    """Copy tokens into cells. (T, A, D) -> (C, A, D).

    Padding cells get zeros in a gradient, so that they add nothing to the gradients of keys and values. In states they
    get token 0, because any finite number will do: keys are masked, and outputs are not read.
    """
    if is_gradient:
        cells = tokens.new_zeros((len(packing.token_of_cell), *tokens.shape[1:]))
        return cells.index_copy_(0, packing.cell_of_token, tokens[: len(packing.cell_of_token)])
    return tokens.index_select(0, packing.token_of_cell)


def _to_tokens(cells: Tensor, packing: Packing, count: int) -> Tensor:
    """Copy cells back to `count` tokens. (C, A, D) -> (T, A, D). Tokens that only fill up the batch get zeros."""
    tokens = cells.new_zeros((count, *cells.shape[1:]))
    torch.index_select(cells, 0, packing.cell_of_token, out=tokens[: len(packing.cell_of_token)])
    return tokens


def _split_heads(cells: Tensor, count: int) -> Tensor:
    """Reorder cells for products per example and head. (b L, A, D) -> (b A, L, D)."""
    _, heads, size = cells.shape
    return cells.view(count, -1, heads, size).transpose(1, 2).reshape(count * heads, -1, size)


def _merge_heads(states: Tensor, out: Tensor, count: int) -> None:
    """Write the inverse of _split_heads into `out`. (b A, L, D) -> (b L, A, D)."""
    _, longest, size = states.shape
    out.view(count, longest, -1, size).copy_(states.view(count, -1, longest, size).transpose(1, 2))


AttentionInterface.register("tuneoff_packed", packed_attention)
