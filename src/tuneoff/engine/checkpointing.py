"""Gradient checkpointing: what is inside a block is computed again in the backward pass instead of being kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from tuneoff.encoder.anatomy import blocks


@contextmanager
def checkpointing(model: Any, is_on: bool) -> Iterator[None]:
    """Let every block of a model, of whatever architecture, keep its input alone (Chen et al., 2016)."""
    changed = {id(block): block for block in blocks(model)} if is_on else {}  # ALBERT's stand in several places
    for block in changed.values():
        block.forward = _again(block, block.forward)
    try:
        yield
    finally:
        for block in changed.values():
            del block.forward


def _again(block: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
    def in_two_passes(*given: Any, **named: Any) -> Any:
        if not (block.training and torch.is_grad_enabled()):
            return forward(*given, **named)
        # the same dropout the second time: the generator's state is kept
        return checkpoint(forward, *given, use_reentrant=False, **named)

    return in_two_passes
