"""Encoder frozen, head trained."""

from typing import Any, ClassVar

from pydantic import Field

from tuneoff.encoder.anatomy import is_head
from tuneoff.strategies.base import Adapted, GradientConfig, train_only


class Head(GradientConfig):
    """The model class's own head (pooler included) on a frozen encoder."""

    name: ClassVar[str] = "head"
    learning_rate: float = Field(1e-3, gt=0, le=1)  # docs/log.md: best of 1e-4, 1e-3, 5e-3 on Rotten Tomatoes


def head(model: Any, config: Head) -> Adapted:
    """Train the head alone."""
    train_only(model, lambda name: is_head(model, name))
    return Adapted(model)
