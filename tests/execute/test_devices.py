"""Studies whose runs are trained by two processes together: scores, searches, and processes that die."""

import contextlib
import threading

import numpy as np
import pandas as pd
import psutil
import pytest

from tests.studies import changed
from tuneoff.errors import ConfigError
from tuneoff.execute.executor import Slots
from tuneoff.execute.room import local_slots
from tuneoff.machine import cores
from tuneoff.runs import FAILED, OK

pytestmark = pytest.mark.skipif(cores() < 2, reason="two devices are two cores")

RECIPE = {"epochs": 3, "max_length": 16, "batch_size": 5, "dropout": 0.0, "precision": "fp32"}
STRATEGIES = ["tfidf", "probe", "head:learning_rate=0.05", "lora:learning_rate=0.05", "full:learning_rate=0.001"]


def probabilities(study, record):
    columns = pd.read_parquet(study.folder / "runs" / record.run_id / "predictions.parquet")
    return columns[["p0", "p1"]].to_numpy()


@pytest.mark.slow
def test_a_study_on_two_devices_has_the_results_of_one(small, tmp_path):
    study = changed(small, strategies=STRATEGIES, recipe=RECIPE, search=2, devices=2)
    there = study.run()
    assert there.failures == ()
    plain = type(study)(changed(study, devices=1).spec, tmp_path / "one")
    here = plain.run()
    assert {record.run_id for record in there.records} == {record.run_id for record in here.records}
    expected = {record.run_id: record for record in here.records}
    for record in there.records:
        np.testing.assert_allclose(
            probabilities(study, record), probabilities(plain, expected[record.run_id]), rtol=0, atol=1e-5
        )
        trained_together = record.strategy in ("head", "lora", "full")
        assert record.machine.get("devices", 1) == (2 if trained_together else 1)
        assert "devices" not in expected[record.run_id].machine
    assert study.store.sessions()[0].workers == max(1, cores() // 2)


@contextlib.contextmanager
def killing_devices(most: int):
    """A context in which other devices of this test's jobs are killed, as the system does that is out of memory."""
    is_over, killed = threading.Event(), set[int]()

    def kill():
        while not is_over.wait(0.02):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    is_training = process.cpu_times().user > 0 and len(killed) < most
                    if process.pid not in killed and is_training and "--device" in process.cmdline():
                        process.kill()
                        killed.add(process.pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        is_over.set()
        thread.join()


@pytest.mark.slow
def test_a_device_that_is_killed_is_one_line_and_takes_no_other_run_along(small):
    study = changed(small, strategies=["tfidf", "full:learning_rate=0.001"], recipe=RECIPE, devices=2)
    with killing_devices(most=9) as killed:
        comparison = study.run()
    assert len(killed) == 2  # tried again, in smaller micro-batches
    (failure,) = comparison.failures
    assert failure.reason == (
        "device 2 of 2: its process was killed, probably out of memory; try fewer workers, fewer devices or a smaller "
        "batch_size"
    )
    assert {record.strategy: record.status for record in comparison.records} == {"tfidf": OK}
    assert study.store.runs.record(failure.run_id).status == FAILED
    with killing_devices(most=1):
        again = study.run()
    assert again.failures == ()
    notes = next(record.notes for record in again.records if record.strategy == "full")
    assert notes[0].startswith("an earlier process was killed or out of memory: steps were computed in micro-batches")


def test_devices_share_the_cores_of_a_machine(monkeypatch):
    monkeypatch.setattr("tuneoff.execute.room.cores", lambda: 8)
    assert local_slots(6, 10**6, None, 2) == Slots(4, 1, 8, 2)
    assert local_slots(6, 10**6, 1, 2) == Slots(1, 4, 8, 2)
    assert local_slots(6, 10**6, None, 2).with_threads(2, keeps_workers=False) == Slots(2, 2, 8, 2)
    with pytest.raises(ConfigError, match=r"devices 9 are more than this machine has \(8 cores\); use at most 8"):
        local_slots(6, 10**6, None, 9)


@pytest.mark.parametrize("devices", [0, -1, "two"])
def test_a_number_of_devices_that_is_none_is_one_line(small, devices):
    with pytest.raises(ConfigError, match="devices") as error:
        changed(small, devices=devices)
    assert "\n" not in str(error.value)
