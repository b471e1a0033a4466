"""A real Ray cluster of two machines, in name, on this one: nothing shared, the same bits, and machines that die."""

import contextlib
import json
import os
import socket
import time

import psutil
import pytest

from tests.studies import changed
from tests.waiting import WAITING
from tuneoff.errors import ConfigError, StoreError
from tuneoff.execute.executor import Event, Slots
from tuneoff.machine import cores
from tuneoff.runs import OK

ray = pytest.importorskip("ray")

from tuneoff.execute.cluster import RayExecutor  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray leaves sockets and files open


def scores(comparison):
    return {record.run_id: record.metrics for record in comparison.records}


def test_a_cluster_gives_the_bits_of_one_machine(cluster, small, tmp_path):
    study = changed(small, strategies=["tfidf", "full:learning_rate=0.01", "lora:learning_rate=0.05"], search=2)
    events: list[Event] = []
    with RayExecutor(cluster.address) as executor:
        there = study.run(events.append, executor=executor)
    assert there.failures == ()
    machines = {name for name in ("cache 0", "cache 1") if list((tmp_path / name).glob("dataset-*"))}
    assert machines == {"cache 0", "cache 1"}  # what jobs read was brought to both
    here = type(study)(study.spec, tmp_path / "here").run(executor=None)
    assert scores(there) == scores(here)
    for record in there.records:
        files = [
            folder / "runs" / record.run_id / "predictions.parquet" for folder in (study.folder, tmp_path / "here")
        ]
        assert files[0].read_bytes() == files[1].read_bytes()
    kinds = [event.kind for event in events if event.job.run.strategy.name == "lora" and not event.job.is_search]
    assert kinds[0] == "started"
    assert kinds[-1] == "done"


def test_a_machine_that_dies_takes_no_run_along(cluster, small):
    recipe = {"epochs": 20, "max_length": 16}
    study = changed(small, strategies=["full:learning_rate=0.01"], seeds=[0, 1], recipe=recipe, metric=WAITING)
    second = next(node for node in cluster.list_all_nodes() if not node.head)
    is_killed = False

    def kill(event: Event) -> None:
        nonlocal is_killed
        if event.kind == "progress" and not is_killed:
            is_killed = True
            cluster.remove_node(second, allow_graceful=False)

    with RayExecutor(cluster.address) as executor:
        comparison = study.run(kill, executor=executor)
    assert is_killed
    assert [record.status for record in comparison.records] == [OK, OK]


def test_a_search_goes_on_elsewhere_with_its_next_trial(cluster, small, tmp_path):
    study = changed(small, strategies=["full"], seeds=[0, 1], search=3, recipe={"epochs": 20, "max_length": 16})
    nodes = {node.unique_id: node for node in cluster.list_all_nodes() if not node.head}
    stored: list[int] = []

    def kill(event: Event) -> None:
        for path in (study.folder / "searches").glob("*.json"):
            stored.append(len(json.loads(path.read_text())["trials"]))
        if event.kind == "progress" and event.job.is_search and stored and stored[-1] and nodes:
            cluster.remove_node(nodes.popitem()[1], allow_graceful=False)

    with RayExecutor(cluster.address) as executor:
        there = study.run(kill, executor=executor)
    assert there.failures == ()
    assert stored == sorted(stored)  # no trial was lost
    here = type(study)(study.spec, tmp_path / "here").run()
    trials = [[(trial.options, trial.scores) for trial in c.searches[0].trials] for c in (there, here)]
    assert trials[0] == trials[1]
    assert scores(there) == scores(here)


def kill_jobs(folder):
    """Kill every job of the cluster, as the system kills processes that are out of memory: not the workers.

    folder: of the caches, by which they differ from jobs of other tests on this machine.
    """
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            is_worker = "tuneoff.execute.worker" in (process.info["cmdline"] or [])
            if is_worker and process.environ().get("TUNEOFF_CACHE", "").startswith(str(folder)):
                for job in process.children():
                    job.kill()


def test_a_job_whose_process_dies_three_times_is_failed(cluster, small, tmp_path):
    recipe = {"epochs": 60, "max_length": 16}
    study = changed(small, strategies=["full:learning_rate=0.01"], seeds=[0], recipe=recipe, metric=WAITING)
    started = []

    def kill(event: Event) -> None:
        if event.kind == "started":
            started.append(event.job.job_id)
        if event.kind == "progress" and event.job.run.strategy.name == "full":
            kill_jobs(tmp_path)

    with RayExecutor(cluster.address) as executor:
        comparison = study.run(kill, executor=executor)
    (failed,) = comparison.failures
    assert "was killed" in failed.reason
    assert started.count(failed.run_id) == 3


DEVICES = {"epochs": 3, "max_length": 16, "batch_size": 5, "precision": "fp32"}


@pytest.mark.skipif(cores() < 2, reason="two devices are two cores")
def test_a_run_on_devices_of_two_machines_has_the_bits_of_two_processes_of_one(cluster, small, tmp_path):
    strategies = ["tfidf", "head:learning_rate=0.05", "full:learning_rate=0.001"]
    study = changed(small, strategies=strategies, recipe=DEVICES, search=2, devices=2)
    events: list[Event] = []
    with RayExecutor(cluster.address) as executor:
        there = study.run(events.append, executor=executor)
    assert there.failures == ()
    assert {name for name in ("cache 0", "cache 1") if list((tmp_path / name).glob("prefix-*"))} == {
        "cache 0",
        "cache 1",
    }
    here = type(study)(study.spec, tmp_path / "here").run(executor=None)
    assert scores(there) == scores(here)
    for record in there.records:
        files = [
            folder / "runs" / record.run_id / "predictions.parquet" for folder in (study.folder, tmp_path / "here")
        ]
        assert files[0].read_bytes() == files[1].read_bytes()
        assert record.machine.get("devices") == (None if record.strategy == "tfidf" else 2)
    trials = [[(trial.options, trial.scores) for s in c.searches for trial in s.trials] for c in (there, here)]
    assert trials[0] == trials[1]
    kinds = [event.kind for event in events if event.job.run.strategy.name == "full" and not event.job.is_search]
    assert kinds[0] == "started"
    assert kinds[-1] == "done"


