"""Executor on this machine: as many jobs at once as fit, each in a process of its own.

Nothing slow is imported at the top, so that the command line can start the worker process before anything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from tuneoff.errors import StopRequested, StoreError
from tuneoff.execute.room import local_slots
from tuneoff.execute.worker_process import WorkerProcess
from tuneoff.notices import notice
from tuneoff.signals import stop_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tuneoff.execute.executor import Event, Slots
    from tuneoff.execute.gpu_load import GpuLoad
    from tuneoff.runs import StudyStore
    from tuneoff.spec.run import Job

KILLED = -9  # exit code of a process that the system has killed
LOST = 0  # of a job that was lost with its machine, or with one of its devices


class LocalExecutor:
    """Runs jobs on this machine's cores. A context manager: the worker process starts with it and ends with it."""

    def __init__(self) -> None:
        self._worker = WorkerProcess()
        self._largest_model = 0  # parameters
        self._gpu_load: GpuLoad | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.stop()

    def slots(self, num_jobs: int, largest_model: int, requested: int | None = None, devices: int = 1) -> Slots:
        """Return the jobs at once on this machine, and the threads of each."""
        self._largest_model = largest_model
        return local_slots(num_jobs, largest_model, requested, devices)

    def execute(self, jobs: Sequence[Job], store: StudyStore, slots: Slots, on_event: Callable[[Event], None]) -> None:
        """Run jobs in order, `slots.workers` at once. A crash is recorded and harms no other job.

        A run whose process is killed by the system, which lacks memory, is tried once more in smaller micro-batches. A
        signal to stop passes once every running job has stored where it stands; a second one passes at once.
        """
        from tuneoff.execute.executor import Event
        from tuneoff.execute.gpu_load import GpuLoad
        from tuneoff.execute.job import is_finished, record_crash, stored_record
        from tuneoff.strategies import GradientConfig

        waiting, running, worker = list(jobs), dict[str, "Job"](), self._worker
        killed, is_stopping = set[str](), False
        places = dict[str, str]()  # job id -> its GPU

        def go_on_later(job: Job, note: str = "") -> None:
            del running[job.job_id]
            waiting.insert(0, job)
            on_event(Event("stopped", job, note=note))

        def crash(job: Job, code: int, reason: str) -> None:
            # stopped before it could handle the signal; on Windows, which has none, it was ended
            if is_stopping or (-code in stop_signals() and job.job_id not in killed):
                killed.add(job.job_id)  # not again and again, where the system asks for memory by a signal
                go_on_later(job)
            elif code == KILLED and not job.is_search and job.job_id not in killed:
                killed.add(job.job_id)
                go_on_later(job, "killed, probably out of memory; tried again in smaller micro-batches")
            else:
                finish(job, describe_exit(code, reason, is_second=job.job_id in killed))

        def finish(job: Job, crash: str = "") -> None:
            del running[job.job_id]
            record = record_crash(job, store, crash) if crash else stored_record(job, store)
            on_event(Event("done", job, share=1.0, record=record))
            if crash and job.is_search and not is_finished(job, store):
                waiting.insert(0, job)  # a search whose trial crashed goes on with its next trial

        def handle(message: dict[str, Any]) -> None:
            if message["event"] == "ready":
                worker.is_ready = True
            elif message["event"] == "ended":
                reason = worker.last_stderr_line() or "it printed no reason"
                if not worker.is_ready:
                    raise StoreError(f"the worker process ended with code {message['code']}: {reason}")
                for job in list(running.values()):
                    crash(job, message["code"], reason)
                worker.is_ready = False
                if waiting:
                    worker.start()
            elif message["event"] == "notice":
                notice(message["text"])
            elif message["job_id"] in running:
                job = running[message["job_id"]]
                if message["event"] == "progress":
                    on_event(Event("progress", job, share=message["share"]))
                elif message["event"] == "stopped" and not is_finished(job, store):
                    go_on_later(job)
                elif message["event"] == "crashed" and message.get("reason"):
                    finish(job, message["reason"])
                elif message["event"] == "crashed":
                    crash(job, message["code"], "see workers.log")
                else:
                    finish(job)

        def num_training() -> int:
            return sum(isinstance(job.run.config, GradientConfig) for job in list(running.values()))

        self._gpu_load = self._gpu_load or GpuLoad()
        is_one_encoder = len({job.run.model for job in jobs if job.run.model}) == 1
        try:
            with self._gpu_load.measuring(slots.gpus if is_one_encoder else (), self._largest_model, num_training):
                while waiting or running:
                    while worker.is_ready and waiting and len(running) < slots.workers:
                        job = waiting.pop(0)
                        places[job.job_id] = gpu = slots.free_gpu(places[job_id] for job_id in running)
                        worker.submit(_message(job, store, slots, int(job.job_id in killed), gpu))
                        running[job.job_id] = job
                        on_event(Event("started", job))
                    handle(worker.next_message())
        except (KeyboardInterrupt, StopRequested):
            is_stopping = True
            notice("stopping: running jobs end their step and store where they are; once more stops at once")
            worker.request_stop()
            while running and worker.is_ready:
                message = worker.next_message()
                if message["event"] != "ended":
                    handle(message)
                else:
                    break
            raise


def _message(job: Job, store: StudyStore, slots: Slots, halvings: int, gpu: str) -> dict[str, Any]:
    """Return a job as the worker process reads it (worker.py)."""
    from tuneoff.cache import checks_folder

    return {
        "job_id": job.job_id,
        "job": job.model_dump(mode="json"),
        "threads": slots.threads,
        "devices": slots.devices,
        "halvings": halvings,
        "gpu": gpu,
        "folder": str(store.folder),
        "log": str(store.log),
        "checks": checks_folder(),
    }


def describe_exit(code: int, reason: str, is_second: bool = False) -> str:
    """Return the reason of a crash. reason: last line of the process' standard error, or where it is."""
    if code == KILLED:
        twice = " twice, the second time in smaller micro-batches," if is_second else ","
        return f"the job's process was killed{twice} probably out of memory; try fewer workers or a smaller batch_size"
    return f"the job's process ended with code {code}: {reason}"
