"""A stored study with a report, a model and a failed run, for every tracker."""

import pytest

from tests.stored import stored_study
from tuneoff.track import parse_track
from tuneoff.trackers import track


@pytest.fixture
def stored(tmp_path):
    """A study of six runs, of which two failed."""
    rows = [("majority", "majority", 0.5), ("lora", "lora rank=4", 0.8), ("head", "head", None), ("full", "full", 0.85)]
    study = stored_study(tmp_path / "study", rows, seeds=2)
    for run in (study.folder / "runs").iterdir():
        (run / "model").mkdir()
        (run / "model" / "config.json").write_text("{}")
    study.report()
    return study


@pytest.fixture
def store(stored):
    """Store the study in a tracker: -> the result."""

    def run(given):
        return next(track(stored.comparison(), stored.folder, parse_track(given)))

    return run


@pytest.fixture
def retrain(stored):
    """Store a failed run as if it had been trained again, with success."""

    def run():
        runs = stored.store.runs
        good = runs.record("full-00000003-s0")
        failed = runs.record("head-00000002-s0")
        fields = {**vars(failed), "status": "ok", "error": None, "metrics": good.metrics, "costs": good.costs}
        fields |= {
            "confusion": good.confusion,
            "parameters": good.parameters,
            "finished_at": "2026-01-02T03:04:05+00:00",
        }
        record = type(failed)(**fields)
        folder = runs.path(record.run_id)
        runs.write(record, history=runs.history(good.run_id))
        source = runs.path(good.run_id) / "predictions.parquet"
        (folder / "predictions.parquet").write_bytes(source.read_bytes())
        stored.report()

    return run
