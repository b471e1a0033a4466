"""Dropout from cheap random bits.

torch's CPU dropout draws one Bernoulli variable an element, one after the other. Here each 64-bit draw decides four
elements, 15 bits each, so that a rate is met to 1/32768. The kept elements are scaled by the rate actually used:
expectations are exact.
"""

import torch
from torch import Tensor, nn

_LEVELS = 2**15


def keep_mask(like: Tensor, rate: float) -> Tensor:
    """0 where dropped, 1 / (1 - rate) where kept; the shape and dtype of `like`."""
    count = like.numel()
    draws = torch.empty((count + 3) // 4, dtype=torch.int64, device=like.device)
    bits = draws.random_(torch.iinfo(torch.int64).min, None).view(torch.int16)[:count].view(like.shape)
    dropped = round(rate * _LEVELS)
    # the sign bit of dropped - 1 - draw, spread out: all ones where kept, else zeros
    kept = bits.bitwise_and_(_LEVELS - 1).neg_().add_(dropped - 1).bitwise_right_shift_(15)
    scale = torch.tensor(_LEVELS / (_LEVELS - dropped), dtype=like.dtype)
    if like.dtype.itemsize == 2:
        return kept.bitwise_and_(scale.view(torch.int16)).view(like.dtype)  # no conversion: ten times faster
    return kept.to(like.dtype).mul_(-scale)


def dropout(states: Tensor, rate: float, training: bool) -> Tensor:
    """torch.nn.functional.dropout with other random numbers; on a GPU, that function itself."""
    if not training or rate == 0.0:
        return states
    if states.device.type != "cpu" or rate == 1.0:
        return nn.functional.dropout(states, rate, training=True)
    return states * keep_mask(states, rate)


class CheapDropout(nn.Dropout):
    """nn.Dropout from cheap bits; a model's own dropout modules become it in place."""

    def forward(self, states: Tensor) -> Tensor:
        """Drop in training mode alone."""
        return dropout(states, self.p, self.training)


def use_cheap_dropout(model: nn.Module) -> None:
    """Let every dropout module of a model draw cheap bits."""
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.__class__ = CheapDropout
