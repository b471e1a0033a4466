"""What every comparison needs beside it: the most frequent class, a bag of words, and the encoder as it came."""

from typing import Any, ClassVar

import numpy as np
from pydantic import Field
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from tuneoff.strategies.base import Adapted, StrategyConfig, for_labels, train_only


class Majority(StrategyConfig):
    """The most frequent class of train, always; probabilities are train's class shares."""

    name: ClassVar[str] = "majority"


def majority(texts: list[str], labels: np.ndarray, config: Majority, class_weight: str | None) -> Any:
    """Remember the class shares, whatever classes weigh. labels: (N,) or (N, C)."""
    return for_labels(DummyClassifier(strategy="prior"), labels).fit(np.zeros((len(texts), 1)), labels)


class Tfidf(StrategyConfig):
    """Logistic regression on TF-IDF of words and bigrams."""

    name: ClassVar[str] = "tfidf"
    searched: ClassVar[dict[str, float]] = {"C": 10.0}
    # sublinear counts and bigrams: the strong bag-of-words setting of Wang & Manning, ACL 2012
    ngrams: int = Field(2, ge=1, le=4, description="longest word n-gram")
    min_count: int = Field(2, ge=1, description="n-grams in fewer examples are left out")
    C: float = Field(10.0, gt=0, description="inverse strength of the L2 penalty")  # 1, 10, 100: docs/log.md


def tfidf(texts: list[str], labels: np.ndarray, config: Tfidf, class_weight: str | None) -> Pipeline:
    """Fit on train. Pairs come as one text, their halves joined. labels: (N,) or (N, C). class_weight: "balanced"
    or None."""
    min_count = config.min_count if len(texts) > 1000 else 1  # small data needs every word
    vectors = TfidfVectorizer(
        ngram_range=(1, config.ngrams), min_df=min_count, sublinear_tf=True, token_pattern=r"(?u)\b\w+\b|[^\w\s]"
    )
    linear = LogisticRegression(C=config.C, max_iter=1000, class_weight=class_weight)
    return make_pipeline(vectors, for_labels(linear, labels)).fit(texts, labels)


class Untrained(StrategyConfig):
    """The pretrained encoder with a fresh head and no training: what fine-tuning starts from."""

    name: ClassVar[str] = "untrained"


def untrained(model: Any, config: Untrained) -> Adapted:
    """Freeze everything."""
    train_only(model, lambda name: False)
    return Adapted(model)
