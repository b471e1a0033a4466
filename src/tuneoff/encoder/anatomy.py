"""Names of the parts of each supported architecture: blocks, projections, norms, head.

No other file names an architecture. A new one needs an Anatomy in ARCHITECTURES, and a tiny config in tests/tiny.py.

# B examples of a batch  H hidden  C classes  L longest sequence  A heads
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tuneoff.errors import ModelError, unknown

if TYPE_CHECKING:
    from torch import Tensor, nn

PROJECTIONS = ("query", "key", "value", "output", "up", "down")


@dataclass(frozen=True, kw_only=True)
class RelativePositions:
    """An attention module that adds relative positions to scores itself, outside transformers' AttentionInterface.

    encoder/relative.py computes one of two kinds for it on packed tokens: a bias for each distance, or
    content-to-position and position-to-content terms. Distances are those of a key from its query, 1 - L to L - 1.
    """

    attention: str  # the module, relative to a layer
    output: Callable[[Any, Tensor], tuple[Any, ...]]  # module, mixed values (1, T, A * D) -> what its forward returns
    scaled_terms: Callable[[Any], int] = lambda module: 1  # scores are divided by the root of this times D
    bias: Callable[[Any, int], Tensor] | None = None  # encoder, L -> bias of each distance, (2 L - 1, A)
    # encoder, L -> embeddings, (R, H), and the row of each distance, (2 L - 1,); None if the model has none
    embeddings: Callable[[Any, int], tuple[Tensor, Tensor] | None] | None = None
    # module -> projections of these embeddings to keys, which queries meet, and to queries, which keys meet
    projections: Callable[[Any], tuple[Any, Any]] | None = None
    dropout: str = ""  # the module's dropout of these embeddings


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """The parts of one architecture, as dotted names of modules.

    Names are relative: `encoder` and `head` to the whole model; `blocks`, `after_embeddings`, `rotary` and `final_norm`
    to the encoder; `projections`, the two outputs, `feed_forward_norm` and `adapters` to a layer of a block.
    """

    encoder: str  # attribute of the model that holds the encoder
    blocks: str  # the ModuleList of blocks
    projections: Mapping[str, tuple[str, ...]]  # one of PROJECTIONS -> the Linear layers that compute it
    attention_output: str  # the module whose output is added to the residual after attention
    feed_forward_output: str  # the module whose output is added to the residual after the feed-forward
    feed_forward_norm: str | None  # the norm of that sum; None if norms come before attention and feed-forward
    head: tuple[str, ...]  # the modules of the head; a pooler counts as head
    classify: Callable[[Any, Tensor], Tensor]  # model, pooled states (B, 1, H) -> logits (B, C)
    embed_arguments: tuple[str, ...] = ("input_ids", "position_ids", "token_type_ids")
    after_embeddings: str | None = None  # a projection between embeddings and blocks
    first_position: Callable[[Any], int] = lambda config: 0  # position id of the first token
    rotary: str | None = None  # the module that computes rotary embeddings from positions
    final_norm: str | None = None
    # the modules in which AdapterHub stores bottlenecks: after attention, after the feed-forward
    adapters: tuple[str, str] = ("attention.output.adapters", "output.adapters")
    relative: RelativePositions | None = None  # None: attention goes through transformers' AttentionInterface
    # why a model of this config runs on padded batches; empty if it runs packed
    why_padded: Callable[[Any], str] = lambda config: ""


def _pooler_then_classifier(model, pooled):
    return model.classifier(model.dropout(_encoder(model).pooler(pooled)))


def _classifier_only(model, pooled):
    return model.classifier(pooled)


def _albert_head(model, pooled):
    states = model.albert.pooler_activation(model.albert.pooler(pooled[:, 0]))
    return model.classifier(model.dropout(states))


def _distilbert_head(model, pooled):
    return model.classifier(model.dropout(model.pre_classifier(pooled[:, 0]).relu()))


def _modernbert_head(model, pooled):
    return model.classifier(model.drop(model.head(pooled[:, 0])))


def _deberta_head(model, pooled):
    return model.classifier(model.dropout(model.pooler(pooled)))


def _mpnet_bias(encoder, longest):
    import torch

    blocks = encoder.encoder
    table = blocks.relative_attention_bias
    return table(blocks.relative_position_bucket(torch.arange(1 - longest, longest, device=table.weight.device)))


def _deberta_embeddings(encoder, longest):
    import torch

    blocks = encoder.encoder
    if not blocks.relative_attention:
        return None
    embeddings = blocks.get_rel_embedding()
    buckets = blocks.get_rel_pos(embeddings.new_empty(1, longest, 0))[0]  # (L, L) of the query from the key
    by_distance = torch.cat([buckets[:, 0].flip(0), buckets[0, 1:]])
    span = len(embeddings) // 2
    return embeddings, (by_distance + span).clamp(0, 2 * span - 1)


def _deberta_projections(module):
    names = ("key_proj", "query_proj") if module.share_att_key else ("pos_key_proj", "pos_query_proj")
    present = zip(("c2p", "p2c"), names, strict=True)
    return tuple(getattr(module, name) if kind in module.pos_att_type else None for kind, name in present)


def _has_convolution(config):
    return "its first block has a convolution over tokens" if getattr(config, "conv_kernel_size", 0) > 0 else ""


_BERT = Anatomy(
    encoder="bert",
    blocks="encoder.layer",
    projections={
        "query": ("attention.self.query",),
        "key": ("attention.self.key",),
        "value": ("attention.self.value",),
        "output": ("attention.output.dense",),
        "up": ("intermediate.dense",),
        "down": ("output.dense",),
    },
    attention_output="attention.output.dropout",
    feed_forward_output="output.dropout",
    feed_forward_norm="output.LayerNorm",
    head=("bert.pooler", "classifier"),
    classify=_pooler_then_classifier,
)

_ROBERTA = replace(
    _BERT,
    encoder="roberta",
    head=("classifier",),
    classify=_classifier_only,
    # the RoBERTa family numbers positions from padding id + 1
    first_position=lambda config: config.pad_token_id + 1,
)

ARCHITECTURES: dict[str, Anatomy] = {
    "bert": _BERT,
    "ernie": replace(_BERT, encoder="ernie", head=("ernie.pooler", "classifier")),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": replace(
        _BERT,
        encoder="electra",
        head=("classifier",),
        classify=_classifier_only,
        after_embeddings="embeddings_project",
    ),
    "albert": Anatomy(
        encoder="albert",
        blocks="encoder.albert_layer_groups",
        projections={
            "query": ("attention.query",),
            "key": ("attention.key",),
            "value": ("attention.value",),
            "output": ("attention.dense",),
            "up": ("ffn",),
            "down": ("ffn_output",),
        },
        attention_output="attention.output_dropout",
        feed_forward_output="ffn_output",
        feed_forward_norm="full_layer_layer_norm",
        adapters=("attention.attention_adapters.adapters", "output_adapters.adapters"),
        head=("albert.pooler", "classifier"),
        classify=_albert_head,
        after_embeddings="encoder.embedding_hidden_mapping_in",
    ),
    "distilbert": Anatomy(
        encoder="distilbert",
        blocks="transformer.layer",
        projections={
            "query": ("attention.q_lin",),
            "key": ("attention.k_lin",),
            "value": ("attention.v_lin",),
            "output": ("attention.out_lin",),
            "up": ("ffn.lin1",),
            "down": ("ffn.lin2",),
        },
        attention_output="attention.out_lin",
        feed_forward_output="ffn",
        feed_forward_norm="output_layer_norm",
        adapters=("attention_adapters.adapters", "output_adapters.adapters"),
        head=("pre_classifier", "classifier"),
        classify=_distilbert_head,
        embed_arguments=("input_ids", "position_ids"),
    ),
    "modernbert": Anatomy(
        encoder="model",
        blocks="layers",
        projections={  # query, key and value are one fused matrix
            "query": ("attn.Wqkv",),
            "key": ("attn.Wqkv",),
            "value": ("attn.Wqkv",),
            "output": ("attn.Wo",),
            "up": ("mlp.Wi",),
            "down": ("mlp.Wo",),
        },
        attention_output="attn.out_drop",
        feed_forward_output="mlp",
        feed_forward_norm=None,
        adapters=("attention_adapters.adapters", "output_adapters.adapters"),
        head=("head", "classifier"),
        classify=_modernbert_head,
        embed_arguments=("input_ids",),
        rotary="rotary_emb",
        final_norm="final_norm",
    ),
    "nomic_bert": Anatomy(
        encoder="nomic_bert",
        blocks="layers",
        projections={
            "query": ("self_attn.q_proj",),
            "key": ("self_attn.k_proj",),
            "value": ("self_attn.v_proj",),
            "output": ("self_attn.o_proj",),
            "up": ("mlp.gate_proj", "mlp.up_proj"),
            "down": ("mlp.down_proj",),
        },
        attention_output="post_attention_dropout",
        feed_forward_output="post_mlp_dropout",
        feed_forward_norm="post_mlp_layernorm",
        adapters=("attention_adapters.adapters", "output_adapters.adapters"),
        head=("nomic_bert.pooler", "classifier"),
        classify=_pooler_then_classifier,
        rotary="rotary_emb",
    ),
    "mpnet": Anatomy(
        encoder="mpnet",
        blocks="encoder.layer",
        projections={
            "query": ("attention.attn.q",),
            "key": ("attention.attn.k",),
            "value": ("attention.attn.v",),
            "output": ("attention.attn.o",),
            "up": ("intermediate.dense",),
            "down": ("output.dense",),
        },
        attention_output="attention.dropout",
        feed_forward_output="output.dropout",
        feed_forward_norm="output.LayerNorm",
        head=("classifier",),
        classify=_classifier_only,
        embed_arguments=("input_ids", "position_ids"),
        first_position=lambda config: 2,  # whatever its padding id
        relative=RelativePositions(
            attention="attention.attn", output=lambda module, mixed: (module.o(mixed),), bias=_mpnet_bias
        ),
    ),
    "deberta-v2": Anatomy(  # DeBERTa v3 has the same model type
        encoder="deberta",
        blocks="encoder.layer",
        projections={
            "query": ("attention.self.query_proj",),
            "key": ("attention.self.key_proj",),
            "value": ("attention.self.value_proj",),
            "output": ("attention.output.dense",),
            "up": ("intermediate.dense",),
            "down": ("output.dense",),
        },
        attention_output="attention.output.dropout",
        feed_forward_output="output.dropout",
        feed_forward_norm="output.LayerNorm",
        head=("pooler", "classifier"),
        classify=_deberta_head,
        relative=RelativePositions(
            attention="attention.self",
            output=lambda module, mixed: (mixed, None),
            scaled_terms=lambda module: 1 + sum(kind in module.pos_att_type for kind in ("c2p", "p2c")),
            embeddings=_deberta_embeddings,
            projections=_deberta_projections,
            dropout="pos_dropout",
        ),
        why_padded=_has_convolution,
    ),
}


def anatomy(config: Any) -> Anatomy:
    """Return the parts of a transformers config's architecture. Raises ModelError if it is not supported."""
    model_type = getattr(config, "model_type", None) or "unnamed"
    if model_type not in ARCHITECTURES:
        raise ModelError(unknown("architecture", model_type, ARCHITECTURES))
    return ARCHITECTURES[model_type]


