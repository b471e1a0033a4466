"""TensorBoard: what its own reader of event files reads back."""

import pytest

pytest.importorskip("tensorboard")


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()


def text(read, name):
    return read.Tensors(f"{name}/text_summary")[0].tensor_proto.string_val[0].decode()


def test_a_study_is_read_back_and_never_stored_twice(stored, store, tmp_path, retrain):
    assert store("tensorboard").error == ""
    folder = stored.folder / "tensorboard"
    assert len(list(folder.iterdir())) == 8
    record = stored.store.runs.record("full-00000003-s1")
    read = events(folder / "full-00000003-s1")
    assert [scalar.step for scalar in read.Scalars("train/loss")] == list(range(1, 41))
    [score] = read.Scalars("validation/accuracy")
    assert (score.step, score.value) == (40, pytest.approx(record.metrics["validation"]["accuracy"]))
    [final] = read.Scalars("final/test/accuracy")
    assert final.value == pytest.approx(record.metrics["test"]["accuracy"])
    assert "| strategy | full |" in text(read, "params")
    assert "it broke" in text(events(folder / "head-00000002-s0"), "failed")
    study = events(folder / "study-made")
    assert text(study, "verdict").startswith(stored.comparison().verdict.text[:20])
    assert "lora rank=4" in text(study, "leaderboard")
    assert {"figures/f1", "figures/scores"} <= set(study.Tags()["images"])
    assert study.Images("figures/f1")[0].encoded_image_string == (stored.folder / "figures" / "f1.png").read_bytes()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("events*")}
    assert store("tensorboard").error == ""
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("events*")} == before
    retrain()
    assert store("tensorboard").error == ""
    assert {path for path in folder.rglob("events*") if path in before} == {
        path for path in before if path.parent.name not in ("head-00000002-s0", "study-made")
    }
    assert events(folder / "head-00000002-s0").Scalars("final/test/accuracy")


def test_an_interrupted_run_is_stored_again(stored, store):
    assert store("tensorboard").error == ""
    folder = stored.folder / "tensorboard" / "full-00000003-s0"
    (folder / "tuneoff.stamp").unlink()
    next(folder.glob("events*")).write_bytes(b"broken")
    assert store("tensorboard").error == ""
    assert len(list(folder.glob("events*"))) == 1
    assert events(folder).Scalars("train/loss")
