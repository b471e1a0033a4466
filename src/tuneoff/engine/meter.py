"""Measurements: inference latency, peak speed of matrix products, energy of the processors."""

import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

_LATENCY_EXAMPLES = 20  # spread evenly over the split
_LATENCY_REPEATS = 3  # per example
_MATRIX_SIZE = 1024  # rows and columns of the matrices whose product measures the peak
_SAMPLE_SECONDS = 20.0  # between two readings of the energy counters, which wrap around within minutes to hours
_COUNTERS = Path("/sys/class/powercap")


def latency(classify: Callable[[int], Any], num_examples: int) -> float:
    """Seconds to classify one text, in a batch of one: the median over examples of a split.

    Each example is classified several times and the fastest time counts, because other runs may use the machine at the
    same time. classify: classifies the example with an index, starting from its text.
    """
    fastest = []
    for index in np.linspace(0, num_examples - 1, _LATENCY_EXAMPLES).astype(int):
        seconds = []
        for _ in range(_LATENCY_REPEATS):
            started = time.perf_counter()
            classify(int(index))
            _wait_for_gpu()
            seconds.append(time.perf_counter() - started)
        fastest.append(min(seconds))
    return float(np.median(fastest))


@cache
def peak_operations(dtype: torch.dtype, device: torch.device) -> float:
    """Operations per second of a large matrix product on all threads of this process: the fastest of ten.

    A product of two (n, n) matrices has 2 n ** 3 operations. Other processes on the machine lower the result.
    """
    matrix = torch.ones(_MATRIX_SIZE, _MATRIX_SIZE, dtype=dtype, device=device)
    best_seconds = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        matrix @ matrix
        _wait_for_gpu()
        best_seconds = min(best_seconds, time.perf_counter() - started)
    return 2 * _MATRIX_SIZE**3 / best_seconds


def _wait_for_gpu() -> None:
    # GPU kernels run asynchronously: without waiting, only their start is measured
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class EnergyMeter:
    """A context that measures the energy of the processor packages, by the RAPL counters of Intel and AMD on Linux.

    `joules` is of the whole machine, including other processes; None if counters are missing or cannot be read.
    """

    def __init__(self, counters: Path = _COUNTERS, sample_seconds: float = _SAMPLE_SECONDS) -> None:
        self.joules: float | None = None
        self._sample_seconds = sample_seconds
        # packages only: their parts (core, dram) and the whole platform (psys) would count the same energy twice
        self._packages = [path.parent for path in counters.glob("intel-rapl:*/name") if _is_package(path)]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "EnergyMeter":
        self._last = self._read()
        if self._last:
            self.joules = 0.0
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.joules is not None:
            self._ended.set()
            self._thread.join()

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
        return path.read_text().startswith("package")
    except OSError:
        return False


def _read_joules(path: Path) -> float:
    return int(path.read_text()) / 1e6  # stored in microjoules
