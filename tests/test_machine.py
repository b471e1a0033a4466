"""The machine: GPUs by their device nodes, and the processor that torch is built for."""

import os
import subprocess
import sys
import time

import pytest
import torch

from tuneoff import machine


@pytest.mark.skipif(sys.platform != "linux", reason="reads /dev")
@pytest.mark.parametrize(
    ("node", "is_gpu"),
    [("nvidia0", True), ("nvidiactl", True), ("kfd", True), ("dxg", True), ("nvme0n1", False), ("null", False)],
)
def test_a_gpu_is_seen_by_its_device_node(node, is_gpu, tmp_path, monkeypatch):
    (tmp_path / node).touch()
    monkeypatch.setattr(machine, "_DEVICES", tmp_path)
    assert machine.has_gpu_node() == is_gpu


@pytest.mark.parametrize("build", ["cuda", "rocm", None])
@pytest.mark.parametrize("is_available", [True, False])
def test_torch_is_asked_where_it_may_use_a_gpu(build, is_available, monkeypatch):
    monkeypatch.setattr(machine, "has_gpu_node", lambda: True)
    monkeypatch.setattr(machine, "torch_build", lambda: build)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_available)
    assert machine.has_gpu() == is_available


@pytest.mark.parametrize(("has_node", "build"), [(False, "cuda"), (True, "cpu")])
def test_torch_is_not_asked_without_a_gpu_or_a_build_for_one(has_node, build, monkeypatch):
    monkeypatch.setattr(machine, "has_gpu_node", lambda: has_node)
    monkeypatch.setattr(machine, "torch_build", lambda: build)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: pytest.fail("torch was asked"))
    assert not machine.has_gpu()


def test_the_build_is_that_of_the_installed_torch():
    assert machine.torch_build() == ("cuda" if torch.version.cuda else "rocm" if torch.version.hip else "cpu")


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="this system does not count waiting")
def test_the_clock_of_costs_stands_while_other_work_has_the_processor():
    """Two processes on one core: each has about half of the time, less if there is a third."""
    spin = "import sys, time, os; os.sched_setaffinity(0, {int(sys.argv[1])}); end = time.perf_counter() + 2\n"
    spin += "from tuneoff.machine import busy_seconds; start, busy = time.perf_counter(), busy_seconds()\n"
    spin += "while time.perf_counter() < end: pass\nprint(busy_seconds() - busy, time.perf_counter() - start)"
    core = str(min(os.sched_getaffinity(0)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen([sys.executable, "-c", spin, core], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    times = [tuple(map(float, process.communicate()[0].split())) for process in processes]
    assert all(0 < busy < 0.9 * wall for busy, wall in times)


def test_the_clock_of_costs_goes_on_while_a_thread_waits_for_its_own_work():
    busy = machine.busy_seconds()
    time.sleep(0.2)
    assert machine.busy_seconds() - busy > 0.19


def test_the_clock_of_costs_is_a_plain_one_where_the_system_does_not_count_waiting(monkeypatch):
    monkeypatch.setattr(machine, "_waiting_file", lambda process, thread: None)
    before = time.perf_counter()
    assert before <= machine.busy_seconds() <= time.perf_counter()
