"""A race of a tiny study from end to end: who stops, what is stored, resuming, time limits, and reports on the way."""

import json
import re
from dataclasses import replace

import pytest

from tests.stored import stored_study
from tests.studies import changed, toy_spec
from tuneoff.comparison.notes import unfinished_note
from tuneoff.errors import ConfigError, StoreError
from tuneoff.execute.executor import Slots
from tuneoff.execute.local import LocalExecutor
from tuneoff.grid import prepare, search_jobs
from tuneoff.race_time import Clock, Pace
from tuneoff.report.sections.race import section
from tuneoff.search.race_record import (
    COMPLETE,
    DECIDED,
    GOES_ON,
    REPEAT,
    SEARCH,
    STOPPED,
    RaceRecord,
    Round,
    Standing,
)
from tuneoff.search.record import DONE
from tuneoff.search.record import STOPPED as STOPPED_TRIAL
from tuneoff.study import Study

STRATEGIES = ["majority", "tfidf", "head:learning_rate=0.05", "lora:learning_rate=0.0001", "full:learning_rate=0.01"]


class Interrupted(Exception):
    """A study that ends for a reason of its own."""


def study_of(encoder, toy_csv, folder, **changes):
    return Study(toy_spec(encoder, toy_csv, strategies=STRATEGIES, seeds=[0, 1, 2], **changes), folder)


@pytest.fixture(scope="module")
def executor():
    with LocalExecutor() as local:
        yield local


def decisions(study):
    race = study.store.race()
    return [(entry.name, [(s.label, s.state, s.reason) for s in entry.standings]) for entry in race.rounds]


@pytest.mark.slow
def test_weak_strategies_stop_and_the_runs_are_those_of_the_grid(encoder, toy_csv, tmp_path, executor):
    study = study_of(encoder, toy_csv, tmp_path / "race", race=True)
    comparison = study.run(executor=executor)
    race = comparison.race
    assert race.ended in (DECIDED, COMPLETE)
    assert ("lora learning_rate=0.0001", comparison.study.model[0]) in race.stopped
    runs = [record.run_id for record in comparison.records]
    assert 5 <= len(runs) < 2 + 3 * 3
    # the same ids and scores as without a race
    grid = study_of(encoder, toy_csv, tmp_path / "grid")
    whole = {record.run_id: record.metrics for record in grid.run(executor=executor).records}
    assert {record.run_id: record.metrics for record in comparison.records}.items() <= whole.items()
    assert not (grid.folder / "race.json").exists()
    reasons = {s.label: s.reason for _, s in race.stopped.values()}
    assert re.search(r"behind .* after seed 0; chance to be picked", reasons["lora learning_rate=0.0001"])
    assert section(comparison) is not None
    assert "The chance that no strategy with a score" in unfinished_note(comparison)
    assert "## How the time was spent" in (study.folder / "report.md").read_text()
    # a second call trains nothing and decides nothing anew
    before = decisions(study)
    study.run(on_event=lambda event: pytest.fail(f"{event.job.job_id} ran again"), executor=executor)
    assert decisions(study) == before


@pytest.mark.slow
def test_an_interrupted_race_goes_on_with_the_same_decisions(encoder, toy_csv, tmp_path, executor):
    undisturbed = study_of(encoder, toy_csv, tmp_path / "whole", race=True)
    undisturbed.run(executor=executor)
    study = study_of(encoder, toy_csv, tmp_path / "part", race=True)
    done = []

    def interrupt(event):
        done.extend([event] if event.kind == "done" else [])
        if len(done) == 6:
            raise Interrupted

    with LocalExecutor() as own, pytest.raises(Interrupted):
        study.run(on_event=interrupt, executor=own)
    stored = decisions(study)
    early = study.report()
    assert "Unfinished: " in unfinished_note(early)
    assert "Unfinished: " in (study.folder / "report.md").read_text()
    study.run(executor=executor)
    assert decisions(study)[: len(stored)] == stored
    states = [[(name, [s[:2] for s in standings]) for name, standings in decisions(s)] for s in (study, undisturbed)]
    assert states[0] == states[1]


@pytest.mark.slow
def test_folds_are_compared_on_those_that_the_finalists_have(encoder, toy_csv, tmp_path, executor):
    spec = toy_spec(
        encoder, toy_csv, strategies=STRATEGIES, seeds=None, evaluate={"folds": 3}, data={"source": str(toy_csv)}
    )
    study = changed(Study(spec, tmp_path / "folds"), race=True)
    comparison = study.run(executor=executor)
    assert comparison.verdict.recommended
    num_folds = {len(row.fold_scores) for row in comparison.rows}
    assert len(num_folds) == 1
    assert comparison.num_examples == len(comparison.examples) == len(comparison.groups.labels)
    assert comparison.final is not None
    (study.folder / "report" / "index.html").read_text().index("How the time was spent")


def test_a_time_too_short_for_anything_says_what_the_least_is(encoder, toy_csv, tmp_path, executor):
    study = study_of(encoder, toy_csv, tmp_path / "short", time="2s")
    with pytest.raises(ConfigError, match=r"time 2 s is too short for anything: .* write --time \d+s or more"):
        study.run(executor=executor)
    assert not (study.folder / "study.yaml").exists()


