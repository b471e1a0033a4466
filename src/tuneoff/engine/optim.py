"""AdamW over the parameters that a strategy trains."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from tuneoff.encoder.anatomy import blocks, parameter_depths
from tuneoff.engine.masters import Masters
from tuneoff.strategies.base import Adapted


def parameter_groups(
    adapted: Adapted, masters: Masters, learning_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Masters of the trained parameters by learning rate and decay. Biases and norms do not decay (BERT).

    With layer decay d the head has the full rate, block i d ** (n - i) of it, embeddings d ** (n + 1).
    """
    depths = parameter_depths(adapted.model)
    num_blocks = len(blocks(adapted.model))
    groups: dict[tuple[float, float], list[Tensor]] = defaultdict(list)
    for name, parameter in adapted.trainable.items():
        scale = adapted.layer_decay ** (num_blocks - depths[name])
        groups[learning_rate * scale, weight_decay if parameter.ndim > 1 else 0.0].append(masters[parameter])
    return [
        {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def adamw(adapted: Adapted, masters: Masters, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter, ICLR 2019) with torch's defaults beside rate and decay."""
    return torch.optim.AdamW(parameter_groups(adapted, masters, learning_rate, weight_decay), fused=True)


def clip_by(excess: Tensor, optimizer: torch.optim.AdamW) -> None:
    """Have the next step divide gradients by how far their norm exceeds what is allowed, if it does.

    torch's fused AdamW divides as it reads, as it does for scaled losses: clipping takes no pass of its own.
    """
    optimizer.grad_scale = excess.clamp(min=1)  # type: ignore[attr-defined]
