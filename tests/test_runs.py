"""Stores of runs, searches and studies: records read back as written, and are stored whole or not at all."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tuneoff.data.dataset import Dataset
from tuneoff.data.describe import describe
from tuneoff.data.spec import Subset
from tuneoff.errors import StoreError
from tuneoff.files import read_json, read_table, write_json, write_table
from tuneoff.runs import RunPredictions, RunRecord, RunStore, SearchStore, Session, StudyStore
from tuneoff.search.record import FAILED, STOPPED, SearchRecord, Trial


def run_record(status="ok", **changes):
    fields = {
        "run_id": "lora-1-s0",
        "group": "lora-1",
        "strategy": "lora",
        "label": "lora",
        "model": "m",
        "seed": 0,
        "status": status,
    }
    return RunRecord(**{**fields, **changes})


def two_predictions():
    labels = np.array([0, 1])
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6]])
    return RunPredictions({"test": labels}, {"test": labels}, {"test": probabilities})


def search_record(**changes):
    fields = {
        "search_id": "search-lora-1",
        "strategy": "lora",
        "label": "lora",
        "model": "m",
        "seed": 3,
        "metric": "accuracy",
        "epochs": 2,
        "space": {
            "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
            "targets": [["query"], ["query", "value"]],
        },
    }
    return SearchRecord(**{**fields, **changes})


def test_a_run_reads_back_as_written(tmp_path):
    store = RunStore(tmp_path)
    history = pd.DataFrame({"step": [1], "loss": [0.5], "kind": ["step"]})

    def save_model(folder):
        (folder / "weights").write_text("abc")

    store.write(run_record(metrics={"test": {"accuracy": 1.0}}), two_predictions(), history, save_model)
    assert store.record("lora-1-s0") == run_record(metrics={"test": {"accuracy": 1.0}}, costs={"model_bytes": 3})
    predictions = store.predictions("lora-1-s0", "test")
    assert list(predictions.columns) == ["split", "example", "label", "predicted", "p0", "p1"]
    assert predictions["p1"].to_list() == pytest.approx([0.1, 0.6])
    assert store.history("lora-1-s0")["loss"].to_list() == [0.5]
    assert store.is_done("lora-1-s0")


def test_a_run_of_an_earlier_version_is_read_under_the_new_cost_keys(tmp_path):
    store = RunStore(tmp_path)
    store.write(run_record(costs={"encode_seconds": 0.5, "train_seconds": 2.0}))
    assert store.record("lora-1-s0").costs == {"tokenize_seconds": 0.5, "train_seconds": 2.0}


def test_a_run_that_fails_while_being_written_does_not_exist(tmp_path):
    def full_disk(folder):
        raise OSError("no space left")

    store = RunStore(tmp_path)
    with pytest.raises(OSError, match="no space"):
        store.write(run_record(), two_predictions(), None, full_disk)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_run_is_replaced_and_a_finished_one_is_not(tmp_path):
    store = RunStore(tmp_path)
    store.write(run_record("failed", error="boom"))
    assert not store.is_done("lora-1-s0")
    store.write(run_record("ok"))
    assert store.is_done("lora-1-s0")
    assert store.write(run_record("failed")).status == "ok"  # another process stored it first
    assert store.record("lora-1-s0").status == "ok"


def test_a_diverged_run_is_done(tmp_path):
    store = RunStore(tmp_path)
    store.write(run_record("diverged"))
    assert store.is_done("lora-1-s0")


def test_unfinished_folders_are_removed(tmp_path):
    (tmp_path / ".unfinished-lora-1-s0-99").mkdir()
    store = RunStore(tmp_path)
    assert not store.is_done("lora-1-s0")
    store.remove_unfinished()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["{", "[]", '{"run_id": "lora-1-s0"}', '{"costs": 1}'])
def test_a_damaged_run_raises_one_line_that_names_the_remedy(content, tmp_path):
    (tmp_path / "lora-1-s0").mkdir()
    (tmp_path / "lora-1-s0" / "run.json").write_text(content)
    with pytest.raises(StoreError, match=r"cannot be read .*; tuneoff verify .* --repair restores it") as caught:
        RunStore(tmp_path).record("lora-1-s0")
    assert "\n" not in str(caught.value)


def test_a_search_reads_back_as_written(tmp_path):
    store = SearchStore(tmp_path / "searches")
    trials = [
        Trial({"learning_rate": 5e-4, "targets": ["query"]}, [0.5, 0.75], 0.75, seconds=1.5, attributes={"rung": 1}),
        Trial({"learning_rate": 1e-3, "targets": ["query"]}, [0.5], 0.5, STOPPED),
        Trial({}, state=FAILED, error="no memory"),
    ]
    store.write(search_record(trials=trials, part="8 per class"))
    assert store.read("search-lora-1") == search_record(trials=trials, part="8 per class")


def test_a_search_is_opened_from_the_store_or_new(tmp_path):
    store, new = SearchStore(tmp_path), search_record()
    assert store.open(new) is new
    stored = search_record(trials=[Trial({"learning_rate": 5e-4}, [0.5], 0.5)])
    store.write(stored)
    assert store.open(new) == stored


def test_a_missing_search_raises(tmp_path):
    with pytest.raises(StoreError, match=r"cannot be read .*; tuneoff verify .* --repair restores it"):
        SearchStore(tmp_path).read("search-lora-1")


def test_a_study_lists_the_stored_runs_and_searches_of_its_grid(tmp_path):
    store = StudyStore(tmp_path)
    store.runs.write(run_record())
    store.searches.write(search_record())
    table = pa.table({"text": ["good", "bad"], "label": [1, 0]})
    dataset = Dataset("toy", dict.fromkeys(("train", "validation", "test"), table), ("no", "yes"), (), "f")
    description = describe(dataset, {})
    store.write_data(description, table, ["lora-1-s0", "full-1-s0"], ["search-lora-1", "search-full-1"])
    assert store.read_data() == (description, ["lora-1-s0"], ["search-lora-1"])
    examples = store.test_examples()
    assert examples is not None
    assert examples["text"].to_list() == ["good", "bad"]


@pytest.mark.parametrize("content", [[], {}, {"trials": 1}, {"trials": [], "strange": 1}, {"trials": [{"strange": 1}]}])
def test_a_damaged_search_raises_one_line_that_names_the_remedy(content, tmp_path):
    write_json(tmp_path / "search-lora-1.json", content)
    with pytest.raises(StoreError, match=r"cannot be read .*; tuneoff verify .* --repair restores it") as caught:
        SearchStore(tmp_path).read("search-lora-1")
    assert "\n" not in str(caught.value)


def test_a_search_of_an_earlier_version_names_its_subset_as_its_runs_do(tmp_path):
    SearchStore(tmp_path).write(search_record(part="16 a class"))
    assert SearchStore(tmp_path).read("search-lora-1").part == Subset(fraction=None, per_class=16).label


@pytest.mark.parametrize("content", [{"runs": 1}, [{"runs": 1, "strange": 2}], [1]])
def test_damaged_sessions_raise_one_line_that_names_the_remedy(content, tmp_path):
    write_json(tmp_path / "sessions.json", content)
    with pytest.raises(StoreError, match=r"sessions.json cannot be read .*; tuneoff verify .* --repair restores it"):
        StudyStore(tmp_path).sessions()


@pytest.mark.parametrize("content", [[], {}, {"runs": ["lora-1-s0"]}])
def test_a_damaged_description_of_the_data_raises(content, tmp_path):
    write_json(tmp_path / "data.json", content)
    with pytest.raises(StoreError, match=r"data.json cannot be read .*; tuneoff verify .* --repair restores it"):
        StudyStore(tmp_path).read_data()


def test_sessions_are_appended(tmp_path):
    store = StudyStore(tmp_path)
    assert store.sessions() == []
    sessions = [Session(runs, workers=2, threads=1, joules=None, seconds=60.0) for runs in (3, 4)]
    for session in sessions:
        store.add_session(session)
    assert store.sessions() == sessions


def test_json_is_written_whole(tmp_path):
    write_json(tmp_path / "a.json", {"é": 1})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"é": 1}
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"bad": object()})
    assert read_json(tmp_path / "a.json") == {"é": 1}


def test_a_table_reads_back_as_written(tmp_path):
    write_table(pa.table({"text": ["a", "b"]}), tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.parquet")["text"].to_list() == ["a", "b"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


@pytest.mark.parametrize(("read", "name"), [(read_json, "a.json"), (read_table, "a.parquet")])
@pytest.mark.parametrize("content", [None, "{"])
def test_missing_and_broken_files_raise(read, name, content, tmp_path):
    if content:
        (tmp_path / name).write_text(content)
    with pytest.raises(StoreError, match=r"cannot be read .*; run the study again"):
        read(tmp_path / name)
