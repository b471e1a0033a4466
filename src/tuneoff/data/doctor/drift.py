"""Drift between splits: texts of which a classifier tells the split, and label shares that differ.

# N examples  C classes
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats

from tuneoff.data.dataset import Dataset, label_counts, labels_of
from tuneoff.data.doctor.finding import Finding
from tuneoff.formats import join_names, shorten

# splits that a model is not trained on, each compared with train
_LATER = ("validation", "test")
_SAMPLE, _CHARACTERS = 2000, 1000  # texts of each split for the classifier, and characters of each
_MIN_TEXTS = 50  # of each split; fewer tell nothing
_NUM_FOLDS = 5
# An area under the ROC curve of 0.5 is chance. The lower limit of the interval must be above this, because with many
# texts any difference is significant: reviews of other films give 0.59 (IMDb), tweets of a later year 0.98 (TweetEval)
_MIN_AUC = 0.6
_MIN_SHARE = 0.05  # share of examples whose label would have to change for equal label shares
_SIGNIFICANT = 0.005  # of a chi-square test: 1 %, corrected for two splits
_MAX_TOLD = 4  # words of each split, and classes, in a finding
# punctuation and upper case too: splits of different sources differ in their format first
_TOKEN = r"(?u)\w+|[^\w\s]"
_MAX_MEAN_WORD = 12  # characters; a longer mean word means a language that is written without spaces


def drift(dataset: Dataset, seed: int = 0) -> list[Finding]:
    """Return the drift of validation and test against train. Splits that were held out at random have none."""
    findings = []
    for split in _LATER:
        if split in dataset.splits and split not in dataset.held_out:
            findings += [*_text_drift(dataset, split, seed), *_label_drift(dataset, split)]
    return findings


def _text_drift(dataset: Dataset, split: str, seed: int) -> Iterator[Finding]:
    """Yield a finding if a classifier tells the split of texts above chance: cross-validated, with its interval."""
    rng = np.random.default_rng([seed, _LATER.index(split)])
    train, later = (_sample(dataset.splits[name], rng) for name in ("train", split))
    if min(len(train), len(later)) < _MIN_TEXTS:
        return
    auc, (low, high), (of_train, of_later) = tell_apart(train, later, seed)
    if low <= _MIN_AUC:
        return
    words = "; ".join(
        f"{name} has more of {join_names(told)}" for name, told in (("train", of_train), (split, of_later)) if told
    )
    yield Finding(
        kind=f"drift from train to {split}",
        text=(
            f"a classifier tells {split} texts from training texts with an area under the ROC curve of {auc:.2f} "
            f"({low:.2f} to {high:.2f}; chance is 0.50): {words}"
        ),
        advice=f"check where {split} comes from; scores on it are for its texts, not for those of train",
        harm=_harm(split, 2 * auc - 1),
        details={"split": split, "auc": auc, "auc_low": low, "auc_high": high, "train": of_train, split: of_later},
    )


def _harm(split: str, share: float) -> float:
    """Return the harm: validation only selects, so it changes a score less."""
    return share if split == "test" else share / 4


def _sample(table: pa.Table, rng: np.random.Generator) -> list[str]:
    """Return distinct texts of a random part of a split, at most _SAMPLE; of pairs one for each first text.

    Repeated texts would be recognized rather than told apart: SNLI has three hypotheses for each premise.
    """
    rows = rng.permutation(table.num_rows)[: 4 * _SAMPLE]
    part = table.take(pa.array(rows))
    first: dict[str, int] = {}
    for row, text in enumerate(part["text"].to_pylist()):
        first.setdefault(text, row)
    chosen = part.take(pa.array(list(first.values())[:_SAMPLE]))
    if "text_pair" not in chosen.column_names:
        return [text[:_CHARACTERS] for text in chosen["text"].to_pylist()]
    both = pc.binary_join_element_wise(chosen["text"], chosen["text_pair"], pa.scalar("\n", pa.large_string()))
    return [text[:_CHARACTERS] for text in both.to_pylist()]


def tell_apart(
    first: list[str], second: list[str], seed: int = 0
) -> tuple[float, tuple[float, float], tuple[list[str], list[str]]]:
    """Return how well a classifier tells two lists of texts apart, and the words that tell.

    The area under the ROC curve of logistic regression on TF-IDF, a mean over five folds, with its 95 % confidence
    interval (DeLong et al., Biometrics 1988, in each fold). Words: of the first list, of the second.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    texts, is_second = first + second, np.repeat([0, 1], [len(first), len(second)])
    has_no_spaces = sum(map(len, texts)) > _MAX_MEAN_WORD * sum(len(text.split()) for text in texts)
    vectorizer = TfidfVectorizer(
        lowercase=False,
        sublinear_tf=True,
        min_df=2,
        max_features=50_000,
        **({"analyzer": "char", "ngram_range": (1, 2)} if has_no_spaces else {"token_pattern": _TOKEN}),
    )
    try:
        features = vectorizer.fit_transform(texts).tocsr()
    except ValueError:  # no word is in two texts
        return 0.5, (0.5, 0.5), ([], [])
    aucs, variances = [], []
    for inner, outer in StratifiedKFold(_NUM_FOLDS, shuffle=True, random_state=seed).split(texts, is_second):
        model = LogisticRegression(max_iter=200, class_weight="balanced").fit(features[inner], is_second[inner])
        auc, variance = area_under_curve(is_second[outer], model.decision_function(features[outer]))
        aucs.append(auc)
        variances.append(variance)
    auc, half_width = float(np.mean(aucs)), float(stats.norm.ppf(0.975) * np.sqrt(np.sum(variances)) / _NUM_FOLDS)
    model = LogisticRegression(max_iter=200, class_weight="balanced").fit(features, is_second)
    # a word tells by its weight and by how often it occurs
    weights = model.coef_[0] * np.asarray(features.mean(0)).ravel()
    names, order = vectorizer.get_feature_names_out(), np.argsort(weights)
    told = [
        [f"“{shorten(names[i], 20)}”" for i in side[:_MAX_TOLD] if weights[i] * sign > 0]
        for side, sign in ((order, -1), (order[::-1], 1))
    ]
    return auc, (max(0.0, auc - half_width), min(1.0, auc + half_width)), (told[0], told[1])


