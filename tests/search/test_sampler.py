"""The sampler: the options that it proposes, and the trials that successive halving stops."""

import pytest

from tuneoff.search.record import Trial
from tuneoff.search.sampler import Sampler
from tuneoff.search.space import SearchSpec
from tuneoff.spec.strategy import parse_strategy


def sampler(strategy="lora", done=(), **search):
    config, spec = parse_strategy(strategy), SearchSpec(**{"trials": 8, **search})
    return Sampler(config, spec.space_of(config), spec, "accuracy", done)


def proposed_options(num_trials, **search):
    """The options of all trials of a search whose score is best at a learning rate of 2e-3."""
    done: list[Trial] = []
    for _ in range(num_trials):
        trial = sampler(done=done, **search).ask()
        trial.score = 1 / (1 + abs(trial.options["learning_rate"] - 2e-3))
        trial.scores = [trial.score]
        done.append(trial)
    return [trial.options for trial in done]


def test_the_first_trials_are_the_default_learning_rate_then_a_factor_up_and_down():
    assert [options["learning_rate"] for options in proposed_options(3)] == [5e-4, 1.5e-3, 1.67e-4]


def test_the_same_trials_give_the_same_next_trial_within_the_range():
    options = proposed_options(8)
    assert options == proposed_options(8)
    rates = [trial["learning_rate"] for trial in options]
    assert all(5e-4 / 9 <= rate <= 5e-4 * 9 for rate in rates)
    assert len(set(rates)) == 8


def test_hyperparameters_that_the_study_names_are_searched_too_lists_included():
    spaces = {
        "lora": {
            "rank": [4, 8],
            "dropout": {"low": 0, "high": 0.3, "log": False},
            "targets": [["query"], ["query", "value"]],
        }
    }
    trials = proposed_options(8, spaces=spaces)
    assert trials[0] == {"learning_rate": 5e-4, "rank": 8, "dropout": 0.0, "targets": ["query", "value"]}
    assert {options["rank"] for options in trials} == {4, 8}
    assert {tuple(options["targets"]) for options in trials} == {("query",), ("query", "value")}
    assert all(0 <= options["dropout"] <= 0.3 for options in trials)


def test_the_first_trial_is_never_stopped():
    first = sampler()
    first.ask()
    assert not first.should_stop([0.6])


@pytest.mark.parametrize(
    ("score", "halving", "is_stopped"), [(0.4, True, True), (0.8, True, False), (0.4, False, False)]
)
def test_halving_stops_a_trial_outside_the_better_half(score, halving, is_stopped):
    first = sampler()
    first.ask()
    first.should_stop([0.6])
    done = [Trial({"learning_rate": 5e-4}, [0.6, 0.7], 0.7, attributes=first.attributes())]
    second = sampler(done=done, halving=halving)
    second.ask()
    assert second.should_stop([score]) == is_stopped
