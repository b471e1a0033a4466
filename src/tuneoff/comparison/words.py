"""Words that are over-represented in misclassified texts, over all strategies and for each.

# N examples  W words
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.feature_extraction.text import CountVectorizer

from tuneoff.scoring.log_odds import log_odds_ratios

# texts that must contain a word, as a number and as a share: rarer words give no evidence, and testing them costs the
# others power (Bourgon et al., "Independent filtering", 2010)
_MIN_TEXTS, _MIN_SHARE = 5, 0.002
_MAX_WORDS = 40  # of words_by_group()
_COLUMNS = ["word", "log_odds", "low", "high", "q", "texts", "in_errors"]


def over_represented_words(texts: Sequence[str], error_rates: np.ndarray) -> pd.DataFrame:
    """Words that are more, or less, frequent in errors than in correct predictions, most significant first.

    Words are ranked by their log-odds ratio (scoring/log_odds.py) over its standard deviation; the price of its prior
    is a smaller effect for words that are rare and real. An example counts as an error with its error rate. Words in
    very few texts are left out.

    error_rates: (N,). Columns: word, log_odds, low, high (95 % confidence interval), q (false discovery rate among the
    words with at most this p value, Benjamini & Hochberg, 1995), texts, in_errors.
    """
    words, contains = _vocabulary(texts)
    if not len(words):
        return pd.DataFrame(columns=_COLUMNS)
    table = _log_odds(words, contains, error_rates)
    table["q"] = stats.false_discovery_control(table.pop("p"))
    return table.iloc[np.argsort(-_strength(table), kind="stable")].reset_index(drop=True)[_COLUMNS]


def words_by_group(texts: Sequence[str], error_rates: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Return the same for each strategy, of the words that are most significant for any of them.

    error_rates: group -> (N,). Columns: group, and those of over_represented_words(); q is over all words and groups
    together. Words in the order of their largest strength in any group.
    """
    words, contains = _vocabulary(texts)
    if not len(words) or not error_rates:
        return pd.DataFrame(columns=["group", *_COLUMNS])
    tables = [_log_odds(words, contains, rates).assign(group=group) for group, rates in error_rates.items()]
    table = pd.concat(tables, ignore_index=True)
    table["q"] = stats.false_discovery_control(table.pop("p"))
    strength = _strength(table).to_numpy().reshape(len(tables), len(words)).max(0)  # (W,)
    order = np.argsort(-strength, kind="stable")[:_MAX_WORDS]
    rank = {words[index]: place for place, index in enumerate(order)}
    kept = table[table["word"].isin(list(rank))]
    return kept.iloc[np.argsort(kept["word"].map(rank), kind="stable")].reset_index(drop=True)[["group", *_COLUMNS]]


def _vocabulary(texts: Sequence[str]) -> tuple[np.ndarray, Any]:
    """Return the words that are in enough texts, (W,), and the sparse matrix of which texts contain them, (N, W)."""
    min_texts = min(len(texts), max(_MIN_TEXTS, round(_MIN_SHARE * len(texts))))
    vectorizer = CountVectorizer(binary=True, token_pattern=r"(?u)\b\w+\b", min_df=min_texts)
    try:
        contains = vectorizer.fit_transform(texts)
    except ValueError:  # no word is in enough texts
        return np.empty(0, object), None
    return vectorizer.get_feature_names_out(), contains


def _log_odds(words: np.ndarray, contains: Any, error_rates: np.ndarray) -> pd.DataFrame:
    """Return the log-odds ratio of each word with its interval and p value."""
    num_texts = contains.shape[0]
    in_errors, in_all = contains.T @ error_rates, np.asarray(contains.sum(0)).ravel()  # (W,)
    gap, deviation = log_odds_ratios(in_errors, in_all, error_rates.sum(), num_texts)
    half_width = stats.norm.ppf(0.975) * deviation
    return pd.DataFrame(
        {
            "word": words,
            "log_odds": gap,
            "low": gap - half_width,
            "high": gap + half_width,
            "p": 2 * stats.norm.sf(np.abs(gap) / deviation),
            "texts": in_all,
            "in_errors": in_errors,
        }
    )


def _strength(table: pd.DataFrame) -> pd.Series:
    """Return log-odds over their standard deviation, without the sign."""
    return table["log_odds"].abs() / (table["high"] - table["low"])
