"""Partial fine-tuning: the last blocks and the head."""

from typing import Any, ClassVar

from pydantic import Field

from tuneoff.encoder.anatomy import block_parameters, blocks, parameter_depths
from tuneoff.strategies.base import Adapted, GradientConfig, chosen_blocks, train_only


class Partial(GradientConfig):
    """The last N blocks and the head; the blocks below are frozen and run once (Lee, Tang & Lin, 2019)."""

    name: ClassVar[str] = "partial"
    learning_rate: float = Field(1e-4, gt=0, le=1)  # between those of full and head: docs/log.md
    layers: int = Field(2, ge=1, description="number of last blocks that train")


def partial(model: Any, config: Partial) -> Adapted:
    """Train the last blocks, the final norm and the head.

    ALBERT runs the same block at every position, so it trains at all of them.
    """
    inside = block_parameters(model, chosen_blocks(model, config.layers))
    depths = parameter_depths(model)
    train_only(model, lambda name: name in inside or depths[name] == len(blocks(model)))
    return Adapted(model)
