"""Progress of a study: one bar and one remaining time for its searches and runs together."""

import io

import pytest
from rich.console import Console

from tests.cli.plans import jobs_of, plan_of, spec_of
from tuneoff.cli.progress import StudyProgress
from tuneoff.execute.executor import Event


@pytest.fixture
def spec(toy_csv):
    return spec_of(toy_csv)


@pytest.fixture
def progress():
    return StudyProgress(Console(file=io.StringIO(), width=200), "toy")


def note(progress):
    """The text behind the study's bar."""
    return progress._bars.tasks[0].fields["note"]


def test_the_remaining_time_covers_searches_and_runs(progress, spec):
    jobs = jobs_of(spec, searches=1, runs=4)  # 100.5 s each: 100.5 s of a search, then two rounds of runs
    progress.on_plan(plan_of(spec, jobs))
    assert note(progress) == "0 of 5, about 5 min left"
    progress.on_event(Event("started", jobs[0]))
    progress.on_event(Event("progress", jobs[0], share=0.5))
    assert progress._bars.tasks[0].completed == pytest.approx(0.1)
    progress.on_plan(plan_of(spec, jobs[1:]))  # the search is no longer missing, but counts as done only at its end
    assert note(progress).startswith("0 of 4, ")


def test_a_finished_search_still_counts_when_the_runs_are_planned_again(progress, spec):
    jobs = jobs_of(spec, searches=1, runs=3)
    progress.on_plan(plan_of(spec, jobs))
    progress.on_event(Event("started", jobs[0]))
    progress.on_event(Event("done", jobs[0], share=1.0))
    searched = [
        job.model_copy(update={"run": job.run.model_copy(update={"searched_options": {"rank": 4}})}) for job in jobs[1:]
    ]
    progress.on_plan(plan_of(spec, searched))
    assert note(progress).startswith("1 of 4, about ")


def test_without_a_speed_no_time_is_invented(progress, spec):
    progress.on_plan(plan_of(spec, jobs_of(spec, 1, 1), speed=None))
    assert note(progress) == "0 of 2"


def test_the_first_lines_are_printed_once_and_text_of_the_data_is_made_harmless(spec, tmp_path, toy):
    printed = io.StringIO()
    progress = StudyProgress(Console(file=printed, width=200), "toy")
    toy.assign(label=toy["label"].replace("positive", "[red]\x1b]0;x")).to_csv(tmp_path / "odd.csv", index=False)
    odd = spec_of(tmp_path / "odd.csv")
    for _ in range(2):
        progress.on_plan(plan_of(odd, jobs_of(odd, 0, 1)))
    assert printed.getvalue().count("odd.csv: 60 examples, 2 classes ([red]␛]0;x 50 %, negative 50 %)") == 1
    assert "\x1b" not in printed.getvalue()