def area_under_curve(is_second: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Return the area under the ROC curve, and its variance (DeLong). is_second: (N,) of 0 and 1. scores: (N,)."""
    positive, negative = scores[is_second == 1], scores[is_second == 0]
    ranks = stats.rankdata(np.concatenate([positive, negative]))
    m, n = len(positive), len(negative)
    above = (ranks[:m] - stats.rankdata(positive)) / n  # share of negatives below each positive
    below = 1 - (ranks[m:] - stats.rankdata(negative)) / m
    return float(above.mean()), float(above.var(ddof=1) / m + below.var(ddof=1) / n)


def _label_drift(dataset: Dataset, split: str) -> Iterator[Finding]:
    """Yield a finding if the label shares of a split differ from those of train, by more than chance and visibly."""
    names = dataset.label_names
    labels = [labels_of(dataset.splits[part]) for part in ("train", split)]
    counts = np.stack([label_counts(of_split, len(names)) for of_split in labels])  # (2, C)
    sizes = np.array([len(of_split) for of_split in labels])
    shares = counts / sizes[:, None]
    gaps = shares[1] - shares[0]
    if dataset.is_multilabel:  # each label is a test of its own
        p_value = min(1.0, len(names) * min(_p_value(np.stack([of, sizes - of], axis=1)) for of in counts.T))
        distance = float(np.abs(gaps).max())
    else:
        p_value, distance = _p_value(counts), float(np.abs(gaps).sum() / 2)
    if p_value >= _SIGNIFICANT or distance < _MIN_SHARE:
        return
    told = [
        f"“{names[index]}” {100 * shares[0, index]:.0f} % and {100 * shares[1, index]:.0f} %"
        for index in np.argsort(-np.abs(gaps), kind="stable")[:_MAX_TOLD]
        if gaps[index]
    ]
    sorted_parts = [part for part, of in zip(("train", split), labels, strict=True) if of.ndim == 1 and _is_sorted(of)]
    how = f"; rows of {join_names(sorted_parts)} are sorted by label" if sorted_parts else ""
    usual_metric = "micro_f1" if dataset.is_multilabel else "accuracy"
    yield Finding(
        kind=f"label shares of {split}",
        text=(
            f"{100 * distance:.0f} % of the examples would need another label to have the shares of train "
            f"(in train and {split}: {', '.join(told)}; chi-square test, p {_p_text(p_value)}){how}"
        ),
        advice=(
            "shuffle all rows before they are divided"
            if sorted_parts
            else f"check how {split} was drawn, and compare macro_f1 as well as {usual_metric}"
        ),
        harm=_harm(split, distance),
        details={"split": split, "distance": distance, "p_value": p_value, "shares": shares.tolist()},
    )


def _p_value(counts: np.ndarray) -> float:
    """P value of a chi-square test of equal shares. counts: (2, C)."""
    occurring = counts[:, counts.sum(0) > 0]
    return 1.0 if occurring.shape[1] < 2 else float(stats.chi2_contingency(occurring, correction=False).pvalue)


def _p_text(p_value: float) -> str:
    return "below 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _is_sorted(labels: np.ndarray) -> bool:
    """Tell whether equal labels stand together: far fewer changes between neighbours than in a random order."""
    return int((np.diff(labels) != 0).sum()) < 2 * len(np.unique(labels)) <= len(labels) / 10
