"""Imports ahead: nothing while every worker is busy, everything once one has no job left."""

import sys

import pytest

from tuneoff.execute.ahead import ImportsAhead
from tuneoff.execute.executor import Event
from tuneoff.spec.run import Job, RunSpec

RUN = RunSpec.model_validate(
    {
        "strategy": "tfidf",
        "model": None,
        "model_fingerprint": None,
        "data_fingerprint": "d",
        "recipe": {},
        "metric": "accuracy",
        "seed": 0,
    }
)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module that nothing has imported yet."""
    (tmp_path / "needed_later.py").write_text("", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield "needed_later"
    sys.modules.pop("needed_later", None)


@pytest.mark.parametrize(("num_jobs", "workers", "done_before"), [(3, 2, 2), (3, 1, 3), (1, 2, 0)])
def test_imports_wait_for_a_core_without_jobs(module, num_jobs, workers, done_before):
    seen: list[Event] = []
    ahead, job = ImportsAhead([module]), Job(run=RUN)
    watch = ahead.watched(seen.append, num_jobs, workers)
    for number in range(num_jobs):
        watch(Event("started", job))
        if number < done_before:
            assert module not in sys.modules
        watch(Event("done", job))
        if number + 1 >= done_before:
            ahead._thread.join()
            assert module in sys.modules
    assert [event.kind for event in seen] == ["started", "done"] * num_jobs
