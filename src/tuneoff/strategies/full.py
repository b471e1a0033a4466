"""Full fine-tuning."""

from typing import Any, ClassVar

from pydantic import Field

from tuneoff.strategies.base import Adapted, GradientConfig, train_only


class Full(GradientConfig):
    """Full fine-tuning: embeddings, every block and the head."""

    name: ClassVar[str] = "full"
    learning_rate: float = Field(5e-5, gt=0, le=1)  # Devlin et al., NAACL 2019, A.3: 5e-5, 3e-5, 2e-5
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="learning rate of each block, relative to the next block's (Howard & Ruder, ACL 2018); 1: off",
    )


def full(model: Any, config: Full) -> Adapted:
    """Train all parameters."""
    train_only(model, lambda name: True)
    return Adapted(model, layer_decay=config.layer_decay)
