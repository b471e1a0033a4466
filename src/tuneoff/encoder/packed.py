"""A Hugging Face encoder run on packed tokens: no padding outside attention, the same numbers as the padded model.

Attention is the only place where sequences meet, and transformers lets a library register an attention function.
Ours attends within each packed example. Architectures outside that interface (MPNet, DeBERTa) run padded.

# B examples  T tokens  L longest example  A attention heads  D size of a head  H hidden  C classes
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from tuneoff.data.batches import PackedBatch
from tuneoff.dropout import dropout as drop
from tuneoff.encoder.anatomy import anatomy, blocks, encoder_of, pools_mean

POOLINGS = ("cls", "mean")


@dataclass(frozen=True)
class Packing:
    """How T packed tokens stand in a padded (B, L) grid; made once a batch, used by every block."""

    size: tuple[int, int]  # (B, L)
    cells: Tensor  # (T,) index of each token in the flattened grid
    is_padding: Tensor | None  # (B, 1, 1, L) bool; None where nothing is padded


def packing(batch: PackedBatch) -> Packing:
    """The grid of a batch."""
    num_examples, longest = len(batch.lengths), int(batch.lengths.max())
    example = torch.repeat_interleave(torch.arange(num_examples, device=batch.lengths.device), batch.lengths)
    cells = example * longest + batch.positions[0]
    is_full = num_examples * longest == batch.ids.shape[1]
    columns = torch.arange(longest, device=batch.lengths.device)
    padding = None if is_full else (columns >= batch.lengths[:, None])[:, None, None, :]
    return Packing((num_examples, longest), cells, padding)


def packed_attention(
    module, query, key, value, attention_mask, dropout=0.0, scaling=None, sliding_window=None, packing=None, **_
):
    """Attention within each packed example. query, key, value: (1, A, T, D) -> (1, T, A, D).

    Plain products: on a CPU the backward pass of torch's fused attention is several times slower in bf16 (docs/log.md).
    """
    grid_query, grid_key, grid_value = (_to_grid(states, packing) for states in (query, key, value))  # (B, A, L, D)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    # autocast would cast softmax to fp32; it accumulates in fp32 anyway
    with torch.autocast(query.device.type, enabled=False):
        scores = torch.matmul(grid_query * scaling, grid_key.transpose(2, 3))  # (B, A, L, L)
        if packing.is_padding is not None:
            scores = scores.masked_fill(packing.is_padding, torch.finfo(scores.dtype).min)
        if sliding_window is not None and sliding_window < packing.size[1]:
            scores = scores.masked_fill(_is_far(packing.size[1], sliding_window, scores.device), -torch.inf)
        weights = drop(scores.softmax(-1), dropout, module.training)
        mixed = torch.matmul(weights, grid_value)  # (B, A, L, D)
    return _from_grid(mixed, packing), None


def _to_grid(states: Tensor, packing: Packing) -> Tensor:
    """(1, A, T, D) -> (B, A, L, D), zeros where padded."""
    _, heads, _, size = states.shape
    examples, longest = packing.size
    tokens = states[0].transpose(0, 1)  # (T, A, D)
    if packing.is_padding is not None:
        tokens = tokens.new_zeros(examples * longest, heads, size).index_copy(0, packing.cells, tokens)
    return tokens.view(examples, longest, heads, size).transpose(1, 2)


def _from_grid(states: Tensor, packing: Packing) -> Tensor:
    """(B, A, L, D) -> (1, T, A, D)."""
    examples, heads, longest, size = states.shape
    tokens = states.transpose(1, 2).reshape(examples * longest, heads, size)
    return (tokens if packing.is_padding is None else tokens[packing.cells])[None]


def _is_far(longest: int, window: int, device: torch.device) -> Tensor:
    """Which pairs of positions a local layer does not see. (L, L) bool."""
    positions = torch.arange(longest, device=device)
    return (positions[:, None] - positions[None, :]).abs() >= window


AttentionInterface.register("tuneoff_packed", packed_attention)


def use_packed_attention(model: Any) -> None:
    """Make a model attend within packed examples, where its architecture can."""
    if anatomy(model.config).is_packed:
        model.set_attn_implementation("tuneoff_packed")


def forward(model: Any, batch: PackedBatch) -> Tensor:
    """Logits of a packed batch. (B, C)."""
    return classify(model, pool(model, final_states(model, batch), batch))


def final_states(model: Any, batch: PackedBatch) -> Tensor:
    """What the encoder says of every token. (1, T, H)."""
    if not anatomy(model.config).is_packed:
        return _padded_states(model, batch)
    return run_blocks(model, embed(model, batch), batch, 0, len(blocks(model)))


def embed(model: Any, batch: PackedBatch) -> Tensor:
    """What enters the first block. (1, T, H)."""
    parts, encoder = anatomy(model.config), encoder_of(model)
    given = {
        "input_ids": batch.ids,
        "position_ids": batch.positions + parts.first_position(model.config),
        "token_type_ids": batch.segments,
    }
    states = encoder.embeddings(**{name: given[name] for name in parts.embed_arguments})  # type: ignore[operator]
    # ELECTRA has a projection only where the sizes differ
    if parts.after_embeddings and (owner := parts.after_embeddings.split("."))[0] in dict(encoder.named_children()):
        states = encoder.get_submodule(".".join(owner))(states)
    return states


def run_blocks(model: Any, states: Tensor, batch: PackedBatch, first: int, last: int) -> Tensor:
    """The blocks first..last-1, and the final norm after the very last. states: (1, T, H) -> (1, T, H)."""
    parts, encoder, modules = anatomy(model.config), encoder_of(model), blocks(model)
    grid = packing(batch)
    for block in modules[first:last]:
        rotation = {}
        if parts.rotary:
            kind = (block.attention_type,) if hasattr(block, "attention_type") else ()
            rotation = {"position_embeddings": getattr(encoder, parts.rotary)(states, batch.positions, *kind)}
        states = block(states, None, packing=grid, **rotation)
    if last == len(modules) and parts.final_norm:
        states = encoder.get_submodule(parts.final_norm)(states)
    return states


def pool(model: Any, states: Tensor, batch: PackedBatch, pooling: str | None = None) -> Tensor:
    """One vector an example. states: (1, T, H) -> (B, 1, H).

    pooling: "cls" takes the first token, "mean" averages; None does what the model class's own head does.
    """
    if pooling is None:
        pooling = "mean" if pools_mean(model.config) else "cls"
    if pooling == "cls":
        return states[0, batch.starts][:, None]
    example = torch.repeat_interleave(torch.arange(len(batch.lengths), device=states.device), batch.lengths)
    sums = states.new_zeros(len(batch.lengths), states.shape[-1]).index_add(0, example, states[0])
    return (sums / batch.lengths[:, None])[:, None]


def classify(model: Any, pooled: Tensor) -> Tensor:
    """The model class's own head. pooled: (B, 1, H) -> logits (B, C)."""
    return anatomy(model.config).classify(model, pooled)


def _padded_states(model: Any, batch: PackedBatch) -> Tensor:
    """The plain padded encoder, for architectures whose attention cannot be replaced; its tokens packed. (1, T, H)."""
    grid = packing(batch)
    size = grid.size[0] * grid.size[1]
    mask = batch.ids.new_zeros(size).index_fill(0, grid.cells, 1).view(grid.size)
    ids = batch.ids.new_full((size,), model.config.pad_token_id).index_copy(0, grid.cells, batch.ids[0])
    extra = {}
    if batch.segments is not None:
        segments = batch.segments.new_zeros(size).index_copy(0, grid.cells, batch.segments[0])
        extra["token_type_ids"] = segments.view(grid.size)
    encoder = encoder_of(model)
    states = encoder(input_ids=ids.view(grid.size), attention_mask=mask, **extra).last_hidden_state  # (B, L, H)
    return states.reshape(size, -1)[grid.cells][None]