def kill_device(folder):
    """Kill one process of Ray Train. folder: of the caches, by which they differ from those of other clusters."""
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            is_device = "RayTrainWorker" in " ".join(process.info["cmdline"] or [])
            if is_device and process.environ().get("TUNEOFF_CACHE", "").startswith(str(folder)):
                process.kill()
                return True
    return False


def test_a_device_that_dies_takes_no_run_along(cluster, small, tmp_path):
    strategies, recipe = ["full:learning_rate=0.001"], {**DEVICES, "epochs": 20}
    study = changed(small, strategies=strategies, recipe=recipe, devices=2, metric=WAITING)
    is_killed = False

    def kill(event: Event) -> None:
        nonlocal is_killed
        if event.kind == "progress" and not is_killed:
            is_killed = kill_device(tmp_path)

    with RayExecutor(cluster.address) as executor:
        comparison = study.run(kill, executor=executor)
    assert is_killed
    assert [record.status for record in comparison.records] == [OK]


def test_more_devices_than_the_cluster_has_are_one_line(cluster, small):
    with RayExecutor(cluster.address) as executor:
        assert executor.slots(4, 10**6, devices=2) == Slots(1, 1, devices=2)
        with pytest.raises(ConfigError, match=r"devices 3 are more than the cluster has room for \(2\); use at most 2"):
            executor.slots(4, 10**6, devices=3)
        strategies, recipe = ["full:learning_rate=0.001"], {**DEVICES, "epochs": 60}
        study = changed(small, strategies=strategies, recipe=recipe, seeds=[0], devices=2, metric=WAITING)
        second = next(node for node in cluster.list_all_nodes() if not node.head)
        nodes = [second]

        def leave(event: Event) -> None:
            if event.kind == "progress" and nodes:
                cluster.remove_node(nodes.pop(), allow_graceful=False)

        with pytest.raises(StoreError, match="has room for 1 of the 2 devices of a run; stored runs stay"):
            study.run(leave, executor=executor)


def test_an_address_without_a_cluster_is_one_line():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(StoreError, match="no Ray cluster answers at") as error:
        RayExecutor(address)
    assert "\n" not in str(error.value)


def test_machines_with_other_versions_or_little_memory_are_named(cluster, monkeypatch):
    with RayExecutor(cluster.address) as executor:
        assert executor.slots(4, 10**6) == Slots(2, 1, machines=2)
        with pytest.raises(StoreError, match=r"no machine of the cluster has the .* GiB of memory"):
            executor.slots(4, 10**9)
        monkeypatch.setattr("tuneoff.execute.cluster_machines.versions", lambda: {"python": "3.0", "tuneoff": "0.1.0"})
        with pytest.raises(StoreError, match=r"has python 3\..*, and this one 3\.0; results would differ"):
            executor.slots(4, 10**6)


SEEN_GPU = """
import os

def score(labels, predicted, probabilities):
    with open(os.environ["SEEN_GPUS"], "a") as file:
        file.write(os.environ.get("CUDA_VISIBLE_DEVICES", "none") + "\\n")
    return float((labels == predicted).mean())
"""


def test_jobs_run_where_gpus_are_each_on_the_one_that_is_reserved_for_it(cluster, small, tmp_path, monkeypatch):
    # a metric, which is computed in the process of the job, tells what that sees
    (tmp_path / "seen_gpu.py").write_text(SEEN_GPU)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SEEN_GPUS", str(tmp_path / "seen"))
    paths = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    # GPUs in name: Ray counts and reserves them, and torch computes on the CPU
    cluster.add_node(
        num_cpus=4,
        num_gpus=2,
        memory=8 * 2**30,
        object_store_memory=10**8,
        include_dashboard=False,
        env_vars={"PYTHONPATH": paths, "SEEN_GPUS": str(tmp_path / "seen")},
    )
    study = changed(small, strategies=["full:learning_rate=0.01"], seeds=[0, 1, 2], metric="seen_gpu:score")
    machines: set[str] = set()
    with RayExecutor(cluster.address) as executor:
        assert executor.slots(8, 10**6) == Slots(2, 2, machines=1)
        comparison = study.run(lambda event: machines.add(event.machine), executor=executor)
        assert [record.status for record in comparison.records] == [OK] * 3
        (with_gpus,) = [node["NodeID"] for node in ray.nodes() if node["Resources"].get("GPU")]
        assert machines - {""} == {executor.machines.name_of(with_gpus)}
        assert set((tmp_path / "seen").read_text().split()) - {"none"} == {"0", "1"}
        assert gpus_of(2, num_gpus=1) == ["0", "1"]
        assert gpus_of(4, num_gpus=0.5) == ["0", "0", "1", "1"]
        assert gpus_of(1, num_gpus=0) == [""]


def gpus_of(count, num_gpus):
    """The GPUs of tasks that run at once."""

    @ray.remote(num_cpus=0, num_gpus=num_gpus)
    def task() -> str:
        from tuneoff.execute.node import reserved_gpu

        time.sleep(2.0)  # until all of them run
        return reserved_gpu()

    return sorted(ray.get([task.remote() for _ in range(count)]))
