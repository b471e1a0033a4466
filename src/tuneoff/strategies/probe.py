"""A linear classifier on frozen embeddings."""

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy.optimize import minimize_scalar
from scipy.special import expit, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from tuneoff.decide import best_thresholds, decide
from tuneoff.metrics import evaluate, is_better, log_losses
from tuneoff.strategies.base import StrategyConfig, for_labels


class Probe(StrategyConfig):
    """A linear SVM or logistic regression on the frozen encoder's embeddings; C is chosen on validation."""

    name: ClassVar[str] = "probe"
    searched: ClassVar[dict[str, float]] = {"C": 10.0}
    classifier: Literal["svm", "logistic"] = "logistic"
    pooling: Literal["cls", "mean"] = "mean"  # 4 points over cls on validation: docs/log.md
    C: tuple[float, ...] = Field((0.001, 0.01, 0.1, 1.0), min_length=1, description="values tried on validation")


def probe(
    features: np.ndarray,
    labels: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray],
    config: Probe,
    metric: str,
    class_weight: str | None,
) -> Any:
    """Fit one classifier per C and keep the best on validation (the stronger penalty where they tie).

    features: (N, H), labels: (N,) or (N, C), validation: the same two of the validation split. class_weight: "balanced"
    or None.
    """
    best, best_score = None, 0.0
    for C in sorted(config.C):
        fitted = _fit(features, labels, C, config, class_weight)
        chances = probabilities(fitted, validation[0], validation)
        predicted = decide(chances, best_thresholds(validation[1], chances))
        score = evaluate(validation[1], predicted, chances)[metric]
        if best is None or is_better(metric, score, best_score):
            best, best_score = fitted, score
    return best


def _fit(features: np.ndarray, labels: np.ndarray, C: float, config: Probe, class_weight: str | None) -> Pipeline:
    linear: Any = LinearSVC(C=C, dual=False, class_weight=class_weight)
    if config.classifier == "logistic":
        linear = LogisticRegression(C=C, max_iter=2000, class_weight=class_weight)
    return make_pipeline(StandardScaler(), for_labels(linear, labels)).fit(features, labels)


def probabilities(classifier: Pipeline, features: np.ndarray, validation: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Class probabilities of a fitted probe. features: (N, H) -> (N, C).

    An SVM gives margins: they become probabilities through a softmax with one scale (of several labels, a logistic
    function), fitted on validation so that its log loss is least; the likeliest class stays the SVM's own.
    """
    if hasattr(classifier, "predict_proba"):
        return classifier.predict_proba(features)
    held_out, labels = _margins(classifier, validation[0]), validation[1]
    squash: Any = expit if labels.ndim == 2 else lambda margins: softmax(margins, axis=1)

    def loss(log_scale: float) -> float:
        return float(log_losses(labels, squash(np.exp(log_scale) * held_out)).mean())

    scale = np.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x)
    return squash(scale * _margins(classifier, features))


def _margins(classifier: Pipeline, features: np.ndarray) -> np.ndarray:
    margins = classifier.decision_function(features)
    return np.stack([-margins, margins], axis=1) / 2 if margins.ndim == 1 else margins