@pytest.mark.slow
def test_what_does_not_fit_is_named_and_stored_runs_count(encoder, toy_csv, tmp_path, executor):
    study = study_of(encoder, toy_csv, tmp_path / "time", time="1h")
    study = changed(study, strategies=["majority", "tfidf"])
    study.run(executor=executor)
    race = study.store.race()
    # as if the first call had taken nearly all of the time
    study.store.write_race(RaceRecord(race.key, race.repeats, seconds=3599.0, rounds=race.rounds))
    comparison = study_of(encoder, toy_csv, study.folder, time="1h").run(executor=executor)
    note = unfinished_note(comparison)
    assert {row.strategy for row in comparison.rows} == {"majority", "tfidf"}
    assert "No time was left for any run of head learning_rate=0.05" in note
    assert re.search(r"With --time \d+[mh] it would fit", note)
    assert len(study_of(encoder, toy_csv, study.folder, time="3h").run(executor=executor).rows) == 5


def test_runs_are_expected_to_train_where_no_trial_does_it_for_them(encoder, toy_csv, tmp_path):
    spec = toy_spec(encoder, toy_csv, strategies=["full"], seeds=[0], search={"trials": 2}, time="1m")
    prepared = prepare(spec)
    searches, clock = search_jobs(spec, prepared), Clock(spec.time)
    race = Study(spec, tmp_path / "s")._race(prepared, searches, Slots(2, 1), 1e9, clock, None)
    (entrant,) = race.entrants
    (expected,) = race._missing(race._runs(entrant, 0))
    assert expected.training_operations == 0
    race.record = replace(race.record, trials=0)  # there is no time for them
    (expected,) = race._missing(race._runs(entrant, 0))
    assert expected.training_operations > 0
    without = race._seconds_for_runs()
    race.finals = {entrant.key: expected}  # with folds, a run on all labelled examples follows
    assert race._seconds_for_runs() == pytest.approx(without + race.pace.seconds(expected))


@pytest.mark.slow
def test_trials_that_take_longer_than_expected_leave_time_for_runs(encoder, toy_csv, tmp_path, monkeypatch):
    expected = Pace.seconds
    monkeypatch.setattr(Pace, "seconds", lambda self, e: 0.01 if e.job.is_search else expected(self, e))
    space = {"full": {"learning_rate": {"low": 0.005, "high": 0.02}}}
    options = {"strategies": ["tfidf", "full:learning_rate=0.01"], "search": {"trials": 2000, "spaces": space}}
    study = Study(toy_spec(encoder, toy_csv, **options, time="60s"), tmp_path / "s")
    comparison = study.run()
    race = comparison.race
    assert race is not None
    assert "full" in {row.strategy for row in comparison.rows}
    assert "full learning_rate=0.01" in {entry.label for entry in race.left_out if entry.kind == SEARCH}
    assert not [entry for entry in race.left_out if "seed 0" in entry.names]
    (search,) = [search for search in comparison.searches if search.strategy == "full"]
    assert 1 < len(search.trials) < 2000
    assert {trial.state for trial in search.trials} <= {DONE, STOPPED_TRIAL}


def test_a_race_widens_intervals_and_says_worse_less_often(tmp_path):
    strategies = [("full", "full", 0.9), ("lora", "lora", 0.75)]
    study = stored_study(tmp_path / "made", strategies, num_test=200, seeds=3)
    plain = study.comparison()
    standing = Standing("lora", "m", 3, 0.7, STOPPED, "20 points behind full after seed 1", chance=0.0)
    rounds = (Round("seed 1", REPEAT, (Standing("full", "m", 3, 0.9, GOES_ON, "leads", chance=1.0), standing), 9.0),)
    study.store.write_race(RaceRecord("k", 5, rounds=rounds, ended=DECIDED, seconds=9.0))
    raced = study.comparison()
    assert raced.pairs[0].p_corrected == pytest.approx(min(1.0, 5 * plain.pairs[0].p_corrected))
    widths = [pair.interval[1] - pair.interval[0] for pair in (raced.pairs[0], plain.pairs[0])]
    assert widths[0] > 1.1 * widths[1]
    assert raced.rows[1].loss_bound > plain.rows[1].loss_bound
    raced_section = section(raced)
    assert raced_section
    tables = {table.name: table for table in raced_section.tables()}
    assert [row[3] for row in tables["race"].rows] == ["goes on", "stopped"]
    assert section(plain) is None
    assert json.loads(json.dumps(raced.to_json(), default=str))["race"]["ended"] == DECIDED


def test_a_damaged_race_is_one_line(tmp_path):
    study = stored_study(tmp_path / "made", [("full", "full", 0.9)], num_test=40)
    (study.folder / "race.json").write_text('{"rounds": 3}')
    with pytest.raises(StoreError, match=r"race.json cannot be read .*tuneoff verify"):
        study.comparison()


def test_a_report_before_the_first_run_says_so(encoder, toy_csv, tmp_path):
    study = study_of(encoder, toy_csv, tmp_path / "early")
    study.folder.mkdir()
    with pytest.raises(StoreError, match="holds no run yet: searches come first"):
        study.comparison()
