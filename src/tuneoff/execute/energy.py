"""Energy of the processors and GPUs while jobs run."""

import threading
from pathlib import Path

from tuneoff.gpus import gpu_joules

_SAMPLE_SECONDS = 20.0  # between two readings of the energy counters, which wrap around within minutes to hours
_COUNTERS = Path("/sys/class/powercap")


class EnergyMeter:
    """A context that measures the energy of the processor packages, by the RAPL counters of Intel and AMD on Linux.

    `joules` is of the whole machine, including other processes; None if counters are missing or cannot be read.
    `gpu_joules` is the same of its GPUs, by the counters of NVIDIA's driver.
    """

    def __init__(self, counters: Path = _COUNTERS, sample_seconds: float = _SAMPLE_SECONDS) -> None:
        self.joules: float | None = None
        self.gpu_joules: float | None = None
        self._sample_seconds = sample_seconds
        # packages only: their parts (core, dram) and the whole platform (psys) would count the same energy twice
        self._packages = [path.parent for path in counters.glob("intel-rapl:*/name") if _is_package(path)]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "EnergyMeter":
        self._gpu_start = gpu_joules()
        self._last = self._read()
        if self._last:
            self.joules = 0.0
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.joules is not None:
            self._ended.set()
            self._thread.join()
        gpu_end = gpu_joules() if self._gpu_start is not None else None
        if self._gpu_start is not None and gpu_end is not None:
            self.gpu_joules = gpu_end - self._gpu_start

    def _watch(self) -> None:
        has_ended = False
        while not has_ended:
            has_ended = self._ended.wait(self._sample_seconds)
            current = self._read() or self._last  # a failed reading is made up for by the next one
            for package, (joules, counter_range) in current.items():
                used = joules - self._last[package][0]
                assert self.joules is not None
                self.joules += used if used >= 0 else used + counter_range  # negative: the counter has wrapped around
            self._last = current

    def _read(self) -> dict[Path, tuple[float, float]]:
        """Return for each package its counter in joules, and the range after which it wraps. Empty if unreadable."""
        try:
            return {
                folder: (_read_joules(folder / "energy_uj"), _read_joules(folder / "max_energy_range_uj"))
                for folder in self._packages
            }
        except (OSError, ValueError):
            return {}


def _is_package(path: Path) -> bool:
    try:
        return path.read_text(encoding="utf-8").startswith("package")
    except OSError:
        return False


def _read_joules(path: Path) -> float:
    return int(path.read_text(encoding="utf-8")) / 1e6  # stored in microjoules
