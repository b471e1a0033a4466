"""What computing costs, measured: how long one answer takes, how fast the machine can multiply, what it draws."""

import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

_ANSWERS, _TIMES = (
    20,
    3,
)  # texts of which latency is the median; how often each is answered, of which the fastest counts
_SIDE = 1024  # of the matrices whose product measures the peak
_SAMPLE_SECONDS = 20.0  # between two looks at the energy counters, which start again at 0 within minutes to hours
_COUNTERS = Path("/sys/class/powercap")


def latency(answer: Callable[[int], Any], num_examples: int) -> float:
    """Seconds to classify one text alone: the median over texts of a split.

    Each text is answered several times and the fastest counts: other runs may work beside this one.
    answer: (index of an example) -> whatever; from its text to its class.
    """
    fastest = []
    for index in np.linspace(0, num_examples - 1, _ANSWERS).astype(int):
        seconds = []
        for _ in range(_TIMES):
            started = time.perf_counter()
            answer(int(index))
            _wait_for_gpu()
            seconds.append(time.perf_counter() - started)
        fastest.append(min(seconds))
    return float(np.median(fastest))


@cache
def peak_operations(dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of a large product of matrices, on as many threads as this process has: the fastest of ten.

    What else the machine does meanwhile is part of it. A product of two (n, n) matrices is 2 n ** 3 operations.
    """
    one = torch.ones(_SIDE, _SIDE, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        one @ one
        _wait_for_gpu()
        best = min(best, time.perf_counter() - started)
    return 2 * _SIDE**3 / best


def _wait_for_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class EnergyMeter:
    """A context that measures what the processors' packages draw, by Intel's and AMD's counters (RAPL, Linux).

    `joules` is the whole machine's, whoever else works on it; None where the counters are missing or may not be read.
    """

    def __init__(self, counters: Path = _COUNTERS, every: float = _SAMPLE_SECONDS) -> None:
        self.joules: float | None = None
        self._every = every
        # whole packages alone: what lies within them, or around them (psys), would be counted twice
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
        is_over = False
        while not is_over:
            is_over = self._ended.wait(self._every)
            now = self._read() or self._last  # what cannot be read once is read the next time
            for package, (joules, most) in now.items():
                drawn = joules - self._last[package][0]
                assert self.joules is not None
                self.joules += drawn if drawn >= 0 else drawn + most
            self._last = now

    def _read(self) -> dict[Path, tuple[float, float]]:
        """Joules that each package counted, and where it starts again. Empty where it cannot be read."""
        try:
            return {
                folder: (_microjoules(folder / "energy_uj"), _microjoules(folder / "max_energy_range_uj"))
                for folder in self._packages
            }
        except (OSError, ValueError):
            return {}


def _is_package(path: Path) -> bool:
    try:
        return path.read_text().startswith("package")
    except OSError:
        return False


def _microjoules(path: Path) -> float:
    return int(path.read_text()) / 1e6
