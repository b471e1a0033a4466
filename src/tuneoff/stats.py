"""How sure a score is, and a difference between two. Arrays in, numbers out.

A score of a strategy is a mean over seeds on one test split. It would be another with other test examples and with
other seeds; the first variance comes from a bootstrap over examples, the second from the scores of the seeds.

# N examples  C classes  R resamples  S seeds
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats
from scipy.special import expit
from statsmodels.stats.multitest import multipletests

from tuneoff.metrics import ALL_SCORES, counts_from, indicators, log_losses

LEVEL = 0.95
POWER = 0.8  # with which a difference shall be found, where it is said what that would take (Cohen, 1988)
RESAMPLES = 2000
_WILD = 6  # times the usual variance between seeds, beyond which a strategy's own says nothing of others
_MOST_TIMES = 2**10  # beyond so many times the examples or seeds nobody goes
_MOST_LOG = 700.0  # beyond which exp overflows
_LEAST_VARIANCE = 1e-30  # stands for none where a formula needs some
_CELLS = 2**24  # numbers of a block of resampling weights held at once: 64 MiB of fp32


def example_weights(num_examples: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each example is drawn in each bootstrap resample. (R, N) float32, rows sum to N."""
    draws = rng.integers(num_examples, size=(resamples, num_examples))
    rows = np.arange(resamples)[:, None] * num_examples
    counts = np.bincount((draws + rows).ravel(), minlength=resamples * num_examples)
    return counts.reshape(resamples, num_examples).astype(np.float32)


