"""Tests on errors: do two strategies fail on the same kinds of examples, and on which kinds does one fail more often?

# N examples  K kinds of examples  R resamples
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

_LEVEL = 0.95  # of confidence intervals
_BLOCK = 1000  # resamples at once, to limit memory
_ENOUGH = 100  # resamples above the observed statistic after which the rest is not drawn (Besag & Clifford, 1991)


@dataclass(frozen=True)
class RateDifference:
    """Error rate on the examples of a kind, minus that on all others. The rates are the measured ones."""

    rate_with: float
    rate_without: float
    low: float  # 95 % confidence interval of the difference
    high: float
    p_value: float

    @property
    def difference(self) -> float:
        """The measured difference."""
        return self.rate_with - self.rate_without


def rate_difference(error_rates: np.ndarray, is_kind: np.ndarray) -> RateDifference:
    """Compare the error rate on the examples of a kind with that on all others.

    error_rates: (N,), 0 to 1: of one run 0 or 1, of several runs the share that is wrong. is_kind: (N,) bool, True for
    at least one and not for all.

    Welch's t test after adding to both parts one error and one correct prediction: a Wald interval on the plain rates
    is too narrow for few examples, and has no width if all of them are right (Agresti & Caffo, "Simple and effective
    confidence intervals for proportions and differences of proportions", 2000). The sample variance in place of
    p(1 - p) also serves rates between 0 and 1. The interval is over examples: another test split, the same models.
    """
    parts = error_rates[is_kind], error_rates[~is_kind]
    adjusted = [np.append(part, [0.0, 1.0]) for part in parts]
    variances = [float(part.var(ddof=1)) / len(part) for part in adjusted]
    deviation = math.sqrt(sum(variances))
    degrees = deviation**4 / sum(v**2 / (len(part) - 1) for v, part in zip(variances, adjusted, strict=True))
    gap = float(adjusted[0].mean() - adjusted[1].mean())
    half_width = float(stats.t.ppf((1 + _LEVEL) / 2, degrees)) * deviation
    return RateDifference(
        rate_with=float(parts[0].mean()),
        rate_without=float(parts[1].mean()),
        low=gap - half_width,
        high=gap + half_width,
        p_value=float(2 * stats.t.sf(abs(gap) / deviation, degrees)),
    )


def profile_test(first: np.ndarray, second: np.ndarray, rng: np.random.Generator, resamples: int = 1999) -> float:
    """Test that two strategies make the same kinds of mistakes, whatever the numbers of their mistakes. -> p value.

    first, second: (N, K), the mistakes that each strategy makes on each example, by kind: 0 or 1, or for several runs
    the share of them. A profile is the share of each kind among a strategy's mistakes.

    Both strategies predict the same examples, so that a chi-squared test of homogeneity, which takes their mistakes as
    independent, is wrong. This is a permutation test for pairs: in each resample the predictions of the two strategies
    are swapped for a random half of the examples. The statistic is the squared difference of the profiles over an
    estimate of its variance: without that, a swap test also reacts to strategies that differ in the number of mistakes
    only, because it makes the numbers equal (Konietschke & Pauly, "Bootstrapping and permuting paired t-test type
    statistics", 2014). The variance of a share is that of its influence function summed over examples. The sum over
    kinds before the division makes it an ANOVA-type statistic (Brunner, Dette & Munk, 1997), which needs no inverse of
    a covariance matrix and so allows rare kinds.

    Sums over examples are linear in the signs of the swaps, so that a resample is a row of a matrix product; of
    examples with the same mistakes, a binomial number is swapped.
    """
    rows = np.hstack([first, second])
    rows, counts = np.unique(rows[rows.any(1)], axis=0, return_counts=True)  # (U, 2K), (U,)
    own, other = np.hsplit(rows, 2)
    features, swapped = _features(own, other), _features(other, own)
    middle, half = counts @ (features + swapped) / 2, (features - swapped) / 2
    moved = (counts @ half)[None]
    observed = _statistic(middle + moved, middle - moved)[0]
    is_moved = half.any(1)
    half, counts = half[is_moved], counts[is_moved]
    num_larger = num_drawn = 0
    while num_drawn < resamples and num_larger < _ENOUGH:
        block = min(_BLOCK, resamples - num_drawn)
        moved = (2 * rng.binomial(counts, 0.5, (block, len(counts))) - counts) @ half
        num_larger += int((_statistic(middle + moved, middle - moved) >= observed * (1 - 1e-9)).sum())
        num_drawn += block
    return (1 + num_larger) / (1 + num_drawn)


def _features(own: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Terms of each example whose sums give the statistic. -> (N, 5K + 2).

    Per kind: own, own^2, own times all own mistakes, own times all mistakes of the other, own times other's own kind.
    """
    total, other_total = own.sum(1, keepdims=True), other.sum(1, keepdims=True)
    return np.hstack([own, own**2, own * total, own * other_total, own * other, total**2, total * other_total])


def _statistic(sums: np.ndarray, other_sums: np.ndarray) -> np.ndarray:
    """Return the statistic of each resample. sums, other_sums: (R, 5K + 2) of _features() -> (R,)."""
    num_kinds = (sums.shape[1] - 2) // 5

    def parts(of: np.ndarray) -> list[np.ndarray]:
        return [*np.split(of[:, : 5 * num_kinds], 5, axis=1), of[:, -2:-1], of[:, -1:]]

    own, own_square, own_total, own_cross, both, total_square, total_cross = parts(sums)
    other, other_square, other_own_total, other_cross, _, other_total_square, _ = parts(other_sums)
    count, other_count = own.sum(1, keepdims=True), other.sum(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        share, other_share = own / count, other / other_count  # (R, K)
        variance = (own_square - 2 * share * own_total + share**2 * total_square) / count**2
        variance += (other_square - 2 * other_share * other_own_total + other_share**2 * other_total_square) / (
            other_count**2
        )
        covariance = both - other_share * own_cross - share * other_cross + share * other_share * total_cross
        variance -= 2 * covariance / (count * other_count)
        gap = ((share - other_share) ** 2).sum(1)
        statistic = gap / variance.sum(1)
    return np.where(np.isfinite(statistic) & (variance.sum(1) > 1e-15), statistic, 0.0)
