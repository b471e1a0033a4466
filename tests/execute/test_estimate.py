"""Estimates: orders and sums that do not depend on a clock."""

import re
from types import SimpleNamespace

import pytest

from tests.studies import changed
from tuneoff.data.batches import largest_batch, training_batches
from tuneoff.execute.estimate import by_priority
from tuneoff.execute.room import memory_warnings
from tuneoff.grid import estimates, prepare, search_jobs
from tuneoff.spec.file import study_from
from tuneoff.spec.run import Job
from tuneoff.study import Study


@pytest.fixture
def prepared(encoder, toy_csv):
    """The spec, runs and searches of a small study, before anything runs."""
    spec = study_from(
        {
            "name": "toy",
            "data": {"source": str(toy_csv), "validation_fraction": 0.2, "test_fraction": 0.2},
            "model": encoder,
            "strategies": ["probe", "head", "partial:layers=1", "lora", "full"],
            "recipe": {"epochs": 4, "batch_size": 4, "max_length": 16},
            "seeds": 1,
            "fractions": [0.5],
            "search": 3,
        }
    )
    return spec, prepare(spec)


def estimates_by_title(ready):
    return {e.job.title: e for e in estimates(ready, [Job(run=run) for run in ready.runs])}


def test_more_trainable_parameters_are_more_work(prepared):
    plan = estimates_by_title(prepared[1])
    work = [plan[f"{name} seed 0"].operations for name in ("head", "partial layers=1", "lora", "full")]
    assert work == sorted(work)
    assert plan["lora on 50 % seed 0"].job.run.recipe.min_steps == 36  # as many as on all of train
    assert plan["full seed 0"].memory_bytes > plan["lora seed 0"].memory_bytes > plan["head seed 0"].memory_bytes


@pytest.mark.parametrize(("options", "speed"), [({}, 1e9), ({"devices": 2}, 2e9), ({"workers": 1}, 4e9)])
def test_a_job_is_planned_with_all_of_its_threads_and_devices(prepared, tmp_path, monkeypatch, options, speed):
    monkeypatch.setattr("tuneoff.execute.speed.measure_speed", lambda *_: 1e9)
    monkeypatch.setattr("tuneoff.execute.room.cores", lambda: 4)
    spec = prepared[0].model_copy(update=options)
    assert Study(spec, tmp_path / "results").plan().speed == speed


def test_frozen_blocks_are_charged_once(prepared, tmp_path):
    plan = Study(prepared[0], tmp_path / "results").plan()
    paying = [e.job.title for e in plan.estimates if e.shared_operations and e.frozen_blocks == 2]
    assert len(paying) == 1


@pytest.mark.parametrize("changes", [{"checkpointing": True}, {"accumulation": 4}])
def test_checkpointing_and_accumulation_need_less_memory(prepared, changes):
    spec, ready = prepared
    recipe = spec.recipe.model_copy(update=changes)
    smaller = prepare(spec.model_copy(update={"recipe": recipe, "search": None}))
    memory = [estimates_by_title(each)["full seed 0"].memory_bytes for each in (ready, smaller)]
    assert memory[1] < memory[0]


def test_a_checkpoint_holds_weights_moments_and_the_best_weights(prepared):
    spec, ready = prepared
    averaged = prepare(
        spec.model_copy(update={"recipe": spec.recipe.model_copy(update={"average": 2}), "search": None})
    )
    for each, bytes_per_parameter in ((ready, 16), (averaged, 20)):
        full = estimates_by_title(each)["full seed 0"]
        assert full.checkpoint_bytes == bytes_per_parameter * full.parameters.trainable
    assert estimates_by_title(ready)["probe seed 0"].checkpoint_bytes == 0


def test_a_search_is_its_trials_of_which_half_are_stopped(prepared):
    spec, ready = prepared
    searches = {e.job.title: e for e in estimates(ready, search_jobs(spec, ready))}
    runs = estimates_by_title(ready)
    # four epochs: the first trial whole, then 1, 1/2, 1/4 and 1/4 of an epoch's work
    expected = runs["full seed 0"].training_operations * (1 + 2 * 2 / 4)  # and no test is predicted
    assert searches["full search"].operations == pytest.approx(expected)
    assert searches["probe search"].operations > runs["probe seed 0"].operations
    assert searches["full search"].disk_bytes == 0


def test_a_run_after_a_search_does_not_train_again(prepared, tmp_path):
    spec, ready = prepared
    plan = {e.job.title: e for e in Study(spec, tmp_path / "results").plan().estimates}
    full = estimates_by_title(ready)["full seed 0"]
    assert 0 < plan["full seed 0"].operations < 0.5 * full.operations
    assert plan["full seed 0"].operations + plan["full seed 0"].saved_operations == full.operations


def test_the_largest_batch_is_that_of_the_first_epoch(prepared):
    table = next(iter(prepared[1].tokens.values()))["train"]
    sizes = [int(table.lengths[batch].sum()) for batch in training_batches(table.lengths, 4, 0, 0)]
    assert largest_batch(table, 4) == max(sizes)


@pytest.mark.slow
def test_a_plan_counts_the_missing_runs_and_trains_nothing(small):
    plan = small.plan()
    assert [e.job.run.strategy.name for e in plan.estimates] == ["tfidf", "head"]
    assert plan.speed > 0
    assert plan.seconds > 0
    assert not small.folder.exists()
    small.run()
    assert small.plan().estimates == []


@pytest.mark.slow
def test_a_plan_counts_a_peft_strategy(small):
    (ia3, lora) = changed(small, strategies=["peft:type=ia3", "lora"]).plan().estimates
    assert (ia3.job.title, ia3.to_json()["kind"]) == ("peft ia3 seed 0", "run")
    assert 0 < ia3.parameters.trainable < lora.parameters.trainable
    assert 0 < ia3.disk_bytes < ia3.memory_bytes


def test_jobs_do_not_wait_for_frozen_states_that_another_one_computes(small):
    strategies = ["probe", "partial:layers=1", "full", "head"]
    ready = prepare(changed(small, strategies=strategies, seeds=[0, 1]).spec)
    names = [e.job.run.strategy.name for e in by_priority(estimates(ready, [Job(run=run) for run in ready.runs]))]
    assert set(names[:2]) == {"partial", "probe"}  # one that shares a frozen block, one that shares all of them
    assert names[2:] == ["full", "full", "partial", "head", "head"]


def test_texts_that_do_not_fit_into_memory_are_named(prepared, monkeypatch):
    ready = prepared[1]
    grid = estimates(ready, [Job(run=run) for run in ready.runs])
    of_texts, of_half = (e.memory_bytes for e in grid if e.job.run.strategy.name == "tfidf")
    (of_none,) = {e.memory_bytes for e in grid if e.job.run.strategy.name == "majority"}
    train = ready.dataset.splits["train"]
    assert of_texts - of_none == pytest.approx(40 * train["text"].nbytes)
    assert of_half < of_texts
    assert memory_warnings(grid) == []
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=of_none))
    (text,) = memory_warnings(grid)
    assert re.search(r"^tfidf may need about .* of memory .* leave it out \(--no-baselines\)", text)
