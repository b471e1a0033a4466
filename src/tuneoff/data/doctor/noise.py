"""Label noise over all splits: doubtful labels by confident learning with cross-fitted probabilities.

Each example gets probabilities from a linear classifier that was not trained on it, nor on an equal text, which may
have the same wrong label. All splits are divided into folds together: no score is computed, so that a model may train
on test examples.

# N examples  C classes  H features
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tuneoff.data.doctor.finding import Finding
from tuneoff.formats import join_names
from tuneoff.scoring.label_noise import likely_label_errors

_NUM_FOLDS = 5
# of logistic regression on standardized vectors, and on TF-IDF: the values whose lists hold most of the label errors
# planted in Rotten Tomatoes (docs/log.md)
_C_VECTORS, _C_TFIDF = 0.001, 1.0


def cross_fitted(features: Any, labels: np.ndarray, texts: Sequence[str], num_labels: int, seed: int = 0) -> np.ndarray:
    """Class probabilities of each example by a classifier that was trained without it. (N, C).

    features: (N, H), dense vectors of an encoder or a sparse matrix of TF-IDF. labels: (N,). texts: N of them.
    """
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def classifier() -> Any:
        if sparse.issparse(features):
            return LogisticRegression(C=_C_TFIDF, max_iter=200)
        return make_pipeline(StandardScaler(), LogisticRegression(C=_C_VECTORS, max_iter=200))

    probabilities, folds = np.zeros((len(labels), num_labels)), folds_of_texts(labels, texts, seed)
    for fold in range(_NUM_FOLDS):
        outer = np.flatnonzero(folds == fold)
        inner = np.flatnonzero(folds != fold)
        if len(outer) == 0 or len(np.unique(labels[inner])) < 2:
            continue
        model = classifier().fit(features[inner], labels[inner])
        probabilities[np.ix_(outer, model.classes_)] = model.predict_proba(features[outer])
    return probabilities


def folds_of_texts(labels: np.ndarray, texts: Sequence[str], seed: int = 0) -> np.ndarray:
    """Return the fold of each example, stratified by label; equal texts are in one fold. (N,)."""
    _, first, codes = np.unique(np.array(texts, object), return_index=True, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(first))
    by_label = order[np.argsort(labels[first[order]], kind="stable")]
    folds = np.empty(len(first), np.int64)
    folds[by_label] = np.arange(len(first)) % _NUM_FOLDS
    return folds[codes]


def tfidf_features(texts: Sequence[str]) -> Any:
    """TF-IDF of words and bigrams, (N, H), a sparse matrix."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    min_count = 2 if len(texts) > 1000 else 1
    return TfidfVectorizer(
        ngram_range=(1, 2), min_df=min_count, sublinear_tf=True, max_features=100_000, token_pattern=r"(?u)\w+|[^\w\s]"
    ).fit_transform(texts)


def doubtful_labels(
    features: Any, labels: np.ndarray, texts: Sequence[str], num_labels: int
) -> tuple[pd.DataFrame, float]:
    """Return the examples whose label is probably wrong, worst first, and the accuracy of the classifier.

    Columns: those of likely_label_errors().
    """
    probabilities = cross_fitted(features, labels, texts, num_labels)
    return likely_label_errors(labels, probabilities), float((probabilities.argmax(1) == labels).mean())


def noise_findings(
    doubtful: np.ndarray, accuracy: float, splits: np.ndarray, scored: str, advice: str
) -> list[Finding]:
    """Return a finding on the doubtful labels of all splits. doubtful: numbers of examples. splits: (N,)."""
    counts = {split: (int((splits[doubtful] == split).sum()), int((splits == split).sum())) for split in set(splits)}
    in_order = [split for split in ("train", "validation", "test") if counts.get(split, (0, 0))[0]]
    if not in_order:
        return []
    told = [f"{counts[split][0]:,} of {counts[split][1]:,} in {split}" for split in in_order]
    # in Rotten Tomatoes a fifth of them were wrong (docs/log.md); those of other splits change scores less
    worst = {split: counts[split][0] / counts[split][1] for split in in_order}
    harm = max(share / 5 if split == scored else share / 20 for split, share in worst.items())
    return [
        Finding(
            kind="doubtful labels",
            text=(
                f"{join_names(told)} are contradicted by a classifier that was trained without them (accuracy "
                f"{accuracy:.2f}; it doubts hard examples too)"
            ),
            advice=advice,
            harm=harm,
            details={"accuracy": accuracy, "doubtful": {split: counts[split][0] for split in in_order}},
        )
    ]
