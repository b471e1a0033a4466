"""The store holds whole runs or none."""

import json

import numpy as np
import pandas as pd
import pytest

from tuneoff.errors import StoreError
from tuneoff.runs import Predictions, RunRecord, RunStore, read_json, write_json


def record(status="ok", **changes):
    given = {
        "run_id": "lora-1-s0",
        "group": "lora-1",
        "strategy": "lora",
        "label": "lora",
        "model": "m",
        "seed": 0,
        "status": status,
    }
    return RunRecord(**{**given, **changes})


def predictions():
    labels = np.array([0, 1])
    chances = np.array([[0.9, 0.1], [0.4, 0.6]])
    return Predictions({"test": labels}, {"test": labels}, {"test": chances})


def test_a_run_reads_back_as_written(tmp_path):
    store = RunStore(tmp_path)
    history = pd.DataFrame({"step": [1], "loss": [0.5], "kind": ["step"]})
    store.write(
        record(metrics={"test": {"accuracy": 1.0}}),
        predictions(),
        history,
        lambda folder: (folder / "w").write_text("abc"),
    )
    again = store.record("lora-1-s0")
    assert again == record(metrics={"test": {"accuracy": 1.0}}, costs={"model_bytes": 3})
    found = store.predictions("lora-1-s0", "test")
    assert list(found.columns) == ["split", "example", "label", "predicted", "p0", "p1"]
    assert found["p1"].to_list() == pytest.approx([0.1, 0.6])
    assert store.history("lora-1-s0")["loss"].to_list() == [0.5]
    assert store.is_done("lora-1-s0")


def test_a_run_that_fails_while_being_written_does_not_exist(tmp_path):
    def full_disk(folder):
        raise OSError("no space left")

    store = RunStore(tmp_path)
    with pytest.raises(OSError, match="no space"):
        store.write(record(), predictions(), None, full_disk)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_run_is_replaced_and_a_finished_one_is_not(tmp_path):
    store = RunStore(tmp_path)
    store.write(record("failed", error="boom"))
    assert not store.is_done("lora-1-s0")
    store.write(record("ok"))
    assert store.is_done("lora-1-s0")
    assert store.write(record("failed")).status == "ok"  # what another process stored first
    assert store.record("lora-1-s0").status == "ok"


def test_a_diverged_run_is_not_tried_again(tmp_path):
    store = RunStore(tmp_path)
    store.write(record("diverged"))
    assert store.is_done("lora-1-s0")


def test_unfinished_folders_are_cleared(tmp_path):
    (tmp_path / ".unfinished-lora-1-s0-99").mkdir()
    store = RunStore(tmp_path)
    assert not store.is_done("lora-1-s0")
    store.remove_unfinished()
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_say_what_to_do(tmp_path):
    (tmp_path / "lora-1-s0").mkdir()
    (tmp_path / "lora-1-s0" / "run.json").write_text("{")
    with pytest.raises(StoreError, match=r"remove .* to run it again"):
        RunStore(tmp_path).record("lora-1-s0")
    with pytest.raises(StoreError, match="run the study again"):
        read_json(tmp_path / "data.json")


def test_json_is_written_whole(tmp_path):
    write_json(tmp_path / "a.json", {"é": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"é": 1}
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"bad": object()})
    assert read_json(tmp_path / "a.json") == {"é": 1}
