"""MLflow: what its own client reads back, from SQLite and from a server on the loopback interface."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from tuneoff.trackers.base import RUN_ID

pytest.importorskip("mlflow")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


def read(uri, name="made"):
    """Return the client, and every run of an experiment by Tuneoff's id."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(name)
    assert experiment
    return client, {run.data.tags[RUN_ID]: run for run in client.search_runs([experiment.experiment_id])}


def check(uri, stored):
    client, runs = read(uri)
    assert len(runs) == 8
    parent, full = runs["study-made"], runs["full-00000003-s1"]
    record = stored.store.runs.record("full-00000003-s1")
    assert full.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert full.data.params["strategy"] == "full"
    assert full.data.metrics["final/test/accuracy"] == record.metrics["test"]["accuracy"]
    losses = client.get_metric_history(full.info.run_id, "train/loss")
    assert [metric.step for metric in losses] == list(range(1, 41))
    [score] = client.get_metric_history(full.info.run_id, "validation/accuracy")
    assert (score.step, score.value) == (40, record.metrics["validation"]["accuracy"])
    assert full.info.status == "FINISHED"
    failed = runs["head-00000002-s0"]
    assert failed.info.status == "FAILED"
    assert "it broke" in failed.data.tags["mlflow.note.content"]
    assert parent.data.tags["mlflow.note.content"] == stored.comparison().verdict.text
    names = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert {"report", "report.md", "figures", "leaderboard.json", "model"} <= names
    table = json.loads(Path(client.download_artifacts(parent.info.run_id, "leaderboard.json")).read_text())
    assert len(table["data"]) == 3
    [model] = client.list_artifacts(parent.info.run_id, "model")
    [file] = client.list_artifacts(parent.info.run_id, model.path)
    assert file.path.endswith("config.json")
    return runs


@pytest.fixture
def uri(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # artifacts are in mlruns
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def test_a_study_is_read_back_and_never_stored_twice(stored, store, uri, retrain):
    result = store(f"mlflow:uri={uri}")
    assert result.error == ""
    before = {name: run.info.run_id for name, run in check(uri, stored).items()}
    assert store(f"mlflow:uri={uri}").error == ""
    assert {name: run.info.run_id for name, run in read(uri)[1].items()} == before
    retrain()
    assert store(f"mlflow:uri={uri}").error == ""
    runs = read(uri)[1]
    assert runs["head-00000002-s0"].info.status == "FINISHED"
    assert {name for name, run in runs.items() if run.info.run_id != before[name]} == {"head-00000002-s0"}


def test_an_interrupted_run_is_stored_again(stored, store, uri):
    assert store(f"mlflow:uri={uri}:experiment=made").error == ""
    client, runs = read(uri)
    client.update_run(runs["full-00000003-s0"].info.run_id, status="RUNNING")
    assert store(f"mlflow:uri={uri}").error == ""
    check(uri, stored)


def test_a_server_that_is_down_is_one_line_within_seconds(store, monkeypatch):
    start = time.perf_counter()
    result = store("mlflow:uri=http://127.0.0.1:9")
    assert "127.0.0.1" in result.error
    assert time.perf_counter() - start < 30


@pytest.fixture
def server(tmp_path):
    """The address of an MLflow server on the loopback interface."""
    try:
        version("mlflow")
    except PackageNotFoundError:
        pytest.skip("a server needs all of mlflow, not mlflow-skinny")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}", "--artifacts-destination", str(tmp_path / "artifacts")]  # fmt: skip
    with open(tmp_path / "server.log", "w") as log, subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True) as process:  # fmt: skip
        address = f"http://127.0.0.1:{port}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for _ in range(120):
            time.sleep(0.5)
            try:
                opener.open(f"{address}/health", timeout=2)
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "server.log").read_text()
        yield address
        os.killpg(process.pid, 15)


def test_a_server_is_read_back(stored, store, server):
    result = store(f"mlflow:uri={server}")
    assert (result.error, result.place) == ("", f"{server}, experiment made")
    before = {name: run.info.run_id for name, run in check(server, stored).items()}
    assert store(f"mlflow:uri={server}").error == ""
    assert {name: run.info.run_id for name, run in read(server)[1].items()} == before
