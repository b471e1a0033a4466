"""Studies that are stopped by signals or killed: they end in one line, keep what they have, and go on with the same bits."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml

from tests.tiny import toy_texts

pytestmark = pytest.mark.slow

OPTIONS = {"epochs": 40, "batch_size": 4, "max_length": 16, "precision": "fp32"}
STRATEGIES = ["full", "partial:layers=1", "lora", "bitfit", "adapter:reduction=2", "head", "peft:type=ia3"]


@pytest.fixture
def folder(encoder, tmp_path):
    """A folder with a study file of a tiny encoder."""
    texts, labels = toy_texts(60, np.random.default_rng(0))
    pd.DataFrame({"text": texts, "label": np.where(labels == 1, "good", "bad")}).to_csv(
        tmp_path / "toy.csv", index=False
    )
    write_study(tmp_path, encoder)
    return tmp_path


def write_study(folder, encoder, **changes):
    study = {
        "name": "toy",
        "data": {"source": "toy.csv", "validation_fraction": 0.2, "test_fraction": 0.2},
        "model": encoder,
        "baselines": False,
        "strategies": ["full"],
        "seeds": [0],
        "recipe": OPTIONS,
        **changes,
    }
    (folder / "toy.yaml").write_text(yaml.safe_dump(study))


def start(folder, *arguments, **environment):
    command = [sys.executable, "-m", "tuneoff", *(arguments or ("run", "toy.yaml", "--workers", "1"))]
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
        preexec_fn=as_in_a_terminal,
    )


def as_in_a_terminal():
    """Let signals through, which a test run in the background ignores; and give a process one core.

    Two threads would wait for each other where cores are busy.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def wait_for(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


def jobs(study):
    """The processes of the running jobs: forks of the worker, which may have other children while it imports."""
    return [job for worker in forks(psutil.Process(study.pid)) for job in forks(worker)]


def forks(process):
    found = []
    for child in process.children():
        with contextlib.suppress(psutil.Error):
            found += [child] if "tuneoff.execute.worker" in child.cmdline() else []
    return found


def runs(folder):
    return folder / "results" / "toy" / "runs"


def checkpoints(folder):
    return list(runs(folder).glob(".checkpoints/*.safetensors"))


def stored(folder):
    """Everything of the stored runs but times, by run."""
    contents = {}
    for run in sorted(runs(folder).glob("[a-z]*")):
        record = json.loads((run / "run.json").read_text())
        history = pd.read_parquet(run / "history.parquet").drop(columns="seconds")
        weights = {path.name: path.read_bytes() for path in sorted(run.glob("model/*.safetensors"))}
        predictions = (run / "predictions.parquet").read_bytes()
        kept = {key: record[key] for key in ("status", "metrics", "confusion", "best_epoch", "notes")}
        kept["cka"] = record["movement"].get("cka")
        contents[run.name] = (kept, history.to_json(), weights, predictions)
    return contents


def undisturbed(folder, tmp_path_factory):
    """The stored runs of the same study without an interruption."""
    whole = tmp_path_factory.mktemp("whole")
    for name in ("toy.csv", "toy.yaml"):
        (whole / name).write_bytes((folder / name).read_bytes())
    with start(whole) as study:
        study.communicate()
    assert study.returncode == 0
    return stored(whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_study_with_a_checkpoint_and_one_line(number, code, folder, tmp_path_factory):
    with start(folder) as study:
        wait_for(runs(folder).is_dir)
        wait_for(lambda: jobs(study))
        time.sleep(0.7)
        study.send_signal(number)
        printed, _ = study.communicate(timeout=60)
    assert study.returncode == code
    assert "Traceback" not in printed
    last = printed.strip().splitlines()[-1]
    if not list(runs(folder).glob("full-*")):
        assert last == "Stopped: 0 of 1 job stored, full seed 0 with a checkpoint. The same command goes on."
        assert len(checkpoints(folder)) == 1
    with start(folder) as study:
        study.communicate(timeout=90)
    assert study.returncode == 0
    assert stored(folder) == undisturbed(folder, tmp_path_factory)
    assert not (runs(folder) / ".checkpoints").exists()


@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.0, 1.8])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_during_start_up_ends_in_one_line(seconds, number, folder):
    with start(folder) as study:
        time.sleep(0.3 + seconds)  # Python itself starts within less
        study.send_signal(number)
        printed, _ = study.communicate(timeout=60)
    assert study.returncode == 128 + number
    assert "Traceback" not in printed
    assert len([line for line in printed.splitlines() if "topped" in line]) == 1


def test_a_second_ctrl_c_stops_at_once(folder, encoder):
    write_study(folder, encoder, recipe={**OPTIONS, "epochs": 2, "batch_size": 60}, strategies=["full"])
    with start(folder) as study:
        wait_for(runs(folder).is_dir)
        for _ in range(20):
            if study.poll() is None:
                study.send_signal(signal.SIGINT)
            time.sleep(0.02)
        printed, _ = study.communicate(timeout=20)
    assert study.returncode in (130, -signal.SIGINT, 0)
    assert "Traceback" not in printed


def test_killed_studies_end_with_the_same_bits(folder, encoder, tmp_path_factory):
    """Kills at several moments, also while checkpoints are written: after each step, which takes most of the time."""
    write_study(folder, encoder, strategies=STRATEGIES, recipe={**OPTIONS, "epochs": 5})
    rng = np.random.default_rng(0)
    for _ in range(8):
        with start(folder, TUNEOFF_CHECKPOINT_SECONDS="0") as study:
            count = len(checkpoints(folder)) + len(list(runs(folder).glob("[a-z]*")))
            wait_for(lambda c=count, s=study: len(checkpoints(folder)) + len(list(runs(folder).glob("[a-z]*"))) > c or s.poll() is not None)  # fmt: skip
            time.sleep(rng.random() * 0.4)
            for child in psutil.Process(study.pid).children(recursive=True) if study.poll() is None else ():
                child.kill() if rng.random() < 0.1 else None
            study.kill()
            study.communicate()
    with start(folder) as study:
        study.communicate(timeout=90)
    assert study.returncode == 0
    whole, interrupted = undisturbed(folder, tmp_path_factory), stored(folder)
    assert len(whole) == len(STRATEGIES)
    assert interrupted == whole
    assert not list(runs(folder).glob(".*"))


def test_a_process_that_is_killed_is_tried_again_once(folder, encoder):
    """The record says that it went on in smaller micro-batches."""
    write_study(folder, encoder, recipe={**OPTIONS, "epochs": 60})
    with start(folder) as study:
        wait_for(lambda: jobs(study))
        time.sleep(0.5)
        jobs(study)[0].kill()
        printed, _ = study.communicate(timeout=120)
    assert study.returncode == 0
    printed = " ".join(printed.split())  # lines are as wide as a terminal
    assert "full seed 0: killed, probably out of memory; tried again in smaller micro-batches" in printed
    (run,) = runs(folder).glob("full-*")
    record = json.loads((run / "run.json").read_text())
    assert record["micro_batch"] == 2
    assert record["notes"] == [
        "an earlier process was killed or out of memory: steps were computed in micro-batches of 2, the batch stayed 4"
    ]
