"""A list of runs over the cores of this machine: as many at once as fit, one thread each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tuneoff.errors import StoreError
from tuneoff.execute.one import failed_record
from tuneoff.execute.pool import Pool
from tuneoff.execute.search import is_spent, open_search, search_path
from tuneoff.machine import cores, device
from tuneoff.runs import RunRecord, RunStore
from tuneoff.search import FAILED, SearchRecord, Trial
from tuneoff.spec import Job, RunSpec, SearchJob

# what a run needs at most, in bytes a parameter: weights, gradient, two moments, best epoch (4 each), activations
_BYTES_PER_PARAMETER = 40
_BYTES_PER_WORKER = 1.5 * 2**30


@dataclass(frozen=True)
class Event:
    """What happened to a run or a search: started, progress (share of it done), or done (with its record)."""

    kind: str
    run: Job
    share: float = 0.0
    record: RunRecord | SearchRecord | None = None


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
    runs: Sequence[Job],
    store: RunStore,
    workers: int,
    threads: int,
    on_event: Callable[[Event], None],
    log: Path,
    pool: Pool,
) -> None:
    """Make the runs or searches, in order, `workers` at once, each with `threads`; what happens to one harms no other.

    log: where goes what runs print.
    """
    waiting, running = list(runs), dict[str, Job]()

    def finish(run: Job, code: int = 0) -> None:
        del running[run.run_id]
        on_event(Event("done", run, share=1.0, record=_record(run, store, code)))

    def again(job: Job) -> None:
        """A search whose trial took its process along goes on with the next one."""
        if isinstance(job, SearchJob) and not is_spent(job.search, open_search(store.searches, job).trials):
            waiting.insert(0, job)

    while waiting or running:
        while pool.is_ready and waiting and len(running) < workers:
            run = waiting.pop(0)
            running[run.run_id] = run
            kind = "search" if isinstance(run, SearchJob) else "run"
            job = {"run_id": run.run_id, "kind": kind, "run": run.model_dump(mode="json"), "threads": threads}
            pool.give({**job, "store": str(store.folder), "log": str(log)})
            on_event(Event("started", run))
        message = pool.next_message()
        if message["event"] == "ready":
            pool.is_ready = True
        elif message["event"] == "ended":
            if not pool.is_ready:
                raise StoreError(f"the worker process ended with code {message['code']}: {pool.complaint()}")
            for run in list(running.values()):
                finish(run, message["code"])
                again(run)
            pool.is_ready = False
            if waiting:
                pool.start()
        elif message["run_id"] in running:
            run = running[message["run_id"]]
            if message["event"] == "progress":
                on_event(Event("progress", run, share=message["share"]))
            elif message["event"] == "done":
                finish(run)
            else:
                finish(run, message["code"])
                again(run)


def _record(run: Job, store: RunStore, code: int) -> RunRecord | SearchRecord:
    """What a run or search has left; a process that ended with another code than 0 leaves it to us."""
    if isinstance(run, RunSpec):
        return store.write(failed_record(run, _why(code))) if code else store.record(run.run_id)
    found = open_search(store.searches, run)
    if code:  # the trial that it was at
        found.trials.append(Trial({}, state=FAILED, error=_why(code)))
        found.write(search_path(store.searches, run))
    return found


def _why(code: int) -> str:
    if code == -9:
        return "the run's process was killed, probably for want of memory; try fewer workers or a smaller batch_size"
    return f"the run's process ended with code {code}"
