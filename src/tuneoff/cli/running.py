"""Running a study from the command line: its executor, progress on the screen, its result, and Ctrl-C."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import typer
from rich.console import Console

from tuneoff.cli.imports import end_imports
from tuneoff.cli.output import (
    console,
    error_console,
    print_report,
    print_result,
    print_tracked,
    visible,
)
from tuneoff.errors import ConfigError, StopRequested

if TYPE_CHECKING:
    from tuneoff.comparison.result import Comparison
    from tuneoff.datasets import StudySet
    from tuneoff.execute.executor import Event, Executor
    from tuneoff.race_time import Clock
    from tuneoff.spec.study import StudySpec
    from tuneoff.study import Study
    from tuneoff.trackers import Tracked

    OnEvent = Callable[[Event], None]


@contextmanager
def started_executor(on: str | None = None) -> "Iterator[Executor]":
    """Start the worker process, which imports what jobs need while this process imports the rest.

    on: address of a Ray cluster that runs the jobs instead; None for this machine.
    """
    if on:
        from tuneoff.execute.cluster import RayExecutor

        with RayExecutor(on) as cluster:
            yield cluster
        return
    from tuneoff.execute.local import LocalExecutor

    with LocalExecutor() as executor:
        yield executor


def run_study_on_screen(
    spec: "StudySpec",
    folder: Path | None,
    executor: "Executor",
    replace: bool,
    as_json: bool,
    quiet: bool,
    copy_to: str | None = None,
) -> None:
    """Run a study, and print its result. copy_to: address of a copy of its folder."""
    from tuneoff.cli.stored import print_orphans
    from tuneoff.race_time import Clock
    from tuneoff.study import RESULTS, Study

    study = Study(spec, folder or RESULTS / spec.name)
    end_imports()
    screen = Console(quiet=True) if quiet else error_console if as_json else console
    tracked: list[Tracked] = []
    show = lambda comparison: print_result(comparison, study.folder, as_json, quiet)  # noqa: E731
    # a user's time starts with the command, imports included
    clock = Clock(started=time.monotonic() - max(0.0, time.time() - psutil.Process().create_time()))
    with _mirror(copy_to, study.folder) as watched:
        comparison = _completed(study, executor, replace, screen, not as_json, tracked, show, clock, watched)
    print_report(comparison, study.folder, as_json, quiet)
    for result in tracked:
        print_tracked(result, error_console if quiet and result.error else screen)
    print_orphans(study.folder, screen)
    if comparison.failures and not comparison.rows:
        raise typer.Exit(1)


@contextmanager
def _mirror(address: str | None, folder: Path) -> "Iterator[Callable[[OnEvent], OnEvent]]":
    """A context in which a study's folder is copied. Yields what wraps the function that is called for each event."""
    if address is None:
        yield lambda on_event: on_event
        return
    from tuneoff.mirror import Mirror

    with Mirror(address, folder) as mirror:
        yield mirror.watched


def _completed(
    study: "Study",
    executor: "Executor",
    replace: bool,
    screen: Console,
    has_opening: bool,
    tracked: "list[Tracked]",
    on_comparison: "Callable[[Comparison], None]",
    clock: "Clock | None" = None,
    watched: "Callable[[OnEvent], OnEvent]" = lambda on_event: on_event,
) -> "Comparison":
    """Run a study with progress on the screen.

    on_comparison: prints the result, before the report is written. watched: wraps what is called for each event.
    """
    from tuneoff.cli.progress import StudyProgress

    with StudyProgress(screen, study.spec.name, has_opening=has_opening) as progress:

        def show(comparison: "Comparison") -> None:
            progress.end()
            on_comparison(comparison)

        try:
            on_event = watched(progress.on_event)
            return study.run(on_event, progress.on_plan, executor, replace, tracked.append, show, clock)
        except (KeyboardInterrupt, StopRequested) as stop:
            # --quiet silences no reason for ending early
            has_checkpoint = lambda job_id: study.store.runs.checkpoint(job_id).is_file()  # noqa: E731
            line = progress.stopped_line(study.folder, has_checkpoint)
            (error_console if screen.quiet else screen).print(visible(line), soft_wrap=True)
            raise typer.Exit(stop.exit_code if isinstance(stop, StopRequested) else 130) from None


def run_set_on_screen(
    study_set: "StudySet",
    executor: "Executor",
    replace: bool,
    as_json: bool,
    quiet: bool,
    copy_to: str | None = None,
) -> None:
    """Run the study of each dataset, print its conclusion, and write and print the overview."""
    from tuneoff.cli.datasets import print_overview

    if copy_to:
        raise ConfigError("--copy-to does not go with a study of several datasets; run each with its own address")
    end_imports()
    screen = Console(quiet=True) if quiet else error_console if as_json else console
    tracked: list[Tracked] = []

    def run_study(name: str, study: "Study") -> "Comparison":
        number, count = list(study_set.studies).index(name) + 1, len(study_set.studies)
        screen.print(f"[bold]{visible(name)}[/bold], dataset {number} of {count}")
        return _completed(study, executor, replace, screen, not as_json, tracked, show)

    def show(comparison: "Comparison") -> None:
        for sentence in comparison.verdict.summary[:1] if comparison.verdict else ["No run succeeded."]:
            screen.print(f"{visible(sentence)}\n")

    list(study_set.run(run_study, replace))
    for result in tracked:
        print_tracked(result, error_console if quiet and result.error else screen)
    print_overview(study_set.overview(), study_set.folder, as_json, quiet)
