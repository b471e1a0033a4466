"""Loop that gives jobs to machines that may die: what runs next, and what follows a job that is lost.

It knows the machines by a protocol only: cluster.py has those of Ray, and benchmarks/cluster.py drives the same loop on
a clock of its own, with the durations of runs in place of runs. A job whose machine dies is submitted again with what
is stored by then: a search goes on with its next trial, a run from its checkpoint. A job that kills its process, or
loses its machine, three times is failed.

A run that is slow where it runs, so slow that it would end after all that waits, is run a second time elsewhere, and
what ends first counts: both give the same results. Otherwise the last runs of a large study may end on its slow
machines (docs/benchmarks.md). MapReduce calls this backup tasks (Dean & Ghemawat, OSDI 2004, section 3.6).
"""

import math
import statistics
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from tuneoff.execute.executor import Event
from tuneoff.execute.job import is_finished, record_crash, stored_record
from tuneoff.execute.local import KILLED, LOST
from tuneoff.runs import StudyStore
from tuneoff.search.record import SearchRecord
from tuneoff.spec.run import Job

_MAX_CRASHES = 3  # of the process or the machine of one job; then it is stored as failed
# a run is slow if it will take longer than so many usual ones, and at least so many seconds more than one
_SLOW, _SLOW_SECONDS = 1.2, 10.0
_TELLING_SHARE = 0.1  # of a run, after which its progress tells how long it takes
_LOOK_SECONDS = 1.0  # between two looks for slow runs
_FAR = 2.0  # usual runs: a longer rest of the study is no time to look for slow ones, which takes a while
_LEAST_SHARE = 0.1  # of a usual run that one takes which goes on from the end of its training
_LENGTHS = 25  # the last runs of a strategy, whose median is the usual one


class ConnectionLost(Exception):
    """No machine can be reached any more: every job that runs on one is lost."""


