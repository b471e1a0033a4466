"""What a user sees while a study runs: one bar with an ETA for the whole, a line for each run at work."""

import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn

from tuneoff.estimate import Estimate
from tuneoff.execute.local import Event
from tuneoff.formats import seconds
from tuneoff.metrics import spoken
from tuneoff.runs import OK
from tuneoff.search import SearchRecord
from tuneoff.spec import RunSpec, SearchJob
from tuneoff.strategies.base import short


class StudyProgress:
    """Turns a study's events into a live display; on a plain stream, into a line a finished run."""

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), console=console
        )
        self._whole = self._bars.add_task(f"[bold]{escape(name)}[/bold]", total=1.0, note="loading data")
        self._work: dict[str, float] = {}  # run id -> operations it was expected to need
        self._shares: dict[str, float] = {}
        self._tasks: dict[str, object] = {}
        self._started = time.monotonic()

    def __enter__(self) -> "StudyProgress":
        self._bars.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for task in self._bars.task_ids:
            self._bars.remove_task(task)
        self._bars.stop()

    def on_plan(self, plan: list[Estimate]) -> None:
        """Note how much work each missing run is."""
        self._work = {e.run.run_id: max(e.operations, 1.0) for e in plan}
        self._shares, self._started = {}, time.monotonic()
        searches = sum(isinstance(e.run, SearchJob) for e in plan)
        self._console.print(f"{searches} searches to make" if searches else f"{len(plan)} runs to make")

    def on_event(self, event: Event) -> None:
        """Show what happened."""
        run_id, name = event.run.run_id, event.run.title
        self._shares[run_id] = event.share
        if event.kind == "started":
            self._tasks[run_id] = self._bars.add_task(f"  {escape(name)}", total=1.0, note="")
        elif event.kind == "progress":
            self._bars.update(self._tasks[run_id], completed=event.share)  # type: ignore[arg-type]
        elif event.record is not None:
            self._bars.remove_task(self._tasks.pop(run_id))  # type: ignore[arg-type]
            self._console.print(_outcome(name, event))
        self._bars.update(self._whole, completed=self._done(), note=self._note())

    def _done(self) -> float:
        """Share of the whole study's work that is done."""
        done = sum(self._work.get(run_id, 0.0) * share for run_id, share in self._shares.items())
        return done / max(1.0, sum(self._work.values()))

    def _note(self) -> str:
        finished = sum(share >= 1.0 for share in self._shares.values())
        done, elapsed = self._done(), time.monotonic() - self._started
        left = f", about {seconds(elapsed * (1 - done) / done)} left" if done > 0.02 else ""
        return f"{finished} of {len(self._work)}{left}"


def _outcome(name: str, event: Event) -> str:
    record = event.record
    assert record is not None
    if isinstance(record, SearchRecord):
        return _found(name, record)
    assert isinstance(event.run, RunSpec)
    if record.status != OK:
        return f"[red]{escape(name)}: {record.status}[/red]"
    metric = event.run.metric
    score = record.metrics["validation"][metric]
    return f"{escape(name)}: validation {spoken(metric)} {score:.3f}, {seconds(record.costs['run_seconds'])}"


def _found(name: str, record: SearchRecord) -> str:
    took, best = seconds(sum(trial.seconds for trial in record.trials)), record.best
    if best is None or best.score is None:
        return f"[red]{escape(name)}: all {len(record.trials)} trials failed[/red], {took}"
    options = ", ".join(f"{spoken(option)} {short(value)}" for option, value in best.options.items())
    score = f"validation {spoken(record.metric)} {best.score:.3f}"
    return f"{escape(name)}: {options} of {len(record.trials)} trials, {score}, {took}"
