"""A list of runs over the cores of this machine: as many worker processes as fit, one thread each."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tuneoff.errors import StoreError
from tuneoff.execute.one import device, failed_record
from tuneoff.runs import RunRecord, RunStore
from tuneoff.spec import RunSpec

WORKER = "tuneoff.execute.worker"
_WORKER_ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",  # tokens come from the cache
    # glibc then keeps what a step frees for the next instead of giving it back to the system: docs/log.md
    "MALLOC_MMAP_THRESHOLD_": str(2**25),  # the largest it takes
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
}
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


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def execute(
    runs: Sequence[RunSpec], store: RunStore, workers: int, threads: int, on_event: Callable[[Event], None], log: Path
) -> None:
    """Make the runs, in order, `workers` at once, each with `threads`. Whatever happens to one, the others go on.

    log: where the workers' own output goes.
    """
    waiting, pool = list(runs), _Pool(min(workers, len(runs)), log)
    try:
        busy: dict[int, RunSpec] = {}
        idle: list[int] = []
        while waiting or busy:
            while waiting and idle:
                worker, run = idle.pop(), waiting.pop(0)
                busy[worker] = run
                pool.give(worker, run, store, threads)
                on_event(Event("started", run))
            worker, message = pool.next_message()
            if message["event"] == "ready":
                idle.append(worker)
                continue
            if worker not in busy:
                raise StoreError(f"a worker process ended with code {message['code']} before it took a run; see {log}")
            run = busy[worker]
            if message["event"] == "progress":
                on_event(Event("progress", run, share=message["share"]))
                continue
            del busy[worker]
            if message["event"] == "done":
                idle.append(worker)
                record = store.record(run.run_id)
            else:
                record = store.write(failed_record(run, _why(message["code"])))
                idle.append(worker) if message["event"] == "crashed" else pool.start(worker)
            on_event(Event("done", run, share=1.0, record=record))
    finally:
        pool.stop()


def _why(code: int) -> str:
    if code == -9:
        return "the run's process was killed, probably for want of memory; try fewer workers or a smaller batch_size"
    return f"the run's process ended with code {code}"


class _Pool:
    """Worker processes, and one queue of what they say."""

    def __init__(self, count: int, log: Path) -> None:
        self._messages: queue.Queue[tuple[int, dict[str, Any]]] = queue.Queue()
        self._log = open(log, "ab")  # noqa: SIM115  closed in stop
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._listeners: list[threading.Thread] = []
        for worker in range(count):
            self.start(worker)

    def start(self, worker: int) -> None:
        """Start a worker, or start it again."""
        environment = _WORKER_ENVIRONMENT | dict(os.environ)
        process = subprocess.Popen(
            [sys.executable, "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            # Ctrl-C reaches us alone, and we stop the workers
            start_new_session=True,
        )
        self._processes[worker] = process
        listener = threading.Thread(target=self._listen, args=(worker, process), daemon=True)
        self._listeners.append(listener)
        listener.start()

    def _listen(self, worker: int, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        with process:  # closes its pipes
            for line in process.stdout:
                self._messages.put((worker, json.loads(line)))
        self._messages.put((worker, {"event": "ended", "code": process.returncode}))

    def give(self, worker: int, run: RunSpec, store: RunStore, threads: int) -> None:
        """Hand a run to an idle worker."""
        job = {"run": run.model_dump(mode="json"), "store": str(store.folder), "threads": threads}
        stdin = self._processes[worker].stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):  # it has died; next_message says so
            stdin.write(json.dumps(job).encode() + b"\n")
            stdin.flush()

    def next_message(self) -> tuple[int, dict[str, Any]]:
        """Wait for the next thing that a worker says."""
        return self._messages.get()

    def stop(self) -> None:
        """End all workers and what they are doing."""
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with the run's child
        for listener in self._listeners:
            listener.join()
        self._log.close()