class Machines(Protocol):
    """Machines that run jobs. Every method but cancel may raise ConnectionLost."""

    def clock(self) -> float:
        """Return the time in seconds."""

    def submit(self, job: Job, halvings: int) -> Hashable:
        """Send a job to whatever machine has room, at once or later, and return a handle of it."""

    def submit_copy(self, job: Job, halvings: int) -> Hashable | None:
        """Send a job that runs to another machine too. Returns a handle of the copy; None if there is no way."""

    def wait(self, handles: Sequence[Any]) -> Sequence[Any]:
        """Wait a moment for jobs to end, and return the handles of those that have."""

    def kept(self, job: Job) -> float:
        """Return the share of a run that its checkpoint has, from which its next try goes on; 0 without one."""

    def reports(self) -> Sequence[Mapping[str, Any]]:
        """Return what the machines report of running jobs: that they started, their progress, and trials."""

    def collect(self, job: Job, handle: Any) -> tuple[str, int]:
        """Store the record of a job that ended. Returns the reason of a crash, or "", and the exit code."""

    def forget(self, job: Job) -> None:
        """Remove what is kept of a job that has ended."""

    def drop(self, job: Job, handles: Sequence[Any]) -> None:
        """End what still runs of a job that has ended."""

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
    started: float = 0.0  # by the clock of the machines
    share: float = 0.0  # that is done
    begin: float = 0.0  # share from which this try went on
    handles: list[Hashable] = field(default_factory=list)  # of the job, and of its copy
    copy: Hashable | None = None
    is_copied: bool = False  # or cannot be
    copy_machine: str = ""

    @cached_property
    def group(self) -> str:
        """Id shared by the runs of all seeds or folds; empty for a search, whose length says nothing of others."""
        return "" if self.job.is_search else self.job.run.group


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
        self._num_waiting = Counter(task.group for task in self._waiting)  # by group
        self._running: dict[Any, _Task] = {}  # by handle
        self._next_look = 0.0  # for slow runs, by the clock of the machines
        self._by_id: dict[str, _Task] = {}  # those that run
        self._lengths: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_LENGTHS))  # seconds, by group

    def run(self) -> None:
        """Run all jobs in order, and store the record of each."""
        try:
            while self._waiting or self._running:
                try:
                    self._step()
                except ConnectionLost as error:
                    for task in reversed(list(self._by_id.values())):
                        self._go_on_later(task, str(error))
                    self._running.clear()
                    self._machines.reconnect()
        finally:
            self._machines.cancel(list(self._running))

    def _step(self) -> None:
        self._copy_slow_runs()
        while self._waiting and len(self._running) < self._workers:
            task = self._waiting[0]
            task.begin = task.share = self._machines.kept(task.job)
            self._add(task, self._machines.submit(task.job, int(task.was_killed)))
            self._by_id[task.job_id] = task
            self._num_waiting[self._waiting.popleft().group] -= 1
        ended = self._machines.wait(list(self._running))
        for report in self._machines.reports():
            self._pass_on(report)
        for handle in ended:
            if handle not in self._running:  # dropped, because a copy ended at the same time
                continue
            task = self._running[handle]
            crash, code = self._machines.collect(task.job, handle)
            del self._running[handle]
            if handle == task.copy and not crash:
                task.machine = task.copy_machine
            task.handles.remove(handle)
            self._end(task, crash, code)

    def _add(self, task: _Task, handle: Hashable) -> None:
        self._running[handle] = task
        task.handles.append(handle)

    def _copy_slow_runs(self) -> None:
        """Run what is slow a second time, as far as there is room, before what waits."""
        now = self._machines.clock()
        if len(self._running) >= self._workers or now < self._next_look:
            return
        self._next_look = now + _LOOK_SECONDS
        usual = {group: statistics.median(lengths) for group, lengths in self._lengths.items()}
        rest = sum(count * usual.get(group, math.inf) for group, count in self._num_waiting.items() if count)
        rest /= self._workers  # seconds that the others have work for
        if not usual or rest > _FAR * max(usual.values()):
            return
        slow = [task for task in self._by_id.values() if task.group in usual and self._is_slow(task, now, usual, rest)]
        for task in slow[: self._workers - len(self._running)]:
            task.copy = self._machines.submit_copy(task.job, int(task.was_killed))
            task.is_copied = True
            if task.copy is not None:
                self._add(task, task.copy)

    def _is_slow(self, task: _Task, now: float, usual: Mapping[str, float], rest: float) -> bool:
        """Tell whether a run will be the last to end, and another machine would end it much sooner.

        usual: seconds of a run, by group. rest: seconds that all that waits will take. Searches are not copied: their
        trials come back.
        """
        if not task.is_started or task.is_copied:
            return False
        whole, elapsed, done_here = usual[task.group], now - task.started, task.share - task.begin
        if done_here >= _TELLING_SHARE:
            left = elapsed * (1 - task.share) / done_here
        else:
            left = elapsed - whole * max(1 - task.begin, _LEAST_SHARE)
        elsewhere = whole * max(1 - self._machines.kept(task.job), _LEAST_SHARE)
        return left > max(_SLOW * elsewhere, elsewhere + _SLOW_SECONDS, rest)

    def _pass_on(self, report: Mapping[str, Any]) -> None:
        task = self._by_id.get(report["job_id"])
        if task is None:  # a report that came after the job's end
            return
        if report["kind"] == "started":
            if task.is_started:
                task.copy_machine = report["machine"]
            else:
                task.machine, task.started = report["machine"], self._machines.clock()
                self._announce(task)
        elif report["kind"] == "progress":
            if report["share"] < task.begin and not task.is_copied:  # its checkpoint could not be used
                task.begin = task.share = report["share"]
            task.share = max(task.share, report["share"])
            self._on_event(Event("progress", task.job, share=task.share, machine=task.machine))
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
        if crash and task.handles:  # its copy runs on, or what it is a copy of
            return
        if task.handles:
            self._machines.drop(job, task.handles)
            for handle in task.handles:
                del self._running[handle]
            task.handles.clear()
        # a search whose process dies is stored with a failed trial, which may be the reason
        if crash and task.num_crashes < _MAX_CRASHES and (code == LOST or not job.is_search):
            self._go_on_later(task, crash)
            return
        del self._by_id[task.job_id]
        if task.group and not crash and task.started and not task.is_copied and not task.begin:
            self._lengths[task.group].append(self._machines.clock() - task.started)
        record = record_crash(job, store, crash) if crash else stored_record(job, store)
        self._on_event(Event("done", job, share=1.0, record=record, machine=task.machine))
        task.is_started = False
        self._machines.forget(job)
        if crash and job.is_search and not is_finished(job, store):
            self._wait(task)  # a search whose trial crashed goes on with its next trial

    def _go_on_later(self, task: _Task, reason: str) -> None:
        del self._by_id[task.job_id]
        if task.is_started:
            self._on_event(Event("stopped", task.job, note=f"{reason}; it runs again", machine=task.machine))
        task.is_started, task.machine, task.started, task.share = False, "", 0.0, 0.0
        task.handles.clear()
        task.copy, task.is_copied, task.copy_machine = None, False, ""
        self._wait(task)

    def _wait(self, task: _Task) -> None:
        self._waiting.appendleft(task)
        self._num_waiting[task.group] += 1
