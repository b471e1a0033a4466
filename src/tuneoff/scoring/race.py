"""Races of strategies: the chance of each to be the pick once every run has ended, and which ones need more runs.

A race looks at the scores after every round. Looking again and again at the same test examples would call strategies
worse too often, so that the error rate of a comparison is divided by the number of looks, which is known before the
first one (a group sequential test with Bonferroni's split of the error rate, and repeated confidence intervals:
Jennison & Turnbull, 1989). That holds for any dependence between the looks and for any rule of stopping. Limits that
hold at every time (confidence sequences: Howard et al., 2021) are wider for the few looks of a study. In simulations
(docs/benchmarks.md) a raced comparison calls a strategy wrongly worse in fewer than 5 % of the families.

# K strategies  R draws
"""

from collections.abc import Sequence

import numpy as np

from tuneoff.scoring.decision import ROUNDING, JointScores, picks_of_draws
from tuneoff.scoring.stats import LEVEL, RunScores, SeedVariance, median_unit

# A strategy with a smaller chance to be picked stops. The pick differs from that of every run in at most about as many
# studies as these chances add up to, and only where two strategies are close.
NEGLIGIBLE = 0.02
MIN_REPEATS = 2  # of the strategy that leads: one run shows no variance between seeds
# Standard deviation of a score over seeds, and its degrees of freedom, where no strategy has a second run yet. Larger
# than the typical one (stats.TYPICAL_SEED_SD), because a strategy that is stopped by mistake does not come back.
_FIRST_SEED_SD, _FIRST_DEGREES = 0.01, 4.0
# Standard deviation of what the other trials of a search add to the score of the first: the largest gains of stored
# studies were 5 points (a head whose default rate was ten times too low).
_GAIN_SD = 0.025


def level_of_look(num_looks: int) -> float:
    """Return the confidence level of each look, so that all of them together keep the level of a comparison.

    >>> round(level_of_look(1), 3), round(level_of_look(5), 3)
    (0.95, 0.99)
    """
    return 1 - (1 - LEVEL) / max(1, num_looks)


def shows_no_variance(runs: Sequence[RunScores]) -> bool:
    """Return True at a look at one seed, or one fold, of each strategy that depends on the seed.

    None of these is called worse at such a look, or another one worse than it. The typical variance that is assumed
    instead may be too small: where seeds change accuracy by 2 points, one seed of equal strategies called some of them
    worse in two thirds of simulated families (docs/benchmarks.md).
    """
    seeded = [strategy for strategy in runs if strategy.is_seeded]
    counts = [len(s.scores) if s.folds is None else len(np.unique(s.folds)) for s in seeded]
    return bool(counts) and max(counts) < MIN_REPEATS


def final_draws(
    runs: Sequence[RunScores],
    joint: JointScores,
    pooled: SeedVariance | None,
    num_repeats: int,
    share_scored: float = 1.0,
    seed: int = 0,
) -> np.ndarray:
    """Draw the scores that will be measured when every strategy has all of its repeats. (R, K), higher is better.

    runs, joint: the scores so far, of the same strategies in the same order. num_repeats: seeds of the whole grid; 1
    where folds take their place. share_scored: share of the examples that are scored so far, with folds.

    The test examples stay the same, so that only the missing seeds, or the examples of the missing folds, can change a
    measured score. A mean over n of S seeds differs from the mean over all of them by a variance of v (1/n - 1/S).
    """
    rng = np.random.default_rng(seed)
    num_draws, draws = len(joint.draws), np.array(joint.values)
    if share_scored < 1.0:
        return draws + np.sqrt(1 - share_scored) * (joint.draws - joint.values)
    is_first = all(len(strategy.scores) == 1 for strategy in runs if strategy.is_seeded)
    variance, degrees = (_FIRST_SEED_SD * median_unit(runs)) ** 2, _FIRST_DEGREES
    if pooled is not None and not is_first:
        variance, degrees = pooled.variance, max(_FIRST_DEGREES, pooled.degrees_of_freedom)
    left = np.array([1 / len(r.scores) - 1 / num_repeats if r.is_seeded else 0.0 for r in runs])
    scale = np.sqrt(degrees / rng.chisquare(degrees, size=(num_draws, 1)))
    return draws + rng.normal(size=(num_draws, len(runs))) * np.sqrt(variance * np.maximum(0.0, left)) * scale


def trial_draws(
    scores: np.ndarray, num_examples: int, is_searched: np.ndarray, low: float, high: float, seed: int = 0
) -> np.ndarray:
    """Draw the scores of strategies after their searches from the validation scores of their first trials. (R, K).

    scores: (K,), higher is better, from low to high. is_searched: (K,), True for strategies with more trials to come,
    which can only gain. The scores are taken as independent, which is conservative for the same validation examples.
    """
    rng, num_draws = np.random.default_rng(seed), 4000
    share = np.clip((scores - low) / (high - low), 0.05, 0.95)
    sd = (high - low) * np.hypot(np.sqrt(share * (1 - share) / num_examples), _FIRST_SEED_SD)
    draws = scores + rng.normal(size=(num_draws, len(scores))) * sd
    return draws + np.abs(rng.normal(size=draws.shape)) * (high - low) * _GAIN_SD * is_searched


def pick_chances(
    draws: np.ndarray,
    costs: np.ndarray,
    margin: float | None,
    is_candidate: np.ndarray,
    covariance: np.ndarray | None = None,
) -> np.ndarray:
    """Return the share of draws in which the rule of the verdict picks each strategy. (K,), sum 1.

    draws: (R, K) measured scores to come. covariance: (K, K) of the true scores, for the risk of a cheaper strategy.
    """
    picks = picks_of_draws(draws, covariance, costs, margin, is_candidate)
    return np.bincount(picks, minlength=draws.shape[1]) / len(draws)


def near_chances(draws: np.ndarray, margin: float) -> np.ndarray:
    """Return the share of draws in which each strategy is within the margin of the best one. draws: (R, K) -> (K,)."""
    return (draws.max(1, keepdims=True) - draws <= margin + ROUNDING).mean(0)


def goes_on(
    chances: np.ndarray, num_runs: np.ndarray, is_candidate: np.ndarray, may_run: np.ndarray, min_runs: int
) -> np.ndarray:
    """Mask of the strategies that get their next run: those that may still be picked, if they are several. (K,) bool.

    may_run: (K,) bool, whether a strategy has runs left. A leader that is alone goes on until it has min_runs.
    """
    rivals = is_candidate & (chances >= NEGLIGIBLE)
    if rivals.sum() > 1:
        return may_run & rivals
    leader = np.arange(len(chances)) == np.where(is_candidate, chances, -1.0).argmax()
    return may_run & leader & (num_runs < min_runs)
