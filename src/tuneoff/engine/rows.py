"""The word embedding's gradient without a fresh dense copy each step.

A batch touches a few hundred of tens of thousands of rows, but autograd allocates and clears a gradient of all of them
every step: about a fifth of a full fine-tuning step on a CPU (docs/log.md). Here one buffer stays; the rows that a
batch touched are added to it and cleared after the step. The gradient is the same, and so is AdamW.
"""

from typing import Any

import torch
from torch import Tensor, nn


class RowGradient:
    """Keeps the gradient of a model's word embedding, if that trains; else does nothing."""

    def __init__(self, model: Any) -> None:
        embedding = model.get_input_embeddings()
        self._weight: nn.Parameter | None = embedding.weight if embedding.weight.requires_grad else None
        self._rows: Tensor | None = None
        if self._weight is not None:
            embedding.sparse = True  # autograd then gives the touched rows alone
            self._gradient = torch.zeros_like(self._weight)

    def gather(self) -> None:
        """After backward: turn the touched rows into a dense gradient."""
        if self._weight is None or self._weight.grad is None:
            return
        sparse = self._weight.grad
        self._rows = sparse._indices()[0]  # (T,) with repeats, which index_add_ sums
        self._weight.grad = None
        self._gradient.index_add_(0, self._rows, sparse._values())
        self._weight.grad = self._gradient

    def clear(self) -> None:
        """After the optimizer's step: all zeros again."""
        if self._rows is not None:
            self._gradient.index_fill_(0, self._rows, 0.0)
            self._rows = None
