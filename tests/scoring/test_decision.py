"""Joint distribution of true scores, losses, simultaneous limits and the pick, against formulas and simulation."""

import numpy as np
import pytest
from scipy import stats as distributions

from tuneoff.scoring.decision import JointScores, choose, joint_scores, optimism, picks_of_draws
from tuneoff.scoring.stats import RunScores, example_weights

EVERY = np.ones(3, bool)


def joint_of(values, sd, num_draws=20_000):
    noise = np.random.default_rng(0).normal(size=(num_draws, len(values)))
    return JointScores(np.array(values), np.array(values) + sd * noise)


def runs_of(is_right):
    """Scores of one seed per strategy. is_right: (strategies, N)."""
    weights = example_weights(is_right.shape[1], 2000, np.random.default_rng(1))
    resampled = is_right @ weights.T / is_right.shape[1]
    return [
        RunScores(np.array([run.mean()]), scores[None], (0,), False)
        for run, scores in zip(is_right, resampled, strict=True)
    ]


def test_the_expected_loss_of_two_strategies_is_that_of_a_normal_difference():
    joint, gap, sd = joint_of([0.8, 0.79], 0.01), 0.01, 0.01 * np.sqrt(2)
    z = gap / sd
    second = gap * distributions.norm.cdf(z) + sd * distributions.norm.pdf(z)  # E[max(0, difference)]
    assert joint.expected_loss(1) == pytest.approx(second, abs=2e-4)
    assert joint.expected_loss(0) == pytest.approx(second - gap, abs=2e-4)
    assert joint.loss_quantile(1) == pytest.approx(gap + 1.645 * sd, abs=5e-4)
    assert joint.risk(0, 1, 0.02) == pytest.approx(distributions.norm.sf(0.01 / sd), abs=0.01)


def test_the_limit_of_two_strategies_is_the_one_sided_interval_of_their_difference():
    sd = 0.01 * np.sqrt(2)
    bounds = joint_of([0.8, 0.79], 0.01).loss_bounds()
    assert bounds == pytest.approx([-0.01 + 1.645 * sd, 0.01 + 1.645 * sd], abs=5e-4)


def test_the_critical_value_of_several_strategies_is_dunnetts():
    # one control and four treatments, equal variances, correlation 1/2: Dunnett's one-sided 5 % value is 2.16
    values, sd = np.array([0.8, 0.7, 0.7, 0.7, 0.7]), 0.01
    bounds = joint_of(values, sd).loss_bounds()
    assert bounds[1:] == pytest.approx(np.full(4, 0.1 + 2.16 * sd * np.sqrt(2)), abs=1e-3)


def test_identical_strategies_lose_nothing():
    joint = JointScores(np.array([0.8, 0.8]), np.repeat(np.random.default_rng(0).normal(0.8, 0.1, (500, 1)), 2, axis=1))
    assert joint.loss_bounds().tolist() == [0.0, 0.0]
    assert joint.expected_loss(1) == 0.0
    assert not joint.exceeds(0).any()


def test_a_strategy_exceeds_the_control_only_by_more_than_chance():
    joint = joint_of([0.5, 0.51, 0.6], 0.01)
    assert joint.exceeds(0).tolist() == [False, False, True]


def test_three_examples_show_less_than_a_normal_distribution_would():
    rng = np.random.default_rng(0)
    few, many = rng.random((2, 3)) < 0.6, rng.random((2, 3000)) < 0.6
    few[0], few[1] = [True, True, False], [True, False, False]
    for is_right, tail in ((few, 8.0), (many, 2.2)):
        joint = joint_scores(runs_of(is_right), 1.0, is_right.shape[1], None)
        gap = joint.draws[:, 0] - joint.draws[:, 1] - (joint.values[0] - joint.values[1])
        ratio = np.quantile(np.abs(gap), 0.99) / np.quantile(np.abs(gap), 0.683)
        assert (ratio > tail / 2) if is_right.shape[1] == 3 else (2.2 < ratio < 3.0)


def test_draws_are_paired_by_example():
    rng = np.random.default_rng(0)
    first = rng.random(2000) < 0.8
    second = first ^ (rng.random(2000) < 0.02)  # nearly the same predictions
    joint = joint_scores(runs_of(np.stack([first, second])), 1.0, 2000, None)
    gap, score = joint.draws[:, 0] - joint.draws[:, 1], joint.draws[:, 0]
    assert gap.std() == pytest.approx(np.std(first.astype(float) - second) / np.sqrt(2000), rel=0.1)
    assert gap.std() < 0.4 * score.std()


def test_the_cheapest_within_the_margin_is_chosen():
    joint = joint_of([0.8, 0.797, 0.78], 0.001)
    costs = np.array([10.0, 5.0, 1.0])
    assert choose(joint, costs, 0.005, EVERY) == 1
    assert choose(joint, costs, 0.03, EVERY) == 2
    assert choose(joint, costs, 0.005, EVERY, takes_best=True) == 0
    assert choose(joint, costs, 0.03, np.array([True, True, False])) == 1
    assert choose(joint, np.full(3, np.inf), 0.03, EVERY) == 0


def test_a_small_saving_buys_no_loss():
    joint = joint_of([0.8, 0.797, 0.796], 0.001)
    assert choose(joint, np.array([10.0, 9.0, np.inf]), 0.005, EVERY) == 0
    assert choose(joint, np.array([10.0, 5.0, 4.5]), 0.005, EVERY) == 1  # of two that cost as little, the better one
    assert choose(joint, np.array([0.0, 0.0, 0.0]), 0.005, EVERY) == 0
    picks = picks_of_draws(joint.values[None], None, np.array([10.0, 9.0, np.inf]), 0.005, EVERY)
    assert picks.tolist() == [0]


def test_optimism_of_equal_strategies_is_the_expected_maximum():
    joint = joint_of([0.8, 0.8, 0.8], 0.01)
    # the mean of the largest of three normal variables is 0.846 standard deviations
    assert optimism(joint, np.full(3, np.inf), 0.0, EVERY) == pytest.approx(0.00846, abs=3e-4)
    assert optimism(joint, np.full(3, np.inf), 0.0, EVERY, takes_best=True) == pytest.approx(0.00846, abs=3e-4)


def test_a_single_strategy_has_no_optimism_however_its_draws_lie():
    joint = JointScores(np.array([0.8]), np.array([[0.81], [0.80]]))
    assert optimism(joint, np.array([1.0]), 0.005, np.array([True])) == 0.0


def test_a_clear_winner_has_no_optimism():
    assert optimism(joint_of([0.9, 0.5, 0.4], 0.01), np.array([3.0, 2.0, 1.0]), 0.005, EVERY) == pytest.approx(
        0, abs=2e-4
    )
