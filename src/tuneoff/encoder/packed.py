"""Run a Hugging Face encoder on packed tokens, (1, T), with the same results as on a padded batch, (B, L).

Algorithm: in a transformer encoder, tokens of different examples interact only in attention; all else (embeddings,
norms, feed-forward) is per token. transformers lets a library register an attention function (AttentionInterface), and
ours attends within each example (encoder/attention.py), so the model's own blocks run on the tokens of a batch end to
end, and no modelling code is copied. Modules that add relative positions to scores themselves (MPNet, DeBERTa) get a
forward for packed tokens (encoder/relative.py). The blocks are called one by one instead of through the model's
forward, so that outputs of frozen lower blocks can be cached (engine/inputs.py) and the last block can compute first
tokens only.
Computing without padding is known from ByteTransformer (Zhai et al., IPDPS 2023) and ModernBERT (Warner et al., 2024).

Trade-off: the plain way, a padded batch through the model's forward, runs every architecture, but computes all padding.
Here each architecture has to be described (encoder/anatomy.py). A model that mixes tokens elsewhere too (DeBERTa-v2
with a convolution) runs on padded micro-batches of sequences of like length.

# B examples  W sequences (windows of long texts; else W = B)  T tokens  L longest sequence  H hidden  C classes
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tuneoff.data.batches import PackedBatch, to_device
from tuneoff.encoder.anatomy import anatomy, blocks, encoder_of, is_packed, layers, pools_mean
from tuneoff.encoder.attention import Packing, build_packing
from tuneoff.encoder.relative import shared_positions, use_packed_modules

POOLINGS = ("cls", "mean")
_LENGTH_STEP = 32  # of lengths that are padded to the longest of them: few micro-batches, and little padding


def use_packed_attention(model: Any) -> None:
    """Make a model attend within packed examples, if its architecture supports it."""
    if not is_packed(model.config):
        return
    if anatomy(model.config).relative is None:
        model.set_attn_implementation("tuneoff_packed")
    else:
        use_packed_modules(model)


def forward(model: Any, batch: PackedBatch) -> Tensor:
    """Logits of a packed batch, one row per sequence. (W, C)."""
    if not is_packed(model.config):
        return classify(model, pool(model, _padded_states(model, batch), batch))
    return classify(model, read_out(model, embed(model, batch), batch, 0))


def final_states(model: Any, batch: PackedBatch) -> Tensor:
    """The encoder's output for every token. (1, T, H)."""
    if not is_packed(model.config):
        return _padded_states(model, batch)
    return run_blocks(model, embed(model, batch), batch, 0, len(blocks(model)))


def read_out(model: Any, states: Tensor, batch: PackedBatch, first: int) -> Tensor:
    """Run the blocks from `first` on, and return the vectors that the head reads. (1, T, H) -> (W, 1, H).

    If the head reads first tokens only, the last block computes only them: its queries, attention outputs and
    feed-forward are of W tokens instead of T, while keys and values are of all T. That saves 10 of the last block's 12
    matrices of H x H, 14 % of the products of six blocks (docs/log.md). The output is the same but for rounding.
    """
    last = len(blocks(model)) - 1
    if not reads_first_tokens(model):
        return pool(model, run_blocks(model, states, batch, first, last + 1), batch)
    packing = build_packing(batch)
    states = run_blocks(model, states, batch, first, last, packing)
    projections = anatomy(model.config).projections
    (layer,) = layers(model, blocks(model)[last])
    # queries: first tokens only; keys and values: all tokens. The block itself computes keys and values of the first
    # tokens too, which packed_attention replaces by these
    full_keys_values = tuple(layer.get_submodule(projections[name][0])(states)[0] for name in ("key", "value"))
    first_tokens = states[:, batch.starts]  # (1, W, H)
    first_tokens = _run_block(model, last, first_tokens, replace(packing, full_keys_values=full_keys_values))
    return first_tokens[0][:, None].float()


def reads_first_tokens(model: Any) -> bool:
    """Return True if the last block computes only the first token of each sequence, because the head reads no other."""
    return not pools_mean(model.config) and is_packed(model.config) and _has_separate_keys(model)


def _has_separate_keys(model: Any) -> bool:
    """Return True if a block has one attention layer, with keys and values that are its input times one matrix each.

    Not so in ModernBERT, with a norm before a fused matrix, nor in NomicBERT, with rotary embeddings.
    """
    parts = anatomy(model.config)
    return parts.rotary is None and len(layers(model, blocks(model)[-1])) == 1


def embed(model: Any, batch: PackedBatch) -> Tensor:
    """The input of the first block. (1, T, H)."""
    parts, encoder = anatomy(model.config), encoder_of(model)
    arguments = {
        "input_ids": batch.ids,
        "position_ids": batch.positions + parts.first_position(model.config),
        "token_type_ids": batch.segments,
    }
    states = encoder.embeddings(**{name: arguments[name] for name in parts.embed_arguments})  # type: ignore[operator]
    # ELECTRA has a projection only if the sizes of embeddings and blocks differ
    if parts.after_embeddings and parts.after_embeddings.split(".")[0] in dict(encoder.named_children()):
        states = encoder.get_submodule(parts.after_embeddings)(states)
    return states


