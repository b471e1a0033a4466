"""State of this machine and installation.

torch is imported only to ask about a GPU, or about a CPU whose instruction sets the system does not list.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from tuneoff import packaged
from tuneoff.cache import cache_folder
from tuneoff.errors import TuneoffError
from tuneoff.machine import (
    cores,
    gpu_name,
    has_gpu,
    has_gpu_node,
    lists_native_bf16,
    processor,
    torch_build,
    versions,
)


@dataclass(frozen=True)
class Examination:
    """Versions, processor, GPU, precision, cache and packaged files of this machine."""

    versions: dict[str, str]
    processor: str
    cores: int
    memory_bytes: int
    gpu: str | None  # as torch or NVIDIA's driver names it, or "model unknown"; None without one
    torch_build: str | None  # cpu, cuda or rocm; None if unknown
    device: Literal["cpu", "cuda"]  # that runs compute on; torch calls ROCm's GPUs cuda too
    auto_precision: Literal["bf16", "fp16", "fp32"]  # of training on that device
    cache: str
    cache_bytes: int
    packaged_models: dict[str, str]  # name -> ready, or the reason why not
    packaged_data: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the examination as plain data."""
        return asdict(self)

    @property
    def device_text(self) -> str:
        """The device of runs, in words; for a GPU that torch cannot use, the likely reason."""
        if self.device == "cuda":
            return f"runs compute on the GPU ({self.gpu})"
        if self.gpu is None:
            return "runs compute on the CPU; no GPU was detected"
        cause = "is built for CPUs only and cannot use" if self.torch_build == "cpu" else "cannot use"
        return f"runs compute on the CPU: torch {self.versions['torch']} {cause} the GPU ({self.gpu})"

    @property
    def precision_text(self) -> str:
        """The training precision, in words."""
        unit = "GPU" if self.device == "cuda" else "CPU"
        if self.auto_precision == "bf16":
            return f"training precision auto: bf16, which this {unit} multiplies natively"
        if self.auto_precision == "fp16":
            return "training precision auto: fp16 with loss scaling; this GPU has no native bf16"
        return f"training precision auto: fp32; this {unit} has no native bf16"


def examine() -> Examination:
    """Examine this machine and installation."""
    cache, uses_gpu = cache_folder(), has_gpu()
    return Examination(
        versions=versions(),
        processor=processor(),
        cores=cores(),
        memory_bytes=psutil.virtual_memory().total,
        gpu=_gpu(uses_gpu),
        torch_build=torch_build(),
        device="cuda" if uses_gpu else "cpu",
        auto_precision=_auto_precision(uses_gpu),
        cache=str(cache),
        cache_bytes=_folder_bytes(cache) if cache.exists() else 0,
        packaged_models={name: _state(packaged.model_folder, name) for name in packaged.MODELS},
        packaged_data={name: _state(packaged.reviews_file, name) for name in packaged.DATASETS},
    )


def _gpu(uses_gpu: bool) -> str | None:
    if uses_gpu:
        import torch

        return torch.cuda.get_device_name()
    return gpu_name() or ("model unknown" if sys.platform == "linux" and has_gpu_node() else None)


def _auto_precision(uses_gpu: bool) -> Literal["bf16", "fp16", "fp32"]:
    is_listed = lists_native_bf16()
    if not uses_gpu and is_listed is not None:
        return "bf16" if is_listed else "fp32"
    import torch

    from tuneoff.engine.precision import resolve
    from tuneoff.machine import device

    dtype = resolve("auto", device())
    return "bf16" if dtype == torch.bfloat16 else "fp16" if dtype == torch.float16 else "fp32"


def _folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _state(find: Any, name: str) -> str:
    try:
        find(name)
    except TuneoffError as error:
        return str(error)
    return "ready"
