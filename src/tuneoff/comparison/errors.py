"""Where strategies fail: by length, by word, together, and where the label may be wrong. Arrays in, tables out.

An example's error share is how many of the runs that were asked get it wrong: 0 to 1. Fractions count as fractions,
so that every strategy and seed has the same say.

# N examples  C classes  W words
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.feature_extraction.text import CountVectorizer
from statsmodels.stats.proportion import proportion_confint

_LEAST_TEXTS = 5  # that hold a word; of rarer ones nothing can be said
_PRIOR_TEXTS = 100  # how many texts the prior is worth


def error_shares(wrong: Sequence[np.ndarray]) -> np.ndarray:
    """The share of runs that get each example wrong. wrong: one (N,) a run -> (N,)."""
    return np.mean(wrong, axis=0)


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
    vectorizer = CountVectorizer(binary=True, token_pattern=r"(?u)\b\w+\b", min_df=min(_LEAST_TEXTS, len(texts)))
    try:
        held = vectorizer.fit_transform(texts)  # (N, W)
    except ValueError:  # no word is frequent enough
        return pd.DataFrame(columns=["word", "log_odds", "low", "high", "q", "texts", "in_errors"])
    in_errors, in_all = held.T @ shares, np.asarray(held.sum(0)).ravel()  # (W,)
    prior = _PRIOR_TEXTS * in_all / len(texts)

    def log_odds(counts: np.ndarray, total: float) -> np.ndarray:
        return np.log((counts + prior) / (total + _PRIOR_TEXTS - counts - prior + 0.5))

    wrong = shares.sum()
    gap = log_odds(in_errors, wrong) - log_odds(in_all - in_errors, len(texts) - wrong)
    deviation = np.sqrt(1 / (in_errors + prior) + 1 / (in_all - in_errors + prior))
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
