"""The speed of earlier studies: of the largest run, by encoder and slots."""

import pytest

from tests.cli.plans import jobs_of, spec_of
from tuneoff.cache import cache_folder
from tuneoff.execute.estimate import Estimate
from tuneoff.execute.executor import Slots
from tuneoff.execute.stored_speed import store_speed, stored_speed
from tuneoff.runs import FAILED, OK, RunRecord, RunStore

SLOTS = Slots(workers=2, threads=1)


@pytest.fixture
def spec(monkeypatch, tmp_path):
    monkeypatch.setenv("TUNEOFF_CACHE", str(tmp_path / "cache"))
    cache_folder().mkdir()
    return spec_of("made.csv").model_copy(update={"model": ("m",)})


def store_runs(spec, folder, *runs):
    """Store runs of (operations, seconds, status), and then their speed."""
    store, started = RunStore(folder), []
    for job, (operations, seconds, status) in zip(jobs_of(spec, 0, len(runs)), runs, strict=True):
        store.write(
            RunRecord(
                job.job_id, job.run.group, "lora", "lora", "m", job.run.seed, status, costs={"run_seconds": seconds}
            )
        )
        started.append(Estimate(job, None, operations, 0, 0))
    store_speed(spec, SLOTS, started, store)


def test_the_largest_run_counts(spec, tmp_path):
    assert stored_speed(spec, SLOTS) is None
    store_runs(spec, tmp_path / "runs", (0.0, 2.0, OK), (1e11, 10.0, OK), (1e10, 10.0, OK), (1e12, 10.0, FAILED))
    assert stored_speed(spec, SLOTS) == 1e10
    assert stored_speed(spec, Slots(workers=1, threads=2)) is None
    assert stored_speed(spec.model_copy(update={"model": ("other",)}), SLOTS) is None


def test_a_run_that_says_nothing_about_the_speed_is_not_stored(spec, tmp_path):
    store_runs(spec, tmp_path / "runs", (0.0, 5.0, OK), (1e9, 0.2, OK))
    assert stored_speed(spec, SLOTS) is None


def test_a_damaged_file_is_made_again(spec, tmp_path):
    (cache_folder() / "speeds.json").write_text("{")
    assert stored_speed(spec, SLOTS) is None
    store_runs(spec, tmp_path / "runs", (1e11, 10.0, OK))
    assert stored_speed(spec, SLOTS) == 1e10
