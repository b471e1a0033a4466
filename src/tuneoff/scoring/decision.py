"""Decision between strategies: joint distribution of their true scores, expected loss, equivalence, the pick.

Tests answer whether a difference is real. A choice needs something else: what is lost if it is wrong. Both come from
the same draws here. Scores are oriented so that higher is better; losses are differences of scores, 0 or positive.

# K strategies  R resamples  S seeds
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats as distributions

from tuneoff.scoring.stats import LEVEL, RunScores, SeedVariance, estimate_score

# Largest acceptable loss for a cheaper strategy, in the metric's units: half a point of accuracy. Another seed changes
# the score of one strategy by 0.3 to 1 point (docs/studies.md), so half a point cannot be promised for a single model
# anyway; and in simulations picks at this margin lose 0.1 points more than always taking the best measured strategy
# (docs/benchmarks.md).
DEFAULT_MARGIN = 0.005
# A cheaper strategy within the margin is not picked if it loses more than this many margins against the best measured
# one with a higher probability than this: few examples cannot exclude a large loss.
RISK_MARGINS, MAX_RISK = 4.0, 0.3
# Strategies whose costs differ by less than this share cost the same: of these the best one is picked. Measured times
# of equal runs differ by as much on a machine that does other work, and half a point is worth more than that.
MIN_SAVING = 0.2
# Of the variance from seeds in the draws. Student's t with one or two degrees of freedom has no variance, and a mean
# loss that a few draws decide; four are like a prior from a few earlier studies.
_MIN_DEGREES = 4.0
# of sums of fractions: a gap of exactly the margin is within it
ROUNDING = 1e-9


@dataclass(frozen=True)
class JointScores:
    """Estimated scores of K strategies, and draws from the joint distribution of their true scores."""

    values: np.ndarray  # (K,) higher is better
    draws: np.ndarray  # (R, K)

    @property
    def losses(self) -> np.ndarray:
        """Loss of each strategy against the best one of each draw, 0 or positive. (R, K)."""
        return self.draws.max(1, keepdims=True) - self.draws

    def expected_loss(self, index: int) -> float:
        """Return the mean loss of a strategy against the best of all."""
        return float(self.losses[:, index].mean())

    def loss_quantile(self, index: int, level: float = LEVEL) -> float:
        """Return the loss against the best of all that is exceeded with probability 1 - level."""
        return float(np.quantile(self.losses[:, index], level))

    def risk(self, rival: int, index: int, loss: float) -> float:
        """Return the probability that a strategy loses more than `loss` against one rival."""
        return float((self.draws[:, rival] - self.draws[:, index] > loss).mean())

    def loss_bounds(self, level: float = LEVEL) -> np.ndarray:
        """Upper confidence limits of the losses against the best, valid for all strategies at once. (K,).

        Multiple comparisons with the best (Hsu, 1984). If strategy j were the best, the losses of all others would have
        the one-sided simultaneous limits of Dunnett (1955) with j as control. The best one is unknown, so the limit of
        a strategy is its largest over every possible j. Critical values are quantiles of the draws, which have the
        correlations and unequal variances of the scores (Edwards & Hsu, 1983).
        """
        bounds = np.zeros(len(self.values))
        for control in range(len(self.values)):
            gaps = self.draws[:, [control]] - self.draws - (self.values[control] - self.values)  # (R, K), around 0
            sd = gaps.std(0, ddof=1)
            critical = np.quantile((-gaps / np.where(sd > 0, sd, np.inf)).max(1), level)
            bounds = np.maximum(bounds, self.values[control] - self.values + critical * sd)
        return bounds

    def exceeds(self, control: int, level: float = LEVEL) -> np.ndarray:
        """Mask of the strategies that are better than a control, with a family-wise error of 1 - level. (K,).

        One-sided many-to-one comparisons (Dunnett, 1955) with critical values from the draws.
        """
        gaps = self.draws - self.draws[:, [control]]
        centred = gaps - (self.values - self.values[control])
        sd = centred.std(0, ddof=1)
        critical = np.quantile((centred / np.where(sd > 0, sd, np.inf)).max(1), level)
        return self.values - self.values[control] > critical * sd


def joint_scores(
    runs: Sequence[RunScores], sign: float, num_examples: int, pooled: SeedVariance | None, seed: int = 0
) -> JointScores:
    """Estimate the joint distribution of the true scores of several strategies, over test examples and seeds.

    sign: 1 if a higher score is better, -1 if a lower one is (metrics.direction). pooled: seed-to-seed variance.

    Over examples a draw is a bootstrap resample, the same one for every strategy, so that shared difficulty cancels in
    differences. Over seeds it is a normal variable for each strategy. Both are scaled by chi-squared draws of their
    degrees of freedom, the same ones for all strategies, which makes them Student's t: three examples, or two seeds,
    estimate a variance poorly. With a flat prior the draws are a posterior distribution; in simulations the 95 %
    quantile of the loss of the pick is exceeded in 0 to 5 % of repetitions (2 of 15 in one case; docs/benchmarks.md).
    """
    rng = np.random.default_rng(seed)
    values = sign * np.array([strategy.scores.mean() for strategy in runs])
    resampled = sign * np.stack([strategy.resampled.mean(0) for strategy in runs], axis=1)  # (R, K)
    num_draws = len(resampled)
    estimates = [estimate_score(strategy, num_examples, pooled) for strategy in runs]
    seed_sd = np.sqrt([estimate.variance_from_seeds or 0.0 for estimate in estimates])
    seed_degrees = max(
        _MIN_DEGREES, min((e.seed_degrees_of_freedom for e in estimates if e.variance_from_seeds), default=0.0)
    )
    from_examples = (resampled - resampled.mean(0)) * _t_scale(max(1.0, num_examples - 1.0), num_draws, rng)
    from_seeds = rng.normal(size=resampled.shape) * seed_sd * _t_scale(seed_degrees, num_draws, rng)
    return JointScores(values, values + from_examples + from_seeds)


def _t_scale(degrees: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw factors that turn normal draws into draws of Student's t. (count, 1)."""
    return np.sqrt(degrees / rng.chisquare(degrees, size=(count, 1)))


