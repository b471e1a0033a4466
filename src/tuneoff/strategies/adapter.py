"""Bottleneck adapters: small two-layer networks inside every block."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.activations import ACT2FN

from tuneoff.encoder.anatomy import anatomy, blocks, is_head, layers
from tuneoff.errors import ConfigError
from tuneoff.strategies.base import Adapted, GradientConfig, chosen_blocks


class Adapter(GradientConfig):
    """Bottleneck adapters and the head.

    pfeiffer: one after each feed-forward (Pfeiffer et al., AdapterFusion, EACL 2021).
    houlsby: one after attention and one after each feed-forward (Houlsby et al., ICML 2019).
    """

    name: ClassVar[str] = "adapter"
    learning_rate: float = Field(1e-3, gt=0, le=1)  # Houlsby et al. search 3e-5 to 3e-3; docs/log.md
    reduction: int = Field(16, ge=1, description="hidden size / bottleneck size")  # AdapterFusion, appendix
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"  # AdapterFusion
    placement: Literal["pfeiffer", "houlsby"] = "pfeiffer"
    layers: tuple[int, ...] | None = Field(None, description="indices of the blocks to adapt; all if not given")


class Bottleneck(nn.Module):
    """states + up(activation(down(states))). states: (..., H) -> (..., H).

    up starts at zero, so that the adapted model starts as the plain one (He et al., ICLR 2022, section 4.1).
    """

    def __init__(self, hidden: int, size: int, activation: str) -> None:
        super().__init__()
        self.down = nn.Linear(hidden, size)
        self.up = nn.Linear(size, hidden)
        self.activation = ACT2FN[activation]
        nn.init.normal_(self.down.weight, std=0.02)
        for weights in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(weights)

    def forward(self, states: Tensor) -> Tensor:
        """Add the bottleneck's correction."""
        return states + self.up(self.activation(self.down(states)))


def adapter(model: Any, config: Adapter) -> Adapted:
    """Put a bottleneck before the residual sum of the feed-forward, and of attention for houlsby."""
    hidden = model.config.hidden_size
    if config.reduction > hidden:
        raise ConfigError(f"reduction {config.reduction} is above the hidden size {hidden}; use 1 to {hidden}")
    parts = anatomy(model.config)
    places = {"feed_forward_adapter": parts.feed_forward_output}
    if config.placement == "houlsby":
        places["attention_adapter"] = parts.attention_output
    before = {id(parameter) for parameter in model.parameters()}
    device = next(model.parameters()).device
    for block in dict.fromkeys(blocks(model)[index] for index in chosen_blocks(model, config.layers)):
        for layer in layers(model, block):
            for name, place in places.items():
                with torch.device(device):
                    bottleneck = Bottleneck(hidden, hidden // config.reduction, config.activation)
                layer.add_module(name, bottleneck)
                layer.get_submodule(place).register_forward_hook(_then(bottleneck))
    added = tuple(name for name, parameter in model.named_parameters() if id(parameter) not in before)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in set(added) or is_head(model, name))
    return Adapted(model, added, saves=lambda adapted, folder: _save(adapted, added, config, folder))


def _then(bottleneck: Bottleneck) -> Any:
    """A forward hook that sends a module's output through a bottleneck; names in the base model stay as they were."""
    return lambda module, arguments, output: bottleneck(output)


def _save(model: Any, added: tuple[str, ...], config: Adapter, folder: Path) -> None:
    """Write the adapters and the head under their names in the model, and the options that put them there."""
    weights = {n: v.contiguous() for n, v in model.state_dict().items() if n in set(added) or is_head(model, n)}
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(config.model_dump_json(indent=2))
    model.config.save_pretrained(folder)
