"""Bottleneck adapters: small two-layer networks inside the blocks, saved in the layout of AdapterHub."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from tuneoff.encoder.anatomy import Anatomy, anatomy, blocks, is_head, layers
from tuneoff.errors import ConfigError, ModelError, join_limited
from tuneoff.strategies.base import Adapted, GradientConfig, chosen_blocks

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tuneoff.strategies.bottleneck import Bottleneck

# name of the adapter, and of the file of its weights, in AdapterHub's layout
_NAME, _WEIGHTS = "tuneoff", "adapter.safetensors"


class Adapter(GradientConfig):
    """Bottleneck adapters and the head.

    pfeiffer: one after each feed-forward; its input is the normed sum (Pfeiffer et al., AdapterFusion, EACL 2021).
    houlsby: one after each attention and one after each feed-forward (Houlsby et al., ICML 2019).
    parallel: one parallel to each feed-forward, with the same input (He et al., ICLR 2022).
    """

    name: ClassVar[str] = "adapter"
    learning_rate: float = Field(1e-3, gt=0, le=1)  # Houlsby et al. search 3e-5 to 3e-3; docs/log.md
    reduction: int = Field(16, ge=1, description="hidden size / bottleneck size")  # AdapterFusion, appendix
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"  # AdapterFusion
    placement: Literal["pfeiffer", "houlsby", "parallel"] = "pfeiffer"
    # He et al., section 4.5: 4 for parallel adapters; the others have none
    scale: float = Field(4.0, gt=0, description="factor of a parallel adapter's output")
    layers: tuple[int, ...] | None = Field(None, description="indices of the blocks to adapt; all if not given")


def adapter(model: Any, config: Adapter) -> Adapted:
    """Add a bottleneck to the feed-forward of every chosen block, and for houlsby also to its attention."""
    from tuneoff.strategies.bottleneck import Bottleneck, register

    hidden = model.config.hidden_size
    if config.reduction > hidden:
        raise ConfigError(
            f"reduction {config.reduction} is above the hidden size {hidden}; use a number from 1 to {hidden}"
        )
    parts = anatomy(model.config)
    before = {id(parameter) for parameter in model.parameters()}

    def new_bottleneck(layer: "nn.Module", path: str) -> Bottleneck:
        device = next(model.parameters()).device
        bottleneck = Bottleneck(hidden, hidden // config.reduction, config.activation, device)
        return register(layer, f"{path}.{_NAME}", bottleneck)

    # dict.fromkeys: ALBERT's list repeats a block
    for block in dict.fromkeys(blocks(model)[index] for index in chosen_blocks(model, config.layers)):
        for layer in layers(model, block):
            after_attention, after_feed_forward = parts.adapters
            if config.placement == "parallel":
                _add_in_parallel(layer, parts, new_bottleneck(layer, after_feed_forward), config.scale)
                continue
            if config.placement == "pfeiffer" and parts.feed_forward_norm:
                norm = layer.get_submodule(parts.feed_forward_norm)
                norm.register_forward_hook(_pfeiffer_hook(new_bottleneck(layer, after_feed_forward)))
                continue
            output = layer.get_submodule(parts.feed_forward_output)
            output.register_forward_hook(_residual_hook(new_bottleneck(layer, after_feed_forward)))
            if config.placement == "houlsby":
                output = layer.get_submodule(parts.attention_output)
                output.register_forward_hook(_residual_hook(new_bottleneck(layer, after_attention)))
    added = tuple(name for name, parameter in model.named_parameters() if id(parameter) not in before)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in set(added) or is_head(model, name))
    return Adapted(model, added, save=lambda adapted, folder: _save(adapted, added, config, folder), load=_load)


# Forward hooks instead of wrapper modules: the parameters of the encoder keep their names, and saved weights load in
# other libraries.
def _residual_hook(bottleneck: "Bottleneck") -> Any:
    """Return a hook that turns a module's output h into h + bottleneck(h)."""
    return lambda module, arguments, output: output + bottleneck(output)


def _add_in_parallel(layer: "nn.Module", parts: Anatomy, bottleneck: "Bottleneck", scale: float) -> None:
    """Make a feed-forward f compute f(h) + scale * bottleneck(h)."""
    first, last = layer.get_submodule(parts.projections["up"][0]), layer.get_submodule(parts.feed_forward_output)
    inputs: list[Tensor] = []  # from the first module to the last; popped, so that no tensor outlives the pass
    first.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))
    last.register_forward_hook(lambda module, arguments, output: output + scale * bottleneck(inputs.pop()))


def _pfeiffer_hook(bottleneck: "Bottleneck") -> Any:
    """Return a hook that turns a norm's output norm(s) into norm(s + bottleneck(norm(s)))."""
    # norm.forward, not norm(...), which would call this hook again
    return lambda norm, arguments, normed: norm.forward(arguments[0] + bottleneck(normed))


def _load(model: Any, folder: Path) -> None:
    """Load what _save has saved."""
    from safetensors.torch import load_file

    unexpected = model.load_state_dict(load_file(folder / _WEIGHTS), strict=False).unexpected_keys
    if unexpected:
        raise ModelError(f"{folder} holds weights that do not fit the encoder: {join_limited(unexpected)}")


def _save(model: Any, added: tuple[str, ...], config: Adapter, folder: Path) -> None:
    """Save adapter and head, to be read by AdapterHub's load_adapter(folder, use_safetensors=True)."""
    from safetensors.torch import save_file

    weights = {n: v.contiguous() for n, v in model.state_dict().items() if n in set(added) or is_head(model, n)}
    save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})
    has_normed_input = config.placement == "pfeiffer" and anatomy(model.config).feed_forward_norm is not None
    adapted_blocks = chosen_blocks(model, config.layers)
    adapter_config = {
        "config": {
            "mh_adapter": config.placement == "houlsby",
            "output_adapter": True,
            "reduction_factor": config.reduction,
            "non_linearity": config.activation,
            "original_ln_before": has_normed_input,
            "original_ln_after": True,
            "residual_before_ln": True,
            "adapter_residual_before_ln": False,
            "ln_before": False,
            "ln_after": False,
            **({"is_parallel": True, "scaling": config.scale} if config.placement == "parallel" else {}),
            "leave_out": [index for index in range(len(blocks(model))) if index not in adapted_blocks],
        },
        "hidden_size": model.config.hidden_size,
        "model_class": type(model).__name__,
        "model_name": model.config.name_or_path,
        "model_type": model.config.model_type,
        "name": _NAME,
        "version": "adapters.1.3.0",  # of the layout
    }
    (folder / "adapter_config.json").write_text(json.dumps(adapter_config, indent=2, sort_keys=True), encoding="utf-8")
    model.config.save_pretrained(folder)
