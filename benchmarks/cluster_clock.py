"""Machines on a clock of their own, for cluster.py: they take jobs from the real loop and run them for a stored time.

The clock advances by what the loop and everything that it calls take in this process, measured as they run, by the
stated costs of calls of Ray, which are not made, and by waiting for the next event. Machines start jobs, end them, slow
down and die by events of this clock, and keep checkpoints for each other as execute/keeping.py does. Records that come
back are real folders of stored runs, unpacked and read.
"""

import heapq
import itertools
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tuneoff.engine.resume import usual_interval
from tuneoff.execute.cluster import report_seconds
from tuneoff.execute.dispatch import LOST
from tuneoff.execute.local import KILLED
from tuneoff.execute.parcels import unpack
from tuneoff.runs import StudyStore
from tuneoff.spec.run import Job

POLL_SECONDS = 0.2  # that a wait lasts at most, as in execute/cluster.py


@dataclass(frozen=True)
class Costs:
    """Seconds that Ray takes, of the study's own process unless it says otherwise; cluster.py measures them."""

    submit: float = 1e-4  # of a task
    wait: float = 1e-4  # for jobs that end
    wait_per_job: float = 1e-6  # more, for each that runs
    fetch: float = 1e-3  # of the reports
    fetch_per_report: float = 1e-5
    get: float = 5e-4  # of a result
    start: float = 0.3  # on a machine, from a free core to a job that trains, and from its end to a free core
    bytes_per_second: float = 1.25e8  # of the network of each machine: 1 Gbit/s, not measured


@dataclass(frozen=True)
class Faults:
    """What goes wrong."""

    slow_machines: float = 0.0  # share
    slowness: float = 2.0  # times as long as on others
    dying_machines: float = 0.0  # share, each at some time of the study; none comes back
    killed_runs: float = 0.0  # share of tries that are killed at some time, as for lack of memory
    notice_seconds: float = 30.0  # until the death of a machine is noticed: of one that vanishes; Ray's health check


@dataclass(frozen=True)
class Training:
    """What is known of the training of a strategy's runs."""

    share: float = 1.0  # of a run's seconds; what follows it is made again by each try
    checkpoint_bytes: float = 0.0  # 0: it has none


@dataclass
class _Machine:
    slowness: float = 1.0
    is_alive: bool = True
    task: "_Task | None" = None


@dataclass(eq=False)
class _Task:
    handle: int
    job: Job
    job_id: str
    machine: int = -1
    outcome: tuple[str, int] = ("", 0)
    is_over: bool = False
    began: float = 0.0
    first_share: float = 0.0  # of the training that its checkpoint had


@dataclass
class Tally:
    """What happened."""

    busy_seconds: float = 0.0  # of the study's own process
    num_loops: int = 0
    num_reports: int = 0
    num_deaths: int = 0
    num_killed: int = 0
    num_copies: int = 0
    num_resumed: int = 0  # tries that went on from a checkpoint
    recovery_seconds: list[float] = field(default_factory=list)  # from a death until the lost job starts elsewhere
    bytes_received: int = 0


