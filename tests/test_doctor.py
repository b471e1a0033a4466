"""The examination of this machine: where runs compute, and in which precision."""

import re

import pytest
import torch

from tuneoff import doctor
from tuneoff.engine.precision import resolve
from tuneoff.machine import device


def test_the_device_and_the_precision_are_those_of_runs():
    examination = doctor.examine()
    assert examination.device == device().type
    assert {"bf16": torch.bfloat16, "fp32": torch.float32}[examination.auto_precision] == resolve("auto", device())


def test_json_holds_plain_names_and_values():
    stored = doctor.examine().to_json()
    assert stored["auto_precision"] in ("bf16", "fp32")
    assert stored["packaged_models"] == {"minilm": "ready"}
    assert stored["packaged_data"] == {"rotten-tomatoes": "ready", "imdb": "ready"}


@pytest.mark.parametrize(
    ("gpu", "build", "expected"),
    [
        (None, "cpu", "runs compute on the CPU; no GPU was detected"),
        ("NVIDIA H100", "cpu", r"runs compute on the CPU: torch .* is built for CPUs only and cannot use the GPU"),
        ("NVIDIA H100", "cuda", r"runs compute on the CPU: torch \S+ cannot use the GPU \(NVIDIA H100\)"),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_named_with_the_reason(gpu, build, expected, monkeypatch):
    monkeypatch.setattr(doctor, "has_gpu", lambda: False)
    monkeypatch.setattr(doctor, "has_gpu_node", lambda: gpu is not None)
    monkeypatch.setattr(doctor, "gpu_name", lambda: gpu)
    monkeypatch.setattr(doctor, "torch_build", lambda: build)
    examination = doctor.examine()
    assert examination.gpu == gpu
    assert re.match(expected, examination.device_text)


@pytest.mark.parametrize(
    ("name", "capability", "precision"),
    [("NVIDIA T4", (7, 5), "fp16 with loss scaling; this"), ("NVIDIA P100", (6, 0), "fp32; this")],
)
def test_a_gpu_that_torch_uses_decides_the_precision(name, capability, precision, monkeypatch):
    monkeypatch.setattr(doctor, "has_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr("tuneoff.machine.device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    examination = doctor.examine()
    assert examination.device_text == f"runs compute on the GPU ({name})"
    assert (examination.auto_precision, examination.device) == (precision[:4], "cuda")
    assert examination.precision_text == f"training precision auto: {precision} GPU has no native bf16"
