"""The record of a search: its best trial, and what counts against its budget."""

import pytest

from tuneoff.search.record import CUT, DONE, FAILED, STOPPED, SearchRecord, Trial
from tuneoff.search.space import SearchSpec


def search_record(*trials, metric="accuracy"):
    return SearchRecord(
        search_id="search-lora-1",
        strategy="lora",
        label="lora",
        model="m",
        seed=0,
        metric=metric,
        epochs=2,
        space={},
        trials=list(trials),
    )


def trial(rate, score=0.5, state=DONE, seconds=1.0):
    return Trial({"learning_rate": rate}, score=score, state=state, seconds=seconds)


@pytest.mark.parametrize(("metric", "best_rate"), [("accuracy", 2), ("log_loss", 1)])
def test_the_best_trial_has_the_best_validation_score(metric, best_rate):
    failed = trial(0, score=None, state=FAILED)
    record = search_record(failed, trial(1, score=0.4), trial(2, score=0.6), trial(3, score=0.5), metric=metric)
    assert record.best.options == {"learning_rate": best_rate}


def test_the_earliest_of_equal_trials_is_the_best():
    assert search_record(trial(1), trial(2)).best.options == {"learning_rate": 1}


def test_a_search_whose_trials_all_failed_has_no_best_trial():
    assert search_record(trial(1, score=None, state=FAILED)).best is None


@pytest.mark.parametrize(
    ("states", "is_spent"),
    [
        ([], False),
        ([DONE], False),
        ([DONE, DONE], True),
        ([STOPPED, FAILED], True),
        ([DONE, CUT], False),  # an earlier time budget cut it short
    ],
)
def test_a_budget_of_two_trials_counts_every_trial_that_was_not_cut(states, is_spent):
    assert search_record(*[trial(1, state=state) for state in states]).is_spent(SearchSpec(trials=2)) == is_spent


def test_a_time_budget_is_spent_after_its_seconds_or_a_hundred_trials():
    search = SearchSpec(budget=3.0)
    assert not search_record(trial(1), trial(2)).is_spent(search)
    assert search_record(trial(1), trial(2), trial(3)).is_spent(search)
    assert search_record(*[trial(1, seconds=1e-3)] * 100).is_spent(search)


def test_a_smaller_budget_keeps_the_first_trials_and_none_that_was_cut():
    record = search_record(trial(1), trial(2, state=CUT), trial(3), trial(4))
    assert [t.options["learning_rate"] for t in record.within(SearchSpec(trials=2)).trials] == [1, 3]
    # the second trial began before the time was over
    assert [t.options["learning_rate"] for t in record.within(SearchSpec(budget=1.5)).trials] == [1, 2]


def failed(error):
    return Trial({}, state=FAILED, error=error)


@pytest.mark.parametrize(
    ("trials", "is_spent"),
    [
        ([failed("peft is missing")] * 2, False),
        ([failed("peft is missing")] * 3, True),
        ([failed("Traceback, line 1\nValueError: no"), failed("Traceback, line 2\nValueError: no"), failed("ValueError: no")], True),
        ([failed("a"), failed("b"), failed("a")], False),
        ([trial(1), *[failed("a")] * 3], False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("search", [SearchSpec(trials=20), SearchSpec(budget=600)])
def test_three_equal_failures_at_the_start_end_a_search(search, trials, is_spent):
    assert search_record(*trials).is_spent(search) == is_spent
