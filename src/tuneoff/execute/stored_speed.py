"""Speed of the jobs of earlier studies on this machine, kept in the cache for the time that a study will take."""

from collections.abc import Sequence
from pathlib import Path

from tuneoff.cache import cache_folder
from tuneoff.errors import StoreError
from tuneoff.execute.estimate import Estimate
from tuneoff.execute.executor import Slots
from tuneoff.files import read_json, write_json
from tuneoff.machine import gpu_name, has_gpu, processor
from tuneoff.runs import OK, RunStore
from tuneoff.spec.study import StudySpec

_MIN_SECONDS = 1.0  # of a run whose speed is stored


def stored_speed(spec: StudySpec, slots: Slots) -> float | None:
    """Return the operations per second of one job with these encoders, or None if none of them was timed before.

    Of several encoders the slowest counts.
    """
    speeds = _read()
    return min((speeds[key] for key in _keys(spec, slots) if key in speeds), default=None)


def store_speed(spec: StudySpec, slots: Slots, started: Sequence[Estimate], runs: RunStore) -> None:
    """Store the speed of the largest run that was started and has ended: expected operations by measured seconds.

    Small runs take their time for other things than the operations that are counted.
    """
    speeds = {}
    for model, key in zip(spec.model, _keys(spec, slots), strict=True):
        of_model = [e for e in started if not e.job.is_search and e.job.run.model == model]
        ended = [(e, runs.record(e.job.job_id)) for e in of_model if runs.is_done(e.job.job_id)]
        timed = [
            (e.operations + e.saved_operations, record.costs["run_seconds"])
            for e, record in ended
            if record.status == OK
        ]
        operations, seconds = max(timed, default=(0.0, 0.0))
        if operations > 0 and seconds >= _MIN_SECONDS:
            speeds[key] = operations / seconds
    if speeds:
        write_json(_path(), _read() | speeds)


def _path() -> Path:
    return cache_folder() / "speeds.json"


def _read() -> dict[str, float]:
    try:
        return read_json(_path()) if _path().is_file() else {}
    except StoreError:
        return {}  # as any part of the cache, it is made again


def _keys(spec: StudySpec, slots: Slots) -> list[str]:
    """Return the name of each encoder with everything else that its speed depends on."""
    devices = f"{slots.devices} x " if slots.devices > 1 else ""
    gpu = f"{gpu_name() or 'GPU'}, " if has_gpu() else ""
    machine = f"{processor()}, {gpu}{slots.workers} x {devices}{slots.threads} threads, {spec.recipe.precision}"
    return [f"{model}, {machine}" for model in spec.model]
