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
    """A loss of classification. Its mean over a batch is its total divided by the batch's weight."""

    class_weights: Tensor | None = None  # (C,)
    smoothing: float = 0.0
    focus: float = 0.0

    def total(self, answers: Tensor, labels: Tensor) -> Tensor:
        """Summed over a batch, or a part of one. answers: (B, C) logits, labels: (B,) or (B, C)."""
        weights = None if self.class_weights is None else self.class_weights.to(answers.device)
        if labels.ndim == 2:
            return self._total_of_several(answers, labels.to(answers.dtype), weights)
        if self.focus == 0:
            return F.cross_entropy(answers, labels, weights, label_smoothing=self.smoothing, reduction="sum")
        right = answers.log_softmax(1).gather(1, labels[:, None])[:, 0]  # (B,)
        losses = -((1 - right.exp()) ** self.focus) * right
        return (losses if weights is None else losses * weights[labels]).sum()

    def _total_of_several(self, answers: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        """Each label is a question of its own: binary cross-entropy, its mean over labels, given ones weighted."""
        soft = labels * (1 - self.smoothing) + self.smoothing / 2
        losses = F.binary_cross_entropy_with_logits(answers, soft, pos_weight=weights, reduction="none")
        if self.focus:
            chances = answers.sigmoid()
            losses = losses * (labels * (1 - chances) + (1 - labels) * chances) ** self.focus  # Lin et al., eq. 4
        return losses.mean(1).sum()

    def weight(self, labels: np.ndarray) -> float:
        """What a batch weighs: its examples, each by the weight of its class. labels: (B,) or (B, C)."""
        if self.class_weights is None or labels.ndim == 2:
            return float(len(labels))
        return float(self.class_weights[torch.from_numpy(labels)].sum())


def loss_of(recipe: Recipe, labels: np.ndarray, num_labels: int) -> Loss:
    """The loss that a recipe asks for. labels: (N,) or (N, C) of train."""
    weights = None
    if recipe.class_weights == "balanced":
        weights = positive_weights(labels) if labels.ndim == 2 else balanced_weights(labels, num_labels)
    focus = recipe.focal_gamma if recipe.loss == "focal" else 0.0
    return Loss(None if weights is None else torch.from_numpy(weights).float(), recipe.label_smoothing, focus)


def balanced_weights(labels: np.ndarray, num_labels: int) -> np.ndarray:
    """Weights with which every class counts the same: N / (C * examples of the class) (King & Zeng, 2001).

    A class without examples weighs 0. labels: (N,) -> (C,).
    """
    counts = np.bincount(labels, minlength=num_labels)
    return np.divide(len(labels), num_labels * counts, out=np.zeros(num_labels), where=counts > 0)


def positive_weights(labels: np.ndarray) -> np.ndarray:
    """Weights with which a label counts the same where it is given as where it is not. labels: (N, C) -> (C,)."""
    counts = labels.sum(0)
    return np.divide(len(labels) - counts, counts, out=np.zeros(labels.shape[1]), where=counts > 0)


def example_weights(labels: np.ndarray, num_labels: int) -> np.ndarray:
    """How likely balanced sampling draws each example: of several labels, the rarest decides. -> (N,)."""
    if labels.ndim == 1:
        return balanced_weights(labels, num_labels)[labels]
    counts = labels.sum(0)
    weights = np.divide(len(labels), num_labels * counts, out=np.zeros(num_labels), where=counts > 0)
    rarest = (labels * weights).max(1)
    return np.where(rarest > 0, rarest, weights.min())
