"""trackio: what its own store reads back."""

import pytest

pytest.importorskip("trackio")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


def test_a_study_is_read_back_and_never_stored_twice(stored, store, tmp_path, monkeypatch, retrain):
    import trackio.utils
    from trackio import sqlite_storage

    monkeypatch.setattr(trackio.utils, "TRACKIO_DIR", tmp_path / "trackio")  # it was read at the import
    for name in ("TRACKIO_DIR", "MEDIA_DIR", "ARTIFACTS_DIR"):
        for module in (trackio.utils, sqlite_storage):
            if hasattr(module, name):
                folder = tmp_path / "trackio" / ("" if name == "TRACKIO_DIR" else name.lower())
                monkeypatch.setattr(module, name, folder)
    reader = sqlite_storage.SQLiteStorage
    assert store("trackio:project=texts").error == ""
    configs = {config["run_id"]: config for config in reader.get_all_run_configs("texts").values()}
    assert len(configs) == 8
    full = configs["full-00000003-s1"]
    assert (full["strategy"], full["_Group"]) == ("full", "made")
    assert "it broke" in configs["head-00000002-s0"]["failed"]
    record = stored.store.runs.record("full-00000003-s1")
    logs = reader.get_logs("texts", "made full seed 1")
    assert [row["step"] for row in logs if "train/loss" in row] == list(range(1, 41))
    [score] = [(row["step"], row["validation/accuracy"]) for row in logs if "validation/accuracy" in row]
    assert score == (40, record.metrics["validation"]["accuracy"])
    assert logs[-1]["final/test/accuracy"] == record.metrics["test"]["accuracy"]
    assert {artifact["name"] for artifact in reader.get_artifacts("texts")} == {"report-made", "model-made"}
    [study] = reader.get_logs("texts", "made")
    assert stored.comparison().verdict.text in str(study["verdict"])
    ids = set(reader.get_all_run_configs("texts"))
    assert store("trackio:project=texts").error == ""
    assert set(reader.get_all_run_configs("texts")) == ids
    retrain()
    assert store("trackio:project=texts").error == ""
    configs = {config["run_id"]: config for config in reader.get_all_run_configs("texts").values()}
    assert len(configs) == 8
    assert "failed" not in configs["head-00000002-s0"]


def test_nothing_is_sent_to_a_space(store, monkeypatch):
    monkeypatch.setenv("TRACKIO_SPACE_ID", "someone/space")
    assert "TRACKIO_SPACE_ID is set" in store("trackio").error
