"""Progress of a study in the terminal: one bar with an ETA for the whole study, and one per running job."""

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from tuneoff.cli.opening import opening
from tuneoff.cli.output import visible
from tuneoff.execute.estimate import Estimate, expected_seconds
from tuneoff.execute.executor import Event
from tuneoff.formats import counted, encoder_names, join_names, rough_seconds, seconds
from tuneoff.plan import Plan
from tuneoff.runs import OK, RunRecord
from tuneoff.scoring.metrics import display_name
from tuneoff.search.record import SearchRecord
from tuneoff.spec.run import Job
from tuneoff.strategies.base import format_option

_MIN_SECONDS = 5.0  # of a job, before its speed replaces that of earlier studies
_GUESSED_SPEED = 1e11  # operations per second; before a speed is known, for the bar alone
_MAX_BARS = 20  # of running jobs, of which a cluster may have thousands
_MANY = 100  # jobs, from which on the whole is computed no more than once in a while: it takes milliseconds
_WHOLE_SECONDS = 0.5


class StudyProgress:
    """Shows a study's events: live in a terminal, elsewhere one line per finished job.

    has_opening: print first lines about the data and the plan (opening.py).
    """

    def __init__(self, console: Console, name: str, has_opening: bool = True) -> None:
        self._console = console
        self._has_opening = has_opening
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not _draws_bars(console),  # it would print empty lines
        )
        self._whole = self._bars.add_task(f"[bold]{escape(name)}[/bold]", total=1.0, note="loading data")
        self._plan: Plan | None = None
        self._estimates: dict[str, Estimate] = {}  # job id -> estimate, also of finished jobs
        self._shares: dict[str, float] = {}  # job id -> share that is done
        self._started: dict[str, float] = {}  # job id -> time
        self._seconds: dict[str, float] = {}  # job id -> time that it has taken so far
        self._named: dict[int, tuple[Job, str, str]] = {}  # by identity, with the job, so that it stays the same one
        self._tasks: dict[str, TaskID] = {}
        self._machines: dict[str, str] = {}  # job id -> machine of a cluster, of running jobs
        self._next_whole = 0.0  # time at which the study's bar changes again
        self._stopped: dict[str, str] = {}  # job id -> title, of jobs that stopped without a record

    def __enter__(self) -> "StudyProgress":
        self._bars.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end()

    def end(self) -> None:
        """Remove the bars: what is printed next is the result."""
        for task in self._bars.task_ids:
            self._bars.remove_task(task)
        self._bars.stop()

    def on_plan(self, plan: Plan) -> None:
        """Start counting the jobs of a plan. Called again with the options that searches gave the runs."""
        finished = {job_id: e for job_id, e in self._estimates.items() if self._shares.get(job_id) == 1.0}
        if self._plan is None and self._has_opening:
            for line in opening(plan):
                self._console.print(visible(line), soft_wrap=not self._console.is_terminal)
        if any(e.job.run.final for e in plan.estimates):
            self._console.print("training the pick on all labelled examples")
        self._plan, self._estimates = plan, finished | {e.job.job_id: e for e in plan.estimates}
        self._bars.update(self._whole, note=self._note())

    def on_event(self, event: Event) -> None:
        """Show an event."""
        job_id, title = self._names(event.job)
        self._shares[job_id] = event.share
        self._seconds[job_id] = time.monotonic() - self._started.setdefault(job_id, time.monotonic())
        if event.kind == "started":
            self._stopped.pop(job_id, None)
            if event.machine:
                self._machines[job_id] = event.machine
            if len(self._tasks) < _MAX_BARS:
                note = f"on {visible(event.machine)}" if event.machine else ""
                self._tasks[job_id] = self._bars.add_task(f"  {escape(title)}", total=1.0, note=note)
        elif event.kind == "progress":
            if job_id in self._tasks:
                self._bars.update(self._tasks[job_id], completed=event.share)
        elif event.kind == "stopped":
            self._remove(job_id)
            self._stopped[job_id] = title
            if event.note:
                self._console.print(f"{escape(title)}: {visible(event.note)}")
        elif event.record is not None:
            self._remove(job_id)
            is_search = isinstance(event.record, SearchRecord)
            line = _search_line(event.record) if is_search else _run_line(event.record, event.job.run.metric)  # type: ignore[arg-type]
            where = f", on {visible(event.machine)}" if event.machine else ""
            self._console.print(f"{escape(title)}: {line}{where}")
        if len(self._estimates) < _MANY or time.monotonic() > self._next_whole:
            self._bars.update(self._whole, completed=self._share_done(), note=self._note())
            self._next_whole = time.monotonic() + _WHOLE_SECONDS

    def _names(self, job: Job) -> tuple[str, str]:
        """Return the id and the title of a job, computed once for each: a cluster reports fifty times a second."""
        if id(job) not in self._named:
            encoders = encoder_names(self._plan.spec.model) if self._plan else {}
            self._named[id(job)] = job, job.job_id, job.title_among(encoders)
        return self._named[id(job)][1:]

    def _remove(self, job_id: str) -> None:
        self._machines.pop(job_id, None)
        if job_id in self._tasks:  # it was stopped before it was announced
            self._bars.remove_task(self._tasks.pop(job_id))

    def stopped_line(self, folder: Path, has_checkpoint: Callable[[str], bool]) -> str:
        """Describe what a study that was stopped keeps, and how it goes on. has_checkpoint: of a job by its id."""
        if self._plan is None:
            return f"Stopped before the first job. The same command, or tuneoff run {folder}, starts again."
        kept = (
            f"{sum(share >= 1.0 for share in self._shares.values())} of {counted(len(self._estimates), 'job')} stored"
        )
        unfinished = [title for job_id, title in self._stopped.items() if has_checkpoint(job_id)]
        if unfinished:
            kept += f", {join_names(unfinished)} with a checkpoint"
        return f"Stopped: {kept}. The same command goes on."

    def _share_done(self) -> float:
        """Return the share of the expected time of all jobs that is done."""
        speed = self._speed or _GUESSED_SPEED  # once: it looks at all jobs
        seconds_of = {job_id: e.seconds(speed) for job_id, e in self._estimates.items()}
        done = sum(seconds * self._shares.get(job_id, 0.0) for job_id, seconds in seconds_of.items())
        return done / max(1e-9, sum(seconds_of.values()))

    def _note(self) -> str:
        finished = sum(share >= 1.0 for share in self._shares.values())
        note, left = f"{finished} of {len(self._estimates)}", self._seconds_left()
        if self._machines:
            note += f", {len(self._machines)} running on {counted(len(set(self._machines.values())), 'machine')}"
        return note + (f", about {rough_seconds(left)} left" if left else "")

    def _seconds_left(self) -> float | None:
        """Return the expected time until all jobs are done; None without a speed."""
        speed = self._speed
        if self._plan is None or speed is None:
            return None
        left = [(e, (1 - self._shares.get(job_id, 0.0)) * e.seconds(speed)) for job_id, e in self._estimates.items()]
        return expected_seconds(left, self._plan.slots.workers) + self._plan.final_seconds(speed)

    @property
    def _speed(self) -> float | None:
        """Operations per second of one job: of this study's largest so far, else of earlier studies."""
        timed = [
            (e.operations * self._shares.get(job_id, 0.0), self._seconds[job_id])
            for job_id, e in self._estimates.items()
            if job_id in self._seconds and e.job.run.model and not (e.job.search and e.job.search.budget)
        ]
        operations, elapsed = max(timed, default=(0.0, 0.0))
        if operations > 0 and elapsed >= _MIN_SECONDS:
            return operations / elapsed
        return self._plan.speed if self._plan else None


def _draws_bars(console: Console) -> bool:
    """Return True in a terminal, and in a notebook with ipywidgets, which rich needs to redraw an output."""
    return console.is_terminal or (console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None)


def _run_line(record: RunRecord, metric: str) -> str:
    if record.status != OK:
        return f"[red]{record.status}[/red]"
    took = seconds(record.costs["run_seconds"])
    if "validation" not in record.metrics:  # it trained on all labelled examples
        return took
    return f"validation {display_name(metric)} {record.metrics['validation'][metric]:.3f}, {took}"


def _search_line(record: SearchRecord) -> str:
    best, num_trials, elapsed = record.best, len(record.trials), seconds(record.seconds)
    if best is None or best.score is None:
        failed = "the only trial failed" if num_trials == 1 else f"all {num_trials} trials failed"
        return f"[red]{failed}[/red], {elapsed}"
    options = ", ".join(f"{display_name(option)} {format_option(value)}" for option, value in best.options.items())
    return f"{options} (best of {num_trials}), validation {display_name(record.metric)} {best.score:.3f}, {elapsed}"