def run_blocks(
    model: Any, states: Tensor, batch: PackedBatch, first: int, last: int, packing: Packing | None = None
) -> Tensor:
    """Run the blocks first..last-1, and after the encoder's last block its final norm. (1, T, H) -> (1, T, H).

    packing: of the batch, if the caller has built it already.
    """
    parts, encoder, modules = anatomy(model.config), encoder_of(model), blocks(model)
    packing = packing or build_packing(batch)
    if packing.positions is None:
        packing.positions = shared_positions(model, packing)
    for index in range(first, last):
        block, rotation = modules[index], {}
        if parts.rotary:
            # ModernBERT's local and global blocks rotate by different frequencies
            layer_type = (block.attention_type,) if hasattr(block, "attention_type") else ()
            rotation = {"position_embeddings": getattr(encoder, parts.rotary)(states, batch.positions, *layer_type)}
        states = _run_block(model, index, states, packing, **rotation)
    if last == len(modules) and parts.final_norm:
        states = encoder.get_submodule(parts.final_norm)(states)
    return states


def _run_block(model: Any, index: int, states: Tensor, packing: Packing, **rotation: Any) -> Tensor:
    block = blocks(model)[index]
    if anatomy(model.config).relative is None:
        return block(states, None, packing=packing, **rotation)
    return block(states, packing)[0]  # in place of a mask; these blocks return a tuple


def pool(model: Any, states: Tensor, batch: PackedBatch, pooling: str | None = None) -> Tensor:
    """One vector per sequence, in fp32 because the head is. states: (1, T, H) -> (W, 1, H).

    pooling: "cls" for the first token, "mean" for the mean over tokens, None for the pooling of the model's own head.
    """
    if pooling is None:
        pooling = "mean" if pools_mean(model.config) else "cls"
    if pooling == "cls":
        return states[0, batch.starts][:, None].float()
    count = len(batch.lengths)
    if batch.offsets is not None:  # on a GPU, where a shape must not follow from lengths; the filling is another row
        tokens = states[0].float()
        all_tokens = torch.arange(len(tokens), dtype=torch.int32, device=tokens.device)
        sequence_of_token = torch.bucketize(all_tokens, batch.offsets[1 : count + 1], right=True)
        sums = tokens.new_zeros(count + 1, tokens.shape[-1]).index_add(0, sequence_of_token, tokens)[:count]
    else:
        tokens = states[0, : batch.num_tokens].float()
        sequences = torch.arange(count, device=states.device)
        sequence_of_token = torch.repeat_interleave(sequences, batch.lengths, output_size=batch.num_tokens)
        sums = tokens.new_zeros(count, tokens.shape[-1]).index_add(0, sequence_of_token, tokens)
    return (sums / batch.lengths[:, None])[:, None]


def classify(model: Any, pooled: Tensor) -> Tensor:
    """Apply the model class's own head. pooled: (W, 1, H) -> logits (W, C)."""
    return anatomy(model.config).classify(model, pooled)


def padded_layers(model: Any, batch: PackedBatch) -> list[Tensor]:
    """Run the encoder padded, and pack the outputs of its embeddings and of each block, (1, T, H) each."""
    return _run_padded(model, batch, lambda output: output.hidden_states, output_hidden_states=True)


def _padded_states(model: Any, batch: PackedBatch) -> Tensor:
    """Run the encoder padded, for models that cannot run packed, and pack its output. (1, T, H)."""
    return _run_padded(model, batch, lambda output: (output.last_hidden_state,))[0]


def _run_padded(
    model: Any, batch: PackedBatch, choose: Callable[[Any], tuple[Tensor, ...]], **options: bool
) -> list[Tensor]:
    """Run the encoder on padded micro-batches, and pack what `choose` takes of its output. -> (1, T, H) each.

    Sequences with the same rounded length are a micro-batch, padded to its longest: in a batch of 16 sentences two or
    three, in place of one that is padded to the longest of all. Their gradients add up, as those of one batch would.
    """
    host = torch.tensor(batch.sequence_lengths)
    rounded, ends = -(-host // _LENGTH_STEP), host.cumsum(0)
    rows, outputs = [], []
    for size in rounded.unique():
        lengths, starts = host[rounded == size], (ends - host)[rounded == size]
        columns = torch.arange(int(lengths.max()))
        is_token = columns < lengths[:, None]  # (W of the micro-batch, L)
        tokens = torch.where(is_token, starts[:, None] + columns, 0)
        cells = is_token.flatten().nonzero()[:, 0]  # indices: a GPU is asked for the size of what a mask selects
        mask, tokens, cells = _on(batch, is_token.long(), tokens, cells)
        mask = mask.bool()
        arguments = {"input_ids": torch.where(mask, batch.ids[0, tokens], model.config.pad_token_id)}
        if batch.segments is not None:
            arguments["token_type_ids"] = torch.where(mask, batch.segments[0, tokens], 0)
        output = encoder_of(model)(attention_mask=mask.long(), **arguments, **options)
        rows.append(tokens.flatten()[cells])
        outputs.append([states.flatten(0, 1)[cells] for states in choose(output)])
    order, count = torch.cat(rows), batch.ids.shape[1]
    packed = (torch.cat(parts) for parts in zip(*outputs, strict=True))
    return [states.new_zeros(count, states.shape[-1]).index_copy(0, order, states)[None] for states in packed]


def _on(batch: PackedBatch, *tensors: Tensor) -> list[Tensor]:
    """Return int64 tensors of the host on the device of a batch."""
    return list(tensors) if batch.ids.device.type == "cpu" else to_device(tensors, batch.ids.device)
