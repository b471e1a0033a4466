"""Other parameter-efficient methods of the peft library, in one strategy with an option `type`."""

import dataclasses
import warnings
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import ConfigDict, Field, model_validator

from tuneoff.encoder.anatomy import blocks, is_head, parameter_depths, projection_names
from tuneoff.errors import ConfigError, requires, short_repr, unknown
from tuneoff.strategies.base import COMMON_OPTIONS, Adapted, GradientConfig, chosen_blocks, format_option
from tuneoff.strategies.lora import Projection, load_adapter, merged_layers, save_adapter


@dataclass(frozen=True)
class Method:
    """A method of peft, and our defaults for it."""

    config_name: str  # of its class in peft
    learning_rate: float  # LoRA's for its closest variants, else the best of five on validation: docs/log.md
    defaults: dict[str, Any] = field(default_factory=dict)
    targets: tuple[Projection, ...] = ("query", "value")  # Hu et al., ICLR 2022, Table 9; the same for all

    @property
    def config(self) -> Any:
        """The class of its config."""
        with requires("peft"):
            import peft

        return getattr(peft, self.config_name)


METHODS = {
    "dora": Method("LoraConfig", 5e-4, {"r": 8, "lora_alpha": 16, "use_dora": True}),  # Liu et al., ICML 2024
    "rslora": Method("LoraConfig", 5e-4, {"r": 8, "lora_alpha": 16, "use_rslora": True}),  # Kalajdzievski, 2023
    "ia3": Method("IA3Config", 1e-2, targets=("key", "value", "down")),  # Liu et al., NeurIPS 2022
    "vera": Method("VeraConfig", 5e-2, {"r": 256}),  # Kopiczko et al., ICLR 2024
    "loha": Method("LoHaConfig", 1e-2),  # Hyeon-Woo et al., ICLR 2022
    "lokr": Method("LoKrConfig", 1e-2),  # Yeh et al., ICLR 2024
    "oft": Method("OFTConfig", 2e-3),  # Qiu et al., NeurIPS 2023
    "boft": Method("BOFTConfig", 1e-2),  # Liu et al., ICLR 2024
    "fourierft": Method("FourierFTConfig", 1e-2),  # Gao et al., ICML 2024
    "waveft": Method("WaveFTConfig", 2e-3),  # Bilican et al., 2025
    "ln_tuning": Method("LNTuningConfig", 1e-2),  # Zhao et al., ICLR 2024
    "hra": Method("HRAConfig", 1e-2),  # Yuan et al., NeurIPS 2024
    "miss": Method("MissConfig", 2e-3, {"r": 8}),  # Kang & Yin, 2024
    "c3a": Method("C3AConfig", 5e-2),  # Chen et al., 2024
    "road": Method("RoadConfig", 1e-2),  # Liao & Monz, NeurIPS 2024
    "gralora": Method("GraloraConfig", 5e-4, {"r": 8, "alpha": 16}),  # Jung et al., 2025
    "hira": Method("HiraConfig", 1e-2, {"r": 8}),  # Huang et al., ICLR 2025
    "randlora": Method("RandLoraConfig", 5e-4),  # Albert et al., ICLR 2025
}
_VIRTUAL_TOKENS = "it puts virtual tokens before padded texts, but Tuneoff packs texts without padding"
# other methods of peft, and the reason why they are not supported
UNSUPPORTED = {
    "prefix": _VIRTUAL_TOKENS,
    "ptuning": _VIRTUAL_TOKENS,
    "prompt": _VIRTUAL_TOKENS,
    "adalora": "it changes ranks inside the training loop, but all strategies share one loop",
    "vblora": "it keeps its parameters outside the model's layers",
    "tinylora": "it keeps its parameters outside the model's layers",
    "shira": "its mask needs the weights, but plans count parameters from a config only",
    "delora": "its layers do not compute in bf16",
    "adaption_prompt": "it is for decoders",
    "xlora": "it mixes adapters that were trained earlier",
    "poly": "it mixes adapters of several tasks",
}
# fields of a peft config that this strategy sets itself
_RESERVED = {
    "target_modules",
    "feedforward_modules",
    "layers_to_transform",
    "layers_pattern",
    "modules_to_save",
    "bias",
}
_RESERVED |= {"task_type", "peft_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode"}


