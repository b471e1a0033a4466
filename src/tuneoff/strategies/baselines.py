"""Baselines: the majority class, TF-IDF with logistic regression, and the encoder without training."""

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from tuneoff.strategies.base import Adapted, StrategyConfig, one_vs_rest_if_multilabel, train_only

if TYPE_CHECKING:
    import numpy as np
    from sklearn.pipeline import Pipeline


class Majority(StrategyConfig):
    """Always the most frequent class of train; the probabilities are the class shares of train."""

    name: ClassVar[str] = "majority"


def majority(texts: list[str], labels: "np.ndarray", config: Majority, class_weight: str | None) -> Any:
    """Fit the class shares. labels: (N,) or (N, C). class_weight has no effect."""
    import numpy as np
    from sklearn.dummy import DummyClassifier

    no_features = np.zeros((len(texts), 1))
    return one_vs_rest_if_multilabel(DummyClassifier(strategy="prior"), labels).fit(no_features, labels)


class Tfidf(StrategyConfig):
    """Logistic regression on TF-IDF of words and bigrams."""

    name: ClassVar[str] = "tfidf"
    searched: ClassVar[dict[str, float]] = {"C": 10.0}
    # bigrams: the strong bag-of-words baselines of Wang & Manning, ACL 2012; counts are sublinear (1 + log)
    ngrams: int = Field(2, ge=1, le=4, description="longest word n-gram")
    min_count: int = Field(2, ge=1, description="ignore n-grams that occur in fewer examples")
    C: float = Field(10.0, gt=0, description="inverse strength of the L2 penalty")  # 1, 10, 100: docs/log.md


def tfidf(texts: list[str], labels: "np.ndarray", config: Tfidf, class_weight: str | None) -> "Pipeline":
    """Fit on train. texts: the two texts of a pair joined. labels: (N,) or (N, C). class_weight: "balanced" or None."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    min_count = config.min_count if len(texts) > 1000 else 1  # on small data rare words matter
    vectors = TfidfVectorizer(
        ngram_range=(1, config.ngrams), min_df=min_count, sublinear_tf=True, token_pattern=r"(?u)\b\w+\b|[^\w\s]"
    )
    linear = LogisticRegression(C=config.C, max_iter=1000, class_weight=class_weight)
    return make_pipeline(vectors, one_vs_rest_if_multilabel(linear, labels)).fit(texts, labels)


class Untrained(StrategyConfig):
    """The pretrained encoder with a randomly initialised head, not trained: the starting point of fine-tuning."""

    name: ClassVar[str] = "untrained"


def untrained(model: Any, config: Untrained) -> Adapted:
    """Freeze all parameters."""
    train_only(model, lambda name: False)
    return Adapted(model)
