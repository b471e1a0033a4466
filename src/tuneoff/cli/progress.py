"""Progress of a study in the terminal: one bar with an ETA for the whole study, and one per running job."""

import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from tuneoff.execute.estimate import Estimate
from tuneoff.execute.executor import Event
from tuneoff.formats import seconds
from tuneoff.runs import OK, RunRecord
from tuneoff.scoring.metrics import display_name
from tuneoff.search.record import SearchRecord
from tuneoff.strategies.base import format_option


class StudyProgress:
    """Shows a study's events: live in a terminal, elsewhere one line per finished job."""

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,  # it would print empty lines
        )
        self._whole = self._bars.add_task(f"[bold]{escape(name)}[/bold]", total=1.0, note="loading data")
        self._operations: dict[str, float] = {}  # job id -> estimate
        self._shares: dict[str, float] = {}  # job id -> share that is done
        self._tasks: dict[str, TaskID] = {}
        self._started = time.monotonic()

    def __enter__(self) -> "StudyProgress":
        self._bars.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for task in self._bars.task_ids:
            self._bars.remove_task(task)
        self._bars.stop()

    def on_plan(self, plan: list[Estimate]) -> None:
        """Start counting the jobs of a plan."""
        self._operations = {e.job.job_id: max(e.operations, 1.0) for e in plan}
        self._shares, self._started = {}, time.monotonic()
        if [e.job.run.final for e in plan] != [None] * len(plan):
            self._console.print("training the pick on all labelled examples")
            return
        kind = "searches" if any(e.job.is_search for e in plan) else "runs"
        self._console.print(f"{len(plan)} {kind} to do")

    def on_event(self, event: Event) -> None:
        """Show an event."""
        job_id, title = event.job.job_id, event.job.title
        self._shares[job_id] = event.share
        if event.kind == "started":
            self._tasks[job_id] = self._bars.add_task(f"  {escape(title)}", total=1.0, note="")
        elif event.kind == "progress":
            self._bars.update(self._tasks[job_id], completed=event.share)
        elif event.record is not None:
            self._bars.remove_task(self._tasks.pop(job_id))
            is_search = isinstance(event.record, SearchRecord)
            line = _search_line(event.record) if is_search else _run_line(event.record, event.job.run.metric)  # type: ignore[arg-type]
            self._console.print(f"{escape(title)}: {line}")
        self._bars.update(self._whole, completed=self._share_done(), note=self._note())

    def _share_done(self) -> float:
        """Return the share of the plan's operations that is done."""
        done = sum(self._operations.get(job_id, 0.0) * share for job_id, share in self._shares.items())
        return done / max(1.0, sum(self._operations.values()))

    def _note(self) -> str:
        finished = sum(share >= 1.0 for share in self._shares.values())
        done, elapsed = self._share_done(), time.monotonic() - self._started
        left = f", about {seconds(elapsed * (1 - done) / done)} left" if done > 0.02 else ""
        return f"{finished} of {len(self._operations)}{left}"


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
        return f"[red]all {num_trials} trials failed[/red], {elapsed}"
    options = ", ".join(f"{display_name(option)} {format_option(value)}" for option, value in best.options.items())
    return f"{options} (best of {num_trials}), validation {display_name(record.metric)} {best.score:.3f}, {elapsed}"
