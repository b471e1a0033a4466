"""How many jobs share each GPU: one at first, and another where those that train leave it idle.

A run of a small encoder keeps a large GPU busy for a part of the time, which only a measurement tells: it depends on
GPU, encoder, batch and length. The driver counts the share of time in which anything computes on a GPU. As processes
take turns on it (unless the user runs MPS), a job more fills the rest of the time, and helps no more where there is
none. Memory sets the most (room.py). How many jobs share a GPU changes no bit of their results.

Nothing slow is imported at the top, as in local.py.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import TYPE_CHECKING

from tuneoff.gpus import busy_shares

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

    from tuneoff.execute.executor import Slots

# estimated, as no GPU was at hand
_LOOKS, _LOOK_SECONDS = 5, 1.0  # whose mean counts, and the seconds between two
_FULL = 0.8  # busy for this share of the time


class GpuLoad:
    """The jobs that each GPU of this machine may have, for one call of execute."""

    def __init__(self, slots: Slots) -> None:
        self._gpus = tuple(dict.fromkeys(slots.gpus))
        self._most = Counter(slots.gpus)
        is_measured = slots.measures_load and max(self._most.values(), default=1) > 1
        self._allowed = Counter(self._gpus) if is_measured else self._most.copy()
        self._shares: dict[str, deque[float]] = {gpu: deque(maxlen=_LOOKS) for gpu in self._gpus}
        self._looked = 0.0

    @property
    def seconds(self) -> float | None:
        """Seconds until the next look; None if every GPU may have as many jobs as its memory allows."""
        return _LOOK_SECONDS if self._allowed != self._most else None

    def free_gpu(self, used: Mapping[str, str]) -> str | None:
        """Return the GPU of the next job: that with the fewest jobs. None if it has to wait; "" without GPUs.

        used: GPU of each running job, by job.
        """
        if not self._gpus:
            return ""
        taken = Counter(used.values())
        free = [gpu for gpu in self._gpus if taken[gpu] < self._allowed[gpu]]
        return min(free, key=taken.__getitem__, default=None)

    def look(self, used: Mapping[str, str], training: Set[str]) -> None:
        """Allow a GPU another job if it was idle in the last looks. At most one look a second.

        training: jobs that have made progress; while others load their data and model, idleness says nothing.
        """
        if self.seconds is None or time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked, busy = time.monotonic(), busy_shares(self._gpus)
        if busy is None:  # not measured here: as many as memory allows
            self._allowed = self._most.copy()
            return
        for gpu, shares in self._shares.items():
            jobs = {job for job, its_gpu in used.items() if its_gpu == gpu}
            if len(jobs) < self._allowed[gpu] or not jobs <= training:
                continue
            shares.append(busy[gpu])
            if len(shares) == _LOOKS and sum(shares) / _LOOKS < _FULL and self._allowed[gpu] < self._most[gpu]:
                self._allowed[gpu] += 1
                shares.clear()