class ClockMachines:
    """Machines of one slot each."""

    def __init__(
        self,
        store: StudyStore,
        seconds: Mapping[str, float],
        parcels: Mapping[str, bytes],
        num_machines: int,
        costs: Costs,
        faults: Faults,
        rng: np.random.Generator,
        trainings: Mapping[str, Training],
    ) -> None:
        """seconds: of each job on a machine that is not slow. parcels: what comes back, by strategy, as trainings."""
        self.now, self.tally = 0.0, Tally()
        self._store, self._seconds, self._parcels, self._costs, self._faults = store, seconds, parcels, costs, faults
        self._rng, self._left, self._trainings = rng, time.perf_counter(), trainings
        self._kept: dict[str, tuple[float, int]] = {}  # share of a run's training, and the machine that keeps it
        slow, dying = (rng.permutation(num_machines) for _ in range(2))
        self._machines = [_Machine() for _ in range(num_machines)]
        for index in slow[: round(faults.slow_machines * num_machines)]:
            self._machines[index].slowness = faults.slowness
        self._free, self._pending = deque(range(num_machines)), deque[_Task]()
        self._tasks: dict[int, _Task] = {}
        self._died: dict[str, float] = {}  # time of the death that a job waits to be started again after
        self._ended: list[int] = []
        self._reports: list[dict[str, Any]] = []
        self._num_kept = 0  # reports of checkpoints
        self._events: list[tuple[float, int, str, Any]] = []
        self._numbers, self._handles = itertools.count(), itertools.count()
        self._link_free, self._report_seconds = 0.0, report_seconds(num_machines)
        expected = sum(seconds.values()) / num_machines
        for index in dying[: round(faults.dying_machines * num_machines)]:
            self._at(float(rng.uniform(0, expected)), "die", int(index))

    def _at(self, when: float, kind: str, what: Any) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), kind, what))

    def _enter(self, cost: float = 0.0) -> None:
        """Charge what the loop has done since the last call, and the cost of this one."""
        spent = time.perf_counter() - self._left + cost
        self.now += spent
        self.tally.busy_seconds += spent

    def _leave(self) -> None:
        self._left = time.perf_counter()

    def start(self) -> None:
        """Start the clock."""
        self._leave()

    # ---- what the loop calls

    def clock(self) -> float:
        """Return the time."""
        return self.now + time.perf_counter() - self._left

    def kept(self, job: Job) -> float:
        """Return the share of a job's training that is kept."""
        return self._kept.get(job.job_id, (0.0, 0))[0]

    def forget(self, job: Job) -> None:
        """Forget what is kept of a job."""
        self._kept.pop(job.job_id, None)

    def submit_copy(self, job: Job, halvings: int) -> int:
        """Queue a copy of a job; the machine of the job itself is not free."""
        self.tally.num_copies += 1
        return self.submit(job, halvings)

    def drop(self, job: Job, handles: Sequence[int]) -> None:
        """End the copies of a job that has ended."""
        self._enter(self._costs.submit)
        for task in map(self._tasks.pop, handles):
            if task in self._pending:
                self._pending.remove(task)
            elif not task.is_over:
                self._release(task)
        self._leave()

    def submit(self, job: Job, halvings: int) -> int:
        """Queue a job, as Ray does."""
        self._enter(self._costs.submit)
        task = _Task(next(self._handles), job, job.job_id)
        self._tasks[task.handle] = task
        self._pending.append(task)
        self._place()
        self._leave()
        return task.handle

    def wait(self, handles: Sequence[int]) -> Sequence[int]:
        """Let time pass until a job has ended, at most POLL_SECONDS."""
        self._enter(self._costs.wait + self._costs.wait_per_job * len(handles))
        self.tally.num_loops += 1
        deadline = self.now + POLL_SECONDS
        while self._events and self._events[0][0] <= (self.now if self._ended else deadline):
            when, _, kind, what = heapq.heappop(self._events)
            self.now = max(self.now, when)
            getattr(self, f"_{kind}")(what)
        if not self._ended:
            self.now = deadline
        ended, self._ended = self._ended, []
        self._leave()
        return ended

    def reports(self) -> Sequence[Mapping[str, Any]]:
        """Return what the machines have reported."""
        num_reports = len(self._reports) + self._num_kept
        self._enter(self._costs.fetch + self._costs.fetch_per_report * num_reports)
        self.tally.num_reports += num_reports
        reports, self._reports, self._num_kept = self._reports, [], 0
        self._leave()
        return reports

    def collect(self, job: Job, handle: int) -> tuple[str, int]:
        """Store the folder that comes back, as cluster.py does."""
        self._enter(self._costs.get)
        task = self._tasks.pop(handle)
        self._leave()
        if not task.outcome[0]:
            parcel = self._parcels[job.run.strategy.name]
            self._store.runs.adopt(task.job_id, lambda folder: unpack(parcel, folder))
            self.tally.bytes_received += len(parcel)
        return task.outcome

    def cancel(self, handles: Sequence[int]) -> None:
        """Stop the clock."""
        self._enter()

    def reconnect(self) -> None:
        """Never: the connection is not lost."""
        raise AssertionError

    # ---- what happens

    def _place(self) -> None:
        while self._pending and self._free:
            index = self._free.popleft()
            machine = self._machines[index]
            if not machine.is_alive:
                continue
            task = self._pending.popleft()
            machine.task, task.machine = task, index
            begins = self.now + self._costs.start
            training, whole = self._training(task), self._seconds[task.job_id] * machine.slowness
            share, keeper = self._kept.get(task.job_id, (0.0, 0))
            if share and self._machines[keeper].is_alive:
                task.first_share = share
                self.tally.num_resumed += 1
                begins += training.checkpoint_bytes / self._costs.bytes_per_second
            length = whole * (1 - training.share * task.first_share)
            self._at(begins, "begin", task)
            if self._rng.random() < self._faults.killed_runs:
                self._at(begins + length * self._rng.random(), "kill", task)
            self._at(begins + length, "end", task)

    def _begin(self, task: _Task) -> None:
        if task.is_over:
            return
        task.began = self.now
        if task.job_id in self._died:
            self.tally.recovery_seconds.append(self.now - self._died.pop(task.job_id))
        self._reports.append({"kind": "started", "job_id": task.job_id, "machine": f"machine {task.machine}"})
        self._at(self.now + self._report_seconds, "progress", task)
        if size := self._training(task).checkpoint_bytes:
            self._at(self.now + usual_interval(size), "checkpoint", task)

    def _training(self, task: _Task) -> Training:
        return self._trainings[task.job.run.strategy.name]

    def _share(self, task: _Task) -> float:
        """Return the share of a task's training that is done now."""
        seconds = self._seconds[task.job_id] * self._machines[task.machine].slowness * self._training(task).share
        return min(1.0, task.first_share + (self.now - task.began) / seconds)

    def _checkpoint(self, task: _Task) -> None:
        share, size = self._share(task), self._training(task).checkpoint_bytes
        if not task.is_over and share < 1:
            self._at(self.now + size / self._costs.bytes_per_second, "sent", (task, share))
            self._at(self.now + usual_interval(size), "checkpoint", task)

    def _sent(self, sent: tuple[_Task, float]) -> None:
        task, share = sent
        following = (task.machine + np.arange(1, len(self._machines))) % len(self._machines)
        keeper = next((int(index) for index in following if self._machines[index].is_alive), task.machine)
        if not task.is_over:
            self._kept[task.job_id] = share, keeper
            self._num_kept += 1

    def _progress(self, task: _Task) -> None:
        if not task.is_over:
            self._reports.append({"kind": "progress", "job_id": task.job_id, "share": self._share(task)})
            self._at(self.now + self._report_seconds, "progress", task)

    def _end(self, task: _Task) -> None:
        if not task.is_over:
            self._release(task)
            # one after another through the network of the study's machine
            size = len(self._parcels[task.job.run.strategy.name])
            self._link_free = max(self._link_free, self.now) + size / self._costs.bytes_per_second
            self._at(self._link_free, "arrive", task)

    def _kill(self, task: _Task) -> None:
        if not task.is_over:
            self.tally.num_killed += 1
            task.outcome = ("the job's process was killed", KILLED)
            self._release(task)
            self._arrive(task)

    def _die(self, index: int) -> None:
        machine = self._machines[index]
        machine.is_alive = False
        self.tally.num_deaths += 1
        if machine.task:
            machine.task.is_over, machine.task.outcome = True, ("its machine died", LOST)
            self._died[machine.task.job_id] = self.now
            self._at(self.now + self._faults.notice_seconds, "arrive", machine.task)
            machine.task = None

    def _release(self, task: _Task) -> None:
        task.is_over = True
        self._machines[task.machine].task = None
        self._free.append(task.machine)
        self._place()

    def _arrive(self, task: _Task) -> None:
        self._ended.append(task.handle)