def choose(
    joint: JointScores, costs: np.ndarray, margin: float, is_candidate: np.ndarray, takes_best: bool = False
) -> int:
    """Return the index of the strategy to pick: the cheapest whose expected loss is within the margin.

    Of those that cost as little, up to MIN_SAVING, it is the best. costs: (K,), infinite if unknown. is_candidate: (K,)
    bool, at least one True. takes_best: return the candidate with the best score, whatever it costs.

    The expected loss against the best of all, minus that of the best measured candidate, is the measured difference of
    the two: the cost of the choice, on average. A candidate within the margin may still lose much where scores are
    uncertain, so MAX_RISK bounds the probability of a loss of RISK_MARGINS margins.
    """
    best = int(np.where(is_candidate, joint.values, -np.inf).argmax())
    if takes_best:
        return best
    gaps = joint.values[best] - joint.values
    risks = np.array([joint.risk(best, index, RISK_MARGINS * margin) for index in range(len(costs))])
    is_allowed = is_candidate & (gaps <= margin + ROUNDING) & (risks <= MAX_RISK)
    is_allowed[best] = True
    return int(np.where(_are_cheapest(costs, is_allowed), joint.values, -np.inf).argmax())


def _are_cheapest(costs: np.ndarray, is_allowed: np.ndarray) -> np.ndarray:
    """Mask of the strategies among those allowed that cost as little as any, up to MIN_SAVING. (..., K)."""
    ranked = np.where(is_allowed, costs, np.inf)
    lowest = ranked.min(-1, keepdims=True)
    return is_allowed & ((ranked == lowest) | (ranked * (1 - MIN_SAVING) < lowest))


def optimism(
    joint: JointScores, costs: np.ndarray, margin: float, is_candidate: np.ndarray, takes_best: bool = False
) -> float:
    """Estimate by how much the score of the pick is too high because it was picked for its score.

    Bootstrap of the whole choice (Efron, 1983): on each draw the strategy is picked again by the same rule, and its
    score on the draw is compared with its measured score. In simulations up to 0.5 points of 3 are left where all
    strategies are equal, and up to 0.9 points too much are taken off where one strategy wins clearly on few examples
    (docs/benchmarks.md). Risks come from a normal approximation, because a draw has no draws of its own.
    """
    covariance = None if takes_best else np.atleast_2d(np.cov(joint.draws, rowvar=False))
    picks = picks_of_draws(joint.draws, covariance, costs, None if takes_best else margin, is_candidate)
    # against the mean of its own draws: what differs then is the choice, and not the draws' own error
    return max(0.0, float((joint.draws[np.arange(len(picks)), picks] - joint.draws.mean(0)[picks]).mean()))


def picks_of_draws(
    draws: np.ndarray,
    covariance: np.ndarray | None,
    costs: np.ndarray,
    margin: float | None,
    is_candidate: np.ndarray,
) -> np.ndarray:
    """Return the index of the strategy that choose() would pick on each draw. draws: (R, K) -> (R,).

    covariance: (K, K) of the true scores, for the risks; None to leave them out. margin: None picks the best.
    """
    draws = np.where(is_candidate, draws, -np.inf)
    rows, best = np.arange(len(draws)), draws.argmax(1)
    if margin is None:
        return best
    gaps = draws[rows, best][:, None] - draws
    largest_gap: np.ndarray | float = margin
    if covariance is not None:
        variances = np.diag(covariance)
        sd = np.sqrt(np.maximum(variances[:, None] + variances - 2 * covariance, 0.0))
        largest_gap = np.minimum(margin, RISK_MARGINS * margin - distributions.norm.ppf(1 - MAX_RISK) * sd[best])
    is_allowed = gaps <= largest_gap + ROUNDING
    is_allowed[rows, best] = True
    return np.where(_are_cheapest(costs, is_allowed), draws, -np.inf).argmax(1)
