"""Hyperparameter searches of real tiny models: equal budgets, resumption, failures, and the runs after them."""

import json
import time

import psutil
import pytest

from tests.stored import stored_study
from tuneoff.data.dataset import Dataset
from tuneoff.execute.executor import Event
from tuneoff.execute.inputs import CachedInputs
from tuneoff.execute.local import LocalExecutor
from tuneoff.execute.run import run_one
from tuneoff.execute.search import search_one
from tuneoff.grid import prepare, search_jobs
from tuneoff.report.sections.search import search_text
from tuneoff.runs import StudyStore
from tuneoff.search.record import FAILED
from tuneoff.search.space import SearchSpec
from tuneoff.spec.file import study_from
from tuneoff.study import Study


def study_spec(encoder, toy_csv, **changes):
    fields = {
        "name": "toy",
        "data": {"source": str(toy_csv), "validation_fraction": 0.2, "test_fraction": 0.2},
        "model": encoder,
        "strategies": ["probe", "head", "lora"],
        "recipe": {"epochs": 4, "batch_size": 4, "max_length": 16, "precision": "fp32"},
        "seeds": [3, 4],
        "search": {"trials": 5},
    }
    return study_from({**fields, **changes})


@pytest.fixture
def jobs(encoder, toy_csv):
    """The searches of a small study by strategy, their data stored."""
    spec = study_spec(encoder, toy_csv)
    return {job.run.strategy.name: job for job in search_jobs(spec, prepare(spec))}


def run_search(job, folder, inputs=None, search=None):
    """Run a search and return its record. search: another budget than the job's."""
    store = StudyStore(folder)
    progress: list[float] = []
    record = search_one(job, search or job.search, inputs or CachedInputs(), store, progress.append)
    assert progress == sorted(progress)
    assert all(0 <= share <= 1 for share in progress)
    return record


def test_a_trial_that_would_end_after_the_deadline_is_not_stored(jobs, tmp_path):
    whole = [trial.options for trial in run_search(jobs["lora"], tmp_path / "whole").trials]
    late = jobs["lora"].model_copy(update={"deadline": time.time() + 0.02})  # ends in the first epoch
    assert run_search(late, tmp_path / "late").trials == []
    first = run_search(jobs["lora"], tmp_path / "late", search=SearchSpec(trials=1)).trials
    epoch = first[0].seconds / len(first[0].scores)
    late = jobs["lora"].model_copy(update={"deadline": time.time() + epoch / 2})
    assert run_search(late, tmp_path / "late").trials == first
    assert [trial.options for trial in run_search(jobs["lora"], tmp_path / "late").trials] == whole


class WithoutTest(CachedInputs):
    """Inputs whose dataset has no test split."""

    def dataset(self, run):
        whole = super().dataset(run)
        splits = {split: table for split, table in whole.splits.items() if split != "test"}
        return Dataset(whole.name, splits, whole.label_names, whole.notes, whole.fingerprint)


class FailingAtDefaultRate(CachedInputs):
    """Inputs that run out of memory for a trial with LoRA's default learning rate."""

    def model(self, run, dataset):
        if run.searched_options == {"learning_rate": 5e-4}:
            raise MemoryError("no room")
        return super().model(run, dataset)


def test_every_strategy_has_the_same_number_of_trials(jobs, tmp_path):
    assert set(jobs) == {"tfidf", "probe", "head", "lora"}  # majority has nothing to search
    assert {name: len(run_search(job, tmp_path).trials) for name, job in jobs.items()} == dict.fromkeys(jobs, 5)


@pytest.mark.parametrize("name", ["head", "lora"])
def test_no_trial_begins_after_the_end_of_a_time_budget(name, jobs, tmp_path):
    search = SearchSpec(budget=1.0)
    record = run_search(jobs[name], tmp_path, search=search)
    assert record.is_spent(search)
    assert sum(trial.seconds for trial in record.trials[:-1]) < 1.0


def test_a_search_needs_no_test_split(jobs, tmp_path):
    for job in jobs.values():
        trials = run_search(job, tmp_path, WithoutTest()).trials
        assert [trial.error for trial in trials] == [None] * 5
        assert all(trial.score is not None for trial in trials)


def test_an_interrupted_search_ends_with_the_same_trials(jobs, tmp_path):
    job = jobs["lora"]
    whole = run_search(job, tmp_path / "whole")
    run_search(job, tmp_path / "resumed", search=SearchSpec(trials=2))
    resumed = run_search(job, tmp_path / "resumed")
    assert [(t.options, t.scores, t.state) for t in resumed.trials] == [
        (t.options, t.scores, t.state) for t in whole.trials
    ]


def test_a_failed_trial_is_recorded_and_the_search_goes_on(jobs, tmp_path):
    record = run_search(jobs["lora"], tmp_path, FailingAtDefaultRate())
    assert [trial.state == FAILED for trial in record.trials] == [True, False, False, False, False]
    assert "no room" in record.trials[0].error
    assert record.best.options != {"learning_rate": 5e-4}


def test_a_search_is_stored_after_its_trials(jobs, tmp_path):
    job = jobs["head"]
    record = run_search(job, tmp_path)
    assert StudyStore(tmp_path).searches.read(job.job_id) == record
    assert len(record.trials) == 5


