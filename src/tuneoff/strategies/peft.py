"""Every other method of peft that changes an encoder's layers in place, through one strategy."""

import dataclasses
import warnings
from dataclasses import dataclass, field
from typing import Any, ClassVar

import peft
from peft.tuners.vera.layer import VeraLayer
from peft.utils import get_peft_model_state_dict
from pydantic import ConfigDict, Field, model_validator
from torch import nn

from tuneoff.encoder.anatomy import blocks, is_head, parameter_depths, projection_names
from tuneoff.errors import ConfigError, unknown
from tuneoff.strategies.base import Adapted, GradientConfig, chosen_blocks, short
from tuneoff.strategies.lora import Projection, save_adapter


@dataclass(frozen=True)
class Method:
    """One of peft's methods: its config, what we set in it by default, and its rate."""

    config: type[peft.PeftConfig]
    rate: float  # LoRA's own for its nearest kin, else the best of five on validation: docs/log.md
    defaults: dict[str, Any] = field(default_factory=dict)
    targets: tuple[Projection, ...] = ("query", "value")  # Hu et al., ICLR 2022, Table 9; the same for all


METHODS = {
    "dora": Method(peft.LoraConfig, 5e-4, {"r": 8, "lora_alpha": 16, "use_dora": True}),  # Liu et al., ICML 2024
    "rslora": Method(peft.LoraConfig, 5e-4, {"r": 8, "lora_alpha": 16, "use_rslora": True}),  # Kalajdzievski, 2023
    "ia3": Method(peft.IA3Config, 1e-2, targets=("key", "value", "down")),  # Liu et al., NeurIPS 2022
    "vera": Method(peft.VeraConfig, 5e-2, {"r": 256}),  # Kopiczko et al., ICLR 2024
    "loha": Method(peft.LoHaConfig, 1e-2),  # Hyeon-Woo et al., ICLR 2022
    "lokr": Method(peft.LoKrConfig, 1e-2),  # Yeh et al., ICLR 2024
    "oft": Method(peft.OFTConfig, 2e-3),  # Qiu et al., NeurIPS 2023
    "boft": Method(peft.BOFTConfig, 1e-2),  # Liu et al., ICLR 2024
    "fourierft": Method(peft.FourierFTConfig, 1e-2),  # Gao et al., ICML 2024
    "waveft": Method(peft.WaveFTConfig, 2e-3),  # Bilican et al., 2025
    "ln_tuning": Method(peft.LNTuningConfig, 1e-2),  # Zhao et al., ICLR 2024
    "hra": Method(peft.HRAConfig, 1e-2),  # Yuan et al., NeurIPS 2024
    "miss": Method(peft.MissConfig, 2e-3, {"r": 8}),  # Kang & Yin, 2024
    "c3a": Method(peft.C3AConfig, 5e-2),  # Chen et al., 2024
    "road": Method(peft.RoadConfig, 1e-2),  # Liao & Monz, NeurIPS 2024
    "gralora": Method(peft.GraloraConfig, 5e-4, {"r": 8, "alpha": 16}),  # Jung et al., 2025
    "hira": Method(peft.HiraConfig, 1e-2, {"r": 8}),  # Huang et al., ICLR 2025
    "randlora": Method(peft.RandLoraConfig, 5e-4),  # Albert et al., ICLR 2025
}
_VIRTUAL_TOKENS = "it puts virtual tokens before padded texts, and texts are packed here"
# what peft has beside these, and why it is not taken
UNSUPPORTED = {
    "prefix": _VIRTUAL_TOKENS,
    "ptuning": _VIRTUAL_TOKENS,
    "prompt": _VIRTUAL_TOKENS,
    "adalora": "it moves ranks between layers inside the training loop, of which there is one for all",
    "vblora": "it keeps its parameters outside the model's layers",
    "tinylora": "it keeps its parameters outside the model's layers",
    "shira": "its mask cannot be drawn where only a config is known, as plans need it",
    "delora": "its layers do not compute in bf16",
    "adaption_prompt": "it is made for decoders",
    "xlora": "it mixes adapters that were trained before",
    "poly": "it mixes adapters of several tasks",
}
# what we set in a peft config ourselves
_OURS = {"target_modules", "feedforward_modules", "layers_to_transform", "layers_pattern", "modules_to_save", "bias"}
_OURS |= {"task_type", "peft_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode"}


