"""Packed attention for models that add relative positions to scores: a bias per distance, or disentangled terms.

MPNet and DeBERTa compute attention in a module of their own, out of reach of transformers' AttentionInterface. Here the
module's class is replaced by a subclass with the same parameters, whose forward attends by grids (encoder/attention.py)
when it gets a Packing in place of a mask, and is the model's own for anything else. So the model still runs padded as
before, is saved and exported as before, and no modelling code is copied: buckets of distances, embeddings, norms and
projections are computed by the model's own functions, which encoder/anatomy.py names.

Both kinds depend on the distance of key and query alone, of which a grid of length L has 2 L - 1. With R queries per
example (L, or 1 where only first tokens are computed), products with one row per distance have E = R + L - 1 columns,
and the score of query i and key j is in column j - i + R - 1. In memory that is i (E - 1) + j + R - 1, so the scores
are a strided view of the product, without a gather (the skewing of Huang et al., "Music Transformer", ICLR 2019).

- Bias (T5, MPNet): (A, L, L) per grid, computed once per batch and shared by all blocks and all examples of the grid;
  its gradient is that of scores, summed over the examples.
- Disentangled (He et al., "DeBERTa", ICLR 2021): c2p is q_i * K(j - i), p2c is k_j * Q(j - i), with K and Q the
  projected embeddings of distances. The model multiplies with all embeddings (512) and gathers; here only those of
  distances that occur in the batch are projected and multiplied.

# b examples of a grid  L its length  R queries per example  E distances  T tokens  A heads  D size of a head  H hidden
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from tuneoff.compat import swap_class
from tuneoff.encoder.anatomy import ARCHITECTURES, Anatomy, anatomy, blocks, encoder_of, layers
from tuneoff.encoder.attention import Packing, PositionTerms, attend


def use_packed_modules(model: Any) -> None:
    """Replace the class of every attention module that adds relative positions itself, in place."""
    parts = anatomy(model.config)
    assert parts.relative is not None
    for block in blocks(model):
        for layer in layers(model, block):
            module: Any = layer.get_submodule(parts.relative.attention)
            if not isinstance(module, _PackedModule):
                swap_class(module, _packed_class(module.__class__, model.config.model_type))


@dataclass(frozen=True)
class SharedPositions:
    """What the blocks share: the bias of each grid, (A, L, L) in fp32, or embeddings of distances. Empty: nothing."""

    biases: tuple[Tensor, ...] = ()
    embeddings: Tensor | None = None  # (1, N, H), those that occur
    rows: Tensor | None = None  # (E,) row of each distance of the longest grid; None if they are 0, 1, 2, ...


def shared_positions(model: Any, packing: Packing) -> SharedPositions:
    """Return what the blocks of a model share of relative positions on a batch."""
    relative, encoder = anatomy(model.config).relative, encoder_of(model)
    if relative is None:
        return SharedPositions()
    lengths = [grid.size[1] for grid in packing.grids]
    if relative.bias is not None:
        by_distance = relative.bias(encoder, max(lengths)).t().float()  # (A, E)
        expanded = {length: _expanded(by_distance, length) for length in sorted(set(lengths))}
        return SharedPositions(biases=tuple(expanded[length] for length in lengths))
    assert relative.embeddings is not None
    of_distances = relative.embeddings(encoder, max(lengths))
    if of_distances is None:
        return SharedPositions()
    embeddings, rows = of_distances
    used, row_of_distance = rows.unique(return_inverse=True)
    if len(used) == len(rows):  # no two distances share a bucket
        return SharedPositions(embeddings=embeddings[rows][None])
    return SharedPositions(embeddings=embeddings[used][None], rows=row_of_distance)


def _expanded(by_distance: Tensor, length: int) -> Tensor:
    """Bias of each query and key of a grid. by_distance: (A, E), distance 0 in the middle -> (A, L, L)."""
    zero = by_distance.shape[1] // 2
    # the window of query i holds distances -i to L - 1 - i: windows of rising distances are those of falling i
    return by_distance[:, zero - length + 1 : zero + length].unfold(1, length, 1).flip(1)


class BiasTerms:
    """A bias per distance. tensors: of each grid, (A, R, L) in fp32."""

    def add(self, scores: Tensor, query: Tensor, key: Tensor, grid: int, tensors: tuple[Tensor, ...]) -> None:
        """Add the terms of a grid; see PositionTerms."""
        scores.add_(tensors[grid])

    def backward(
        self,
        d_scores: Tensor,
        states: tuple[Tensor, Tensor],
        d_states: tuple[Tensor, Tensor],
        grid: int,
        tensors: tuple[Tensor, ...],
        d_tensors: list[Tensor | None],
    ) -> None:
        """Add the gradients; see PositionTerms."""
        d_bias = d_tensors[grid]
        if d_bias is not None:
            d_bias.add_(d_scores.sum(0, dtype=torch.float32))


@dataclass(frozen=True)
class DisentangledTerms:
    """c2p and p2c, those that the model has. tensors: keys and queries of distances, (A, E, D) of the longest grid.

    Keys are in the order of rising j - i, queries in that of rising i - j.
    """

    kinds: tuple[str, ...]  # of c2p and p2c

    def add(self, scores: Tensor, query: Tensor, key: Tensor, grid: int, tensors: tuple[Tensor, ...]) -> None:
        """Add the terms of a grid; see PositionTerms."""
        for kind, distances in zip(self.kinds, tensors, strict=True):
            target = scores if kind == "c2p" else scores.transpose(2, 3)  # (b, A, rows, columns)
            count, _, *size = target.shape
            content = _by_head(query if kind == "c2p" else key, count)
            product = torch.bmm(content, _occurring(distances, *size).transpose(1, 2))
            target.add_(_skewed(product, count, *size))

    def backward(
        self,
        d_scores: Tensor,
        states: tuple[Tensor, Tensor],
        d_states: tuple[Tensor, Tensor],
        grid: int,
        tensors: tuple[Tensor, ...],
        d_tensors: list[Tensor | None],
    ) -> None:
        """Add the gradients; see PositionTerms."""
        for index, (kind, distances) in enumerate(zip(self.kinds, tensors, strict=True)):
            d_target = d_scores if kind == "c2p" else d_scores.transpose(2, 3)
            which = 0 if kind == "c2p" else 1
            count, heads, *size = d_target.shape
            content, occurring = _by_head(states[which], count), _occurring(distances, *size)
            d_product = content.new_zeros(heads, content.shape[1], occurring.shape[1])
            _skewed(d_product, count, *size).copy_(d_target)
            d_content = torch.bmm(d_product, occurring).view(heads, count, size[0], -1)
            d_states[which].view(count, heads, size[0], -1).add_(d_content.transpose(0, 1))
            d_distances = d_tensors[index]
            if d_distances is not None:
                _occurring(d_distances, *size).add_(torch.bmm(d_product.transpose(1, 2), content))


def _by_head(states: Tensor, count: int) -> Tensor:
    """Reorder states for products with what all examples share. (b A, R, D) -> (A, b R, D)."""
    _, rows, size = states.shape
    return states.view(count, -1, rows, size).transpose(0, 1).reshape(-1, count * rows, size)


def _occurring(by_distance: Tensor, rows: int, columns: int) -> Tensor:
    """Distances that occur between rows and columns. (A, E of the longest grid, D) -> (A, rows + columns - 1, D)."""
    zero = by_distance.shape[1] // 2
    return by_distance[:, zero - rows + 1 : zero + columns]


def _skewed(product: Tensor, count: int, rows: int, columns: int) -> Tensor:
    """View (A, b rows, E), with a column per distance, as (b, A, rows, columns)."""
    heads, _, distances = product.shape
    example, head = rows * distances, count * rows * distances
    return product.as_strided((count, heads, rows, columns), (example, head, distances - 1, 1), rows - 1)


class _PackedModule(nn.Module):
    """Added to the class of an attention module: attends by grids if it gets a Packing in place of a mask."""

    parts: Anatomy

    def forward(self, hidden_states: Tensor, attention_mask: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Compute attention. hidden_states: (1, T, H), or of first tokens (1, B, H)."""
        if not isinstance(attention_mask, Packing):
            return super().forward(hidden_states, attention_mask, *args, **kwargs)
        module: Any = self
        packing, relative, size = attention_mask, self.parts.relative, module.attention_head_size
        assert relative is not None
        full = packing.full_keys_values
        query = self._project("query", hidden_states)
        key, value = full if full is not None else (self._project(name, hidden_states) for name in ("key", "value"))
        scaling = (size * relative.scaled_terms(module)) ** -0.5
        terms, tensors = self._position_terms(packing, scaling)
        query, key, value = (states.view(-1, module.num_attention_heads, size) for states in (query, key, value))
        rate = module.dropout.p if self.training else 0.0
        mixed = attend(query * scaling, key, value, packing, rate, terms=terms, tensors=tensors)
        return relative.output(module, mixed.flatten(1)[None])

    def _project(self, name: str, states: Tensor) -> Tensor:
        assert self.parts.relative is not None
        projection = self.parts.projections[name][0].removeprefix(self.parts.relative.attention + ".")
        return self.get_submodule(projection)(states)

    def _position_terms(self, packing: Packing, scaling: float) -> tuple[PositionTerms | None, tuple[Tensor, ...]]:
        """Return the terms that are added to scores, and the tensors that they are computed from."""
        module: Any = self
        relative, shared = self.parts.relative, packing.positions
        assert relative is not None
        if shared.biases:
            queries = 1 if packing.full_keys_values is not None else None  # that of the first token
            return BiasTerms(), tuple(bias[:, :queries] for bias in shared.biases)
        if shared.embeddings is None:
            return None, ()
        assert relative.projections is not None
        embeddings = module.get_submodule(relative.dropout)(shared.embeddings)  # (1, N, H)
        tensors = {}
        for kind, projection in zip(("c2p", "p2c"), relative.projections(module), strict=True):
            if projection is not None:
                by_row = projection(embeddings)[0]  # (N, A D)
                by_distance = by_row if shared.rows is None else by_row[shared.rows]
                heads = by_distance.view(len(by_distance), module.num_attention_heads, -1).transpose(0, 1)  # (A, E, D)
                # scores have the scale of queries
                tensors[kind] = heads if kind == "c2p" else heads.flip(1) * scaling
        return DisentangledTerms(tuple(tensors)), tuple(tensors.values())


@cache
def _packed_class(original: Any, model_type: str) -> type[nn.Module]:
    return type(f"Packed{original.__name__}", (_PackedModule, original), {"parts": ARCHITECTURES[model_type]})
