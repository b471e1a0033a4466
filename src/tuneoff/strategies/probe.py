"""Linear probe: a linear classifier on frozen embeddings."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from tuneoff.scoring.metrics import is_better, log_losses
from tuneoff.scoring.selection import Selection
from tuneoff.strategies.base import StrategyConfig, one_vs_rest_if_multilabel

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


class Probe(StrategyConfig):
    """Logistic regression or a linear SVM on the frozen encoder's embeddings; of several C, validation chooses."""

    name: ClassVar[str] = "probe"
    searched: ClassVar[dict[str, float]] = {"C": 10.0}
    classifier: Literal["svm", "logistic"] = "logistic"
    pooling: Literal["cls", "mean"] = "mean"  # 4 points over cls on validation: docs/log.md
    C: tuple[float, ...] = Field(
        (0.001, 0.01, 0.1, 1.0), min_length=1, description="inverse strengths of the L2 penalty to try on validation"
    )

    newer: ClassVar[frozenset[str]] = frozenset({"scale"})
    # the penalty is the same for every dimension; docs/log.md
    scale: Literal["standard", "none"] = Field(
        "standard", description="standard: each dimension has mean 0 and deviation 1; none: embeddings as they are"
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
    selection: Selection,
    class_weight: str | None,
) -> Any:
    """Fit one classifier per value of C, and return the best one on validation; the smallest C if scores are equal.

    features: (N, H). labels: (N,) or (N, C). validation: features and labels of the validation split; None for a single
    value of C. selection: of C. class_weight: "balanced" or None.
    """
    if validation is None:
        (only_C,) = config.C
        return _fit(features, labels, only_C, config, class_weight)
    best, best_score = None, 0.0
    for C in sorted(config.C):
        classifier = _fit(features, labels, C, config, class_weight)
        _scale_margins(classifier, *validation)
        score = selection.score(validation[1], probabilities(classifier, validation[0]))
        if best is None or is_better(selection.metric, score, best_score):
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
    steps = [StandardScaler()] if config.scale == "standard" else []
    return make_pipeline(*steps, one_vs_rest_if_multilabel(linear, labels)).fit(features, labels)


def selected_options(classifier: "Pipeline") -> dict[str, float]:
    """Return the options of a fitted probe that validation selected."""
    linear = classifier[-1]
    return {"C": float(getattr(linear, "estimator", linear).C)}


def probabilities(classifier: "Pipeline", features: np.ndarray) -> np.ndarray:
    """Class probabilities of a fitted probe. features: (N, H) -> (N, C).

    Those of an SVM are softmax(margins), or for multi-label data a logistic function per label: see _scale_margins.
    """
    if hasattr(classifier, "predict_proba"):
        return classifier.predict_proba(features)
    return _to_probabilities(classifier, _margins(classifier, features))


def _scale_margins(classifier: "Pipeline", features: np.ndarray, labels: np.ndarray) -> None:
    """Scale the coefficients of an SVM so that its margins give calibrated probabilities; others stay as they are.

    The scale minimizes the log loss on validation: temperature scaling (Guo et al., ICML 2017). The predicted class
    stays that of the SVM. features: (N, H); labels: (N,) or (N, C), both of validation.
    """
    if hasattr(classifier, "predict_proba"):
        return
    from scipy.optimize import minimize_scalar

    margins = _margins(classifier, features)

    def loss(log_scale: float) -> float:
        return float(log_losses(labels, _to_probabilities(classifier, np.exp(log_scale) * margins)).mean())

    scale = float(np.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x))
    for linear in getattr(classifier[-1], "estimators_", [classifier[-1]]):
        linear.coef_, linear.intercept_ = scale * linear.coef_, scale * linear.intercept_


def _to_probabilities(classifier: "Pipeline", margins: np.ndarray) -> np.ndarray:
    from scipy.special import expit, softmax

    is_multilabel = hasattr(classifier[-1], "estimator")
    return expit(margins) if is_multilabel else softmax(margins, axis=1)


def _margins(classifier: "Pipeline", features: np.ndarray) -> np.ndarray:
    """Margins of each class. (N, H) -> (N, C). With two classes scikit-learn returns one: half of it for each."""
    margins = classifier.decision_function(features)
    return np.stack([-margins, margins], axis=1) / 2 if margins.ndim == 1 else margins
