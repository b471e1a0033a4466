"""A list of runs over the cores of this machine: as many at once as fit, one thread each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tuneoff.errors import StoreError
from tuneoff.execute.one import failed_record
from tuneoff.execute.pool import Pool
from tuneoff.machine import cores, device
from tuneoff.runs import RunRecord, RunStore
from tuneoff.spec import RunSpec

# what a run needs at most, in bytes a parameter: weights, gradient, two moments, best epoch (4 each), activations
_BYTES_PER_PARAMETER = 40
_BYTES_PER_WORKER = 1.5 * 2**30


@dataclass(frozen=True)
class Event:
    """What happened to a run: started, progress (share of it done), or done (with its record)."""

    kind: str
    run: RunSpec
    share: float = 0.0
    record: RunRecord | None = None


def num_workers(num_runs: int, largest_model: int, asked: int | None = None) -> int:
    """How many runs at once: as asked, else one a core, as memory allows. largest_model: parameters."""
    if asked is not None:
        return max(1, min(asked, num_runs))
    if device().type == "cuda":
        return 1  # one run fills a GPU, and its memory
    each = _BYTES_PER_WORKER + _BYTES_PER_PARAMETER * largest_model
    fitting = int(psutil.virtual_memory().available // each)
    return max(1, min(cores(), fitting, num_runs))


def execute(
    runs: Sequence[RunSpec],
    store: RunStore,
    workers: int,
    threads: int,
    on_event: Callable[[Event], None],
    log: Path,
    pool: Pool,
) -> None:
    """Make the runs, in order, `workers` at once, each with `threads`. Whatever happens to one, the others go on.

    log: where goes what runs print.
    """
    waiting, running = list(runs), dict[str, RunSpec]()
    is_ready = False

    def finish(run: RunSpec, record: RunRecord) -> None:
        del running[run.run_id]
        on_event(Event("done", run, share=1.0, record=record))

    while waiting or running:
        while is_ready and waiting and len(running) < workers:
            run = waiting.pop(0)
            running[run.run_id] = run
            job = {"run_id": run.run_id, "run": run.model_dump(mode="json"), "threads": threads}
            pool.give({**job, "store": str(store.folder), "log": str(log)})
            on_event(Event("started", run))
        message = pool.next_message()
        if message["event"] == "ready":
            is_ready = True
        elif message["event"] == "ended":
            if not is_ready:
                raise StoreError(f"the worker process ended with code {message['code']}: {pool.complaint()}")
            for run in list(running.values()):
                finish(run, store.write(failed_record(run, _why(message["code"]))))
            is_ready = False
            if waiting:
                pool.start()
        elif message["run_id"] in running:
            run = running[message["run_id"]]
            if message["event"] == "progress":
                on_event(Event("progress", run, share=message["share"]))
            elif message["event"] == "done":
                finish(run, store.record(run.run_id))
            else:
                finish(run, store.write(failed_record(run, _why(message["code"]))))


def _why(code: int) -> str:
    if code == -9:
        return "the run's process was killed, probably for want of memory; try fewer workers or a smaller batch_size"
    return f"the run's process ended with code {code}"
