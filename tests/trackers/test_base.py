"""What trackers store of a study, from the records of real runs; a tracker that fails."""

import warnings

import pytest

from tests.studies import changed
from tuneoff.track import parse_track
from tuneoff.trackers import TRACKERS, track
from tuneoff.trackers.base import tracked_study


def test_curves_have_the_steps_and_epochs_of_the_history(finished):
    study, comparison, _ = finished
    tracked = tracked_study(comparison, study.folder)
    run = next(run for run in tracked.runs if run.run_id.startswith("full-") and run.run_id.endswith("-s1"))
    history = study.store.runs.history(run.run_id)
    steps, epochs = history[history.kind == "step"], history[history.kind == "epoch"]
    losses = [(point.step, point.values["train/loss"]) for point in run.curves if "train/loss" in point.values]
    assert losses == list(zip(steps.step.astype(int), steps.loss, strict=True))
    scores = [(p.step, p.values["validation/accuracy"]) for p in run.curves if "validation/accuracy" in p.values]
    per_epoch = len(steps) // 4
    assert scores == [(per_epoch * (i + 1), score) for i, score in enumerate(epochs.validation_accuracy)]
    record = study.store.runs.record(run.run_id)
    assert run.scores["final/test/accuracy"] == record.metrics["test"]["accuracy"]
    assert run.scores["final/validation/log_loss"] == record.metrics["validation"]["log_loss"]
    assert run.scores["costs/train_seconds"] == record.costs["train_seconds"]
    assert run.finished_at > 1.7e9


def test_params_name_everything_that_determined_a_run(finished):
    study, comparison, _ = finished
    runs = {run.run_id: run for run in tracked_study(comparison, study.folder).runs}
    assert len(runs) == len(comparison.records)
    lora = next(run for run in runs.values() if run.run_id.startswith("lora-"))
    assert lora.params["strategy"] == "lora"
    assert lora.params["options.learning_rate"] == 0.05
    assert lora.params["options.targets"] == "query, value"
    assert lora.params["recipe.batch_size"] == 4
    assert lora.params["data_fingerprint"] == comparison.data.fingerprint
    assert {"encoder", "seed", "train_examples", "parameters.trainable"} <= set(lora.params)


def test_a_tracker_that_fails_is_one_line_and_harms_no_other(stored, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setitem(TRACKERS, "mlflow", TRACKERS["tensorboard"])
    given = [{"mlflow": {}}, {"tensorboard": {"folder": str(tmp_path / "good")}}]
    options = parse_track(given)
    options["mlflow"] = parse_track([{"tensorboard": {"folder": str(tmp_path / "file")}}])["tensorboard"]
    failed, good = track(stored.comparison(), stored.folder, options)
    assert "file" in failed.error
    assert failed.text.startswith("mlflow: the study is not stored there (")
    assert good.error == ""
    assert (tmp_path / "good" / "made").is_dir()


@pytest.mark.slow
def test_a_run_goes_on_without_its_tracker_and_says_so(small, tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "file").write_text("not a folder")
    study = changed(small, track=[{"tensorboard": {"folder": str(tmp_path / "file")}}])
    with pytest.warns(UserWarning, match="tensorboard: the study is not stored there"):
        comparison = study.run()
    assert comparison.rows
    good = changed(small, track=[{"tensorboard": {"folder": str(tmp_path / "logs")}}])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert good.run().rows == comparison.rows  # nothing is trained again
    assert len(list((tmp_path / "logs" / "toy").iterdir())) == len(comparison.records) + 1
