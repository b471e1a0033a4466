"""Equal budgets, what is tried, what is stopped, and that neither an interruption nor the test split changes it."""

import json
import time

import psutil
import pytest

from tests.made import made_study
from tuneoff.data.dataset import Dataset
from tuneoff.errors import ConfigError
from tuneoff.execute import search as execution
from tuneoff.execute.fit import fit
from tuneoff.execute.pool import Pool
from tuneoff.execute.search import open_search, search_one
from tuneoff.report.searches import said
from tuneoff.search import CUT, FAILED, Sampler, SearchSpec, Trial
from tuneoff.spec import SearchJob, parse_strategy, study_from
from tuneoff.study import Study, prepare, search_jobs


def study_spec(encoder, toy_csv, **changes):
    given = {
        "name": "toy",
        "data": {"source": str(toy_csv), "validation_fraction": 0.2, "test_fraction": 0.2},
        "model": encoder,
        "strategies": ["probe", "head", "lora"],
        "recipe": {"epochs": 4, "batch_size": 4, "max_length": 16, "precision": "fp32"},
        "seeds": [3, 4],
        "search": {"trials": 5},
    }
    return study_from({**given, **changes})


@pytest.fixture
def jobs(encoder, toy_csv):
    """The searches of a small study, their data stored."""
    spec = study_spec(encoder, toy_csv)
    return {job.strategy.name: job for job in search_jobs(spec, prepare(spec))}


def sampler(strategy="lora", done=(), **search):
    strategy, search = parse_strategy(strategy), SearchSpec(**{"trials": 8, **search})
    return Sampler(strategy, search.space_of(strategy), search, "accuracy", done)


def played(strategy="lora", trials=8, **search):
    """The options of a search whose score is best at a rate of 2e-3."""
    done = []
    for _ in range(trials):
        trial = sampler(strategy, done, **search).ask()
        trial.score = 1 / (1 + abs(trial.options["learning_rate"] - 2e-3))
        trial.scores = [trial.score]
        done.append(trial)
    return [trial.options for trial in done]


def test_the_first_trials_are_the_strategy_itself_then_a_factor_up_and_down():
    assert [options["learning_rate"] for options in played(trials=3)] == [5e-4, 1.5e-3, 1.67e-4]


def test_the_same_trials_give_the_same_next_one_and_all_stay_in_the_range():
    assert played() == played()
    assert all(5e-4 / 9 <= options["learning_rate"] <= 5e-4 * 9 for options in played())
    assert len({options["learning_rate"] for options in played()}) == 8


def test_what_the_study_names_is_searched_too_lists_included():
    spaces = {
        "lora": {
            "rank": [4, 8],
            "dropout": {"low": 0, "high": 0.3, "log": False},
            "targets": [["query"], ["query", "value"]],
        }
    }
    found = played(spaces=spaces)
    assert found[0] == {"learning_rate": 5e-4, "rank": 8, "dropout": 0.0, "targets": ["query", "value"]}
    assert {options["rank"] for options in found} == {4, 8}
    assert {tuple(options["targets"]) for options in found} == {("query",), ("query", "value")}
    assert all(0 <= options["dropout"] <= 0.3 for options in found)


def test_a_rate_that_the_study_sets_is_kept_unless_a_space_names_it():
    asked = parse_strategy("lora:learning_rate=0.001")
    assert SearchSpec(trials=4).space_of(asked) == {}
    named = SearchSpec(trials=4, spaces={"lora": {"learning_rate": {"low": 1e-4, "high": 1e-2}}})
    assert list(named.space_of(asked)) == ["learning_rate"]


@pytest.mark.parametrize(("score", "is_weak"), [(0.4, True), (0.8, False)])
def test_a_trial_that_is_not_in_the_better_half_is_stopped(score, is_weak):
    first = sampler()
    first.ask()
    assert not first.is_weak([0.6])  # alone it is the best
    done = [Trial({"learning_rate": 5e-4}, [0.6, 0.7], 0.7, attributes=first.attributes())]
    second = sampler(done=done)
    second.ask()
    assert second.is_weak([score]) == is_weak
    unhalved = sampler(done=done, halving=False)
    unhalved.ask()
    assert not unhalved.is_weak([score])


def test_every_strategy_has_the_same_number_of_trials(jobs, tmp_path):
    for job in jobs.values():
        assert len(search_one(job, tmp_path).trials) == 5
    assert set(jobs) == {"tfidf", "probe", "head", "lora"}  # of majority nothing is searched


