"""The machine: cores, memory, GPU, versions. torch is imported only where a function needs it."""

import functools
import importlib.metadata
import importlib.util
import os
import platform
import re
import runpy
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

_NVIDIA = Path("/proc/driver/nvidia/gpus")  # one folder per GPU, where NVIDIA's driver is loaded
_NVIDIA_VERSION = Path("/proc/driver/nvidia/version")  # a line with that of the driver
_DEVICES = Path("/dev")
_GPU_NODES = ("nvidia*", "kfd", "dxg")  # device nodes of NVIDIA GPUs, of AMD's (ROCm), and of both in WSL
# instruction sets that multiply bf16 at full speed: two of x86, one of ARM
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_tile", "bf16"})


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_gpu() -> bool:
    """Return True if torch can use a GPU. Without a GPU or a torch built for one, torch is not imported to find out."""
    if not has_gpu_node() or torch_build() == "cpu":
        return False
    import torch

    return torch.cuda.is_available()


def has_gpu_node() -> bool:
    """Return True if Linux has a device node of a GPU, also inside containers; True on other systems."""
    return sys.platform != "linux" or any(any(_DEVICES.glob(node)) for node in _GPU_NODES)


@functools.cache
def torch_build() -> str | None:
    """Return the processor that torch is built for, "cpu", "cuda" or "rocm", without importing torch.

    None if torch/version.py cannot be read.
    """
    package = importlib.util.find_spec("torch")
    if package is None or package.origin is None:
        return None
    try:
        build = runpy.run_path(str(Path(package.origin).with_name("version.py")))
    except Exception:  # a file of another version of torch
        return None
    if "cuda" not in build:
        return None
    return "cuda" if build["cuda"] else "rocm" if build.get("hip") else "cpu"


def gpu_name() -> str | None:
    """Return the name of the first NVIDIA GPU, from its driver; None without one."""
    try:
        first = min(_NVIDIA.iterdir())
        lines = (first / "information").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("Model"))
    except (OSError, ValueError, StopIteration):
        return None


def gpu_driver() -> str | None:
    """Return the version of NVIDIA's driver; None without one."""
    try:
        first, *_ = _NVIDIA_VERSION.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    version = re.search(r"\b\d+\.\d+(\.\d+)?\b", first)
    return version[0] if version else None


def device() -> "torch.device":
    """Return the GPU if there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def versions() -> dict[str, str]:
    """Return the versions of the packages that a result depends on."""
    names = ("tuneoff", "torch", "transformers", "peft", "tokenizers", "scikit-learn", "numpy")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def machine() -> dict[str, str | int | None]:
    """Return what a run's times, and on a GPU its bits, depend on; nothing that identifies the machine."""
    import torch

    facts: dict[str, str | int | None] = {
        "system": platform.system(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    return facts | (_gpu_versions() if facts["gpu"] else {})


def _gpu_versions() -> dict[str, str | int | None]:
    """Return the versions on which the numbers of a GPU depend: another one may add in another order."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    return {
        "gpu_capability": f"{major}.{minor}",
        "gpu_driver": gpu_driver(),
        "cuda": torch.version.cuda or torch.version.hip,
        "cudnn": torch.backends.cudnn.version(),
    }


@functools.cache
def processor() -> str:
    """Return the processor's model name."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def processor_flags() -> frozenset[str]:
    """Return the instruction set extensions that Linux reports, such as avx512_bf16; empty on other systems."""
    return frozenset((_cpuinfo().get("flags") or _cpuinfo().get("Features") or "").split())


def lists_native_bf16() -> bool | None:
    """Return True if Linux lists an instruction set that multiplies bf16; None on systems that list none."""
    flags = processor_flags()
    return bool(_BF16_FLAGS & flags) if flags else None


@functools.cache
def _cpuinfo() -> dict[str, str]:
    """Return the fields of /proc/cpuinfo for the first core."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = (line.partition(":")[::2] for line in first.splitlines())
    return {key.strip(): value.strip() for key, value in pairs}


def busy_seconds() -> float:
    """Seconds of a clock that stands still while this thread waits for a processor that other work has.

    Times of training decide what a verdict picks, and other work may come and go while a study runs. Linux counts the
    time that a thread has waited (Documentation/scheduler/sched-stats.rst); elsewhere this is time.perf_counter().
    """
    now = time.perf_counter()
    file = _waiting_file(os.getpid(), threading.get_native_id())
    if file is None:
        return now
    try:
        return now - int(os.pread(file, 64, 0).split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return now


@functools.cache
def _waiting_file(process: int, thread: int) -> int | None:
    if sys.platform != "linux":
        return None
    try:
        return os.open(f"/proc/{process}/task/{thread}/schedstat", os.O_RDONLY)
    except OSError:
        return None


def peak_bytes() -> int:
    """Return this process' peak memory: allocated on the GPU if it used one, else resident (a run has its process)."""
    import torch

    on_gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return on_gpu or host_peak_bytes()


def host_peak_bytes() -> int:
    """Return the peak of this process' resident memory."""
    try:
        import resource
    except ImportError:  # Windows
        memory = psutil.Process().memory_info()
        return getattr(memory, "peak_wset", memory.rss)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB
