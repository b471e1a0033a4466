"""A linear classifier on frozen embeddings."""

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from tuneoff.metrics import evaluate, is_better
from tuneoff.strategies.base import StrategyConfig


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

    features: (N, H), labels: (N,), validation: the same two of the validation split. class_weight: "balanced" or None.
    """
    best, best_score = None, 0.0
    for C in sorted(config.C):
        fitted = _fit(features, labels, C, config, class_weight)
        chances = probabilities(fitted, validation[0], validation)
        score = evaluate(validation[1], fitted.predict(validation[0]), chances)[metric]
        if best is None or is_better(metric, score, best_score):
            best, best_score = fitted, score
    return best


def _fit(features: np.ndarray, labels: np.ndarray, C: float, config: Probe, class_weight: str | None) -> Pipeline:
    linear: Any = LinearSVC(C=C, dual=False, class_weight=class_weight)
    if config.classifier == "logistic":
        linear = LogisticRegression(C=C, max_iter=2000, class_weight=class_weight)
    return make_pipeline(StandardScaler(), linear).fit(features, labels)


def probabilities(classifier: Pipeline, features: np.ndarray, validation: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Class probabilities of a fitted probe. features: (N, H) -> (N, C).

    An SVM gives margins: they become probabilities through a softmax with one scale, fitted on validation so that
    its log loss is least; the predicted class stays the SVM's own.
    """
    if hasattr(classifier, "predict_proba"):
        return classifier.predict_proba(features)
    held_out, labels = _margins(classifier, validation[0]), validation[1]
    column = np.searchsorted(classifier.classes_, labels)

    def loss(log_scale: float) -> float:
        return -log_softmax(np.exp(log_scale) * held_out, axis=1)[np.arange(len(column)), column].mean()

    scale = np.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x)
    return softmax(scale * _margins(classifier, features), axis=1)


def _margins(classifier: Pipeline, features: np.ndarray) -> np.ndarray:
    margins = classifier.decision_function(features)
    return np.stack([-margins, margins], axis=1) / 2 if margins.ndim == 1 else margins
