"""Ranks of strategies over several datasets: Friedman's test by permutation, and Nemenyi's test of every pair.

Source: Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006.

# D datasets  K strategies  R draws
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from tuneoff.scoring.stats import LEVEL

PERMUTATIONS = 20_000


def ranks(scores: np.ndarray) -> np.ndarray:
    """Rank strategies, 1 for the highest score; equal scores share the mean of their ranks. (..., K) -> (..., K).

    >>> ranks(np.array([0.7, 0.9, 0.7]))
    array([2.5, 1. , 2.5])
    """
    return stats.rankdata(-scores, axis=-1)


@dataclass(frozen=True)
class RankTest:
    """Friedman's test that all strategies have the same expected rank."""

    statistic: float
    p_value: float
    smallest_p_value: float  # that so few datasets can give, if they all rank the strategies alike


def friedman(by_dataset: np.ndarray, seed: int = 0) -> RankTest:
    """Test whether strategies rank alike over datasets. by_dataset: ranks, (D, K).

    The p value comes from permutations of the ranks within each dataset, because the chi-squared approximation needs
    more than ten datasets (Demsar 2006, section 3.2.2).
    """
    num_datasets, num_strategies = by_dataset.shape
    rng = np.random.default_rng(seed)
    measured = _statistic(by_dataset[None])[0]
    permuted = rng.permuted(np.broadcast_to(by_dataset, (PERMUTATIONS, *by_dataset.shape)).copy(), axis=-1)
    as_large = int((_statistic(permuted) >= measured - 1e-9).sum())
    smallest = 1 / math.factorial(num_strategies) ** (num_datasets - 1)
    return RankTest(float(measured), (1 + as_large) / (1 + PERMUTATIONS), smallest)


def _statistic(by_dataset: np.ndarray) -> np.ndarray:
    """Friedman's statistic of ranks, (..., D, K) -> (...)."""
    num_datasets, num_strategies = by_dataset.shape[-2:]
    gaps = by_dataset.mean(-2) - (num_strategies + 1) / 2
    return 12 * num_datasets / (num_strategies * (num_strategies + 1)) * (gaps**2).sum(-1)


def nemenyi(mean_ranks: np.ndarray, num_datasets: int) -> np.ndarray:
    """P values that two strategies have the same expected rank, corrected for all pairs. (K,) -> (K, K)."""
    gaps = np.abs(mean_ranks[:, None] - mean_ranks)
    return stats.studentized_range.sf(gaps / _rank_error(len(mean_ranks), num_datasets), len(mean_ranks), np.inf)


def critical_difference(num_strategies: int, num_datasets: int, level: float = LEVEL) -> float:
    """Smallest difference of two mean ranks that Nemenyi's test calls significant.

    >>> round(critical_difference(4, 14), 2)  # 2.569 * sqrt(4 * 5 / (6 * 14)), Demsar 2006, section 3.2.5
    1.25
    """
    quantile = stats.studentized_range.ppf(level, num_strategies, np.inf)
    return float(quantile * _rank_error(num_strategies, num_datasets))


def _rank_error(num_strategies: int, num_datasets: int) -> float:
    """Standard error of a mean rank where strategies are equal, as the studentized range has it."""
    return math.sqrt(num_strategies * (num_strategies + 1) / (12 * num_datasets))
