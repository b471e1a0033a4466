"""BitFit: biases and head."""

from typing import Any, ClassVar

from pydantic import Field

from tuneoff.encoder.anatomy import is_head
from tuneoff.errors import ModelError
from tuneoff.strategies.base import Adapted, GradientConfig, train_only


class BitFit(GradientConfig):
    """Every bias of the encoder, and the head (Ben Zaken, Ravfogel & Goldberg, ACL 2022)."""

    name: ClassVar[str] = "bitfit"
    learning_rate: float = Field(1e-3, gt=0, le=1)  # the paper searches 1e-4 to 1e-3 (its appendix); docs/log.md


def bitfit(model: Any, config: BitFit) -> Adapted:
    """Train every parameter named bias, including those of layer norms, and the head.

    Raises ModelError for an encoder without biases (ModernBERT).
    """
    if not any(name.endswith("bias") and not is_head(model, name) for name, _ in model.named_parameters()):
        raise ModelError(f"bitfit trains biases, and this {model.config.model_type} has none; choose lora or adapter")
    train_only(model, lambda name: name.endswith("bias") or is_head(model, name))
    return Adapted(model)
