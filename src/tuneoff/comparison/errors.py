"""Where strategies fail: by length, by word, together, and where the label may be wrong. Arrays in, tables out.

An example's error share is how many of the runs that were asked get it wrong: 0 to 1. Fractions count as fractions,
so that every strategy and seed has the same say.

# N examples  S seeds  C classes  W words
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.feature_extraction.text import CountVectorizer
from statsmodels.stats.proportion import proportion_confint

_LONGEST_WORDS = 12  # characters; beyond that mean it is no language with spaces
# texts that hold a word, at least and as a share; rarer ones say nothing, and cost the others by being tested (Bourgon
# et al., "Independent filtering", 2010)
_LEAST_TEXTS, _LEAST_SHARE = 5, 0.002
_PRIOR_TEXTS = 100  # how many texts the prior is worth


@dataclass(frozen=True)
class Answers:
    """What the runs of one strategy say of the test examples."""

    predicted: np.ndarray  # (S, N) ids, or (S, N, C) of 0 and 1
    probabilities: np.ndarray  # (S, N, C)

    @property
    def most(self) -> np.ndarray:
        """The label that most seeds give each example; of equally many, the likeliest. (N,) ids.

        Where an example may have several, those that at least half of the seeds give. (N, C).
        """
        if self.predicted.ndim == 3:
            return (self.predicted.mean(0) >= 0.5).astype(np.int64)
        votes = self.mean.copy()  # below 1, so that it decides between equal votes alone
        for seed in self.predicted:
            votes[np.arange(len(seed)), seed] += 1
        return votes.argmax(1)

    @property
    def mean(self) -> np.ndarray:
        """Probabilities, their mean over seeds. (N, C)."""
        return self.probabilities.mean(0)

    def shares(self, labels: np.ndarray) -> np.ndarray:
        """The share of seeds that get each example wrong. labels: (N,) or (N, C) -> (N,)."""
        return self.is_wrong(labels).mean(0)

    def is_wrong(self, labels: np.ndarray) -> np.ndarray:
        """Which examples each seed gets wrong, in any of their labels. labels: (N,) or (N, C) -> (S, N)."""
        return differs(self.predicted, labels)

    def sureness(self, predicted: np.ndarray) -> np.ndarray:
        """The mean probability of what is predicted; of several labels, of the least sure. -> (N,)."""
        if predicted.ndim == 1:
            return self.mean[np.arange(len(predicted)), predicted]
        return np.where(predicted, self.mean, 1 - self.mean).min(1)


def differs(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Where a prediction is not what it should be. predicted: (..., N) or (..., N, C) -> (..., N)."""
    different = predicted != labels
    return different.any(-1) if labels.ndim == 2 else different


@dataclass(frozen=True)
class Errors:
    """Where the strategies of a comparison fail on test. Groups stand in the order of the rows."""

    joint: tuple[str, ...]  # the groups of which what is said "together" speaks: those that learn from texts
    missed_by: np.ndarray  # how many examples are missed by 0, 1, ... of them: by what most of their seeds say
    overlap: pd.DataFrame
    confidence: pd.DataFrame  # group, of, low, q1, median, q3, high, examples
    label_errors: pd.DataFrame
    # of the texts: without them, no rows
    length_unit: str
    by_length: pd.DataFrame  # group, and what by_length() gives
    words: pd.DataFrame


