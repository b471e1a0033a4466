"""What training goes down: cross-entropy, smoothed, weighted by class, or focused on what is hard.

# N examples  B examples of a batch  C classes
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tuneoff.engine.recipe import Recipe


@dataclass(frozen=True)
class Loss:
    """A loss of single-label classification. Its mean over a batch is its total divided by the batch's weight."""

    class_weights: Tensor | None = None  # (C,)
    smoothing: float = 0.0
    focus: float = 0.0

    def total(self, answers: Tensor, labels: Tensor) -> Tensor:
        """Summed over a batch, or a part of one. answers: (B, C) logits, labels: (B,)."""
        weights = None if self.class_weights is None else self.class_weights.to(answers.device)
        if self.focus == 0:
            return F.cross_entropy(answers, labels, weights, label_smoothing=self.smoothing, reduction="sum")
        right = answers.log_softmax(1).gather(1, labels[:, None])[:, 0]  # (B,)
        losses = -((1 - right.exp()) ** self.focus) * right
        return (losses if weights is None else losses * weights[labels]).sum()

    def weight(self, labels: np.ndarray) -> float:
        """What a batch weighs: its examples, each by the weight of its class. labels: (B,)."""
        return float(len(labels) if self.class_weights is None else self.class_weights[torch.from_numpy(labels)].sum())


def loss_of(recipe: Recipe, labels: np.ndarray, num_labels: int) -> Loss:
    """The loss that a recipe asks for. labels: (N,) of train."""
    weights = balanced_weights(labels, num_labels) if recipe.class_weights == "balanced" else None
    focus = recipe.focal_gamma if recipe.loss == "focal" else 0.0
    return Loss(None if weights is None else torch.from_numpy(weights).float(), recipe.label_smoothing, focus)


def balanced_weights(labels: np.ndarray, num_labels: int) -> np.ndarray:
    """Weights with which every class counts the same: N / (C * examples of the class) (King & Zeng, 2001).

    A class without examples weighs 0. labels: (N,) -> (C,).
    """
    counts = np.bincount(labels, minlength=num_labels)
    return np.divide(len(labels), num_labels * counts, out=np.zeros(num_labels), where=counts > 0)
