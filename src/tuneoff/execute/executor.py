"""Executor protocol: run jobs somewhere and report events. The local one uses this machine's cores."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from tuneoff.runs import RunRecord, StudyStore
from tuneoff.search.record import SearchRecord
from tuneoff.spec.run import Job


@dataclass(frozen=True)
class Event:
    """A job started, made progress, ended (with its stored record), or stopped without one, to go on later."""

    kind: Literal["started", "progress", "done", "stopped"]
    job: Job
    share: float = 0.0  # of the job that is done, 0 to 1
    record: RunRecord | SearchRecord | None = None
    note: str = ""  # of a job that stopped: why
    machine: str = ""  # that runs the job, of a cluster; empty: this one


@dataclass(frozen=True)
class Slots:
    """Jobs at once, and threads of each.

    Fixed for the whole grid of a study, whatever part of it is missing: times stay comparable, and a run that is added
    later has as many threads as its siblings and so gives the same bits.
    """

    workers: int
    threads: int  # with several devices, of each of them
    cores: int = 0  # of the machine, for all of them together; 0: as many as they have threads
    devices: int = 1  # on which a job trains
    gpus: tuple[str, ...] = ()  # of each job at once, as CUDA_VISIBLE_DEVICES names it; empty: jobs see all GPUs
    machines: int = 1  # of a cluster

    @property
    def devices_text(self) -> str:
        """Text for plans: nothing for one device."""
        return f" on {self.devices} devices each" if self.devices > 1 else ""

    def with_threads(self, threads: int, keeps_workers: bool) -> "Slots":
        """Return slots with another number of threads, at most that of the cores, and no more workers than they allow.

        Stored runs have had that number: how many fit depends on memory that is free at the moment, and sums on the
        number of threads. keeps_workers: the user has chosen their number.
        """
        cores = (self.cores or self.workers * self.threads * self.devices) // self.devices
        threads = min(threads, max(1, cores))
        fitting = max(1, min(self.workers, cores // threads))
        workers = self.workers if keeps_workers else fitting
        return replace(self, workers=workers, threads=threads, gpus=self.gpus[:workers])

    def free_gpu(self, used: Iterable[str]) -> str:
        """Return the GPU of the next job. used: those of the running jobs."""
        free = Counter(self.gpus) - Counter(used)
        return next((gpu for gpu in self.gpus if gpu in free), "")


class Executor(Protocol):
    """Something that runs jobs."""

    def slots(self, num_jobs: int, largest_model: int, requested: int | None = None, devices: int = 1) -> Slots:
        """Return the number of jobs at once, and of threads of each, for the whole grid of a study.

        num_jobs: runs of the grid. largest_model: parameters of its largest model. requested: the study's own number
        of jobs at once; None leaves it to the executor. devices: on which a job trains.
        Raises ConfigError for more devices than there are.
        """

    def execute(self, jobs: Sequence[Job], store: StudyStore, slots: Slots, on_event: Callable[[Event], None]) -> None:
        """Run jobs in order, as many at once as there are slots, and store the record of each.

        A job that fails, or whose process dies, is stored as failed; the other jobs go on. KeyboardInterrupt and
        StopRequested pass, once every running job has ended its step and stored its checkpoint.
        """
