"""Gradient checkpointing: tensors inside a block are recomputed in the backward pass instead of being kept.

It keeps one (T, H) tensor per block, and costs one more forward pass, a third of a step (Chen et al., "Training deep
nets with sublinear memory cost", 2016). By default it is off.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from tuneoff.encoder.anatomy import blocks


@contextmanager
def checkpointing(model: Any, is_on: bool) -> Iterator[None]:
    """A context in which every block of a model, of any architecture, keeps only its input for the backward pass."""
    changed = {id(block): block for block in blocks(model)} if is_on else {}  # by id: ALBERT's list repeats a block
    for block in changed.values():
        block.forward = _checkpointed(block, block.forward)
    try:
        yield
    finally:
        for block in changed.values():
            del block.forward  # the class's own is visible again


def _checkpointed(block: Any, forward: Callable[..., Any]) -> Callable[..., Any]:
    def checkpointed_forward(*args: Any, **kwargs: Any) -> Any:
        if not (block.training and torch.is_grad_enabled()):
            return forward(*args, **kwargs)
        # torch restores the random generator's state for the second pass, so that dropout is the same
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return checkpointed_forward
