"""LoRA: low-rank updates of chosen projections, by peft.

PiSSA and OLoRA start the update from a part of the encoder's own weights, and take that part out of them. What is saved
must work on the encoder as it was published. So the update is saved as the difference to its start: with B A at the end
and B0 A0 at the start, the matrices [B, -B0] and [A; A0] of twice the rank, whose product is B A - B0 A0, at the same
scale (alpha is doubled too). That is peft's own conversion (LoraModel.subtract_mutated_init).
"""

import copy
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from tuneoff.encoder.anatomy import anatomy, is_head, projection_names
from tuneoff.errors import ConfigError, ModelError, join_limited, requires
from tuneoff.strategies.base import Adapted, GradientConfig, chosen_blocks

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import Tensor

_PREFIX = "base_model.model."  # of the names of weights in peft's files
Projection = Literal["query", "key", "value", "output", "up", "down"]


class LoRA(GradientConfig):
    """LoRA on named projections, and the head (Hu et al., ICLR 2022)."""

    name: ClassVar[str] = "lora"
    learning_rate: float = Field(5e-4, gt=0, le=1)  # Hu et al., Table 9: 5e-4 for RoBERTa base on SST-2 and others
    rank: int = Field(8, ge=1)  # Hu et al., Table 9
    alpha: int = Field(16, gt=0, description="the update is scaled by alpha / rank")
    dropout: float = Field(0.0, ge=0, lt=1, description="on the input of the update")
    targets: tuple[Projection, ...] = Field(("query", "value"), min_length=1)  # Hu et al., Table 9
    layers: tuple[int, ...] | None = Field(None, description="indices of the blocks to adapt; all if not given")
    newer: ClassVar[frozenset[str]] = frozenset({"bias", "init", "lora_plus"})
    # peft's default, and that of published comparisons
    bias: Literal["none", "all", "lora_only"] = Field(
        "none", description="biases that train too: all of the encoder's, or those of the chosen projections"
    )
    # default: A random, B zero (Hu et al., section 4.1)
    init: Literal["default", "gaussian", "orthogonal", "pissa", "olora"] = Field(
        "default", description="start of the update; pissa (Meng et al., 2024) and olora take it from the weights"
    )
    # 1: as Hu et al.; Hayou et al., ICML 2024, find 16 better for models of this size
    lora_plus: float = Field(1.0, gt=0, description="LoRA+: learning rate of B as a multiple of that of A")


def lora(model: Any, config: LoRA) -> Adapted:
    """Add an update to each chosen projection. Before training, the model's outputs stay as they were."""
    with requires("peft"):
        from peft import LoraConfig, inject_adapter_in_model
        from peft.utils import get_peft_model_state_dict

    from tuneoff.compat import use_fast_lora

    names = projection_names(model, config.targets, chosen_blocks(model, config.layers))
    is_counted_only = next(model.parameters()).is_meta  # no weights to start from
    init = True if config.init == "default" or is_counted_only else config.init
    settings = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=names,
        bias="none",  # which parameters train is set below
        init_lora_weights=init,
    )
    before = {id(parameter) for parameter in model.parameters()}
    takes_weights = config.init in ("pissa", "olora") and not is_counted_only
    published = {name: model.get_submodule(name).weight.data.clone() for name in names} if takes_weights else {}
    # in place, without get_peft_model: its modules_to_save would copy the head, and count it twice
    try:
        inject_adapter_in_model(settings, model)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"lora init {config.init} does not fit rank {config.rank}: {' '.join(str(error).split())}"
        ) from error
    use_fast_lora(model)
    added = tuple(name for name, parameter in model.named_parameters() if id(parameter) not in before)
    biases = _trained_biases(model, config.bias, names)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in set(added) | biases or is_head(model, name))
    start = {name: value.detach().clone() for name, value in model.named_parameters() if published and name in added}

    def save(adapted: Any, folder: Path) -> None:
        weights = get_peft_model_state_dict(adapted, adapter_name="default")
        stored = copy.copy(settings)
        if published:
            weights = {name: _difference(value, start, name) for name, value in weights.items()}
            stored.r, stored.lora_alpha = 2 * config.rank, 2 * config.alpha
            stored.init_lora_weights = True  # with the start itself, a reader would change the encoder's weights
        weights |= {name: adapted.get_parameter(name).detach() for name in biases}
        stored.bias = config.bias
        save_adapter(adapted, stored, {f"{_PREFIX}{name}": value for name, value in weights.items()}, folder)

    def load(adapted: Any, folder: Path) -> None:
        if published:
            _undo_start(adapted, published, config)
        load_adapter(adapted, adapted, folder, biases)

    return Adapted(
        model,
        added,
        rate_factors={name: config.lora_plus for name in added if ".lora_B." in name},
        save=save,
        load=load,
        merged=lambda: merged_layers(model),
    )


