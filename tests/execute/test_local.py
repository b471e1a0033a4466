"""The local executor: crashes stay with their run, threads are equal, nothing outlives the study."""

import json
import os
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest
import yaml

from tests.studies import changed, toy_spec
from tuneoff.errors import StoreError
from tuneoff.execute.executor import Event, Slots
from tuneoff.execute.local import LocalExecutor
from tuneoff.grid import prepare
from tuneoff.runs import OK
from tuneoff.spec.run import Job

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_workers")]


def test_a_run_whose_process_dies_is_stored_as_failed(small, monkeypatch):
    monkeypatch.setattr("tuneoff.execute.worker_process.WORKER", "tests.execute.crashing_worker")
    comparison = small.run()
    failed = {record.strategy: record for record in comparison.failures}
    assert set(failed) == {"head"}
    assert "killed" in failed["head"].error
    monkeypatch.undo()
    events: list[Event] = []
    assert small.run(events.append).failures == ()
    assert {event.job.run.strategy.name for event in events} == {"head"}


@pytest.fixture(params=["ImportError", "RuntimeError"])
def broken_libraries(tmp_path, monkeypatch, request):
    """optuna and peft cannot be imported by processes that start now."""
    for library in ("optuna", "peft"):
        (tmp_path / "broken" / library).mkdir(parents=True)
        (tmp_path / "broken" / library / "__init__.py").write_text(f"raise {request.param}('no name x in module y')")
    paths = [str(tmp_path / "broken"), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


def test_a_broken_library_fails_only_the_runs_that_need_it(small, broken_libraries):
    comparison = changed(small, strategies=["tfidf", "head", "lora", "peft:type=ia3"]).run()
    reasons = {record.strategy: record.reason for record in comparison.failures}
    assert reasons == dict.fromkeys(
        ("lora", "peft"), "peft cannot be imported (no name x in module y); install or update peft"
    )


def test_a_search_without_its_library_fails_with_the_reason(small, broken_libraries):
    comparison = changed(small, strategies=["tfidf"], search=2).run()
    assert comparison.failures == ()  # the run does not need optuna
    (search,) = comparison.searches
    assert [trial.error for trial in search.trials] == [
        "optuna cannot be imported (no name x in module y); install or update optuna"
    ] * 2


def test_a_worker_that_ends_gives_its_runs_its_last_line_as_the_reason(small, monkeypatch):
    monkeypatch.setattr("tuneoff.execute.worker_process.WORKER", "tests.execute.ending_worker")
    comparison = small.run()
    assert {record.reason for record in comparison.failures} == {"the job's process ended with code 3: no space left"}


def test_a_worker_that_ends_without_reading_its_jobs_is_noticed(small, monkeypatch):
    monkeypatch.setattr("tuneoff.execute.worker_process.WORKER", "tests.execute.deaf_worker")
    comparison = small.run()
    assert {record.reason for record in comparison.failures} == {"the job's process ended with code 3: no space left"}


def test_an_executor_decides_how_many_jobs_run_at_once(small):
    class OneThread(LocalExecutor):
        """The local executor with one job at a time, on one thread."""

        def slots(self, num_jobs, largest_model, requested=None, devices=1):
            assert num_jobs == 2
            assert largest_model > 0
            return Slots(workers=1, threads=1)

    with OneThread() as executor:
        comparison = small.run(executor=executor)
    assert {record.machine["threads"] for record in comparison.records} == {1}
    assert small.store.sessions()[0].workers == 1


def test_a_worker_that_cannot_start_says_why(small, monkeypatch):
    monkeypatch.setattr("tuneoff.execute.worker_process.WORKER", "tests.execute.no_such_worker")
    with pytest.raises(StoreError, match=r"ended with code 1: .*No module named tests.execute.no_such_worker"):
        small.run()


def test_where_nothing_may_fork_every_run_starts_afresh(small, monkeypatch):
    monkeypatch.setattr("tuneoff.execute.worker_process.WORKER", "tests.execute.forkless_worker")
    comparison = small.run()
    assert comparison.failures == ()
    assert {record.status for record in comparison.records} == {OK}


def test_every_run_of_a_grid_has_the_same_threads(small):
    small.run()
    wider = changed(small, strategies=["tfidf", "head", "majority"])
    assert len({record.machine["threads"] for record in wider.run().records}) == 1


def test_a_killed_study_takes_its_runs_along(encoder, toy, tmp_path):
    pd.concat([toy] * 30).to_csv(tmp_path / "long.csv", index=False)
    given = {
        "name": "long",
        "data": {"source": "long.csv"},
        "model": encoder,
        "strategies": ["full"],
        "seeds": [0, 1],
        "recipe": {"epochs": 500, "max_length": 16},
    }
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(given))
    command = [sys.executable, "-m", "tuneoff", "run", "long.yaml", "--workers", "2"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as study:
        family: list[psutil.Process] = []
        deadline = time.monotonic() + 90
        while len(family) < 3 and time.monotonic() < deadline:  # the worker and its two runs
            time.sleep(0.5)
            family = psutil.Process(study.pid).children(recursive=True)
        study.kill()
    assert len(family) == 3
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    assert not list((tmp_path / "results" / "long" / "runs").glob("full*"))


def test_a_job_without_a_study_ends_at_once(encoder, toy_csv, tmp_path):
    (run, *_) = prepare(toy_spec(encoder, toy_csv, strategies=["full"], recipe={"epochs": 50, "max_length": 16})).runs
    message = {"job_id": run.run_id, "job": Job(run=run).model_dump(mode="json"), "threads": 1}
    message |= {"folder": str(tmp_path), "log": str(tmp_path / "log")}
    command = [sys.executable, "-m", "tuneoff.execute.worker", "--one", json.dumps(message)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        worker.stdout.close()
        assert worker.wait(timeout=60) == 1
    assert not list((tmp_path / "runs").glob("full*"))