def resampled_scores(
    metric: str,
    labels: np.ndarray,
    predicted: list[np.ndarray],
    probabilities: list[np.ndarray],
    seed: int,
    resamples: int = RESAMPLES,
) -> np.ndarray:
    """A metric of several sets of predictions on the same resamples of the examples. -> (sets, R).

    labels: (N,) or (N, C), predicted: one such a set, probabilities: one (N, C) a set. The same seed gives the same
    resamples whatever the metric, so scores can be compared in pairs (Efron & Tibshirani, 1993, chapter 6).
    """
    rng = np.random.default_rng(seed)
    block = max(1, min(resamples, _CELLS // max(1, len(labels))))
    pieces = []
    for start in range(0, resamples, block):
        weights = example_weights(len(labels), min(block, resamples - start), rng)
        pieces.append(
            [_scores(metric, labels, p, chances, weights) for p, chances in zip(predicted, probabilities, strict=True)]
        )
    return np.concatenate(pieces, axis=1)


def _scores(
    metric: str, labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """One metric on each resample. weights: (R, N) -> (R,)."""
    if metric == "log_loss":
        return weights @ log_losses(labels, probabilities).astype(np.float32) / len(labels)
    sums = weights @ indicators(labels, predicted, probabilities.shape[1]).astype(np.float32)  # (R, 3C + 2)
    return ALL_SCORES[metric](counts_from(sums))


def score_of(metric: str, labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> float:
    """A metric on all examples, each once."""
    return float(_scores(metric, labels, predicted, probabilities, np.ones((1, len(labels)), np.float32))[0])


@dataclass(frozen=True)
class Runs:
    """A metric on test of the runs of one strategy."""

    scores: np.ndarray  # (S,)
    resampled: np.ndarray  # (S, R) on the same resamples for all strategies
    seeds: tuple[object, ...]
    is_seeded: bool = True  # whether another seed would give another score


@dataclass(frozen=True)
class Measured:
    """A mean over seeds, or a difference of two, and how it would vary."""

    value: float
    from_examples: float  # variance over draws of the test examples
    from_seeds: float | None  # variance over draws of the seeds; None where a single run cannot tell
    num_examples: int
    num_seeds: int
    # of the scores of seeds, which vary by what seeds do and by how seeds meet examples: variance of their mean, and
    # its degrees of freedom
    between: float = 0.0
    seed_degrees: float = 1.0

    @property
    def variance(self) -> float:
        """Over draws of examples and seeds. Of one run: over draws of examples, for that run as it is."""
        return self.from_examples + (self.from_seeds or 0.0)

    @property
    def degrees(self) -> float:
        """Of freedom, of both variances together (Satterthwaite, 1946)."""
        of_examples = max(1.0, self.num_examples - 1.0)
        spread = self.between**2 / self.seed_degrees + self.from_examples**2 / of_examples
        return max(1.0, self.variance**2 / spread) if spread else of_examples

    def with_more(self, examples: int, seeds: int) -> "Measured":
        """The same with so many examples and seeds: each variance shrinks with what it comes from."""
        of_examples, of_seeds = self.num_examples / examples, self.num_seeds / seeds
        where_they_meet = max(0.0, self.between - (self.from_seeds or 0.0))  # what seeds do to single examples
        return Measured(
            self.value,
            self.from_examples * of_examples,
            None if self.from_seeds is None else self.from_seeds * of_seeds,
            examples,
            seeds,
            ((self.from_seeds or 0.0) + where_they_meet * of_examples) * of_seeds,
            self.seed_degrees / of_seeds,
        )

    def power(self, level: float = LEVEL) -> float:
        """How often a true value as large as this one is told from 0 (noncentral t)."""
        if self.variance == 0:
            return float(self.value != 0)
        least = stats.t.ppf((1 + level) / 2, self.degrees)
        return float(stats.nct.sf(least, self.degrees, abs(self.value) / math.sqrt(self.variance)))

    @property
    def p_value(self) -> float:
        """Two-sided, of a true value of 0 (Student's t).

        Where nothing varies but there is a value, every example speaks for the same side: the sign test's.
        """
        if self.variance == 0:
            return min(1.0, 2 * 0.5**self.num_examples) if self.value else 1.0
        return float(2 * stats.t.sf(abs(self.value) / math.sqrt(self.variance), self.degrees))


@dataclass(frozen=True)
class Luck:
    """How scores of one strategy usually vary from seed to seed, as all strategies of a comparison show it."""

    variance: float
    degrees: float


def usual_luck(runs: Sequence[Runs]) -> Luck | None:
    """The mean of the strategies' variances between seeds; None where no strategy ran with several.

    Two or three seeds say little of a variance: among many strategies some look steady by chance, and would then be
    called different. Strategies do not vary alike, so their mean has fewer degrees of freedom than all seeds together:
    half of them is what keeps the promise in simulations (docs/benchmarks.md). One that varies wildly says nothing of
    the others: it counts as a few times the median.
    """
    known = [(float(found.scores.var(ddof=1)), len(found.scores) - 1) for found in runs if _has_luck(found)]
    if not known:
        return None
    variances, degrees = map(np.array, zip(*known, strict=True))
    # the median of s squared is below what it estimates, by that of chi squared over its degrees of freedom
    usual = np.median(variances * degrees / stats.chi2.ppf(0.5, degrees))
    return Luck(float(np.minimum(variances, _WILD * usual).mean()), max(1.0, degrees.sum() / 2))


def _has_luck(runs: Runs) -> bool:
    return runs.is_seeded and len(runs.scores) > 1


def measure(runs: Runs, num_examples: int, least: Luck | None = None) -> Measured:
    """The mean over seeds with its variances.

    least: what scores vary by from seed to seed at the least, whatever these few seeds show.

    The scores of S seeds on the same examples vary by what seeds do and by how seeds meet examples; resampling
    examples shows the second part by itself, so it is not counted twice (two-way clustering: Cameron, Gelbach &
    Miller, 2011, equation 2.11).
    """
    num_seeds, means = len(runs.scores), runs.resampled.mean(0)
    from_examples, value = float(means.var(ddof=1)), float(runs.scores.mean())
    if not runs.is_seeded:
        return Measured(value, from_examples, 0.0, num_examples, num_seeds)
    if num_seeds == 1:  # what others vary by is all that is known
        known = (least.variance, num_examples, 1, least.variance, least.degrees) if least else (None, num_examples, 1)
        return Measured(value, from_examples, *known)
    between, degrees = float(runs.scores.var(ddof=1)) / num_seeds, num_seeds - 1.0
    counted = float((runs.resampled - means).var(axis=1, ddof=1).mean()) / (num_seeds - 1)
    if least is not None and least.variance / num_seeds > between:
        between, degrees = least.variance / num_seeds, least.degrees
    return Measured(value, from_examples, max(0.0, between - counted), num_examples, num_seeds, between, degrees)


def difference(one: Runs, other: Runs, num_examples: int, luck: Luck | None = None) -> Measured:
    """One's mean less the other's: on the same examples, and where both have them, on the same seeds.

    luck: how scores of strategies that are compared beside these usually vary.
    """
    is_seeded = one.is_seeded or other.is_seeded
    if one.seeds == other.seeds or not (one.is_seeded and other.is_seeded):
        seeds = one.seeds if one.is_seeded else other.seeds
        gaps = Runs(one.scores - other.scores, one.resampled - other.resampled, seeds, is_seeded)
        least = Luck((one.is_seeded + other.is_seeded) * luck.variance, luck.degrees) if luck else None
        return measure(gaps, num_examples, least)
    # seeds of their own: what comes from seeds adds up
    parts = [measure(runs, num_examples, luck) for runs in (one, other)]
    from_examples = float((one.resampled.mean(0) - other.resampled.mean(0)).var(ddof=1))
    value, num_seeds = parts[0].value - parts[1].value, min(len(one.seeds), len(other.seeds))
    if parts[0].from_seeds is None or parts[1].from_seeds is None:
        return Measured(value, from_examples, None, num_examples, num_seeds)
    from_seeds, between = (sum(values) for values in zip(*((p.from_seeds, p.between) for p in parts), strict=True))
    degrees = min(part.seed_degrees for part in parts)
    return Measured(value, from_examples, from_seeds, num_examples, num_seeds, between, degrees)


def interval(
    measured: Measured, bounds: tuple[float, float] | None = None, level: float = LEVEL
) -> tuple[float, float]:
    """The interval of Student's t; of a value that has bounds, on its logit or log scale, so that it stays within.

    Where every resample is the same, as when all is right or no prediction differs, it is what N examples can
    exclude: the exact binomial interval (Clopper & Pearson, 1934) of none in N.
    """
    low, high = bounds or (-math.inf, math.inf)
    if measured.from_examples == 0:
        unseen = 1 - ((1 - level) / 2) ** (1 / measured.num_examples)
        exact = max(low, measured.value - unseen), min(high, measured.value + unseen)
        if measured.variance == 0:
            return exact
        by_seeds = interval(replace(measured, from_examples=_LEAST_VARIANCE), bounds, level)
        return min(exact[0], by_seeds[0]), max(exact[1], by_seeds[1])
    reach = float(stats.t.ppf((1 + level) / 2, measured.degrees)) * math.sqrt(measured.variance)
    if math.isinf(low) or not low < measured.value < high:
        return max(low, measured.value - reach), min(high, measured.value + reach)
    above, below = measured.value - low, high - measured.value
    if math.isinf(high):
        factor = math.exp(min(reach / above, _MOST_LOG))
        return low + above / factor, low + above * factor
    logit, width = math.log(above / below), high - low
    steps = reach * (1 / above + 1 / below)
    return low + width * float(expit(logit - steps)), low + width * float(expit(logit + steps))


def mcnemar(one: np.ndarray, other: np.ndarray) -> float:
    """The mid-p value of McNemar's test that two classifiers are right equally often (Fagerland et al., 2013).

    one, other: (N,) whether each example is predicted right. Where both are right on the same examples it is 1.
    """
    only_one, only_other = int((one & ~other).sum()), int((other & ~one).sum())
    discordant = stats.binom(only_one + only_other, 0.5)
    fewer = min(only_one, only_other)
    return float(2 * discordant.cdf(fewer) - discordant.pmf(fewer))


def cohen_g(one: np.ndarray, other: np.ndarray) -> float:
    """Of the examples that only one classifier gets right, the share that is the first one's, less a half.

    Cohen (1988), chapter 5: 0.05 is small, 0.15 medium, 0.25 large. one, other: (N,) whether predicted right. 0 where
    both are right on the same examples.
    """
    only_one, only_other = int((one & ~other).sum()), int((other & ~one).sum())
    return only_one / (only_one + only_other) - 0.5 if only_one + only_other else 0.0


def corrected(p_values: Sequence[float]) -> list[float]:
    """p values after Holm's correction (1979): the chance of any false finding among them stays below the level."""
    return multipletests(p_values, method="holm")[1].tolist() if len(p_values) else []


@dataclass(frozen=True)
class Needed:
    """How much more would tell a difference of this size: examples with as many seeds, or seeds with as many examples.

    None where that alone would not do.
    """

    examples: int | None
    seeds: int | None


def needed(gap: Measured, level: float = LEVEL, power: float = POWER) -> Needed:
    """What it takes to find a true difference as large as the measured one, at a level and with a power.

    (Card et al., 2020, for the question.)
    """
    if gap.value == 0:
        return Needed(None, None)
    return Needed(
        _fewest(lambda count: gap.with_more(count, gap.num_seeds).power(level) >= power, gap.num_examples),
        _fewest(lambda count: gap.with_more(gap.num_examples, count).power(level) >= power, gap.num_seeds)
        if gap.from_seeds
        else None,
    )


def _fewest(is_enough: Callable[[int], bool], start: int) -> int | None:
    """The smallest count from start on that is enough; None beyond a thousand times start."""
    high = start
    while not is_enough(high):
        high *= 2
        if high > start * _MOST_TIMES:
            return None
    low = high // 2 if high > start else start - 1  # not enough, or below start
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
