"""Uncertainty of scores and of differences: bootstrap, confidence intervals, p values, statistical power.

The score of a strategy is a mean over seeds on one test split. It would change with other test examples and with other
seeds. The variance over examples comes from a bootstrap, the variance over seeds from the scores of the seeds; where
sources of randomness vary apart, from the components of these scores (components.py).

# N examples  C classes  R resamples  S seeds
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy import stats
from scipy.special import expit

from tuneoff.scoring.components import Components, GridVariance, grid_variance, levels_of, mean_components
from tuneoff.scoring.custom import OWN_RESAMPLES, is_own, own_score, own_scores
from tuneoff.scoring.metrics import (
    ORDERED_SCORES,
    POSITIVE_SCORES,
    bounds,
    counts_from,
    from_counts,
    id_distances,
    indicators,
    log_losses,
)
from tuneoff.scoring.ranking import RANKING_SCORES, ranking_score

LEVEL = 0.95  # of confidence intervals; tests are significant below 1 - LEVEL
POWER = 0.8  # of the test that required_size() plans (Cohen, 1988)
RESAMPLES = 2000
# numbers to sort and add up for one run: areas under curves of many examples and classes get fewer resamples, at least
# as many as a standard error needs (Efron & Tibshirani, 1993, chapter 6)
_MAX_RANKED, _MIN_RESAMPLES = 2 * 10**8, 200
# Standard deviation of a score over seeds that is assumed where no runs show it: with one seed. The least one with
# folds, which show it poorly, as no two runs share their examples. A typical one of accuracy (docs/benchmarks.md).
TYPICAL_SEED_SD, TYPICAL_SEED_DEGREES = 0.006, 10.0
_SD_OF_EXAMPLE = 0.36  # of the accuracy of one example, where that of all is 0.85
_MAX_RATIO = 6  # of one strategy's variance to the median, in the pooled seed variance
_MAX_FACTOR = 2**10  # times the present number of examples or seeds that required_size() tries
_MAX_EXPONENT = 700.0  # exp overflows soon above it
_MIN_VARIANCE = 1e-30  # replaces 0 in a formula that needs a positive variance
_BLOCK_SIZE = 2**24  # resampling weights in memory at once: 64 MiB of fp32


def example_weights(num_examples: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Draw bootstrap resamples: the number of times that each example is drawn. (R, N) float32, rows sum to N."""
    draws = rng.integers(num_examples, size=(resamples, num_examples))
    weights = np.empty((resamples, num_examples), np.float32)
    for row, drawn in zip(weights, draws, strict=True):  # by row: nine times as fast as one count over all of them
        row[:] = np.bincount(drawn, minlength=num_examples)
    return weights


