"""Bottleneck adapters: small two-layer networks inside every block."""

import json
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.activations import ACT2FN

from tuneoff.encoder.anatomy import Anatomy, anatomy, blocks, is_head, layers
from tuneoff.errors import ConfigError
from tuneoff.strategies.base import Adapted, GradientConfig, chosen_blocks

_NAME = "tuneoff"  # what the adapter is called inside AdapterHub's layout


class Adapter(GradientConfig):
    """Bottleneck adapters and the head.

    pfeiffer: one after each feed-forward, reading the normed sum (Pfeiffer et al., AdapterFusion, EACL 2021).
    houlsby: one after attention and one after each feed-forward (Houlsby et al., ICML 2019).
    parallel: one beside each feed-forward, reading what that reads (He et al., ICLR 2022).
    """

    name: ClassVar[str] = "adapter"
    learning_rate: float = Field(1e-3, gt=0, le=1)  # Houlsby et al. search 3e-5 to 3e-3; docs/log.md
    reduction: int = Field(16, ge=1, description="hidden size / bottleneck size")  # AdapterFusion, appendix
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"  # AdapterFusion
    placement: Literal["pfeiffer", "houlsby", "parallel"] = "pfeiffer"
    # He et al., section 4.5: 4 for parallel adapters; the others have none
    scale: float = Field(4.0, gt=0, description="by which a parallel adapter's correction is multiplied")
    layers: tuple[int, ...] | None = Field(None, description="indices of the blocks to adapt; all if not given")


class Bottleneck(nn.Module):
    """up(activation(down(states))): what an adapter adds. states: (..., H) -> (..., H).

    up starts at zero, so that the adapted model starts as the plain one (He et al., ICLR 2022, section 4.1).
    Names are AdapterHub's.
    """

    def __init__(self, hidden: int, size: int, activation: str) -> None:
        super().__init__()
        down, up = nn.Linear(hidden, size), nn.Linear(size, hidden)
        nn.init.normal_(down.weight, std=0.02)
        for weights in (down.bias, up.weight, up.bias):
            nn.init.zeros_(weights)
        self.adapter_down = nn.Sequential(down, ACT2FN[activation])
        self.adapter_up = up

    def forward(self, states: Tensor) -> Tensor:
        """The correction alone."""
        return self.adapter_up(self.adapter_down(states))


def adapter(model: Any, config: Adapter) -> Adapted:
    """Put a bottleneck into or beside the feed-forward of every chosen block, and for houlsby into its attention."""
    hidden = model.config.hidden_size
    if config.reduction > hidden:
        raise ConfigError(f"reduction {config.reduction} is above the hidden size {hidden}; use 1 to {hidden}")
    parts = anatomy(model.config)
    before = {id(parameter) for parameter in model.parameters()}

    def add(layer: nn.Module, home: str) -> Bottleneck:
        with torch.device(next(model.parameters()).device):
            bottleneck = Bottleneck(hidden, hidden // config.reduction, config.activation)
        return _put(layer, f"{home}.{_NAME}", bottleneck)

    for block in dict.fromkeys(blocks(model)[index] for index in chosen_blocks(model, config.layers)):
        for layer in layers(model, block):
            after_attention, after_feed_forward = parts.adapters
            if config.placement == "parallel":
                _beside(layer, parts, add(layer, after_feed_forward), config.scale)
                continue
            if config.placement == "pfeiffer" and parts.feed_forward_norm:
                norm = layer.get_submodule(parts.feed_forward_norm)
                norm.register_forward_hook(_around_norm(add(layer, after_feed_forward)))
                continue
            output = layer.get_submodule(parts.feed_forward_output)
            output.register_forward_hook(_after(add(layer, after_feed_forward)))
            if config.placement == "houlsby":
                output = layer.get_submodule(parts.attention_output)
                output.register_forward_hook(_after(add(layer, after_attention)))
    added = tuple(name for name, parameter in model.named_parameters() if id(parameter) not in before)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in set(added) or is_head(model, name))
    return Adapted(model, added, saves=lambda adapted, folder: _save(adapted, added, config, folder))


# Forward hooks, so that the names in the base model stay as they were.
def _after(bottleneck: Bottleneck) -> Any:
    """Correct a module's output: h + bottleneck(h)."""
    return lambda module, arguments, output: output + bottleneck(output)


def _beside(layer: nn.Module, parts: Anatomy, bottleneck: Bottleneck, scale: float) -> None:
    """Correct what a feed-forward gives by what it read: f(h) + scale * bottleneck(h)."""
    entrance, exit_ = layer.get_submodule(parts.projections["up"][0]), layer.get_submodule(parts.feed_forward_output)
    read: list[Tensor] = []
    entrance.register_forward_pre_hook(lambda module, arguments: read.append(arguments[0]))
    exit_.register_forward_hook(lambda module, arguments, output: output + scale * bottleneck(read.pop()))


def _around_norm(bottleneck: Bottleneck) -> Any:
    """Correct what a norm reads by what it says: norm(s + bottleneck(norm(s)))."""
    return lambda norm, arguments, normed: norm.forward(arguments[0] + bottleneck(normed))


def _put(module: nn.Module, path: str, part: Bottleneck) -> Bottleneck:
    """Register a part under a dotted path, making what lacks on the way."""
    *way, last = path.split(".")
    for name in way:
        if not hasattr(module, name):
            module.add_module(name, nn.Module())
        module = module.get_submodule(name)
    module.add_module(last, part)
    return part


def _save(model: Any, added: tuple[str, ...], config: Adapter, folder: Path) -> None:
    """Write what AdapterHub's load_adapter(folder, use_safetensors=True) reads; the head lies in the same file."""
    weights = {n: v.contiguous() for n, v in model.state_dict().items() if n in set(added) or is_head(model, n)}
    save_file(weights, folder / "adapter.safetensors", metadata={"format": "pt"})
    reads_norm = config.placement == "pfeiffer" and anatomy(model.config).feed_forward_norm is not None
    chosen = chosen_blocks(model, config.layers)
    described = {
        "config": {
            "mh_adapter": config.placement == "houlsby",
            "output_adapter": True,
            "reduction_factor": config.reduction,
            "non_linearity": config.activation,
            "original_ln_before": reads_norm,
            "original_ln_after": True,
            "residual_before_ln": True,
            "adapter_residual_before_ln": False,
            "ln_before": False,
            "ln_after": False,
            **({"is_parallel": True, "scaling": config.scale} if config.placement == "parallel" else {}),
            "leave_out": [index for index in range(len(blocks(model))) if index not in chosen],
        },
        "hidden_size": model.config.hidden_size,
        "model_class": type(model).__name__,
        "model_name": model.config._name_or_path,
        "model_type": model.config.model_type,
        "name": _NAME,
        "version": "adapters.1.3.0",  # the layout's version
    }
    (folder / "adapter_config.json").write_text(json.dumps(described, indent=2, sort_keys=True))
    model.config.save_pretrained(folder)
