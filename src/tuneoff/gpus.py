"""The NVIDIA GPUs that this process may use, as their driver describes them (NVML), which starts no CUDA.

CUDA_VISIBLE_DEVICES is followed. Where it names GPUs by number and they are of several kinds, its numbers are in an
order that only CUDA knows (the fastest first), and none is returned.
"""

import contextlib
import os
from collections.abc import Callable, Collection, Iterator
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
    capability: tuple[int, int] | None = None  # compute capability; None if the driver does not tell
    is_exclusive: bool = False  # one process at a time may use it


def gpus() -> list[Gpu]:
    """List the GPUs that this process may use, those that are divided by their instances.

    None without NVIDIA's driver, and where it does not tell of their memory: without the rights to ask (some containers
    with MIG), and where memory is shared with the processor (GB10).
    """
    with _driver() as nvml:
        if not nvml:
            return []
        try:
            return [_described(nvml, part) for handle in _handles(nvml) for part in _instances(nvml, handle)]
        except nvml.NVMLError:
            return []


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
def reading_load(uuids: Collection[str]) -> Iterator[Callable[[], float | None]]:
    """A context with a function that returns how busy some GPUs are, summed over them: 1.0 for each that is never idle.

    It returns None where the driver does not tell, as for the instances of a divided GPU.
    """
    with _driver() as nvml:

        def read() -> float | None:
            if not nvml:
                return None
            try:
                handles = [nvml.nvmlDeviceGetHandleByUUID(uuid) for uuid in uuids]
                return sum(nvml.nvmlDeviceGetUtilizationRates(handle).gpu for handle in handles) / 100
            except nvml.NVMLError:
                return None

        yield read


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


def _instances(nvml: Any, handle: Any) -> list[Any]:
    """Return the handles of the instances of a GPU that is divided (MIG), of which CUDA sees one; else its own."""
    try:
        is_divided = nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE
    except nvml.NVMLError:  # it cannot be divided, or is an instance
        return [handle]
    if not is_divided:
        return [handle]
    instances = []
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        with contextlib.suppress(nvml.NVMLError):  # as many as could be, not as there are
            instances.append(nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index))
    return instances


def _described(nvml: Any, handle: Any) -> Gpu:
    memory, capability, is_exclusive = nvml.nvmlDeviceGetMemoryInfo(handle), None, False
    with contextlib.suppress(nvml.NVMLError):
        capability = tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle))
    with contextlib.suppress(nvml.NVMLError):
        is_exclusive = nvml.nvmlDeviceGetComputeMode(handle) == nvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS
    uuid, name = _text(nvml.nvmlDeviceGetUUID(handle)), _text(nvml.nvmlDeviceGetName(handle))
    return Gpu(uuid, name, memory.total, memory.free, capability, is_exclusive)


def _text(given: str | bytes) -> str:
    return given.decode() if isinstance(given, bytes) else given