def analyse(labels: np.ndarray, answers: Mapping[str, Answers], no_learners: set[str], texts: Sequence[str]) -> Errors:
    """Everything about the errors of some strategies on the same examples.

    labels: (N,) or (N, C). no_learners: groups that say nothing of a text, such as the most frequent class. texts: N,
    or none.
    """
    joint = tuple(group for group in answers if group not in no_learners) or tuple(answers)
    shares = {group: found.shares(labels) for group, found in answers.items()}
    together = np.mean([shares[group] for group in joint], axis=0)
    missed = np.sum([differs(answers[group].most, labels) for group in joint], axis=0)
    unit, lengths = lengths_of(texts)
    pieces = [by_length(lengths, shares[group]).assign(group=group) for group in answers] if texts else []
    return Errors(
        joint=joint,
        missed_by=np.bincount(missed, minlength=len(joint) + 1),
        overlap=overlap({group: shares[group] for group in joint}),
        confidence=_confidences(labels, answers),
        label_errors=likely_label_errors(labels, np.mean([answers[group].mean for group in joint], axis=0)),
        length_unit=unit,
        by_length=pd.concat(pieces) if pieces else pd.DataFrame(),
        words=words(texts, together) if texts else pd.DataFrame(),
    )


def lengths_of(texts: Sequence[str]) -> tuple[str, np.ndarray]:
    """In what texts are counted, and how long each is, (N,). Characters where a language writes no spaces."""
    counts, sizes = (np.array([measure(text) for text in texts]) for measure in (lambda t: len(t.split()), len))
    return ("characters", sizes) if sizes.sum() > _LONGEST_WORDS * counts.sum() else ("words", counts)


def _confidences(labels: np.ndarray, answers: Mapping[str, Answers]) -> pd.DataFrame:
    if labels.ndim == 2:  # a set of labels has no one probability
        return pd.DataFrame(columns=["group", "of", "low", "q1", "median", "q3", "high", "examples"])
    return pd.concat([_confidence(labels, found).assign(group=group) for group, found in answers.items()])


def _confidence(labels: np.ndarray, answers: Answers) -> pd.DataFrame:
    """How sure predictions are, and by how much wrong ones put the wrong label before the true one: five numbers each.

    Quartiles, with whiskers to the last value within 1.5 times their distance (Tukey, 1977). Every seed counts.
    """
    own = np.take_along_axis(answers.probabilities, answers.predicted[..., None], 2)[..., 0]  # (S, N)
    true = answers.probabilities[:, np.arange(len(labels)), labels]
    is_wrong = answers.predicted != labels
    kinds = {"right": own[~is_wrong], "wrong": own[is_wrong], "margin": (own - true)[is_wrong]}
    rows = []
    for kind, values in kinds.items():
        if not len(values):
            continue
        q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75])
        within = values[(values >= q1 - 1.5 * (q3 - q1)) & (values <= q3 + 1.5 * (q3 - q1))]
        box = {"low": within.min(), "q1": q1, "median": median, "q3": q3, "high": within.max()}
        rows.append({"of": kind, **box, "examples": len(values)})
    return pd.DataFrame(rows)


def by_length(lengths: np.ndarray, shares: np.ndarray, pieces: int = 6) -> pd.DataFrame:
    """Error rate in pieces of about equally many examples, shortest first, with 95 % intervals (Wilson).

    lengths, shares: (N,). Columns: shortest, longest, examples, rate, low, high.
    """
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, pieces + 1)[1:-1], method="higher"))
    piece = np.searchsorted(edges, lengths)  # a length that is an edge belongs below it
    rows = []
    for index in np.unique(piece):
        here = piece == index
        wrong, count = float(shares[here].sum()), int(here.sum())
        low, high = proportion_confint(wrong, count, method="wilson")
        ends = {"shortest": int(lengths[here].min()), "longest": int(lengths[here].max())}
        rows.append({**ends, "examples": count, "rate": wrong / count, "low": float(low), "high": float(high)})
    return pd.DataFrame(rows)


def words(texts: Sequence[str], shares: np.ndarray) -> pd.DataFrame:
    """Words that errors hold more often, or less, than what is predicted right; surest first.

    Log-odds ratios with an informative Dirichlet prior, which keeps rare words from the top (Monroe, Colaresi & Quinn,
    "Fightin' Words", 2008, equations 15 to 22). A word counts once a text. `q` is the share of false findings among
    words at least as sure (Benjamini & Hochberg, 1995). Columns: word, log_odds, low, high (95 %), q, texts, in_errors.
    """
    least = min(len(texts), max(_LEAST_TEXTS, round(_LEAST_SHARE * len(texts))))
    vectorizer = CountVectorizer(binary=True, token_pattern=r"(?u)\b\w+\b", min_df=least)
    try:
        held = vectorizer.fit_transform(texts)  # (N, W)
    except ValueError:  # no word is frequent enough
        return pd.DataFrame(columns=["word", "log_odds", "low", "high", "q", "texts", "in_errors"])
    in_errors, in_all = held.T @ shares, np.asarray(held.sum(0)).ravel()  # (W,)
    prior = _PRIOR_TEXTS * in_all / len(texts)

    def log_odds(counts: np.ndarray, total: float) -> np.ndarray:
        return np.log((counts + prior) / (total + _PRIOR_TEXTS - counts - prior + 0.5))

    def variance(counts: np.ndarray, total: float) -> np.ndarray:
        # the texts without the word, too: a word counts once a text, and common ones stand in most
        return 1 / (counts + prior) + 1 / (total + _PRIOR_TEXTS - counts - prior + 0.5)

    wrong = shares.sum()
    gap = log_odds(in_errors, wrong) - log_odds(in_all - in_errors, len(texts) - wrong)
    deviation = np.sqrt(variance(in_errors, wrong) + variance(in_all - in_errors, len(texts) - wrong))
    reach = stats.norm.ppf(0.975) * deviation
    found = pd.DataFrame(
        {
            "word": vectorizer.get_feature_names_out(),
            "log_odds": gap,
            "low": gap - reach,
            "high": gap + reach,
            "q": stats.false_discovery_control(2 * stats.norm.sf(np.abs(gap) / deviation)),
            "texts": in_all,
            "in_errors": in_errors,
        }
    )
    return found.iloc[np.argsort(-np.abs(gap) / deviation, kind="stable")].reset_index(drop=True)


def overlap(shares: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """How much of their errors two strategies share: 0 none, 1 all (Jaccard's index, of fractions Ruzicka's).

    shares: per strategy (N,). Columns: one, other, shared.
    """
    rows = []
    for one, other in itertools.product(shares, repeat=2):
        both, either = np.minimum(shares[one], shares[other]).sum(), np.maximum(shares[one], shares[other]).sum()
        rows.append({"one": one, "other": other, "shared": float(both / either) if either else 1.0})
    return pd.DataFrame(rows)


def likely_label_errors(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Examples whose label the strategies together doubt, most doubtful first.

    Confident learning (Northcutt, Jiang & Chuang, 2021): an example belongs to the class that it reaches the mean
    confidence of; where that is not its label, the label may be wrong. labels: (N,), probabilities: (N, C), the mean
    over strategies. Columns: example, label, likely, label_probability, likely_probability.
    """
    num_labels = probabilities.shape[1]
    if labels.ndim == 2:  # the method is one of single labels
        return pd.DataFrame(columns=["example", "label", "likely", "label_probability", "likely_probability"])
    own = probabilities[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=num_labels)
    sums = np.bincount(labels, weights=own, minlength=num_labels)
    usual = np.divide(sums, counts, out=np.full(num_labels, np.inf), where=counts > 0)  # no class without examples
    reached = np.where(probabilities >= usual, probabilities, -1.0)  # (N, C)
    likely = reached.argmax(1)
    doubtful = np.flatnonzero((likely != labels) & (reached.max(1) > own))
    found = pd.DataFrame(
        {
            "example": doubtful,
            "label": labels[doubtful],
            "likely": likely[doubtful],
            "label_probability": own[doubtful],
            "likely_probability": probabilities[doubtful, likely[doubtful]],
        }
    )
    gap = found["likely_probability"] - found["label_probability"]
    return found.iloc[np.argsort(-gap.to_numpy(), kind="stable")].reset_index(drop=True)
