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


def test_on_a_cluster_machines_are_named(spec):
    printed = io.StringIO()
    progress = StudyProgress(Console(file=printed, width=200), "toy", has_opening=False)
    jobs = jobs_of(spec, searches=0, runs=3)
    progress.on_plan(plan_of(spec, jobs, speed=None))
    for job, machine in zip(jobs, ["amber", "[b]", "amber"], strict=True):
        progress.on_event(Event("started", job, machine=machine))
    assert note(progress) == "0 of 3, 3 running on 2 machines"
    assert [task.fields["note"] for task in progress._bars.tasks[1:]] == ["on amber", r"on \[b]", "on amber"]
    progress.on_event(Event("stopped", jobs[0], note="its machine died; it runs again", machine="amber"))
    assert "lora seed 0: its machine died; it runs again" in printed.getvalue()
    assert note(progress) == "0 of 3, 2 running on 2 machines"
    progress.on_event(Event("started", jobs[0], machine="[b]"))
    assert len(progress._bars.tasks) == 4  # no bar of its first try is left


def test_bars_of_many_jobs_do_not_fill_the_screen(progress, spec):
    jobs = jobs_of(spec, searches=0, runs=40)
    progress.on_plan(plan_of(spec, jobs))
    for job in jobs:
        progress.on_event(Event("started", job, machine="m"))
        progress.on_event(Event("progress", job, share=0.5))
    assert len(progress._bars.tasks) == 21
    progress.on_event(Event("stopped", jobs[30]))
    assert note(progress).startswith("0 of 40, 39 running on 1 machine, about ")