def test_a_budget_of_time_is_the_same_for_every_strategy_and_kept(jobs, tmp_path):
    longest = 0.0
    for name in ("head", "lora"):
        job = jobs[name].model_copy(update={"search": SearchSpec(budget=1.0)})
        trials = search_one(job, tmp_path).trials
        seconds = [trial.seconds for trial in trials]
        longest = max(longest, *seconds)
        assert sum(seconds) >= 1.0 or len(trials) == execution._MOST_TRIALS
        assert sum(seconds[:-1]) < 1.0  # none began when the time was over


def test_a_search_never_sees_the_test_split(jobs, monkeypatch, tmp_path):
    whole = execution.open_dataset(jobs["head"].run.data_fingerprint)
    splits = {split: table for split, table in whole.splits.items() if split != "test"}
    blind = Dataset(whole.name, splits, whole.label_names, whole.notes, whole.fingerprint)
    monkeypatch.setattr(execution, "open_dataset", lambda fingerprint: blind)
    for job in jobs.values():
        trials = search_one(job, tmp_path).trials
        assert [trial.state for trial in trials if trial.error] == []
        assert all(trial.score is not None for trial in trials)


def test_an_interrupted_search_ends_as_if_it_had_not_been(jobs, tmp_path):
    job = jobs["lora"]
    whole = search_one(job, tmp_path / "whole")
    short = job.model_copy(update={"search": SearchSpec(trials=2)})
    assert short.run_id == job.run_id  # a larger budget goes on where a smaller one ended
    search_one(short, tmp_path / "parts")
    resumed = search_one(job, tmp_path / "parts")
    assert [(t.options, t.scores, t.state) for t in resumed.trials] == [
        (t.options, t.scores, t.state) for t in whole.trials
    ]


def test_a_smaller_budget_uses_no_more_than_it_may(jobs, tmp_path):
    record = search_one(jobs["lora"], tmp_path)
    assert len(record.within(SearchSpec(trials=2)).trials) == 2
    record.trials[1].state = CUT  # by the end of a budget of time
    assert [t.options for t in record.within(SearchSpec(trials=2)).trials] == [record.trials[i].options for i in (0, 2)]
    assert len(record.within(SearchSpec(budget=1e-9)).trials) == 1


@pytest.mark.slow
def test_a_search_whose_process_dies_goes_on_with_the_next_trial(encoder, toy_csv, tmp_path):
    spec = study_spec(encoder, toy_csv, strategies=["lora"], baselines=False, search=3)
    worker, killed = Pool(), []

    def on_event(event):
        if event.kind == "started" and not killed:
            while not (children := psutil.Process(worker._process.pid).children()):
                time.sleep(0.01)
            killed.extend(children)
            for child in children:
                child.kill()

    (found,) = Study(spec, tmp_path / "results").run(on_event, pool=worker).searches
    assert killed
    assert [trial.state == FAILED for trial in found.trials] == [True, False, False]


@pytest.mark.slow
def test_a_strategy_that_asks_for_what_another_finds_stays_another(encoder, toy_csv, tmp_path):
    search = {"trials": 1, "spaces": {"head": {"learning_rate": [0.003]}}}  # so that both end with it
    strategies = ["head", "head:learning_rate=0.003"]
    spec = study_spec(encoder, toy_csv, strategies=strategies, baselines=False, search=search, seeds=2)
    study = Study(spec, tmp_path / "results")
    assert {row.label: row.seeds for row in study.run().rows} == {"head": (0, 1), "head learning_rate=0.003": (0, 1)}
    listed = json.loads((study.folder / "data.json").read_text())["runs"]
    assert len(set(listed)) == len(listed) == 4


def test_a_trial_that_fails_is_noted_and_the_others_go_on(jobs, monkeypatch, tmp_path):
    def fails_once(run, *others):
        if run.found == {"learning_rate": 5e-4}:
            raise MemoryError("no room")
        return fit(run, *others)

    monkeypatch.setattr(execution, "fit", fails_once)
    record = search_one(jobs["lora"], tmp_path)
    assert [trial.state == FAILED for trial in record.trials] == [True, False, False, False, False]
    assert "no room" in record.trials[0].error
    assert record.best.options != {"learning_rate": 5e-4}


