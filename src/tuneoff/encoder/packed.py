"""A Hugging Face encoder run on packed tokens: no padding outside attention, the same numbers as the padded model.

Attention is the only place where sequences meet, and transformers lets a library register an attention function.
Ours attends within each packed example. Architectures outside that interface (MPNet, DeBERTa) run padded.

# B examples  T tokens  L longest example  H hidden  C classes
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tuneoff.data.batches import PackedBatch
from tuneoff.encoder.anatomy import anatomy, blocks, encoder_of, layers, pools_mean
from tuneoff.encoder.attention import Packing, packing

POOLINGS = ("cls", "mean")


def use_packed_attention(model: Any) -> None:
    """Make a model attend within packed examples, where its architecture can."""
    if anatomy(model.config).is_packed:
        model.set_attn_implementation("tuneoff_packed")


def forward(model: Any, batch: PackedBatch) -> Tensor:
    """Logits of a packed batch. (B, C)."""
    if not anatomy(model.config).is_packed:
        return classify(model, pool(model, _padded_states(model, batch), batch))
    return classify(model, read_out(model, embed(model, batch), batch, 0))


def final_states(model: Any, batch: PackedBatch) -> Tensor:
    """What the encoder says of every token. (1, T, H)."""
    if not anatomy(model.config).is_packed:
        return _padded_states(model, batch)
    return run_blocks(model, embed(model, batch), batch, 0, len(blocks(model)))


def read_out(model: Any, states: Tensor, batch: PackedBatch, first: int) -> Tensor:
    """The blocks from `first` on, then the vector of each example that the head reads. (1, T, H) -> (B, 1, H).

    Where the head reads first tokens alone, the last block computes nothing else.
    """
    last = len(blocks(model)) - 1
    if not reads_first_tokens(model):
        return pool(model, run_blocks(model, states, batch, first, last + 1), batch)
    grids = packing(batch)
    states = run_blocks(model, states, batch, first, last, grids)
    projections = anatomy(model.config).projections
    (layer,) = layers(model, blocks(model)[last])
    # whoever attends: first tokens; who is attended to: all
    beside = tuple(layer.get_submodule(projections[name][0])(states)[0] for name in ("key", "value"))
    firsts = states[:, batch.starts]  # (1, B, H)
    firsts = blocks(model)[last](firsts, None, packing=replace(grids, beside=beside))
    return firsts[0][:, None].float()


def reads_first_tokens(model: Any) -> bool:
    """Whether the last block computes what the head reads, the first token of each sequence, and no more."""
    return not pools_mean(model.config) and anatomy(model.config).is_packed and _has_separate_keys(model)


def _has_separate_keys(model: Any) -> bool:
    """Whether keys and values of a block come from its input alone, through layers of their own."""
    parts = anatomy(model.config)
    return parts.rotary is None and len(layers(model, blocks(model)[-1])) == 1


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


def run_blocks(
    model: Any, states: Tensor, batch: PackedBatch, first: int, last: int, grids: Packing | None = None
) -> Tensor:
    """The blocks first..last-1, and the final norm after the very last. states: (1, T, H) -> (1, T, H).

    grids: the batch's packing, where it is known already.
    """
    parts, encoder, modules = anatomy(model.config), encoder_of(model), blocks(model)
    grids = grids or packing(batch)
    for block in modules[first:last]:
        rotation = {}
        if parts.rotary:
            kind = (block.attention_type,) if hasattr(block, "attention_type") else ()
            rotation = {"position_embeddings": getattr(encoder, parts.rotary)(states, batch.positions, *kind)}
        states = block(states, None, packing=grids, **rotation)
    if last == len(modules) and parts.final_norm:
        states = encoder.get_submodule(parts.final_norm)(states)
    return states


def pool(model: Any, states: Tensor, batch: PackedBatch, pooling: str | None = None) -> Tensor:
    """One vector an example, in fp32 as the head is. states: (1, T, H) -> (B, 1, H).

    pooling: "cls" takes the first token, "mean" averages; None does what the model class's own head does.
    """
    if pooling is None:
        pooling = "mean" if pools_mean(model.config) else "cls"
    if pooling == "cls":
        return states[0, batch.starts][:, None].float()
    example = torch.repeat_interleave(torch.arange(len(batch.lengths), device=states.device), batch.lengths)
    tokens = states[0, : batch.num_tokens].float()
    sums = tokens.new_zeros(len(batch.lengths), tokens.shape[-1]).index_add(0, example, tokens)
    return (sums / batch.lengths[:, None])[:, None]


def classify(model: Any, pooled: Tensor) -> Tensor:
    """The model class's own head. pooled: (B, 1, H) -> logits (B, C)."""
    return anatomy(model.config).classify(model, pooled)


def _padded_states(model: Any, batch: PackedBatch) -> Tensor:
    """The plain padded encoder, for architectures whose attention cannot be replaced; its tokens packed. (1, T, H)."""
    lengths = batch.lengths.tolist()

    def grid(tokens: Tensor, padding: int) -> Tensor:
        pieces = tokens[0, : batch.num_tokens].split(lengths)
        return nn.utils.rnn.pad_sequence(list(pieces), batch_first=True, padding_value=padding)  # (B, L)

    mask = grid(torch.ones_like(batch.ids), 0)
    extra = {} if batch.segments is None else {"token_type_ids": grid(batch.segments, 0)}
    encoder = encoder_of(model)
    ids = grid(batch.ids, model.config.pad_token_id)
    states = encoder(input_ids=ids, attention_mask=mask, **extra).last_hidden_state  # (B, L, H)
    return nn.functional.pad(states[mask.bool()], (0, 0, 0, batch.ids.shape[1] - batch.num_tokens))[None]