class Peft(GradientConfig):
    """A method of peft, chosen by `type`. Further options are fields of that method's config in peft."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: ClassVar[str] = "peft"
    type: str = Field(description=f"one of {', '.join(METHODS)}")
    learning_rate: float = Field(gt=0, le=1, description="by default that of the type")
    targets: tuple[Projection, ...] | None = Field(
        None, min_length=1, description="by default query and value; ia3: key, value and down"
    )
    layers: tuple[int, ...] | None = Field(None, description="indices of the blocks to adapt; all if not given")

    @model_validator(mode="before")
    @classmethod
    def _set_default_learning_rate(cls, options: Any) -> Any:
        if not isinstance(options, dict) or "type" not in options:
            raise ConfigError(f"strategy peft needs a type: one of {', '.join(METHODS)}")
        kind = options["type"] if isinstance(options["type"], str) else short_repr(options["type"])
        if kind in UNSUPPORTED:
            raise ConfigError(f"peft type {kind!r} is not supported: {UNSUPPORTED[kind]}")
        if kind not in METHODS:
            raise ConfigError(unknown("peft type", str(kind), METHODS))
        return {"learning_rate": METHODS[kind].learning_rate, **options}

    @model_validator(mode="after")
    def _check_options(self) -> "Peft":
        fields = {f.name for f in dataclasses.fields(METHODS[self.type].config)}
        for key in self.model_extra or {}:
            if key in _RESERVED:
                raise ConfigError(f"peft option {key!r} is set by Tuneoff; choose targets and layers instead")
            if key not in fields:
                raise ConfigError(unknown("key", key, sorted({*fields, *type(self).model_fields} - _RESERVED)))
        if self.type == "ln_tuning" and self.targets:
            raise ConfigError("peft type 'ln_tuning' trains the norms and has no targets; remove targets")
        return self

    @property
    def changed(self) -> dict[str, Any]:
        """The options that differ from the defaults of the type."""
        options = self.model_dump(exclude={"type", *COMMON_OPTIONS}, exclude_none=True)
        if options["learning_rate"] == METHODS[self.type].learning_rate:
            del options["learning_rate"]
        return options

    @property
    def label(self) -> str:
        """The strategy's name, the type and its changed options: 'peft dora r=16'."""
        own = [f"{key}={format_option(value)}" for key, value in self.changed.items()]
        return " ".join(["peft", self.type, *own, *self._recipe_written])


def apply_peft(model: Any, config: Peft) -> Adapted:
    """Adapt the chosen layers by peft, in place. The parameters that peft makes trainable train, and the head.

    Raises ConfigError if the options do not fit the encoder.
    """
    with requires("peft"):
        import peft
        from peft.utils import get_peft_model_state_dict

    from tuneoff.compat import keep_vera_dtype

    method, chosen = METHODS[config.type], chosen_blocks(model, config.layers)
    if config.type == "ln_tuning":
        targets: dict[str, Any] = {"target_modules": _norms(model, chosen)}
    else:
        names = config.targets or method.targets
        targets = {"target_modules": projection_names(model, names, chosen)}
        if config.type == "ia3":  # IA3 scales the input of the feed-forward's second layer, and the output of others
            scaled_inputs = tuple(name for name in names if name == "down")
            targets["feedforward_modules"] = projection_names(model, scaled_inputs, chosen) if scaled_inputs else []
    options = method.defaults | (config.model_extra or {})
    if config.type == "c3a":  # the block size must divide the width of a layer; peft's default often does not
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
    keep_vera_dtype(model)
    new = {name: parameter for name, parameter in model.named_parameters() if id(parameter) not in before}
    trained = {name for name, parameter in new.items() if parameter.requires_grad}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained or is_head(model, name))

    def save(adapted: Any, folder: Any) -> None:
        save_adapter(adapted, settings, get_peft_model_state_dict(wrapped), folder)

    def load(adapted: Any, folder: Any) -> None:
        load_adapter(adapted, wrapped, folder)

    return Adapted(model, tuple(new), save=save, load=load, merged=lambda: merged_layers(model))


def _norms(model: Any, chosen: list[int]) -> list[str]:
    """Return the names of the layer norms in the chosen blocks, or in the whole encoder if all blocks are chosen."""
    from torch import nn

    depths = parameter_depths(model)
    are_all = len(chosen) == len(blocks(model))
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.LayerNorm)
        and not is_head(model, f"{name}.weight")
        and (are_all or depths[f"{name}.weight"] in chosen)
    ]
