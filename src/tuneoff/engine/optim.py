"""AdamW over the parameters that a strategy trains."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

from tuneoff.compat import divide_gradients_at_step
from tuneoff.encoder.anatomy import blocks, parameter_depths
from tuneoff.engine.master_weights import MasterWeights
from tuneoff.strategies.base import Adapted


def parameter_groups(
    adapted: Adapted, master_weights: MasterWeights, learning_rate: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Group the master weights of the trainable parameters by learning rate and weight decay, as torch expects.

    Biases and norms have no weight decay, as in BERT. With layer decay d and n blocks, the head has the full learning
    rate, block i has d ** (n - i) of it, the embeddings d ** (n + 1) (Howard & Ruder, ACL 2018). Parameters with a
    factor of their own (LoRA+) have that many times the rate. "peak": the rate that the schedule multiplies.
    """
    depths = parameter_depths(adapted.model)
    num_blocks = len(blocks(adapted.model))
    groups: dict[tuple[float, float], list[Tensor]] = defaultdict(list)
    for name, parameter in adapted.trainable.items():
        scale = adapted.layer_decay ** (num_blocks - depths[name]) * adapted.rate_factors.get(name, 1.0)
        groups[learning_rate * scale, weight_decay if parameter.ndim > 1 else 0.0].append(master_weights[parameter])
    return [
        {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def adamw(
    adapted: Adapted, master_weights: MasterWeights, learning_rate: float, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter, ICLR 2019) with torch's defaults for all but learning rate and weight decay."""
    return torch.optim.AdamW(parameter_groups(adapted, master_weights, learning_rate, weight_decay), fused=True)


def clip_at_step(
    norm: Tensor,
    max_norm: float,
    optimizer: torch.optim.AdamW,
    scale: Tensor | None = None,
    is_left_out: Tensor | None = None,
) -> None:
    """Clip gradients by their total norm, (), in the optimizer's next step, without an extra pass over memory.

    scale: by which the gradients, but not the norm, are too large (LossScale). is_left_out: () of 1.0 or 0.0, on a GPU:
    whether the step is left out, because a gradient is not finite.
    """
    divisor = (norm / max_norm).clamp(min=1)
    divide_gradients_at_step(optimizer, divisor if scale is None else divisor * scale, is_left_out)
