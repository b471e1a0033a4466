"""Dropout from cheap random bits.

torch's CPU dropout draws one Bernoulli variable per element, which took 9 % of a training step. Here each 64-bit draw
decides four elements with 15 bits each: an element is dropped if its 15-bit number, uniform in 0..32767, is below
rate * 32768. The mask is then made by integer operations on those 16-bit numbers, without conversions or comparisons
(227 to 29 us for 448 x 384 elements in bf16: docs/log.md).

Trade-off: a rate is rounded to a multiple of 1/32768, and the random numbers are not torch's. Kept elements are scaled
by 1 / (1 - the rounded rate), so expectations are exact (Srivastava et al., JMLR 2014; the inverted form).
"""

import torch
from torch import Tensor, nn

from tuneoff.compat import swap_class

_LEVELS = 2**15


def keep_mask(like: Tensor, rate: float) -> Tensor:
    """Random mask with the shape and dtype of `like`: 0 if dropped, 1 / (1 - rate) if kept. rate: below 1."""
    count = like.numel()
    draws = torch.empty((count + 3) // 4, dtype=torch.int64, device=like.device)
    # random_ over all of int64, then read as four int16 per draw
    bits = draws.random_(torch.iinfo(torch.int64).min, None).view(torch.int16)[:count].view(like.shape)
    num_dropped = round(rate * _LEVELS)  # of the 32768 numbers
    # The number d = bits & 32767 is kept if d >= num_dropped, that is if num_dropped - 1 - d is negative. Shifting its
    # sign bit over all 16 bits gives -1 (all ones) if kept, 0 if dropped. The range, -32768..32767, fits in int16.
    kept = bits.bitwise_and_(_LEVELS - 1).neg_().add_(num_dropped - 1).bitwise_right_shift_(15)
    scale = torch.tensor(_LEVELS / (_LEVELS - num_dropped), dtype=like.dtype)
    if like.dtype.itemsize == 2:
        # all ones & the bits of the scale are the scale, 0 & them are 0.0: no conversion of integers to bf16
        return kept.bitwise_and_(scale.view(torch.int16)).view(like.dtype)
    return kept.to(like.dtype).mul_(-scale)  # -1 * -scale


def dropout(states: Tensor, rate: float, training: bool) -> Tensor:
    """torch.nn.functional.dropout with other random numbers on a CPU, and that function itself elsewhere."""
    if not training or rate == 0.0:
        return states
    if states.device.type != "cpu" or rate == 1.0:
        return nn.functional.dropout(states, rate, training=True)
    return states * keep_mask(states, rate)


class FastDropout(nn.Dropout):
    """nn.Dropout that draws cheap bits."""

    def forward(self, states: Tensor) -> Tensor:
        """Apply dropout in training mode only."""
        return dropout(states, self.p, self.training)


def use_fast_dropout(model: nn.Module) -> None:
    """Make every nn.Dropout of a model a FastDropout, in place."""
    for module in model.modules():
        if type(module) is nn.Dropout:
            swap_class(module, FastDropout)
