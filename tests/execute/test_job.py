"""A job: runs and searches through one interface, and inputs that need no shared disk."""

import shutil

import pytest

from tests.studies import toy_spec
from tuneoff.cache import cache_folder
from tuneoff.execute.inputs import CachedInputs
from tuneoff.execute.job import is_finished, record_crash, run_job, stored_record
from tuneoff.grid import prepare, search_jobs
from tuneoff.runs import FAILED, OK, RunRecord, StudyStore
from tuneoff.search.record import FAILED as FAILED_TRIAL
from tuneoff.search.record import SearchRecord
from tuneoff.spec.run import Job

pytestmark = pytest.mark.slow


@pytest.fixture
def jobs(encoder, toy_csv):
    """A run of head, and the search before it."""
    recipe = {"epochs": 1, "batch_size": 4, "max_length": 16}
    spec = toy_spec(encoder, toy_csv, strategies=["head"], seeds=[0], search=2, recipe=recipe)
    ready = prepare(spec)
    (search,) = search_jobs(spec, ready)
    return ready, Job(run=ready.runs[0]), search


@pytest.mark.parametrize("kind", ["run", "search"])
def test_a_job_leaves_a_record(jobs, kind, tmp_path):
    store, job = StudyStore(tmp_path), jobs[1 if kind == "run" else 2]
    shares: list[float] = []
    assert not is_finished(job, store)
    run_job(job, CachedInputs(), store, shares.append)
    assert is_finished(job, store)
    record = stored_record(job, store)
    if kind == "run":
        assert isinstance(record, RunRecord)
        assert record.run_id == job.job_id
    else:
        assert isinstance(record, SearchRecord)
        assert record.search_id == job.job_id
    assert shares == sorted(shares)
    assert 0 < shares[-1] <= 1


@pytest.mark.parametrize("kind", ["run", "search"])
def test_a_crash_is_recorded(jobs, kind, tmp_path):
    store, job = StudyStore(tmp_path), jobs[1 if kind == "run" else 2]
    record = record_crash(job, store, "killed")
    assert stored_record(job, store) == record
    assert not is_finished(job, store)  # it is tried again
    if kind == "run":
        assert isinstance(record, RunRecord)
        assert (record.status, record.error) == (FAILED, "killed")
    else:
        assert isinstance(record, SearchRecord)
        assert [(trial.state, trial.error) for trial in record.trials] == [(FAILED_TRIAL, "killed")]


class ShippedInputs:
    """Inputs that arrive with the job, as an executor on a cluster would bring them: no disk of ours is read."""

    def __init__(self, dataset, tokens, tokenizer, model):
        self._dataset, self._tokens, self._tokenizer, self._model = dataset, tokens, tokenizer, model

    def dataset(self, run):
        return self._dataset

    def tokenizer(self, run):
        return self._tokenizer

    def tokens(self, run, dataset, splits):
        return {split: self._tokens[split] for split in splits}

    def other_tests(self, run):
        return {}

    def model(self, run, dataset):
        return self._model


def test_inputs_need_no_cache_of_the_study(jobs, tmp_path, monkeypatch):
    ready, job, _ = jobs
    cached, local, remote = CachedInputs(), StudyStore(tmp_path / "local"), StudyStore(tmp_path / "remote")
    run_job(job, cached, local)
    (tokens,) = ready.tokens.values()
    model = cached.model(job.run, ready.dataset)
    shipped = ShippedInputs(ready.dataset, tokens, cached.tokenizer(job.run), model)
    stored = {path: path.with_name(f"hidden-{path.name}") for path in cache_folder().glob("dataset-*")}
    for path, hidden in stored.items():
        shutil.move(path, hidden)
    monkeypatch.setenv("TUNEOFF_CACHE", str(tmp_path / "another machine"))
    try:
        run_job(job, shipped, remote)
    finally:
        for path, hidden in stored.items():
            shutil.move(hidden, path)
    records = [store.runs.record(job.job_id) for store in (local, remote)]
    assert [record.status for record in records] == [OK, OK]
    assert records[0].metrics == records[1].metrics


class ShippedOnce(ShippedInputs):
    """Inputs that give the encoder once, as before a disk was removed."""

    def model(self, run, dataset):
        if self._model is None:
            raise OSError("the encoder is gone")
        model, self._model = self._model, None
        return model


def test_a_measurement_after_training_that_fails_does_not_lose_the_run(jobs, tmp_path, monkeypatch):
    ready, job, _ = jobs
    (tokens,), cached, store = ready.tokens.values(), CachedInputs(), StudyStore(tmp_path)
    model = cached.model(job.run, ready.dataset)
    inputs = ShippedOnce(ready.dataset, tokens, cached.tokenizer(job.run), model)
    monkeypatch.setenv("TUNEOFF_CACHE", str(tmp_path / "empty"))  # holds no outputs of the pretrained encoder
    run_job(job, inputs, store)
    record = store.runs.record(job.job_id)
    assert record.status == OK
    assert record.movement == {"error": "the encoder is gone"}
