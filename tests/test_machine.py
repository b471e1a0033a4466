"""The machine: GPUs by their device nodes, and the processor that torch is built for."""

import sys

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
