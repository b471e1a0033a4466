"""Training losses: cross-entropy with label smoothing or class weights, and focal loss; single-label and multi-label.

# N examples  B examples of a batch  C classes
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tuneoff.engine.recipe import Recipe


@dataclass(frozen=True)
class Loss:
    """A classification loss. The mean over a batch is summed(...) / weight(...).

    Sum and weight are separate so that a batch can be computed in parts: each part's sum is divided by the weight of
    the whole batch.
    """

    class_weights: Tensor | None = None  # (C,)
    label_smoothing: float = 0.0
    focal_gamma: float = 0.0  # 0: cross-entropy
    _moved: dict[torch.device, Tensor] = field(default_factory=dict)  # class weights, copied once to each device

    def summed(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Sum over the examples of a batch, or of a part of it. logits: (B, C). labels: (B,), or multi-label (B, C)."""
        weights = self._weights_on(logits.device)
        if labels.ndim == 2:
            return self._summed_multilabel(logits, labels.to(logits.dtype), weights)
        if self.focal_gamma == 0:
            return F.cross_entropy(logits, labels, weights, label_smoothing=self.label_smoothing, reduction="sum")
        log_p = logits.log_softmax(1).gather(1, labels[:, None])[:, 0]  # (B,) log probability of each true class
        losses = -((1 - log_p.exp()) ** self.focal_gamma) * log_p  # Lin et al., ICCV 2017, eq. 4
        return (losses if weights is None else losses * weights[labels]).sum()

    def _weights_on(self, device: torch.device) -> Tensor | None:
        if self.class_weights is None:
            return None
        if device not in self._moved:
            self._moved[device] = self.class_weights.to(device)
        return self._moved[device]

    def _summed_multilabel(self, logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        """Binary cross-entropy of each label, averaged over labels. weights: (C,) of positive labels, or None."""
        smoothed = labels * (1 - self.label_smoothing) + self.label_smoothing / 2
        losses = F.binary_cross_entropy_with_logits(logits, smoothed, pos_weight=weights, reduction="none")
        if self.focal_gamma:
            p = logits.sigmoid()
            losses = losses * (labels * (1 - p) + (1 - labels) * p) ** self.focal_gamma  # Lin et al., eq. 4
        return losses.mean(1).sum()

    def weight(self, labels: np.ndarray) -> float:
        """Divisor of a batch's summed loss: the sum of its examples' class weights, or the number of examples.

        labels: (B,) or (B, C). As torch's cross_entropy with reduction="mean" divides.
        """
        if self.class_weights is None or labels.ndim == 2:
            return float(len(labels))
        return float(self.class_weights[torch.from_numpy(labels)].sum())


def loss_of(recipe: Recipe, labels: np.ndarray, num_labels: int) -> Loss:
    """Build the loss that a recipe defines. labels: (N,) or (N, C) of train, for class weights."""
    weights = None
    if recipe.class_weights == "balanced":
        weights = positive_weights(labels) if labels.ndim == 2 else balanced_weights(labels, num_labels)
    focal_gamma = recipe.focal_gamma if recipe.loss == "focal" else 0.0
    return Loss(None if weights is None else torch.from_numpy(weights).float(), recipe.label_smoothing, focal_gamma)


def balanced_weights(labels: np.ndarray, num_labels: int) -> np.ndarray:
    """Class weights against class imbalance: N / (C * examples of the class) (King & Zeng, 2001). labels: (N,) -> (C,).

    With them the examples of every class have the same total weight. A class without examples has weight 0. The same as
    scikit-learn's class_weight="balanced".
    """
    counts = np.bincount(labels, minlength=num_labels)
    return np.divide(len(labels), num_labels * counts, out=np.zeros(num_labels), where=counts > 0)


def positive_weights(labels: np.ndarray) -> np.ndarray:
    """Weights of positive labels against class imbalance, for multi-label data: negatives / positives.

    labels: (N, C) of 0 and 1 -> (C,). A label that no example has gets weight 0.
    """
    counts = labels.sum(0)
    return np.divide(len(labels) - counts, counts, out=np.zeros(labels.shape[1]), where=counts > 0)


def example_weights(labels: np.ndarray, num_labels: int) -> np.ndarray:
    """Weights of examples for balanced sampling: that of the class or, for multi-label data, of the rarest label.

    labels: (N,) or (N, C) -> (N,). An example without any label gets the smallest weight.
    """
    if labels.ndim == 1:
        return balanced_weights(labels, num_labels)[labels]
    counts = labels.sum(0)
    weights = np.divide(len(labels), num_labels * counts, out=np.zeros(num_labels), where=counts > 0)
    rarest = (labels * weights).max(1)
    return np.where(rarest > 0, rarest, weights.min())
