"""The head of a real Ray cluster dies in the middle of a study: the study goes on, or ends in one line; nothing is lost."""

import os
import socket
import subprocess
import sys
from collections import Counter

import pytest

from tests.studies import changed
from tests.waiting import WAITING
from tuneoff.errors import StoreError
from tuneoff.execute.executor import Event
from tuneoff.runs import OK

ray = pytest.importorskip("ray")

from tuneoff.execute import cluster as cluster_module  # noqa: E402
from tuneoff.execute.cluster import RayExecutor  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray leaves sockets and files open


class Head:
    """A cluster of two nodes at an address that stays."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("", 0))
            self._port, self._folder = free.getsockname()[1], folder
        self.address = ""
        self.start()

    def start(self):
        command = [sys.executable, "-m", "tests.execute.ray_head", str(self._port), "2", str(self._folder)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()

    def stop(self, word="stop"):
        if self._process.poll() is None:
            self._process.communicate(word + "\n", timeout=60)


@pytest.fixture
def head(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]))
    started = Head(tmp_path)
    yield started
    ray.shutdown()
    started.stop()


@pytest.fixture
def study(small):
    strategies, recipe = ["tfidf", "full:learning_rate=0.01"], {"epochs": 20, "max_length": 16}
    return changed(small, strategies=strategies, seeds=[0, 1], recipe=recipe, metric=WAITING)


def test_a_head_that_comes_back_is_met_again(head, study, capfd):
    events: list[Event] = []

    def restart(event: Event) -> None:
        events.append(event)
        if event.kind == "progress" and not any(event.kind == "stopped" for event in events) and head.address:
            head.stop("die")
            head.start()

    with RayExecutor(head.address) as executor:
        comparison = study.run(restart, executor=executor)
    assert [record.status for record in comparison.records] == [OK] * 3
    done = Counter(event.job.job_id for event in events if event.kind == "done")
    assert set(done.values()) == {1}
    assert len(done) == 3
    printed = capfd.readouterr().err
    assert f"the Ray cluster at {head.address} does not answer; waiting up to 60 s" in printed
    assert f"connected to the Ray cluster at {head.address} again" in printed


ALONE = """
import os, sys
from tuneoff.errors import StoreError
from tuneoff.execute.cluster import RayExecutor
assert "ray" not in sys.modules
try:
    RayExecutor("127.0.0.1:1")
except StoreError:
    print(os.environ["RAY_RAYLET_PID"] == str(os.getpid()))
"""


def test_a_study_without_its_parent_process_outlives_the_raylet_of_its_machine():
    # Ray asks for this process in place of the parent's, before it ends one that lost its raylet
    environment = {name: value for name, value in os.environ.items() if name != "RAY_RAYLET_PID"}
    finished = subprocess.run(
        [sys.executable, "-c", ALONE], capture_output=True, text=True, check=False, env=environment
    )
    assert finished.stdout == "True\n", finished.stderr


def test_without_a_head_a_study_ends_in_one_line_and_goes_on_later(head, study, monkeypatch):
    monkeypatch.setattr(cluster_module, "_RECONNECT_SECONDS", 3.0)
    kinds: list[tuple[str, str]] = []

    def kill(event: Event) -> None:
        kinds.append((event.kind, event.job.run.strategy.name))
        if event.kind == "progress" and ("done", "tfidf") in kinds and head.address:
            head.stop("die")
            head.address = ""

    line = r"was lost and has not come back within 3 s; start it again"
    with pytest.raises(StoreError, match=line) as error, RayExecutor(head.address) as executor:
        study.run(kill, executor=executor)
    assert "\n" not in str(error.value)
    stored = {folder.name for folder in (study.folder / "runs").glob("[!.]*")}
    assert "tfidf" in {name.split("-")[0] for name in stored}  # another run may have ended before the head
    again: list[str] = []
    comparison = study.run(lambda event: again.append(event.job.job_id))
    assert [record.status for record in comparison.records] == [OK] * 3
    assert not stored & set(again)
