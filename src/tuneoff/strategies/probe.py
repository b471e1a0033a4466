"""Linear probe: a linear classifier on frozen embeddings."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from tuneoff.scoring.metrics import evaluate, is_better, log_losses
from tuneoff.scoring.thresholds import best_thresholds, labels_from_probabilities
from tuneoff.strategies.base import StrategyConfig, one_vs_rest_if_multilabel

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


class Probe(StrategyConfig):
    """Logistic regression or a linear SVM on the frozen encoder's embeddings; C is chosen on validation."""

    name: ClassVar[str] = "probe"
    searched: ClassVar[dict[str, float]] = {"C": 10.0}
    classifier: Literal["svm", "logistic"] = "logistic"
    pooling: Literal["cls", "mean"] = "mean"  # 4 points over cls on validation: docs/log.md
    C: tuple[float, ...] = Field(
        (0.001, 0.01, 0.1, 1.0), min_length=1, description="inverse strengths of the L2 penalty to try on validation"
    )

    @property
    def num_fits(self) -> int:
        """One per value of C."""
        return len(self.C)


def probe(
    features: np.ndarray,
    labels: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray] | None,
    config: Probe,
    metric: str,
    class_weight: str | None,
) -> Any:
    """Fit one classifier per value of C, and return the best one on validation; the smallest C if scores are equal.

    features: (N, H). labels: (N,) or (N, C). validation: features and labels of the validation split; None for a single
    value of C. metric: selects C. class_weight: "balanced" or None.
    """
    if validation is None:
        (only_C,) = config.C
        return _fit(features, labels, only_C, config, class_weight)
    best, best_score = None, 0.0
    for C in sorted(config.C):
        classifier = _fit(features, labels, C, config, class_weight)
        by_class = probabilities(classifier, validation[0], validation)
        predicted = labels_from_probabilities(by_class, best_thresholds(validation[1], by_class))
        score = evaluate(validation[1], predicted, by_class)[metric]
        if best is None or is_better(metric, score, best_score):
            best, best_score = classifier, score
    return best


def _fit(features: np.ndarray, labels: np.ndarray, C: float, config: Probe, class_weight: str | None) -> "Pipeline":
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    linear: Any = LinearSVC(C=C, dual=False, class_weight=class_weight)
    if config.classifier == "logistic":
        linear = LogisticRegression(C=C, max_iter=2000, class_weight=class_weight)
    return make_pipeline(StandardScaler(), one_vs_rest_if_multilabel(linear, labels)).fit(features, labels)


def selected_options(classifier: "Pipeline") -> dict[str, float]:
    """Return the options of a fitted probe that validation selected."""
    linear = classifier[-1]
    return {"C": float(getattr(linear, "estimator", linear).C)}


def probabilities(
    classifier: "Pipeline", features: np.ndarray, validation: tuple[np.ndarray, np.ndarray] | None
) -> np.ndarray:
    """Class probabilities of a fitted probe. features: (N, H) -> (N, C).

    An SVM returns margins. They become probabilities by softmax(scale * margins), or for multi-label data by a logistic
    function per label, with the scale that minimizes the log loss on validation: temperature scaling (Guo et al., ICML
    2017). The predicted class stays that of the SVM. Without validation the scale is 1.
    """
    if hasattr(classifier, "predict_proba"):
        return classifier.predict_proba(features)
    from scipy.optimize import minimize_scalar
    from scipy.special import expit, softmax

    is_multilabel = hasattr(classifier[-1], "estimator")
    to_probabilities: Any = expit if is_multilabel else lambda margins: softmax(margins, axis=1)
    if validation is None:
        return to_probabilities(_margins(classifier, features))
    validation_margins, labels = _margins(classifier, validation[0]), validation[1]

    def loss(log_scale: float) -> float:
        return float(log_losses(labels, to_probabilities(np.exp(log_scale) * validation_margins)).mean())

    scale = np.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x)
    return to_probabilities(scale * _margins(classifier, features))


def _margins(classifier: "Pipeline", features: np.ndarray) -> np.ndarray:
    """Margins of each class. (N, H) -> (N, C). With two classes scikit-learn returns one: half of it for each."""
    margins = classifier.decision_function(features)
    return np.stack([-margins, margins], axis=1) / 2 if margins.ndim == 1 else margins
