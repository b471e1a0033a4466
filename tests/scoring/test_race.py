"""Races: chances to be picked, who goes on, and the levels of repeated looks."""

import numpy as np
import pytest

from tuneoff.scoring.decision import JointScores, joint_scores, optimism, picks_of_draws
from tuneoff.scoring.race import (
    final_draws,
    goes_on,
    level_of_look,
    near_chances,
    pick_chances,
    shows_no_variance,
    trial_draws,
)
from tuneoff.scoring.stats import RunScores, pooled_seed_variance

EVERY = np.ones(3, bool)


def runs_of(*scores, spread=0.02, num_draws=2000):
    """One strategy for each list of seeds' scores, with resamples that all strategies share."""
    shared = np.random.default_rng(0).normal(0, spread, num_draws)
    return [RunScores(np.array(s), np.array(s)[:, None] + shared, tuple(range(len(s)))) for s in scores]


def chances_of(runs, num_repeats, costs=(3.0, 2.0, 1.0), margin=0.005):
    pooled = pooled_seed_variance(runs)
    joint = joint_scores(runs, 1.0, 1000, pooled)
    draws = final_draws(runs, joint, pooled, num_repeats)
    return pick_chances(draws, np.array(costs), margin, EVERY, np.cov(joint.draws, rowvar=False))


def test_a_strategy_far_behind_has_no_chance_and_close_ones_have():
    chances = chances_of(runs_of([0.80], [0.79], [0.60]), num_repeats=3)
    assert chances[2] < 0.02
    assert min(chances[:2]) > 0.05
    assert chances.sum() == pytest.approx(1.0)


def test_with_every_seed_nothing_is_left_to_chance():
    assert chances_of(runs_of([0.80, 0.81], [0.79, 0.80], [0.6, 0.6]), num_repeats=2).tolist() == [1.0, 0.0, 0.0]


def test_of_equals_within_the_margin_the_cheapest_is_picked():
    chances = chances_of(runs_of([0.80, 0.80], [0.80, 0.80], [0.799, 0.799]), num_repeats=2)
    assert chances.tolist() == [0.0, 0.0, 1.0]


def test_with_folds_only_the_missing_examples_can_change_a_score():
    runs = runs_of([0.80], [0.79], [0.78])
    joint = joint_scores(runs, 1.0, 1000, pooled_seed_variance(runs))
    spread = [np.diff(final_draws(runs, joint, None, 1, share), axis=1).std() for share in (0.2, 0.8)]
    assert spread[0] > spread[1] > 0


def test_a_leader_that_is_alone_gets_a_second_run_and_no_third():
    chances, may_run = np.array([0.99, 0.009, 0.001]), np.ones(3, bool)
    assert goes_on(chances, np.ones(3), EVERY, may_run, 2).tolist() == [True, False, False]
    assert not goes_on(chances, np.full(3, 2), EVERY, may_run, 2).any()


def test_every_rival_goes_on_that_has_runs_left():
    chances = np.array([0.6, 0.39, 0.01])
    assert goes_on(chances, np.ones(3), EVERY, np.array([True, False, True]), 2).tolist() == [True, False, False]


def test_the_error_rate_is_divided_by_the_looks():
    assert 1 - level_of_look(5) == pytest.approx(0.01)


def test_one_run_of_each_strategy_shows_no_variance():
    assert shows_no_variance(runs_of([0.8], [0.7]))
    assert not shows_no_variance(runs_of([0.8, 0.8], [0.7]))


def test_more_trials_can_only_raise_a_score():
    scores = np.array([0.80, 0.73])
    without = near_chances(trial_draws(scores, 1000, np.array([False, False]), 0, 1), 0.005)[1]
    searched = near_chances(trial_draws(scores, 1000, np.array([False, True]), 0, 1), 0.005)[1]
    assert without < 0.02 < searched


def test_picks_of_draws_are_those_of_the_rule():
    draws = np.array([[0.80, 0.798, 0.60], [0.70, 0.72, 0.60]])
    costs = np.array([3.0, 1.0, 0.1])
    assert picks_of_draws(draws, None, costs, 0.005, EVERY).tolist() == [1, 1]
    assert picks_of_draws(draws, None, costs, None, EVERY).tolist() == [0, 1]
    assert picks_of_draws(draws, None, costs, 0.005, np.array([True, False, True])).tolist() == [0, 0]
    joint = JointScores(np.array([0.75, 0.759, 0.6]), draws)
    assert optimism(joint, costs, 0.005, EVERY, takes_best=True) == pytest.approx(0.05 / 2 - 0.039 / 2)
