"""Selection on validation: which epoch, hyperparameter or threshold is the best, by one metric.

# N examples  C classes
"""

from dataclasses import dataclass

import numpy as np

from tuneoff.scoring.metrics import MetricOptions, evaluate
from tuneoff.scoring.thresholds import best_binary_threshold, best_thresholds, labels_from_probabilities


@dataclass(frozen=True)
class Selection:
    """The metric by which a run selects, and how it predicts labels from probabilities."""

    metric: str
    options: MetricOptions
    chooses_threshold: bool = False  # of the second of two classes; otherwise the most probable class is predicted

    def thresholds(self, labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray | None:
        """Choose the thresholds of multi-label data, (C,), or of the second of two classes, (1,); None for neither.

        labels: (N,) or (N, C), probabilities: (N, C), of the validation split.
        """
        if self.chooses_threshold:
            return best_binary_threshold(labels, probabilities, self.metric, self.options.positive)
        return best_thresholds(labels, probabilities)

    def evaluate(self, labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
        """Compute every metric on the validation split, with the best thresholds for it."""
        predicted = labels_from_probabilities(probabilities, self.thresholds(labels, probabilities))
        return evaluate(labels, predicted, probabilities, self.options)

    def score(self, labels: np.ndarray, probabilities: np.ndarray) -> float:
        """Score the validation split by the metric, with the best thresholds for it."""
        return self.evaluate(labels, probabilities)[self.metric]