@pytest.mark.slow
def test_a_search_whose_process_is_killed_goes_on_with_the_next_trial(encoder, toy_csv, tmp_path):
    spec = study_spec(encoder, toy_csv, strategies=["lora"], baselines=False, search=3)
    killed: list[psutil.Process] = []
    with LocalExecutor() as executor:
        worker = psutil.Process(executor._worker._process.pid)

        def on_event(event):
            if event.kind == "started" and not killed:
                while not (children := worker.children()):
                    time.sleep(0.01)
                killed.extend(children)
                for child in children:
                    child.kill()

        (record,) = Study(spec, tmp_path / "results").run(on_event, executor=executor).searches
    assert killed
    assert [trial.state == FAILED for trial in record.trials] == [True, False, False]


@pytest.mark.slow
def test_a_strategy_with_the_options_that_a_search_finds_for_another_is_run_apart_from_it(encoder, toy_csv, tmp_path):
    search = {"trials": 1, "spaces": {"head": {"learning_rate": [0.003]}}}  # both strategies end with this rate
    strategies = ["head", "head:learning_rate=0.003"]
    spec = study_spec(encoder, toy_csv, strategies=strategies, baselines=False, search=search, seeds=2)
    study = Study(spec, tmp_path / "results")
    assert {row.label: row.seeds for row in study.run().rows} == {"head": (0, 1), "head learning_rate=0.003": (0, 1)}
    run_ids = json.loads((study.folder / "data.json").read_text())["runs"]
    assert len(set(run_ids)) == len(run_ids) == 4


@pytest.mark.slow
def test_runs_use_the_options_of_the_best_trial_and_a_larger_budget_continues(encoder, toy_csv, tmp_path):
    spec = study_spec(encoder, toy_csv, search={"trials": 3, "spaces": {"lora": {"rank": [2, 4]}}})
    study = Study(spec, tmp_path / "results")
    comparison = study.run()
    assert comparison.failures == ()
    num_trials = {search.label: len(search.trials) for search in comparison.searches}
    assert num_trials == dict.fromkeys(("tfidf", "probe", "head", "lora"), 3)
    for search in comparison.searches:
        records = [record for record in comparison.records if record.label == search.label]
        assert records
        assert search.best is not None
        assert all(record.spec["searched_options"] == search.best.options for record in records)
    assert {row.label for row in comparison.rows} == {"majority", "tfidf", "probe", "head", "lora"}
    page = (study.folder / "report" / "index.html").read_text()
    assert "every strategy had a search with the same budget: 3 trials, scored on validation only, with seed 3" in page
    assert "Without a search: majority; there is no hyperparameter to search, or the study sets it." in page
    assert (study.folder / "figures" / "search-learning_rate.svg").is_file()
    assert len((study.folder / "tables" / "trials.csv").read_text().splitlines()) == 1 + 4 * 3

    events: list[Event] = []
    again = study.run(events.append)
    assert events == []  # nothing is searched or run twice
    assert again.leaderboard.equals(comparison.leaderboard)

    more = Study(spec.model_copy(update={"search": SearchSpec(trials=4, spaces=spec.search.spaces)}), study.folder)
    more.run(events.append)
    assert sum(event.kind == "done" and event.job.search is not None for event in events) == 4


@pytest.mark.parametrize("name", ["head", "lora"])
def test_the_run_of_the_best_trial_takes_none_of_its_steps_again(name, jobs, tmp_path):
    job, searched = jobs[name], StudyStore(tmp_path / "searched")
    best = run_search(job, searched.folder).best
    run = job.run.searched(best.options).model_copy(update={"seed": job.run.seed})
    assert [path.name for path in searched.runs.folder.glob(".checkpoints/*")] == [f"{run.run_id}.safetensors"]
    steps: list[float] = []
    alone = StudyStore(tmp_path / "alone")
    record = run_one(run, CachedInputs(), searched.runs, steps.append)
    missing = run.recipe.num_steps(record.train_examples) * (1 - len(best.scores) / run.recipe.epochs)
    assert len(steps) == pytest.approx(missing)
    assert not searched.runs.checkpoint(run.run_id).exists()
    expected = run_one(run, CachedInputs(), alone.runs)
    assert record.metrics == expected.metrics
    assert record.costs["train_seconds"] > 0
    for file in ("predictions.parquet", "model/model.safetensors", "model/adapter_model.safetensors"):
        paths = [store.runs.path(run.run_id) / file for store in (searched, alone)]
        assert paths[0].is_file() == paths[1].is_file()
        assert not paths[0].is_file() or paths[0].read_bytes() == paths[1].read_bytes()


def test_no_state_of_a_trial_is_kept_where_checkpoints_are_off(jobs, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNEOFF_CHECKPOINT_SECONDS", "none")
    run_search(jobs["lora"], tmp_path)
    assert not list(StudyStore(tmp_path).runs.folder.glob(".checkpoints/*"))


def test_the_report_of_a_study_without_a_search_states_it(tmp_path):
    comparison = stored_study(tmp_path / "study", [("lora", "lora", 0.9)]).comparison()
    assert search_text(comparison).startswith("There was no hyperparameter search: every strategy ran with the options")
