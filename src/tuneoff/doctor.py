"""State of this machine and installation, without importing torch."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from tuneoff import packaged
from tuneoff.cache import cache_folder
from tuneoff.errors import TuneoffError
from tuneoff.machine import cores, gpu_name, processor, processor_flags, versions

# instruction sets with which torch multiplies bf16 at full speed (compat.has_native_bf16_cpu asks torch itself)
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_tile", "bf16"})


@dataclass(frozen=True)
class Examination:
    """What the doctor found."""

    versions: dict[str, str]
    processor: str
    cores: int
    memory_bytes: int
    gpu: str | None
    auto_precision: str  # of training, on this processor or GPU
    cache: str
    cache_bytes: int
    packaged: dict[str, str]  # packaged model or data -> ready, or the reason why not

    def to_json(self) -> dict[str, Any]:
        """Return the examination as plain data."""
        return asdict(self)


def examine() -> Examination:
    """Examine this machine and installation."""
    gpu = gpu_name()
    cache = cache_folder()
    return Examination(
        versions=versions(),
        processor=processor(),
        cores=cores(),
        memory_bytes=psutil.virtual_memory().total,
        gpu=gpu,
        auto_precision=_auto_precision(gpu),
        cache=str(cache),
        cache_bytes=_folder_bytes(cache) if cache.exists() else 0,
        packaged={
            **{f"packaged model {name}": _state(packaged.model_folder, name) for name in packaged.MODELS},
            **{f"packaged data {name}": _state(packaged.reviews_file, name) for name in packaged.DATASETS},
        },
    )


def _auto_precision(gpu: str | None) -> str:
    if gpu:
        return "bf16 if the GPU computes it natively, else fp32"
    is_native = bool(_BF16_FLAGS & processor_flags())
    return "bf16, which this processor multiplies natively" if is_native else "fp32 (no native bf16)"


def _folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _state(find: Any, name: str) -> str:
    try:
        find(name)
    except TuneoffError as error:
        return str(error)
    return "ready"
