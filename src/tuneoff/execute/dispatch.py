"""Loop that gives jobs to machines that may die: what runs next, and what follows a job that is lost.

It knows the machines by a protocol only: cluster.py has those of Ray, and benchmarks/cluster.py drives the same loop on
a clock of its own, with the durations of runs in place of runs. A job whose machine dies is submitted again with what
is stored by then, so that a search goes on with its next trial; a job that kills its process, or loses its machine,
three times is failed.
"""

from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tuneoff.execute.executor import Event
from tuneoff.execute.job import is_finished, record_crash, stored_record
from tuneoff.execute.local import KILLED, LOST
from tuneoff.runs import StudyStore
from tuneoff.search.record import SearchRecord
from tuneoff.spec.run import Job

_MAX_CRASHES = 3  # of the process or the machine of one job; then it is stored as failed


class ConnectionLost(Exception):
    """No machine can be reached any more: every job that runs on one is lost."""


class Machines(Protocol):
    """Machines that run jobs. Every method but cancel may raise ConnectionLost."""

    def submit(self, job: Job, halvings: int) -> Hashable:
        """Send a job to whatever machine has room, at once or later, and return a handle of it."""

    def wait(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Wait a moment for jobs to end, and return the handles of those that have."""

    def reports(self) -> Sequence[Mapping[str, Any]]:
        """Return what the machines report of running jobs: that they started, their progress, and trials."""

    def collect(self, job: Job, handle: Any) -> tuple[str, int]:
        """Store the record of a job that ended. Returns the reason of a crash, or "", and the exit code."""

    def cancel(self, handles: Sequence[Any]) -> None:
        """End jobs that run."""

    def reconnect(self) -> None:
        """Connect again after a lost connection. Raises StoreError if that fails."""


@dataclass(eq=False)
class _Task:
    """A job of this loop, and what has happened to it."""

    job: Job
    job_id: str  # which takes as long to compute as all else that a report needs
    num_crashes: int = 0
    was_killed: bool = False
    is_started: bool = False
    machine: str = ""


class Dispatch:
    """Jobs on their way: those that wait and those that run."""

    def __init__(
        self,
        jobs: Sequence[Job],
        machines: Machines,
        store: StudyStore,
        workers: int,
        on_event: Callable[[Event], None],
    ) -> None:
        """workers: jobs at once."""
        self._machines, self._store, self._workers, self._on_event = machines, store, workers, on_event
        self._waiting = deque(_Task(job, job.job_id) for job in jobs)
        self._running: dict[Any, _Task] = {}  # by handle
        self._by_id: dict[str, _Task] = {}  # those that run

    def run(self) -> None:
        """Run all jobs in order, and store the record of each."""
        try:
            while self._waiting or self._running:
                try:
                    self._step()
                except ConnectionLost as error:
                    for task in reversed(list(self._running.values())):
                        self._go_on_later(task, str(error))
                    self._running.clear()
                    self._machines.reconnect()
        finally:
            self._machines.cancel(list(self._running))

    def _step(self) -> None:
        while self._waiting and len(self._running) < self._workers:
            task = self._waiting[0]
            self._running[self._machines.submit(task.job, int(task.was_killed))] = task
            self._by_id[task.job_id] = task
            self._waiting.popleft()
        ended = self._machines.wait(list(self._running))
        for report in self._machines.reports():
            self._pass_on(report)
        for handle in ended:
            task = self._running[handle]
            crash, code = self._machines.collect(task.job, handle)
            del self._running[handle]
            self._end(task, crash, code)

    def _pass_on(self, report: Mapping[str, Any]) -> None:
        task = self._by_id.get(report["job_id"])
        if task is None:  # a report that came after the job's end
            return
        if report["kind"] == "started":
            task.machine = report["machine"]
            self._announce(task)
        elif report["kind"] == "progress":
            self._on_event(Event("progress", task.job, share=report["share"], machine=task.machine))
        else:
            self._store.searches.write(SearchRecord.from_json(report["record"]))

    def _announce(self, task: _Task) -> None:
        if not task.is_started:
            task.is_started = True
            self._on_event(Event("started", task.job, machine=task.machine))

    def _end(self, task: _Task, crash: str, code: int) -> None:
        """Announce what is stored of a job that ended, or wait for another try."""
        job, store = task.job, self._store
        self._announce(task)  # its report is on the way
        task.num_crashes += bool(crash)
        task.was_killed |= code == KILLED
        # a search whose process dies is stored with a failed trial, which may be the reason
        if crash and task.num_crashes < _MAX_CRASHES and (code == LOST or not job.is_search):
            self._go_on_later(task, crash)
            return
        del self._by_id[task.job_id]
        record = record_crash(job, store, crash) if crash else stored_record(job, store)
        self._on_event(Event("done", job, share=1.0, record=record, machine=task.machine))
        task.is_started = False
        if crash and job.is_search and not is_finished(job, store):
            self._waiting.appendleft(task)  # a search whose trial crashed goes on with its next trial

    def _go_on_later(self, task: _Task, reason: str) -> None:
        del self._by_id[task.job_id]
        if task.is_started:
            self._on_event(Event("stopped", task.job, note=f"{reason}; it runs again", machine=task.machine))
        task.is_started, task.machine = False, ""
        self._waiting.appendleft(task)
