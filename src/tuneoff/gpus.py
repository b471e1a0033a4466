"""The NVIDIA GPUs that this process may use, as their driver describes them (NVML), which starts no CUDA.

CUDA_VISIBLE_DEVICES is followed. Where it names GPUs by number and they are of several kinds, its numbers are in an
order that only CUDA knows (the fastest first), and none is returned.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tuneoff.machine import has_gpu_node

_VISIBLE, _ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"


@dataclass(frozen=True)
class Gpu:
    """A GPU, or an instance of one that is divided (MIG)."""

    uuid: str  # by which CUDA_VISIBLE_DEVICES names it
    name: str
    total_bytes: int
    free_bytes: int


def gpus() -> list[Gpu]:
    """List the GPUs that this process may use; none without NVIDIA's driver."""
    with _driver() as nvml:
        return [_described(nvml, handle) for handle in _handles(nvml)] if nvml else []


def gpu_joules() -> float | None:
    """Return the energy that the GPUs have used since their driver was loaded; None where it cannot be read."""
    with _driver() as nvml:
        if not nvml:
            return None
        try:  # millijoules; GPUs before Volta count none
            used = [nvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in _handles(nvml)]
        except nvml.NVMLError:
            return None
        return sum(used) / 1000 if used else None


@contextlib.contextmanager
def _driver() -> Iterator[Any]:
    """A context with the driver's library; None without one."""
    if not has_gpu_node():
        yield None
        return
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _handles(nvml: Any) -> list[Any]:
    """Return the driver's handles of the GPUs that this process may use; none if they cannot be told."""
    try:
        every = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        visible = os.environ.get(_VISIBLE)
        if visible is None:
            return every
        uuids = [_text(nvml.nvmlDeviceGetUUID(handle)) for handle in every]
        alike = len({_text(nvml.nvmlDeviceGetName(handle)) for handle in every}) == 1
        chosen = []
        for name in filter(None, (part.strip() for part in visible.split(","))):
            if name.startswith("MIG-"):
                chosen.append(nvml.nvmlDeviceGetHandleByUUID(name))
            elif name.isdecimal() and int(name) < len(every):
                if not alike and os.environ.get(_ORDER) != "PCI_BUS_ID":
                    return []
                chosen.append(every[int(name)])
            elif matching := [every[i] for i, uuid in enumerate(uuids) if uuid.startswith(name)]:
                chosen.append(matching[0])
            else:
                break  # as CUDA: what follows an unknown name is not visible
        return chosen
    except nvml.NVMLError:
        return []


def _described(nvml: Any, handle: Any) -> Gpu:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(_text(nvml.nvmlDeviceGetUUID(handle)), _text(nvml.nvmlDeviceGetName(handle)), memory.total, memory.free)


def _text(given: str | bytes) -> str:
    return given.decode() if isinstance(given, bytes) else given
