"""LoRA: low-rank updates of chosen projections, by peft."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from tuneoff.encoder.anatomy import anatomy, is_head, projection_names
from tuneoff.errors import ModelError, join_limited, requires
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


def lora(model: Any, config: LoRA) -> Adapted:
    """Add an update to each chosen projection. It starts at zero, so that the model's outputs stay as they were."""
    with requires("peft"):
        from peft import LoraConfig, inject_adapter_in_model
        from peft.utils import get_peft_model_state_dict

    from tuneoff.compat import use_fast_lora

    names = projection_names(model, config.targets, chosen_blocks(model, config.layers))
    settings = LoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=names, bias="none"
    )
    before = {id(parameter) for parameter in model.parameters()}
    # in place, without get_peft_model: its modules_to_save would copy the head, and count it twice
    inject_adapter_in_model(settings, model)
    use_fast_lora(model)
    added = tuple(name for name, parameter in model.named_parameters() if id(parameter) not in before)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in set(added) or is_head(model, name))

    def save(adapted: Any, folder: Path) -> None:
        weights = get_peft_model_state_dict(adapted, adapter_name="default")
        save_adapter(adapted, settings, {f"{_PREFIX}{name}": value for name, value in weights.items()}, folder)

    return Adapted(model, added, save=save, load=lambda adapted, folder: load_adapter(adapted, adapted, folder))


def save_adapter(model: Any, settings: "PeftConfig", weights: "Mapping[str, Tensor]", folder: Path) -> None:
    """Save the added weights and the head, to be read by PeftModel.from_pretrained. weights: by peft's own names."""
    from safetensors.torch import save_file

    settings.task_type = "SEQ_CLS"
    settings.inference_mode = True
    settings.modules_to_save = list(anatomy(model.config).head)  # type: ignore[attr-defined]
    settings.base_model_name_or_path = model.config.name_or_path
    settings.save_pretrained(str(folder))
    head = {f"{_PREFIX}{name}": value for name, value in model.state_dict().items() if is_head(model, name)}
    # clone: some methods share random matrices between layers, and safetensors rejects tensors that share memory
    tensors = {name: value.contiguous().clone() for name, value in {**weights, **head}.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def load_adapter(model: Any, adapted: Any, folder: Path) -> None:
    """Load what save_adapter has saved. adapted: the module that peft has changed, which may wrap the model."""
    from peft.utils import set_peft_model_state_dict
    from safetensors.torch import load_file

    stored = {
        name.removeprefix(_PREFIX): value for name, value in load_file(folder / "adapter_model.safetensors").items()
    }
    head = {name: value for name, value in stored.items() if is_head(model, name)}
    prefix = "" if adapted is model else _PREFIX
    weights = {f"{prefix}{name}": value for name, value in stored.items() if name not in head}
    results: list[Any] = [
        set_peft_model_state_dict(adapted, weights, adapter_name="default"),
        model.load_state_dict(head, strict=False),
    ]
    unexpected = [name for result in results for name in result.unexpected_keys]
    if unexpected:
        raise ModelError(f"{folder} holds weights that do not fit the encoder: {join_limited(unexpected)}")