def _trained_biases(model: Any, bias: str, names: list[str]) -> set[str]:
    """Return the names of the encoder's biases that train: none, all, or those of the projections with an update."""
    if bias == "none":
        return set()
    biases = {name for name, _ in model.named_parameters() if name.endswith(".bias") and not is_head(model, name)}
    if bias == "lora_only":
        biases &= {f"{name}.base_layer.bias" for name in names}
    if not biases:
        raise ConfigError(f"lora bias {bias}: this encoder has no such biases; leave out bias")
    return biases


def _difference(value: "Tensor", start: "Mapping[str, Tensor]", name: str) -> "Tensor":
    """Return a matrix of an update joined with its start, so that their product is the change since the start."""
    import torch

    before = start[name.replace(".weight", ".default.weight")]
    return torch.cat([value, before], 0) if "lora_A" in name else torch.cat([value, -before], 1)


def _undo_start(model: Any, published: "Mapping[str, Tensor]", config: LoRA) -> None:
    """Give a model its published weights again, and updates of twice the rank, as they were saved."""
    from torch import nn

    for name, weight in published.items():
        layer = model.get_submodule(name)
        layer.get_base_layer().weight.data = weight.to(layer.get_base_layer().weight.device)
        layer.lora_A["default"] = nn.Linear(layer.in_features, 2 * config.rank, bias=False).to(weight.device)
        layer.lora_B["default"] = nn.Linear(2 * config.rank, layer.out_features, bias=False).to(weight.device)
        layer.r["default"], layer.lora_alpha["default"] = 2 * config.rank, 2 * config.alpha  # the same scale


@contextmanager
def merged_layers(model: Any) -> Iterator[None]:
    """A context in which peft's layers are replaced by plain ones with the update merged into their weights.

    Afterwards the model has the same layers and, bit by bit, the same weights as before.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)]
    bases = [layer.get_base_layer() for _, layer in layers]
    kept = [(base, {name: weights.data.clone() for name, weights in base.named_parameters()}) for base in bases]
    merged: list[tuple[str, Any]] = []
    try:
        for name, layer in layers:
            layer.merge()
            merged.append((name, layer))
            model.set_submodule(name, layer.get_base_layer())
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the result is not exact: the weights are copied back below
            for name, layer in merged:
                model.set_submodule(name, layer)
                layer.unmerge()
        for base, weights in kept:
            for name, parameter in base.named_parameters():
                parameter.data.copy_(weights[name])  # unmerging rounds


def save_adapter(model: Any, settings: "PeftConfig", weights: "Mapping[str, Tensor]", folder: Path) -> None:
    """Save the added weights and the head, to be read by PeftModel.from_pretrained. weights: by peft's own names."""
    from safetensors.torch import save_file

    settings.task_type = "SEQ_CLS"
    settings.inference_mode = True
    settings.modules_to_save = list(anatomy(model.config).head)  # type: ignore[attr-defined]
    settings.base_model_name_or_path = model.config.name_or_path
    for name, value in vars(settings).items():  # a set of strings has another order in each process
        if isinstance(value, set):
            setattr(settings, name, sorted(value))
    settings.save_pretrained(str(folder))
    head = {f"{_PREFIX}{name}": value for name, value in model.state_dict().items() if is_head(model, name)}
    # clone: some methods share random matrices between layers, and safetensors rejects tensors that share memory
    tensors = {name: value.contiguous().clone() for name, value in {**weights, **head}.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def load_adapter(model: Any, adapted: Any, folder: Path, biases: Collection[str] = ()) -> None:
    """Load what save_adapter has saved. adapted: the module that peft has changed, which may wrap the model.

    biases: names of those of the encoder that were trained too.
    """
    from peft.utils import set_peft_model_state_dict
    from safetensors.torch import load_file

    stored = {
        name.removeprefix(_PREFIX): value for name, value in load_file(folder / "adapter_model.safetensors").items()
    }
    plain = {name: value for name, value in stored.items() if is_head(model, name) or name in biases}
    prefix = "" if adapted is model else _PREFIX
    weights = {f"{prefix}{name}": value for name, value in stored.items() if name not in plain}
    results: list[Any] = [
        set_peft_model_state_dict(adapted, weights, adapter_name="default"),
        model.load_state_dict(plain, strict=False),
    ]
    unexpected = [name for result in results for name in result.unexpected_keys]
    if unexpected:
        raise ModelError(f"{folder} holds weights that do not fit the encoder: {join_limited(unexpected)}")
