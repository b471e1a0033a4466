"""How busy jobs keep the GPUs that they share, measured for the next study: how many of them fill one.

The driver tells the share of the last moments in which a GPU computed anything at all. Summed over the GPUs and divided
by the jobs with a training by gradient that ran, this is the share of a GPU that one of them takes, its start and its
predictions included. It is stored in the cache by GPU and size of the encoder. Jobs at once stay as they are within a
call of a study: its energy, the time that is left and the costs of its runs are of one load.
"""

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from tuneoff.cache import cache_folder
from tuneoff.errors import StoreError
from tuneoff.files import read_json, write_json
from tuneoff.gpus import gpus, reading_load

_SAMPLE_SECONDS = 1.0
_MIN_JOB_SECONDS = 60.0  # that are measured before the share is stored
_MIN_SHARE = 0.02


class GpuLoad:
    """The share of a GPU that a job of a study takes, over all its jobs on encoders of one size."""

    def __init__(self) -> None:
        self._busy_seconds, self._job_seconds = 0.0, 0.0

    @contextlib.contextmanager
    def measuring(self, uuids: Collection[str], largest_model: int, num_running: Callable[[], int]) -> Iterator[None]:
        """A context in which the load is measured; at its end the share so far is stored.

        uuids: of the GPUs that jobs share; without any, nothing is measured. largest_model: parameters. num_running:
        returns how many jobs that train use them now.
        """
        if not uuids:
            yield
            return
        ended = threading.Event()
        thread = threading.Thread(target=self._watch, args=(set(uuids), num_running, ended), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            with contextlib.suppress(OSError, StoreError):  # a cache that cannot be written
                self._store(uuids, largest_model)

    def _watch(self, uuids: Collection[str], num_running: Callable[[], int], ended: threading.Event) -> None:
        with reading_load(uuids) as read:
            while not ended.wait(_SAMPLE_SECONDS):
                load, jobs = read(), num_running()
                if load is None:
                    return
                if jobs:
                    self._busy_seconds += load * _SAMPLE_SECONDS
                    self._job_seconds += jobs * _SAMPLE_SECONDS

    def _store(self, uuids: Collection[str], largest_model: int) -> None:
        if self._job_seconds < _MIN_JOB_SECONDS:
            return
        share = max(_MIN_SHARE, min(1.0, self._busy_seconds / self._job_seconds))
        names = {gpu.name for gpu in gpus() if gpu.uuid in uuids}
        write_json(_path(), _read() | {_key(name, largest_model): share for name in names})


def stored_share(name: str, largest_model: int) -> float | None:
    """Return the share of a GPU that a job took in the last study on such a GPU; None if none was measured.

    name: of the GPU. largest_model: parameters.
    """
    share = _read().get(_key(name, largest_model))
    return share if isinstance(share, float) and _MIN_SHARE <= share <= 1 else None


def _key(name: str, largest_model: int) -> str:
    """Return a name for encoders of a size, to two digits: what strategies add, and heads, are less than that.

    >>> _key("H100", 109_483_778) == _key("H100", 110_383_299)
    True
    """
    return f"{name}, {largest_model:.1e} parameters"


def _path() -> Path:
    return cache_folder() / "gpu_shares.json"


def _read() -> dict[str, float]:
    try:
        stored = read_json(_path()) if _path().is_file() else {}
    except StoreError:
        return {}  # as any part of the cache, it is made again
    return stored if isinstance(stored, dict) else {}