def num_resamples(metric: str, num_examples: int, num_labels: int) -> int:
    """Return the number of bootstrap resamples for a metric: fewer where a resample is slow to score."""
    if is_own(metric):
        return OWN_RESAMPLES
    if metric in RANKING_SCORES:
        num_ranked = num_examples * (1 if num_labels == 2 else num_labels)
        return int(np.clip(_MAX_RANKED // max(1, num_ranked), _MIN_RESAMPLES, RESAMPLES))
    return RESAMPLES


def resampled_scores(
    metric: str,
    labels: np.ndarray,
    predicted: list[np.ndarray],
    probabilities: list[np.ndarray],
    seed: int,
    resamples: int | None = None,
    positive: int | None = None,
) -> np.ndarray:
    """Score several runs on the same bootstrap resamples of the examples. -> (runs, R).

    labels: (N,) or (N, C); predicted: one array of that shape per run; probabilities: one (N, C) per run. One seed
    gives the same resamples for every metric and every run, so that scores can be compared in pairs (Efron &
    Tibshirani, 1993, chapter 6). Resamples are drawn in blocks to limit memory; the block size does not change them.
    resamples: R; None for num_resamples(). positive: id of the positive class, for the metrics that have one.
    """
    rng = np.random.default_rng(seed)
    if resamples is None:
        resamples = num_resamples(metric, len(labels), probabilities[0].shape[1] if probabilities else 1)
    block = max(1, min(resamples, _BLOCK_SIZE // max(1, len(labels))))
    blocks = []
    for start in range(0, resamples, block):
        weights = example_weights(len(labels), min(block, resamples - start), rng)
        runs = zip(predicted, probabilities, strict=True)
        blocks.append([_scores(metric, labels, *run, weights, positive) for run in runs])
    return np.concatenate(blocks, axis=1)


def _scores(
    metric: str,
    labels: np.ndarray,
    predicted: np.ndarray,
    probabilities: np.ndarray,
    weights: np.ndarray,
    positive: int | None,
) -> np.ndarray:
    """Score one run on each resample. weights: (R, N) -> (R,)."""
    if is_own(metric):
        return own_scores(metric, labels, predicted, probabilities, weights)
    if metric == "log_loss":
        return weights @ log_losses(labels, probabilities).astype(np.float32) / len(labels)
    if metric in RANKING_SCORES:
        return ranking_score(metric, labels, probabilities, positive, weights)
    sums = weights @ indicators(labels, predicted, probabilities.shape[1]).astype(np.float32)  # (R, 3C + 2)
    distances = None
    if metric in ORDERED_SCORES:
        distances = (weights @ id_distances(labels, predicted).astype(np.float32)).astype(np.float64)
    return from_counts(metric, counts_from(sums, distances), positive)


def score_of(
    metric: str, labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, positive: int | None = None
) -> float:
    """Score one run on all examples. labels, predicted: (N,) or (N, C), probabilities: (N, C)."""
    if is_own(metric):
        return own_score(metric, labels, predicted, probabilities)
    weights = np.ones((1, len(labels)), np.float32)
    return float(_scores(metric, labels, predicted, probabilities, weights, positive)[0])


def unit_of(metric: str, resampled: np.ndarray, num_examples: int) -> float:
    """Return how large differences of a metric are, in units of accuracy, of which typical variances are known.

    Of a metric with two bounds it is their distance. Of another one (log loss, mean absolute error, a function of the
    user's own) it is the standard deviation of an example's part in the score, divided by that of accuracy.
    resampled: (S, R).
    """
    low, high = bounds(metric)
    if math.isfinite(high - low):
        return high - low
    sd = float(resampled.std(axis=1, ddof=1).mean()) * math.sqrt(num_examples) / _SD_OF_EXAMPLE
    return sd or 1.0


def deciding_examples(
    metric: str, labels: np.ndarray, predicted: Iterable[np.ndarray], positive: int | None = None
) -> int:
    """Return the number of examples of which a perfect score, or one of 0, is a rate.

    A recall of 1 on 20 positive examples is one of 20 examples, however many negative ones there are. A macro average
    over C classes has the error of its rarest class divided by C. labels: (N,); for multi-label data, (N, C), all.
    """
    if labels.ndim == 2:
        return len(labels)
    counts = np.unique(labels, return_counts=True)[1]
    if metric == "precision":
        return max(1, min(int((run == positive).sum()) for run in predicted))
    if metric in POSITIVE_SCORES or (metric == "pr_auc" and positive is not None):
        return max(1, int((labels == positive).sum()))
    if metric in RANKING_SCORES:
        return int(counts.min())
    if metric == "balanced_accuracy" or metric.startswith("macro_"):
        return min(len(labels), len(counts) * int(counts.min()))
    return len(labels)


@dataclass(frozen=True)
class RunScores:
    """Test scores of the runs of one strategy. Runs on folds together are one run over all examples, S = 1."""

    scores: np.ndarray  # (S,)
    resampled: np.ndarray  # (S, R), on the same resamples for all strategies
    seeds: tuple[object, ...]  # of each run; where sources of randomness vary apart, pairs of source and seed
    is_seeded: bool = True  # another seed would give another score
    folds: np.ndarray | None = None  # (N,) fold of each example; None for one test split
    unit: float = 1.0  # of the metric's differences, in those of accuracy: unit_of()
    num_deciding: int | None = None  # examples that a perfect score depends on: deciding_examples(); None: all
    is_right: np.ndarray | None = None  # (N,) bool with folds: the examples whose labels are predicted correctly

    @property
    def grid(self) -> GridVariance | None:
        """Analysis of variance on the grid of seeds; None where all sources of randomness vary together."""
        levels = levels_of(self.seeds)
        return grid_variance(self.scores, self.resampled, levels) if levels else None


@dataclass(frozen=True)
class ScoreEstimate:
    """A mean score over seeds, or a difference of two, with its variance over test examples and over seeds."""

    value: float
    variance_from_examples: float  # over draws of the test examples
    variance_from_seeds: float | None  # over draws of the seeds; None for a single run, which does not show it
    num_examples: int
    num_seeds: int
    # variance of the mean as the spread of the seeds' scores shows it: the effect of seeds, plus the interaction of
    # seeds with examples, which variance_from_examples includes too
    variance_between_seeds: float = 0.0
    seed_degrees_of_freedom: float = 1.0  # of variance_between_seeds
    # where sources of randomness vary apart: their components in variance_between_seeds, and the levels of each source;
    # num_seeds is then the smallest of these, and more seeds mean as many times more of every source
    components: Components | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    unit: float = 1.0  # as of RunScores
    num_deciding: int | None = None

    @property
    def variance(self) -> float:
        """Variance over draws of examples and of seeds; of examples only if the variance from seeds is unknown."""
        return self.variance_from_examples + (self.variance_from_seeds or 0.0)

    @property
    def degrees_of_freedom(self) -> float:
        """Degrees of freedom of the summed variance (Satterthwaite, 1946).

        The sum of two estimated variances is treated as one with total^2 / sum(part^2 / degrees of part) degrees of
        freedom. The part for seeds is variance_between_seeds, the estimate that has the few degrees of freedom.
        """
        example_degrees = max(1.0, self.num_examples - 1.0)
        spread = (
            self.variance_between_seeds**2 / self.seed_degrees_of_freedom
            + self.variance_from_examples**2 / example_degrees
        )
        return max(1.0, self.variance**2 / spread) if spread else example_degrees

    def extrapolate(self, num_examples: int, num_seeds: int) -> "ScoreEstimate":
        """Return the estimate to expect with another number of examples and seeds.

        Each variance shrinks in proportion to the count that it comes from; the interaction of seeds with examples
        shrinks with both.
        """
        example_ratio, seed_ratio = self.num_examples / num_examples, self.num_seeds / num_seeds
        interaction = max(0.0, self.variance_between_seeds - (self.variance_from_seeds or 0.0))
        return ScoreEstimate(
            self.value,
            self.variance_from_examples * example_ratio,
            None if self.variance_from_seeds is None else self.variance_from_seeds * seed_ratio,
            num_examples,
            num_seeds,
            ((self.variance_from_seeds or 0.0) + interaction * example_ratio) * seed_ratio,
            self.seed_degrees_of_freedom / seed_ratio,
        )

    def with_counts(self, counts: Mapping[str, int]) -> "ScoreEstimate":
        """Return the estimate to expect with another number of levels of each source of randomness."""
        assert self.components is not None
        before = self.components.of_mean(self.counts)
        ratio = self.components.of_mean(counts) / before if before else 1.0
        return replace(
            self,
            variance_from_seeds=(self.variance_from_seeds or 0.0) * ratio,
            num_seeds=min(counts.values()),
            variance_between_seeds=self.variance_between_seeds * ratio,
            seed_degrees_of_freedom=self.seed_degrees_of_freedom / ratio,
            counts=counts,
        )

    def power(self, level: float = LEVEL) -> float:
        """Probability that the test detects a true value as large as this one (noncentral t).

        Counts only rejections on the side of the true value.
        """
        if self.variance == 0:
            return float(self.value != 0)
        critical = stats.t.ppf((1 + level) / 2, self.degrees_of_freedom)
        return float(stats.nct.sf(critical, self.degrees_of_freedom, abs(self.value) / math.sqrt(self.variance)))

    @property
    def p_value(self) -> float:
        """Two-sided p value of a true value of 0 (Student's t).

        If the variance is 0 but the value is not, every example points to the same side: the sign test's p value.
        """
        if self.variance == 0:
            return min(1.0, 2 * 0.5 ** (self.num_deciding or self.num_examples)) if self.value else 1.0
        return float(2 * stats.t.sf(abs(self.value) / math.sqrt(self.variance), self.degrees_of_freedom))


@dataclass(frozen=True)
class SeedVariance:
    """Seed-to-seed variance of a score, pooled over the strategies of a comparison."""

    variance: float  # of the score of one run
    degrees_of_freedom: float
    components: Components | None = None  # of the variance, where sources of randomness vary apart

    def of_mean(self, counts: Mapping[str, int]) -> float:
        """Variance of the mean over a grid of runs. counts: levels of each source."""
        return self.components.of_mean(counts) if self.components else self.variance / math.prod(counts.values())

    def times(self, factor: float) -> "SeedVariance":
        """Return the variance times a factor."""
        components = self.components.times(factor) if self.components else None
        return SeedVariance(factor * self.variance, self.degrees_of_freedom, components)

    def within(self, sources: Collection[str]) -> "SeedVariance":
        """Return the variance of a strategy that depends on some of the sources of randomness alone."""
        if self.components is None:
            return self
        components = self.components.within(sources)
        return SeedVariance(components.total, self.degrees_of_freedom, components)


def fold_factor(num_examples: int) -> float:
    """Factor of the standard error of out-of-fold scores over examples.

    That error takes the examples as independent, but examples of one fold share their model, and models of different
    folds share training examples. Without the factor, 95 % intervals of differences held the difference of the models
    that were trained on all examples in 0.89 to 0.93 of repetitions on real texts. Nothing in the predictions shows
    what is missing: the variance between folds is no larger than that within, and there is no unbiased estimate
    (Bengio & Grandvalet, 2004). Nested cross-validation estimates it with many times the training (Bates, Hastie &
    Tibshirani, 2024). The factor is therefore measured: 1.10 for 400 labelled examples, 1.20 for 1,000, 1.22 for 1,600
    and 1.30 for 4,500 give intervals that hold in 0.95 (docs/log.md), a line in the logarithm of their number.
    """
    return float(np.clip(1.10 + 0.083 * math.log(num_examples / 400), 1.0, 1.5))


def widened_for_folds(resampled: np.ndarray, num_examples: int) -> np.ndarray:
    """Widen resampled scores of out-of-fold predictions around their mean by fold_factor(). (S, R) -> (S, R)."""
    means = resampled.mean(-1, keepdims=True)
    return means + fold_factor(num_examples) * (resampled - means)


def pooled_seed_variance(runs: Sequence[RunScores]) -> SeedVariance | None:
    """Average the seed-to-seed variances of the strategies; None if no strategy depends on the seed.

    Two or three seeds estimate a variance poorly: among many strategies some show almost no variance by chance. With
    each strategy's own variance, 30 % of simulated comparisons of ten equal strategies had a false positive
    (docs/log.md). estimate_score() therefore uses this mean as a lower limit for every strategy. The trade-off is a
    wider interval for a strategy that is truly more stable than the others.

    One unstable strategy must not dominate the mean, so each variance is clipped at 6 times the median. The median of
    sample variances lies below the variance that they estimate; dividing by the median of the chi-squared distribution
    corrects this. Strategies do not share one true variance, so their mean has fewer degrees of freedom than all seeds
    together: half of them keeps the error rates in simulations (docs/benchmarks.md). Moderated variances (Smyth, 2004)
    did not keep them (docs/log.md).

    With one seed, scores do not show it, and a typical one is assumed, in the unit of the metric. Without it, half of
    simulated comparisons of equal strategies with one seed and 5,000 test examples called some strategy worse. With
    folds it is the larger of that and what the folds of several strategies show: fold_seed_variance().

    Where sources of randomness vary apart, the same is done with the variances of the means over the grids, and their
    components are averaged.
    """
    seeded, assumed = [strategy for strategy in runs if strategy.is_seeded], (TYPICAL_SEED_SD * median_unit(runs)) ** 2
    folded = [strategy for strategy in seeded if strategy.folds is not None]
    if folded:
        num_folds = len(np.unique(np.asarray(folded[0].folds)))  # each has a seed of its own
        typical = SeedVariance(assumed / num_folds, TYPICAL_SEED_DEGREES)
        shown = fold_seed_variance(folded)
        return max(typical, shown, key=lambda of_mean: of_mean.variance) if shown else typical
    repeated = [strategy for strategy in seeded if len(strategy.scores) > 1]
    if not repeated:
        return SeedVariance(assumed, TYPICAL_SEED_DEGREES) if seeded else None
    grids = [grid for strategy in repeated if (grid := strategy.grid)]
    if grids:
        return _pooled_on_grids(grids)
    variances = np.array([float(strategy.scores.var(ddof=1)) for strategy in repeated])
    degrees = np.array([len(strategy.scores) - 1 for strategy in repeated])
    return SeedVariance(float(_clipped(variances, degrees).mean()), max(1.0, degrees.sum() / 2))


def fold_seed_variance(runs: Sequence[RunScores]) -> SeedVariance | None:
    """Variance of a mean over folds that comes from seeds, as the folds of several strategies show it; None for one.

    Each fold of each strategy has a seed of its own. In a two-way analysis of variance of accuracy by strategy and fold
    (Searle, Casella & McCulloch, 1992, chapter 4), what the examples of a fold do to all strategies alike cancels. The
    rest is the effect of the seeds, plus the noise of as many examples, whose variance is that within the folds divided
    by their number. The difference of the two has the degrees of freedom of Satterthwaite (1946).
    """
    correct = [strategy.is_right for strategy in runs if strategy.is_right is not None]
    if len(correct) < 2 or len(correct) < len(runs):
        return None
    fold = np.unique(np.asarray(runs[0].folds), return_inverse=True)[1]
    counts = np.bincount(fold)
    if len(counts) < 2 or counts.min() < 2:
        return None
    apart = np.stack(correct).astype(np.float64)
    apart -= apart.mean(0)
    means = np.stack([np.bincount(fold, of_strategy) for of_strategy in apart]) / counts  # (K, folds)
    noise = float((((apart - means[:, fold]) ** 2) / (counts * (counts - 1))[fold]).sum()) / len(counts)
    spreads = means.var(axis=1, ddof=1)
    spread = float(_clipped(spreads, np.full(len(runs), len(counts) - 1)).sum())
    variance = max(0.0, spread - noise) / (len(runs) - 1)
    degrees = (len(runs) - 1) * (len(counts) - 1) * (1 - noise / spread) ** 2 if variance else 1.0
    return SeedVariance(variance * median_unit(runs) ** 2 / len(counts), max(1.0, degrees))


def _clipped(variances: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Return sample variances of strategies, at most 6 times their median."""
    return np.minimum(variances, _MAX_RATIO * np.median(variances * degrees / stats.chi2.ppf(0.5, degrees)))


def median_unit(runs: Sequence[RunScores]) -> float:
    """Return the unit of the metric that some strategies are scored by; 1 without any."""
    return float(np.median([strategy.unit for strategy in runs])) if runs else 1.0


def _pooled_on_grids(grids: Sequence[GridVariance]) -> SeedVariance:
    """Pool the components of the strategies with the most sources; grids with holes only if there are no others."""
    most = max((len(grid.counts), grid.is_complete) for grid in grids)
    alike = [grid for grid in grids if (len(grid.counts), grid.is_complete) == most]
    variances = np.array([grid.of_mean for grid in alike])
    degrees = np.array([grid.degrees_of_freedom for grid in alike])
    factors = np.divide(_clipped(variances, degrees), variances, out=np.ones_like(variances), where=variances > 0)
    components = mean_components([grid.spread.times(float(f)) for grid, f in zip(alike, factors, strict=True)])
    return SeedVariance(components.total, max(1.0, float(degrees.sum()) / 2), components)


def estimate_score(runs: RunScores, num_examples: int, pooled: SeedVariance | None = None) -> ScoreEstimate:
    """Estimate the mean score over seeds, with its variance over examples and over seeds: _estimate_score().

    pooled: a lower limit for the seed-to-seed variance, and the only estimate of it for a single run.
    """
    return replace(_estimate_score(runs, num_examples, pooled), unit=runs.unit, num_deciding=runs.num_deciding)


def _estimate_score(runs: RunScores, num_examples: int, pooled: SeedVariance | None) -> ScoreEstimate:
    """Estimate the mean score over seeds, with its variance over examples and over seeds.

    pooled: a lower limit for the seed-to-seed variance, and the only estimate of it for a single run.

    The algorithm is two-way clustering (Cameron, Gelbach & Miller, 2011, equation 2.11). The result of one seed on one
    example is a mean plus a seed effect, an example effect and an interaction. The bootstrap over examples, applied to
    the mean over seeds, measures the example effect plus the interaction. The variance of the seeds' scores, divided by
    S, measures the seed effect plus the same interaction. The sum would count the interaction twice, so it is
    subtracted once, estimated from the resampled deviations of each seed from the mean over seeds. The trade-off:
    intervals that counted it twice were too wide (95 % intervals covered the true score in 0.985 to 1.0 of simulations,
    docs/log.md), but the subtraction leaves an imprecise and sometimes negative remainder. A negative one becomes 0,
    and the degrees of freedom are taken from the larger variance before the subtraction.

    On a grid of seeds, runs that share the seed of a source are not independent. The variance of the mean over the grid
    is the sum of each source's component divided by the number of its levels, plus the rest divided by the number of
    runs. The interaction with the examples is the same sum of the components' noise.
    """
    num_seeds, mean_resampled = len(runs.scores), runs.resampled.mean(0)
    variance_from_examples, value = float(mean_resampled.var(ddof=1)), float(runs.scores.mean())
    if not runs.is_seeded:
        return ScoreEstimate(value, variance_from_examples, 0.0, num_examples, num_seeds)
    if num_seeds == 1:
        if pooled is None:
            return ScoreEstimate(value, variance_from_examples, None, num_examples, 1)
        return ScoreEstimate(
            value, variance_from_examples, pooled.variance, num_examples, 1, pooled.variance, pooled.degrees_of_freedom
        )
    if grid := runs.grid:
        sources = {source for seed in runs.seeds if isinstance(seed, tuple) for source, _ in seed}
        own = pooled.within(sources) if pooled else None
        return _estimate_on_grid(value, variance_from_examples, num_examples, grid, own)
    between_seeds, degrees = float(runs.scores.var(ddof=1)) / num_seeds, num_seeds - 1.0
    # the deviation from a mean of S has (S - 1) / S of the variance: S - 1 makes it that of the mean
    interaction = float((runs.resampled - mean_resampled).var(axis=1, ddof=1).mean()) / (num_seeds - 1)
    if pooled is not None and pooled.variance / num_seeds > between_seeds:
        between_seeds, degrees = pooled.variance / num_seeds, pooled.degrees_of_freedom
    variance_from_seeds = max(0.0, between_seeds - interaction)
    return ScoreEstimate(
        value, variance_from_examples, variance_from_seeds, num_examples, num_seeds, between_seeds, degrees
    )


def _estimate_on_grid(
    value: float, variance_from_examples: float, num_examples: int, grid: GridVariance, pooled: SeedVariance | None
) -> ScoreEstimate:
    between, degrees, components = grid.of_mean, grid.degrees_of_freedom, grid.spread
    if pooled is not None and pooled.of_mean(grid.counts) > between:
        between, degrees = pooled.of_mean(grid.counts), pooled.degrees_of_freedom
        components = pooled.components or components
    return ScoreEstimate(
        value,
        variance_from_examples,
        max(0.0, between - grid.noise_of_mean),
        num_examples,
        min(grid.counts.values()),
        between,
        degrees,
        components,
        grid.counts,
    )


def difference(
    first: RunScores, second: RunScores, num_examples: int, pooled: SeedVariance | None = None
) -> ScoreEstimate:
    """Estimate the difference first - second of two mean scores on the same test examples.

    pooled: the seed-to-seed variance of one score, pooled over the strategies of the comparison.

    Both strategies are scored on the same resamples, so the difference is paired by example: the difficulty that they
    share cancels, and the interval is much narrower than one from two separate variances (Efron & Tibshirani, 1993).
    With equal seeds, or if at most one strategy depends on the seed, the difference is paired by seed as well: one
    difference per seed goes through estimate_score(). Where sources of randomness vary apart and one strategy depends
    on fewer of them, each of its runs stands for all runs of the other with the same seeds of these. The pooled
    variance then counts once for each strategy that depends on the seed, because their seed effects are assumed to be
    independent. With different seeds the variances from seeds add up, and the smaller number of degrees of freedom is
    used: conservative, but simpler than combining them.
    """
    first, second = _repeated(first, second.seeds), _repeated(second, first.seeds)
    is_seeded = first.is_seeded or second.is_seeded
    if first.seeds == second.seeds or not (first.is_seeded and second.is_seeded):
        seeds = first.seeds if first.is_seeded else second.seeds
        values, resampled = first.scores - second.scores, first.resampled - second.resampled
        gaps = RunScores(values, resampled, seeds, is_seeded, unit=first.unit, num_deciding=_fewest(first, second))
        num_seeded = first.is_seeded + second.is_seeded
        return estimate_score(gaps, num_examples, pooled.times(num_seeded) if pooled else None)
    parts = [estimate_score(runs, num_examples, pooled) for runs in (first, second)]
    variance_from_examples = float((first.resampled.mean(0) - second.resampled.mean(0)).var(ddof=1))
    value, num_seeds = parts[0].value - parts[1].value, min(part.num_seeds for part in parts)
    if parts[0].variance_from_seeds is None or parts[1].variance_from_seeds is None:
        return ScoreEstimate(value, variance_from_examples, None, num_examples, num_seeds)
    return ScoreEstimate(
        value,
        variance_from_examples,
        parts[0].variance_from_seeds + parts[1].variance_from_seeds,
        num_examples,
        num_seeds,
        parts[0].variance_between_seeds + parts[1].variance_between_seeds,
        min(part.seed_degrees_of_freedom for part in parts),
        unit=first.unit,
        num_deciding=_fewest(first, second),
    )


def _fewest(*runs: RunScores) -> int | None:
    return min((strategy.num_deciding for strategy in runs if strategy.num_deciding is not None), default=None)


def _repeated(runs: RunScores, seeds: Sequence[object]) -> RunScores:
    """Repeat runs that depend on fewer sources of randomness, so that each of these seeds has its counterpart.

    The runs are returned as they are if some seed has none, and where sources are the same or vary together.
    """
    rows = {seed: row for row, seed in enumerate(runs.seeds)}
    sources = {source for seed in runs.seeds if isinstance(seed, tuple) for source, _ in seed}
    own = [tuple(pair for pair in seed if pair[0] in sources) if isinstance(seed, tuple) else None for seed in seeds]
    if own == list(seeds) or not all(seed in rows for seed in own):
        return runs
    chosen = [rows[seed] for seed in own]
    return replace(runs, scores=runs.scores[chosen], resampled=runs.resampled[chosen], seeds=tuple(seeds))


def interval(
    estimate: ScoreEstimate, bounds: tuple[float, float] | None = None, level: float = LEVEL
) -> tuple[float, float]:
    """Confidence interval of a score or of a difference. bounds: lowest and highest possible value, if there are any.

    Without bounds it is Student's t interval with Satterthwaite's degrees of freedom. Near a bound of the metric a
    symmetric interval would contain impossible values. For a metric with two bounds the interval is therefore computed
    on the logit scale and transformed back, for one with only a lower bound (log loss) on the log scale. The delta
    method gives the standard error there: the derivative of the transformation times the standard error. The trade-off:
    the interval is asymmetric, and the delta method is exact only for small standard errors. A value on a bound has no
    finite logit; its symmetric interval is clipped.

    If all resamples have the same score, for example if every prediction is correct, the bootstrap shows no variance.
    The interval is then the exact binomial interval (Clopper & Pearson, 1934) of 0 events in as many examples as decide
    (deciding_examples), in the unit of the metric. If the seeds still vary, it is extended to include the interval of
    the variance from seeds.
    """
    low, high = bounds or (-math.inf, math.inf)
    if estimate.variance_from_examples == 0:
        # upper limit of the rate of an unseen event
        max_rate = 1 - ((1 - level) / 2) ** (1 / (estimate.num_deciding or estimate.num_examples))
        largest = estimate.unit * max_rate
        exact = max(low, estimate.value - largest), min(high, estimate.value + largest)
        if estimate.variance == 0:
            return exact
        from_seeds = interval(replace(estimate, variance_from_examples=_MIN_VARIANCE), bounds, level)
        return min(exact[0], from_seeds[0]), max(exact[1], from_seeds[1])
    half_width = float(stats.t.ppf((1 + level) / 2, estimate.degrees_of_freedom)) * math.sqrt(estimate.variance)
    if math.isinf(low) or not low < estimate.value < high:
        return max(low, estimate.value - half_width), min(high, estimate.value + half_width)
    above_low, below_high = estimate.value - low, high - estimate.value
    if math.isinf(high):
        factor = math.exp(min(half_width / above_low, _MAX_EXPONENT))
        return low + above_low / factor, low + above_low * factor
    logit, width = math.log(above_low / below_high), high - low
    logit_half_width = half_width * (1 / above_low + 1 / below_high)
    return low + width * float(expit(logit - logit_half_width)), low + width * float(expit(logit + logit_half_width))


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Mid-p value of McNemar's test that two classifiers have equal accuracy (Fagerland et al., 2013).

    first, second: (N,) bool, True for a correct prediction. 1 if both are correct on the same examples.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = stats.binom(only_first + only_second, 0.5)
    fewer = min(only_first, only_second)
    return float(2 * discordant.cdf(fewer) - discordant.pmf(fewer))


def cohen_g(first: np.ndarray, second: np.ndarray) -> float:
    """Cohen's g: of the examples that only one classifier predicts correctly, the first one's share, minus a half.

    Cohen (1988), chapter 5: 0.05 is small, 0.15 medium, 0.25 large. first, second: (N,) bool, True for a correct
    prediction. 0 if both are correct on the same examples.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return only_first / (only_first + only_second) - 0.5 if only_first + only_second else 0.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for multiple comparisons (Holm, 1979).

    The probability of any false positive among them stays below the significance level.
    """
    # not by statsmodels, which collects garbage in each call: 0.15 s where a comparison is in memory
    values, count = np.asarray(p_values, np.float64), len(p_values)
    order = np.argsort(values, kind="stable")
    corrected = np.empty(count)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * np.arange(count, 0, -1)))
    return corrected.tolist()


@dataclass(frozen=True)
class RequiredSize:
    """Sample sizes at which a difference would be detected; None if no practical size is enough."""

    examples: int | None  # with the present number of seeds
    seeds: int | None  # with the present number of test examples


def required_size(gap: ScoreEstimate, level: float = LEVEL, power: float = POWER) -> RequiredSize:
    """Compute the test examples, or the seeds, needed to detect a true difference as large as the measured one.

    The measured variances are extrapolated to a larger number of examples, or of seeds, and the power at that size
    comes from the noncentral t distribution. A normal approximation gives too small a size: it ignores that few seeds
    estimate their variance poorly (docs/log.md). The smallest size with enough power is found by doubling, then by
    bisection. The trade-off: this needs no simulation, but it treats the measured difference and variances as the true
    ones, so the result is a rough guide. More examples do not reduce the variance from seeds, nor more seeds that from
    examples: if no size up to 1,024 times the present one is enough, the result is None. Power analysis in NLP: Card et
    al., "With Little Power Comes Great Responsibility", EMNLP 2020.
    """
    if gap.value == 0:
        return RequiredSize(None, None)
    examples, seeds = gap.num_examples, gap.num_seeds
    return RequiredSize(
        smallest_count(
            lambda count: gap.extrapolate(count, seeds).power(level) >= power, examples, examples * _MAX_FACTOR
        ),
        smallest_count(lambda count: gap.extrapolate(examples, count).power(level) >= power, seeds, seeds * _MAX_FACTOR)
        if gap.variance_from_seeds
        else None,
    )


def smallest_count(is_enough: Callable[[int], bool], start: int, largest: int) -> int | None:
    """Find the smallest count >= start that is enough, by doubling and bisection; None above the largest."""
    high = start
    while not is_enough(high):
        high *= 2
        if high > largest:
            return None
    low = high // 2 if high > start else start - 1  # not enough, or below start
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
