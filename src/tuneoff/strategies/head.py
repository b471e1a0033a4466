"""Head only: the encoder is frozen."""

from typing import Any, ClassVar

from pydantic import Field

from tuneoff.encoder.anatomy import is_head
from tuneoff.strategies.base import Adapted, GradientConfig, train_only


class Head(GradientConfig):
    """The model class's own head, including a pooler, on a frozen encoder."""

    name: ClassVar[str] = "head"
    learning_rate: float = Field(1e-3, gt=0, le=1)  # flat from 3e-4 to 1e-2: docs/log.md


def head(model: Any, config: Head) -> Adapted:
    """Train only the head."""
    train_only(model, lambda name: is_head(model, name))
    return Adapted(model)
