"""Weights & Biases, offline: what the records of its local files hold."""

import json
import struct

import pytest

pytest.importorskip("wandb")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


def records(path):
    """Return the records of a .wandb file: LevelDB's log format, in blocks of 32 KiB, after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2 as wire

    parse = vars(wire)["Record"].FromString  # the module is made at its import

    data, place, parts, read = path.read_bytes(), 7, b"", []
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # no header fits into the rest of a block
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            read.append(parse(parts))
            parts = b""
    return read


def read_run(folder, run_id):
    [path] = folder.glob(f"wandb/offline-run-*-{run_id}-*/*.wandb")
    read = records(path)
    history = [{"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in r.history.item} for r in read if r.WhichOneof("record_type") == "history"]  # fmt: skip
    [exit_record] = [record.exit for record in read if record.WhichOneof("record_type") == "exit"]
    run = next(record.run for record in read if record.WhichOneof("record_type") == "run")
    summary = {}
    for record in read:
        for item in record.summary.update:
            summary["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
    return run, history, summary, exit_record.exit_code


@pytest.fixture(autouse=True)
def _folders(tmp_path, monkeypatch):
    for name in ("CACHE", "DATA", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name))


def test_a_study_is_read_back_and_never_stored_twice(stored, store, retrain):
    result = store("wandb:project=texts")
    assert result.error == ""
    folder = stored.folder
    runs = sorted((folder / "wandb").glob("offline-run-*"))
    assert len(runs) == 8
    run, history, summary, code = read_run(folder, "full-00000003-s1")
    record = stored.store.runs.record("full-00000003-s1")
    assert (run.project, run.run_group, run.display_name, code) == ("texts", "made", "full seed 1", 0)
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["strategy"] == "full"
    losses = [(row["_step"], row["train/loss"]) for row in history if "train/loss" in row]
    assert [step for step, _ in losses] == list(range(1, 41))
    [score] = [(row["_step"], row["validation/accuracy"]) for row in history if "validation/accuracy" in row]
    assert score == (40, record.metrics["validation"]["accuracy"])
    assert summary["final/test/accuracy"] == record.metrics["test"]["accuracy"]
    failed, _, _, code = read_run(folder, "head-00000002-s0")
    assert code == 1
    assert "it broke" in failed.notes
    study, _, summary, _ = read_run(folder, "study-made")
    assert study.notes == summary["verdict"] == stored.comparison().verdict.text
    assert list((folder / "wandb").glob("offline-run-*study-made*/files/media/table/leaderboard*.json"))
    [path] = folder.glob("wandb/offline-run-*-study-made-*/*.wandb")
    artifacts = [r.request.log_artifact.artifact for r in records(path) if r.request.HasField("log_artifact")]
    artifacts += [r.artifact for r in records(path) if r.WhichOneof("record_type") == "artifact"]
    assert {"report-made", "model-made"} <= {artifact.name for artifact in artifacts}
    assert store("wandb:project=texts").error == ""
    assert sorted((folder / "wandb").glob("offline-run-*")) == runs
    retrain()
    assert store("wandb:project=texts").error == ""
    assert len(list((folder / "wandb").glob("offline-run-*head-00000002-s0*"))) == 2  # failed, then trained


def test_an_interrupted_run_is_stored_again(stored, store):
    assert store("wandb").error == ""
    [run] = (stored.folder / "wandb").glob("offline-run-*-full-00000003-s0-*")
    (run / "tuneoff-stored").unlink()
    (run / "files" / "mark").touch()
    assert store("wandb").error == ""
    [again] = (stored.folder / "wandb").glob("offline-run-*-full-00000003-s0-*")
    assert not (again / "files" / "mark").exists()