def is_packed(config: Any) -> bool:
    """Return True if a model of this config runs without padding."""
    return not anatomy(config).why_padded(config)


def _encoder(model: Any) -> Any:
    return getattr(model, anatomy(model.config).encoder)


def encoder_of(model: Any) -> nn.Module:
    """Return the encoder inside a sequence classification model."""
    return _encoder(model)


def blocks(model: Any) -> list[nn.Module]:
    """Return the transformer blocks in the order in which they run; a shared block (ALBERT) occurs repeatedly."""
    config, encoder = model.config, _encoder(model)
    modules = list(encoder.get_submodule(anatomy(config).blocks))
    if config.model_type != "albert":
        return modules
    # ALBERT runs num_hidden_groups distinct blocks num_hidden_layers times
    return [modules[i * len(modules) // config.num_hidden_layers] for i in range(config.num_hidden_layers)]


def layers(model: Any, block: nn.Module) -> list[nn.Module]:
    """Return the attention + feed-forward layers of a block: the block itself, or ALBERT's inner layers."""
    return list(block.albert_layers) if model.config.model_type == "albert" else [block]  # type: ignore[arg-type]


def projection_names(model: Any, targets: tuple[str, ...], block_indices: list[int]) -> list[str]:
    """Return the full names of the Linear layers that compute `targets` in the chosen blocks, without repeats.

    targets: some of PROJECTIONS. If query, key and value are one fused matrix (ModernBERT), each of them names it.
    Raises ModelError if the architecture has no such projection.
    """
    parts = anatomy(model.config).projections
    name_of = {id(module): name for name, module in model.named_modules()}
    names: dict[str, None] = {}  # a dictionary, because a set has no order
    for index in block_indices:
        for layer in layers(model, blocks(model)[index]):
            for target in targets:
                if target not in parts:
                    raise ModelError(unknown(f"projection of {model.config.model_type}", target, parts))
                for part in parts[target]:
                    names[name_of[id(layer.get_submodule(part))]] = None
    return list(names)


def is_head(model: Any, parameter_name: str) -> bool:
    """Return True if a parameter, given by its full name, belongs to the head."""
    return any(parameter_name.startswith(part + ".") for part in anatomy(model.config).head)


def head_modules(model: Any) -> list[nn.Module]:
    """Return the modules of the head, including the pooler."""
    return [model.get_submodule(name) for name in anatomy(model.config).head]


def output_layer(model: Any) -> nn.Linear:
    """Return the last layer of the head, which has a row per class."""
    from torch import nn

    return [module for module in head_modules(model)[-1].modules() if isinstance(module, nn.Linear)][-1]


def parameter_depths(model: Any) -> dict[str, int]:
    """Map the full name of every parameter to the index of the first block that uses it.

    -1: before the blocks (embeddings). The number of blocks: after them (final norm, head).
    """
    parts, modules = anatomy(model.config), blocks(model)
    first_use = {id(p): index for index in reversed(range(len(modules))) for p in modules[index].parameters()}
    after_blocks = tuple(f"{name}." for name in parts.head) + (
        (f"{parts.encoder}.{parts.final_norm}.",) if parts.final_norm else ()
    )
    return {
        name: first_use.get(id(parameter), len(modules) if name.startswith(after_blocks) else -1)
        for name, parameter in model.named_parameters()
    }


def block_parameters(model: Any, indices: list[int]) -> set[str]:
    """Return the full names of the parameters inside the given blocks."""
    modules = blocks(model)
    inside = {id(parameter) for index in indices for parameter in modules[index].parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in inside}


def pools_mean(config: Any) -> bool:
    """Return True if the model class's own head reads the mean over all tokens instead of the first token."""
    return getattr(config, "classifier_pooling", "cls") == "mean"