def test_trials_of_a_folder_are_whole_json(jobs, tmp_path):
    search_one(jobs["head"], tmp_path)
    stored = json.loads((tmp_path / f"{jobs['head'].run_id}.json").read_text())
    assert len(stored["trials"]) == 5
    assert open_search(tmp_path, jobs["head"]).best.score == max(trial["score"] for trial in stored["trials"])


@pytest.mark.slow
def test_the_runs_have_what_the_search_found_and_the_report_says_so(encoder, toy_csv, tmp_path):
    spec = study_spec(encoder, toy_csv, search={"trials": 3, "spaces": {"lora": {"rank": [2, 4]}}})
    study = Study(spec, tmp_path / "results")
    comparison = study.run()
    assert comparison.failures == ()
    assert {found.label: len(found.trials) for found in comparison.searches} == {
        "tfidf": 3,
        "probe": 3,
        "head": 3,
        "lora": 3,
    }
    for found in comparison.searches:
        records = [record for record in comparison.records if record.label == found.label]
        assert records
        assert all(record.spec["found"] == found.best.options for record in records)
    assert {row.label for row in comparison.rows} == {"majority", "tfidf", "probe", "head", "lora"}
    page = (study.folder / "report" / "index.html").read_text()
    assert "Before the runs every strategy had 3 trials of its own, judged on validation alone, with seed 3" in page
    assert "Nothing was searched of majority." in page
    assert (study.folder / "figures" / "search-learning_rate.svg").is_file()
    assert len((study.folder / "tables" / "trials.csv").read_text().splitlines()) == 1 + 4 * 3
    events = []
    again = study.run(events.append)  # nothing is searched or run twice
    assert events == []
    assert again.leaderboard.equals(comparison.leaderboard)
    more = Study(spec.model_copy(update={"search": SearchSpec(trials=4, spaces=spec.search.spaces)}), study.folder)
    more.run(events.append)
    assert sum(isinstance(event.run, SearchJob) and event.kind == "done" for event in events) == 4


def test_a_study_without_a_search_says_so(tmp_path):
    comparison = made_study(tmp_path / "made", [("lora", "lora", 0.9)]).comparison()
    assert said(comparison).startswith("Nothing was searched: every strategy ran with the options that the study gives")


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"trials": 0}, "search.trials: .*greater than or equal to 1"),
        ({}, "search needs either trials or a budget"),
        ({"trials": 4, "budget": "10m"}, "search needs either trials or a budget"),
        ("often", "search 'often' is neither trials nor a time; write 4, 10m or none"),
        ({"budget": "soon"}, "search.budget: .*not 'soon'"),
        ("1.2.3s", "search '1.2.3s' is neither trials nor a time"),
        (2.5, "search 2.5 is neither trials nor a time"),
        (True, "search True is neither trials nor a time"),
        ({"budgt": "10m"}, "key of search 'budgt' is unknown; did you mean 'budget'"),
        ({"trials": 4, "spaces": {"lora": {"rank": []}}}, r"search space \[\] holds nothing to try; write values"),
        ({"trials": 4, "spaces": {"lora": {"learning_rate": {"low": 1e-2, "high": 1e-4}}}}, "from low 0.01 to high 0.0001 is empty; swap or widen it"),
        ({"trials": 4, "spaces": {"lora": {"dropout": {"low": 0, "high": 0.3}}}}, "drawn by its logarithm; start above 0"),
        ({"trials": 4, "spaces": {"lroa": {"rank": [4]}}}, "search space for strategy 'lroa' is unknown; did you mean 'lora'"),
        ({"trials": 4, "spaces": {"lora": {"rnk": [4]}}}, "key 'rnk' is unknown; did you mean 'rank'"),
        ({"trials": 4, "spaces": {"lora": {"rank": [4, 0]}}}, "search space of lora: rank: .*not 0"),
        ({"trials": 4, "spaces": {"lora": {"rank": 4}}}, "search space 4 holds nothing to try"),
    ],
)  # fmt: skip
def test_a_search_that_makes_no_sense_is_one_line(search, message):
    with pytest.raises(ConfigError, match=message) as error:
        study_from({"data": {"source": "x"}, "strategies": ["lora"], "search": search})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("given", [4, "4", {"trials": 4}])
def test_trials_can_be_written_in_short(given):
    assert study_from({"data": {"source": "x"}, "search": given}).search == SearchSpec(trials=4)


def test_time_can_be_written_in_short():
    assert study_from({"data": {"source": "x"}, "search": "10m"}).search.budget == 600
    assert study_from({"data": {"source": "x"}, "search": "none"}).search is None