class Peft(GradientConfig):
    """A method of peft by its type; further options are those of peft's own config."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: ClassVar[str] = "peft"
    type: str = Field(description=f"one of {', '.join(METHODS)}")
    learning_rate: float = Field(gt=0, le=1, description="by default the type's own")
    targets: tuple[Projection, ...] | None = Field(None, min_length=1, description="by default query and value")
    layers: tuple[int, ...] | None = Field(None, description="indices of the blocks to adapt; all if not given")

    @model_validator(mode="before")
    @classmethod
    def _with_the_types_rate(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "type" not in given:
            raise ConfigError(f"strategy peft needs a type: one of {', '.join(METHODS)}")
        kind = given["type"]
        if kind in UNSUPPORTED:
            raise ConfigError(f"peft type {kind!r} is not supported: {UNSUPPORTED[kind]}")
        if kind not in METHODS:
            raise ConfigError(unknown("peft type", str(kind), METHODS))
        return {"learning_rate": METHODS[kind].rate, **given}

    @model_validator(mode="after")
    def _knows_its_options(self) -> "Peft":
        fields = {f.name for f in dataclasses.fields(METHODS[self.type].config)}
        for key in self.model_extra or {}:
            if key in _OURS:
                raise ConfigError(f"peft option {key!r} is set by Tuneoff; choose targets and layers instead")
            if key not in fields:
                raise ConfigError(unknown("key", key, sorted({*fields, *type(self).model_fields} - _OURS)))
        if self.type == "ln_tuning" and self.targets:
            raise ConfigError("peft type 'ln_tuning' trains the norms; leave targets out")
        return self

    @property
    def changed(self) -> dict[str, Any]:
        """The options that differ from the type's own."""
        options = self.model_dump(exclude={"type"}, exclude_none=True)
        if options["learning_rate"] == METHODS[self.type].rate:
            del options["learning_rate"]
        return options

    @property
    def label(self) -> str:
        """The type and what differs from its defaults: 'peft dora r=16'."""
        return " ".join(["peft", self.type, *[f"{key}={short(value)}" for key, value in self.changed.items()]])


def apply_peft(model: Any, config: Peft) -> Adapted:
    """Let peft change the chosen layers in place; what it adds trains, and the head."""
    method, chosen = METHODS[config.type], chosen_blocks(model, config.layers)
    if config.type == "ln_tuning":
        targets: dict[str, Any] = {"target_modules": _norms(model, chosen)}
    else:
        names = config.targets or method.targets
        targets = {"target_modules": projection_names(model, names, chosen)}
        if config.type == "ia3":  # which of them scale what enters a layer, and not what leaves it
            inner = tuple(name for name in names if name == "down")
            targets["feedforward_modules"] = projection_names(model, inner, chosen) if inner else []
    options = method.defaults | (config.model_extra or {})
    if config.type == "c3a":  # blocks have to divide a layer's width, and peft's own default often does not
        options = {"block_size": model.config.hidden_size // 4, **options}
    before = {id(parameter) for parameter in model.parameters()}
    try:
        settings = method.config(**targets, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice about options that were chosen on purpose
            wrapped = peft.get_peft_model(model, settings)
    except (ValueError, TypeError, RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"peft type {config.type!r} does not fit this encoder with these options: {reason}"
        ) from error
    for layer in [module for module in model.modules() if isinstance(module, VeraLayer)]:
        layer.register_forward_pre_hook(_follow)  # type: ignore[attr-defined]
    new = {name: parameter for name, parameter in model.named_parameters() if id(parameter) not in before}
    trained = {name for name, parameter in new.items() if parameter.requires_grad}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained or is_head(model, name))

    def save(adapted: Any, folder: Any) -> None:
        save_adapter(adapted, settings, get_peft_model_state_dict(wrapped), folder)

    return Adapted(model, tuple(new), saves=save)


def _follow(layer: Any, given: Any) -> None:
    """Let the random projections that all VeRA layers share compute in what the layer computes in; peft does not."""
    for name, scale in layer.vera_lambda_d.items():
        for shared in (layer.vera_A, layer.vera_B):
            if shared[name].dtype != scale.dtype:
                shared[name] = shared[name].to(scale.dtype)


def _norms(model: Any, chosen: list[int]) -> list[str]:
    """Names of the layer norms of some blocks; of all blocks, also those of the embeddings and the end."""
    depths = parameter_depths(model)
    is_whole = len(chosen) == len(blocks(model))
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.LayerNorm)
        and not is_head(model, f"{name}.weight")
        and (is_whole or depths[f"{name}.weight"] in chosen)
    ]
