"""Power analysis before a study: the test examples, seeds and folds that it takes to detect a difference.

# N examples  S seeds
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuneoff.scoring.stats import POWER, TYPICAL_SEED_DEGREES, ScoreEstimate, fold_factor, smallest_count

MAX_EXAMPLES = 1_000_000  # more test examples are as good as none


@dataclass(frozen=True)
class Repeats:
    """Runs of each strategy in a study: seeds on one test split, or folds."""

    num_seeds: int = 1
    num_folds: int | None = None  # instead of seeds
    num_strategies: int = 2  # whose seeds the variance from seeds is pooled over (stats.pooled_seed_variance)

    @property
    def name(self) -> str:
        """The runs in words."""
        if self.num_folds:
            return f"{self.num_folds} folds"
        return "1 seed" if self.num_seeds == 1 else f"{self.num_seeds} seeds"


@dataclass(frozen=True)
class DifferenceVariances:
    """Sources of variance of the difference of two strategies that are scored on the same examples."""

    example: float  # of one example's difference, averaged over many seeds
    interaction: float  # of one strategy's result on one example over seeds
    seed: float  # of one strategy's score over seeds, on many examples

    def estimate(self, gap: float, num_examples: int, repeats: Repeats) -> ScoreEstimate:
        """Return the estimate of a difference to expect in a study of two strategies that both depend on the seed."""
        if repeats.num_folds:
            from_examples = fold_factor(num_examples) ** 2 * (self.example + 2 * self.interaction) / num_examples
            from_seeds = 2 * self.seed / repeats.num_folds
            return ScoreEstimate(gap, from_examples, from_seeds, num_examples, 1, from_seeds, TYPICAL_SEED_DEGREES)
        interaction = 2 * self.interaction / (num_examples * repeats.num_seeds)
        from_seeds = 2 * self.seed / repeats.num_seeds
        if repeats.num_seeds == 1:  # a variance between seeds is assumed, as it is for the scores of one seed
            from_examples = self.example / num_examples + interaction
            return ScoreEstimate(gap, from_examples, from_seeds, num_examples, 1, from_seeds, TYPICAL_SEED_DEGREES)
        return ScoreEstimate(
            gap,
            self.example / num_examples + interaction,
            from_seeds,
            num_examples,
            repeats.num_seeds,
            from_seeds + interaction,
            repeats.num_strategies * (repeats.num_seeds - 1) / 2,
        )


# Accuracy of pairs of gradient strategies (bitfit, partial, lora, adapter, full) on MiniLM: medians over 12,284 tweets
# and 1,066 film reviews, three seeds each (docs/benchmarks.md). Seeds: the larger of the two, that of the reviews.
TYPICAL = DifferenceVariances(example=0.05, interaction=0.042, seed=0.006**2)


def measured_variances(is_right: Sequence[np.ndarray]) -> DifferenceVariances | None:
    """Estimate the variances of accuracy from correct predictions; the median over all pairs of strategies.

    is_right: (S, N) bool of each strategy, on the same examples; all have the same number of seeds, at least 2.
    Returns None for fewer than two strategies.

    Method of moments for a two-way table without repetition: the variance over seeds on one example is the interaction
    (with the effect of seeds, which is small against it); the mean over seeds holds 1/S of it, which is subtracted.
    """
    if len(is_right) < 2:
        return None
    num_seeds, num_examples = is_right[0].shape
    interactions, seeds, means = [], [], []
    for runs in is_right:
        values = runs.astype(np.float64)
        within = float(values.var(axis=0, ddof=1).mean())
        interactions.append(within)
        seeds.append(float(values.mean(1).var(ddof=1)) - within / num_examples)
        means.append(values.mean(0))
    pairs = [(i, j) for i in range(len(means)) for j in range(i)]
    example = [(means[i] - means[j]).var() - (interactions[i] + interactions[j]) / num_seeds for i, j in pairs]
    return DifferenceVariances(
        example=max(0.0, float(np.median(example))),
        interaction=float(np.median(interactions)),
        seed=max(0.0, float(np.mean(seeds))),
    )


def required_examples(gap: float, variances: DifferenceVariances, repeats: Repeats, power: float = POWER) -> int | None:
    """Return the test examples that detect a difference with a probability of `power`; None above MAX_EXAMPLES.

    With folds, the labelled examples.
    """

    def is_enough(count: int) -> bool:
        return variances.estimate(gap, count, repeats).power() >= power

    return smallest_count(is_enough, 10, MAX_EXAMPLES)


def detectable_gap(
    num_examples: int, variances: DifferenceVariances, repeats: Repeats, power: float = POWER
) -> float | None:
    """Return the smallest difference, to a tenth of a point, that is detected with a probability of `power`."""

    def is_enough(tenths: int) -> bool:
        return variances.estimate(tenths / 1000, num_examples, repeats).power() >= power

    tenths = smallest_count(is_enough, 1, 1000)
    return None if tenths is None else tenths / 1000
