"""How busy jobs keep the GPUs that they share, measured for the next study: how many of them fill one.

The driver tells the share of the last moments in which a GPU computed anything at all. Summed over the GPUs and divided
by the jobs that ran, this is the share of a GPU that one job takes, its start and its predictions included. It is
stored in the cache by GPU and size of the encoder. Jobs at once stay as they are within a study: its energy, the time
that is left and the costs of its runs are of one load.
"""

import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Self

from tuneoff.cache import cache_folder
from tuneoff.errors import StoreError
from tuneoff.files import read_json, write_json
from tuneoff.gpus import gpus, reading_load

_SAMPLE_SECONDS = 1.0
_MIN_JOB_SECONDS = 60.0  # that are measured before the share is stored
_MIN_SHARE = 0.02


class GpuLoad:
    """A context that measures the share of a GPU that a job takes, and stores it."""

    def __init__(
        self,
        uuids: Collection[str],
        largest_model: int,
        num_running: Callable[[], int],
        sample_seconds: float = _SAMPLE_SECONDS,
    ) -> None:
        """uuids: of the GPUs that jobs share; without any, nothing is measured. largest_model: parameters.

        num_running: returns how many jobs use them now.
        """
        self._uuids, self._largest_model, self._num_running = set(uuids), largest_model, num_running
        self._sample_seconds = sample_seconds
        self._busy_seconds, self._job_seconds = 0.0, 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        if self._uuids:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._uuids:
            return
        self._ended.set()
        self._thread.join()
        if self._job_seconds < _MIN_JOB_SECONDS:
            return
        share = max(_MIN_SHARE, min(1.0, self._busy_seconds / self._job_seconds))
        for name in {gpu.name for gpu in gpus() if gpu.uuid in self._uuids}:
            write_json(_path(), _read() | {_key(name, self._largest_model): share})

    def _watch(self) -> None:
        with reading_load(self._uuids) as read:
            while not self._ended.wait(self._sample_seconds):
                load, jobs = read(), self._num_running()
                if load is None:
                    return
                if jobs:
                    self._busy_seconds += load * self._sample_seconds
                    self._job_seconds += jobs * self._sample_seconds


def stored_share(name: str, largest_model: int) -> float | None:
    """Return the share of a GPU that a job took in the last study on such a GPU; None if none was measured.

    name: of the GPU. largest_model: parameters.
    """
    share = _read().get(_key(name, largest_model))
    return share if isinstance(share, float) and _MIN_SHARE <= share <= 1 else None


def _key(name: str, largest_model: int) -> str:
    return f"{name}, {largest_model} parameters"


def _path() -> Path:
    return cache_folder() / "gpu_shares.json"


def _read() -> dict[str, float]:
    try:
        return read_json(_path()) if _path().is_file() else {}
    except StoreError:
        return {}  # as any part of the cache, it is made again
