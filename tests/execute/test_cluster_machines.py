"""Machines of a Ray cluster that join, lose their agent, or cannot run jobs; and how many jobs they hold."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.studies import changed
from tests.waiting import WAITING
from tuneoff.errors import StoreError
from tuneoff.execute.executor import Event
from tuneoff.runs import OK

ray = pytest.importorskip("ray")

from tuneoff.execute import cluster as cluster_module  # noqa: E402
from tuneoff.execute import cluster_machines, dispatch  # noqa: E402
from tuneoff.execute.cluster import RayExecutor  # noqa: E402
from tuneoff.execute.cluster_devices import use_network_of_cluster  # noqa: E402
from tuneoff.execute.cluster_machines import Reservation  # noqa: E402
from tuneoff.execute.dispatch import ConnectionLost  # noqa: E402
from tuneoff.execute.node import Agent, Inputs, Origin, Task, agent_name, agent_with, run_there  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray leaves sockets and files open


def node(cpus, memory=8.0, gpus=0.0):
    return {"Resources": {"CPU": float(cpus), "memory": memory * 2**30, "GPU": gpus}}


@pytest.mark.parametrize(
    ("reserved", "nodes", "jobs", "threads"),
    [
        (Reservation(), [node(4), node(4)], 2, 4),
        (Reservation(), [node(4), node(4)], 3, 2),  # eight cores among three are two each: no machine holds 2.67
        (Reservation(), [node(2), node(16)], 2, 8),  # both on the large machine
        (Reservation(), [node(5), node(5), node(5)], 4, 2),  # not 15 // 4 = 3, of which each machine holds one
        (Reservation(), [node(1), node(1)], 9, 1),
        (Reservation(memory=4 * 2**30), [node(8), node(8)], 4, 4),
        (Reservation(memory=3 * 2**30), [node(8), node(2, memory=64)], 4, 1),  # two by memory, and two by cores
        (Reservation(gpus=1.0), [node(8, gpus=2.0), node(64)], 2, 4),
        (Reservation(gpus=1 / 3), [node(6, gpus=1.0)], 3, 2),
    ],
)
def test_jobs_get_the_most_threads_with_which_all_of_them_have_a_machine(reserved, nodes, jobs, threads):
    assert reserved.most_threads(nodes, jobs) == threads
    assert threads == 1 or reserved.room(nodes, threads) >= jobs
    assert reserved.room(nodes, threads + 1) < jobs


def test_a_machine_without_what_a_job_reserves_has_no_room():
    assert Reservation(gpus=1.0).room([node(8)], 1) == 0
    assert Reservation(memory=9 * 2**30).room([node(8)], 1) == 0
    assert Reservation(gpus=0.25).room([node(64, gpus=2.0)], 1) == 8


def test_gloo_uses_the_network_by_which_the_cluster_knows_a_machine(monkeypatch):
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    use_network_of_cluster()
    chosen = os.environ["GLOO_SOCKET_IFNAME"]
    assert "127.0.0.1" in {address.address for address in psutil.net_if_addrs()[chosen]}
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")  # the user's choice
    use_network_of_cluster()
    assert os.environ["GLOO_SOCKET_IFNAME"] == "eth7"


LONG = {"epochs": 20, "max_length": 16}  # with a metric that waits


@pytest.mark.slow
def test_a_machine_that_joins_runs_job_after_job(cluster, small, tmp_path):
    # its agent has to outlive the first task that it serves; the other machine stands still meanwhile
    study = changed(small, strategies=["full:learning_rate=0.01"], seeds=range(5), recipe=LONG, metric=WAITING)
    second = next(node for node in cluster.list_all_nodes() if not node.head)
    kept = {"PYTHONPATH": os.environ["PYTHONPATH"], "TUNEOFF_CACHE": str(tmp_path / "cache of another")}
    standing: list[psutil.Process] = []
    done: list[str] = []

    def go_on() -> None:
        while standing:
            with contextlib.suppress(psutil.NoSuchProcess):  # ended, since a copy of its job has
                standing.pop().resume()

    def replace(event: Event) -> None:
        if event.kind == "progress" and second in cluster.list_all_nodes() and jobs_on(tmp_path / "cache 0"):
            for process in jobs_on(tmp_path / "cache 0"):
                process.suspend()
                standing.append(process)
            cluster.remove_node(second, allow_graceful=False)
            cluster.add_node(num_cpus=1, memory=8 * 2**30, object_store_memory=10**8, env_vars=kept)
        elif event.kind == "done":
            done.append(event.machine)
            if len(done) == 3:
                go_on()

    limit = threading.Timer(200.0, go_on)  # else a machine that joins and runs nothing would be waited for
    limit.start()
    with RayExecutor(cluster.address) as executor:
        comparison = study.run(replace, executor=executor)
    limit.cancel()
    assert [record.status for record in comparison.records] == [OK] * 5
    assert sum(machine.endswith("(3)") for machine in done) >= 2, done
    assert list((tmp_path / "cache of another").glob("dataset-*"))


@pytest.mark.slow
def test_an_agent_that_dies_is_started_again(cluster, small, tmp_path):
    study = changed(small, strategies=["full:learning_rate=0.01"], seeds=range(4), recipe=LONG, metric=WAITING)
    events: list[Event] = []
    is_killed = False

    def kill(event: Event) -> None:
        nonlocal is_killed
        events.append(event)
        if event.kind == "progress" and event.machine == second and not is_killed:
            is_killed = kill_process("ray::Agent", tmp_path / "cache 1")

    with RayExecutor(cluster.address) as executor:
        second = name_of_second(cluster, executor)
        comparison = study.run(kill, executor=executor)
    assert is_killed
    assert [record.status for record in comparison.records] == [OK] * 4
    stopped = next(number for number, event in enumerate(events) if event.kind == "stopped")
    assert any(event.kind == "done" and event.machine == second for event in events[stopped:])


class SlowAgent(Agent):
    def __init__(self, origin: Origin) -> None:
        time.sleep(8.0)
        super().__init__(origin)

    def process(self) -> int:
        return os.getpid()


@pytest.mark.slow
def test_a_task_waits_for_an_agent_that_starts_again(cluster, tmp_path):
    # a call to it fails within two seconds, and a job that fails three times is not tried again
    ray.init(address=cluster.address, log_to_driver=False, namespace="s")
    node, origin = ray.get_runtime_context().get_node_id(), Origin("s", {}, ("elsewhere", "cache"))
    options = {"name": agent_name(origin, node), "max_restarts": 1, "max_concurrency": 8, "num_cpus": 0}
    agent = ray.remote(SlowAgent).options(**options).remote(origin)
    task = ray.remote(lambda: ray.get(agent_with(origin, Inputs({}, {})).process.remote()))
    killed = ray.get(task.remote(), timeout=100)  # the next task is in the same process, which has started
    psutil.Process(killed).kill()
    assert ray.get(task.remote(), timeout=100) != killed
    assert ray.get(agent.process.remote()) != killed


class DeafAgent(Agent):
    def __init__(self) -> None:
        pass

    def lacks(self, names: list[str]) -> list[str]:
        time.sleep(1000.0)
        return names


@pytest.mark.slow
def test_an_agent_that_does_not_answer_holds_no_task(cluster):
    ray.init(address=cluster.address, log_to_driver=False, namespace="s")
    here, origin = ray.get_runtime_context().get_node_id(), Origin("s", {}, ("elsewhere", "cache"))
    options = {"name": agent_name(origin, here), "max_concurrency": 8, "num_cpus": 0}
    agent = ray.remote(DeafAgent).options(**options).remote()

    def ask() -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tuneoff.execute.node._AGENT_SECONDS", 2.0)
            return run_there(origin, Inputs({}, {}), Task({"job_id": "full-s0"}, None, None, None), None)

    result = ray.get(ray.remote(ask).remote(), timeout=100)
    assert "no agent of the study that answers" in result["crash"]
    assert result["machine"] == here
    ray.kill(agent)


@pytest.mark.slow
def test_a_job_whose_task_ray_killed_does_not_run_twice(cluster, small, tmp_path):
    recipe = {**LONG, "epochs": 60}
    study = changed(small, strategies=["full:learning_rate=0.01"], seeds=[0, 1], recipe=recipe, metric=WAITING)
    counts: list[int] = []
    is_killed = False

    def kill(event: Event) -> None:
        nonlocal is_killed
        if event.kind == "progress" and is_killed:
            time.sleep(0.2)  # until the process that was killed is gone
            counts.append(len(jobs_on(tmp_path / "cache 1")))
        elif event.kind == "progress" and event.machine == second:
            is_killed = kill_process("ray::run_there", tmp_path / "cache 1")

    with RayExecutor(cluster.address) as executor:
        second = name_of_second(cluster, executor)
        comparison = study.run(kill, executor=executor)
        assert jobs_on(tmp_path / "cache 1") == []  # also if it ran again on the other machine
    assert is_killed
    assert [record.status for record in comparison.records] == [OK, OK]
    assert max(counts) <= 1


@pytest.mark.slow
def test_a_run_that_stands_still_runs_elsewhere(cluster, small, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(dispatch, "_SLOW_SECONDS", 1.0)
    study = changed(small, strategies=["full:learning_rate=0.01"], seeds=range(4), recipe=LONG, metric=WAITING)
    events: list[Event] = []
    caches: dict[str, Path] = {}
    stopped = ""

    def stop(event: Event) -> None:
        nonlocal stopped
        events.append(event)
        if event.kind == "progress" and event.job.run.seed == 3 and not stopped:
            cache = tmp_path / ("cache 1" if event.machine == second else "cache 0")
            for process in jobs_on(cache):
                process.suspend()
                stopped, caches["stopped"] = event.machine, cache

    with RayExecutor(cluster.address) as executor:
        second = name_of_second(cluster, executor)
        comparison = study.run(stop, executor=executor)
        assert jobs_on(caches["stopped"]) == []
    assert [record.status for record in comparison.records] == [OK] * 4
    (done,) = [event for event in events if event.kind == "done" and event.job.run.seed == 3]
    assert done.machine not in ("", stopped)
    assert "is slow where it runs: it runs on another machine too" in capfd.readouterr().err
    here = type(study)(study.spec, tmp_path / "here").run(executor=None)
    assert [record.metrics for record in comparison.records] == [record.metrics for record in here.records]


@pytest.mark.slow
def test_a_machine_on_which_jobs_cannot_run_is_left_out(cluster, small, tmp_path, capfd):
    study = changed(
        small, strategies=["full:learning_rate=0.01"], seeds=range(3), recipe={"epochs": 1, "max_length": 16}
    )
    (tmp_path / "cache 1").write_text("no folder")
    with RayExecutor(cluster.address) as executor:
        second = name_of_second(cluster, executor)
        comparison = study.run(lambda _: None, executor=executor)
    assert [record.status for record in comparison.records] == [OK] * 3
    lines = [line for line in capfd.readouterr().err.splitlines() if "gets no more jobs" in line]
    assert len(lines) == 1
    assert f"machine {second} gets no more jobs: " in lines[0]
    assert "cache 1" in lines[0]


@pytest.mark.slow
def test_a_machine_that_joins_with_other_versions_is_left_out(cluster, small, monkeypatch, capfd):
    study = changed(small, strategies=["full:learning_rate=0.01"], seeds=range(3), recipe=LONG, metric=WAITING)
    events: list[Event] = []

    def add(event: Event) -> None:
        events.append(event)
        if event.kind == "progress" and len(cluster.list_all_nodes()) == 2:
            ours = cluster_machines.versions()
            monkeypatch.setattr(cluster_machines, "versions", lambda: {**ours, "torch": "1.0.0+cpu"})
            cluster.add_node(num_cpus=1, memory=8 * 2**30, object_store_memory=10**8)

    with RayExecutor(cluster.address) as executor:
        comparison = study.run(add, executor=executor)
    assert [record.status for record in comparison.records] == [OK] * 3
    assert not [event for event in events if event.kind == "done" and event.machine.endswith("(3)")]
    assert "(3) gets no more jobs: machine " in capfd.readouterr().err


@pytest.mark.slow
def test_a_head_that_is_slow_once_is_not_lost(cluster, monkeypatch):
    with RayExecutor(cluster.address) as executor:
        answers: Iterator[OSError | None] = iter([TimeoutError("timed out"), TimeoutError("timed out"), None])

        def answer(address: str) -> None:
            if error := next(answers):
                raise error

        monkeypatch.setattr(cluster_module, "_check_answers", answer)
        executor.check_head()
        answers = iter([TimeoutError("timed out")] * 3)
        with pytest.raises(ConnectionLost, match="does not answer"):
            executor.check_head()
        answers = iter([ConnectionRefusedError("refused")])  # asked once
        with pytest.raises(ConnectionLost, match="refused"):
            executor.check_head()
        answers = iter([None] * 9)


@pytest.mark.slow
def test_a_cluster_without_machines_is_one_line(cluster, monkeypatch):
    with RayExecutor(cluster.address) as executor:
        monkeypatch.setattr(executor.machines, "nodes", list)
        with pytest.raises(StoreError, match="has no machine with cores now") as error:
            executor.slots(2, 10**6)
        assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_cluster_whose_machines_have_no_room_says_so_once(cluster, capfd):
    with RayExecutor(cluster.address) as executor:
        slots = executor.slots(2, 10**6)
        fitting = executor._bytes_of_job
        for needed in (10**15, 10**15, fitting, 10**15):  # a machine joins, and dies
            executor._bytes_of_job = needed
            executor.look_at_machines(slots)
    lines = [line for line in capfd.readouterr().err.splitlines() if "has room for a job now; waiting" in line]
    assert len(lines) == 2


def name_of_second(cluster, executor):
    """Name of the machine whose cache is "cache 1": Ray lists machines in the order of their random ids."""
    executor.machines.meet()
    (second,) = [node for node in cluster.list_all_nodes() if not node.head]
    return executor.machines.name_of(second.node_id)


def kill_process(title, cache):
    """Kill a process of Ray, as the system kills those that are out of memory. cache: of its machine."""
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            if title in " ".join(process.info["cmdline"] or []) and process.environ().get("TUNEOFF_CACHE") == str(
                cache
            ):
                process.kill()
                return True
    return False


def jobs_on(cache):
    """Processes of the jobs of a machine. cache: of the machine."""
    jobs = []
    for process in psutil.process_iter(["cmdline"]):
        with contextlib.suppress(psutil.Error):
            is_worker = "tuneoff.execute.worker" in (process.info["cmdline"] or [])
            if is_worker and process.environ().get("TUNEOFF_CACHE") == str(cache):
                jobs += [child for child in process.children() if child.status() != psutil.STATUS_ZOMBIE]
    return jobs
