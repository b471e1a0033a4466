"""The first lines of a comparison on the screen: data, evaluation, problems, and what will run."""

import dataclasses

import pandas as pd
import pytest

from tests.cli.plans import jobs_of, plan_of, spec_of
from tests.studies import toy_spec
from tuneoff.cli.opening import data_line, evaluation_line, opening, plan_line
from tuneoff.data.load import load_dataset
from tuneoff.data.spec import DataSpec
from tuneoff.errors import DataError
from tuneoff.search.space import SearchSpec


@pytest.fixture
def tweets(tmp_path):
    """A CSV file of 100 tweets in three classes, of which 80 have columns of uncommon names."""
    texts = [f"tweet number {i}" for i in range(100)]
    labels = ["negative"] * 20 + ["neutral"] * 30 + ["positive"] * 50
    path = tmp_path / "tweets.csv"
    pd.DataFrame({"Tweet": texts, "Stars": labels}).to_csv(path, index=False)
    return path


def test_what_was_read(tweets):
    spec = spec_of(tweets)
    assert data_line(load_dataset(spec.data), spec.data) == (
        "tweets.csv: 100 examples, 3 classes (negative 20 %, neutral 30 %, positive 50 %); "
        'text from "Tweet", label from "Stars"'
    )


def test_a_separator_other_than_the_comma_and_a_guessed_text_column_are_named(tmp_path):
    path = tmp_path / "a.csv"
    pd.DataFrame({"Anmerkung": [f"nett, {i}" for i in range(90)], "label": [0, 1] * 45}).to_csv(path, sep=";")
    data = DataSpec(source=str(path))
    with pytest.raises(DataError, match="no text column"):  # the index is a column of strings, too
        load_dataset(data)
    pd.read_csv(path, sep=";", index_col=0).to_csv(path, sep=";", index=False)
    line = data_line(load_dataset(data), data)
    assert line.endswith('; fields separated by semicolons; text from "Anmerkung", label from "label"')


def test_limits_pairs_numbers_and_many_classes(tmp_path, tweets):
    limited = spec_of(tweets, limits={"train": 40})
    assert data_line(load_dataset(limited.data), limited.data).startswith("tweets.csv: 60 of 100 examples, ")
    pairs = {
        "premise": [f"a {i}" for i in range(90)],
        "hypothesis": ["b"] * 90,
        "label": [*[i % 9 for i in range(89)], 0],
    }
    pd.DataFrame(pairs).to_csv(tmp_path / "pairs.csv", index=False)
    data = DataSpec(source=str(tmp_path / "pairs.csv"))
    line = data_line(load_dataset(data), data)
    assert "90 examples, 9 classes (" in line
    assert ' to "8" 10 %); text from "premise" and "hypothesis", label from "label"' in line


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "evaluation: 80 train, 10 validation, 10 test (held out, stratified), 3 seeds"),
        ({"seeds": 1}, "evaluation: 80 train, 10 validation, 10 test (held out, stratified), 1 seed"),
        ({"splits": {"test": "TWEETS"}}, "evaluation: 90 train, 10 validation, 100 test (validation held out, stratified), 3 seeds"),
        ({"limits": {"train": 30}}, "evaluation: 30 train, 10 validation, 10 test (held out, stratified; subset of train), 3 seeds"),
        ({"splits": {"test": "TWEETS", "validation": "TWEETS"}}, "evaluation: 100 train, 100 validation, 100 test, 3 seeds"),
    ],
)  # fmt: skip
def test_how_strategies_are_evaluated(tweets, options, expected):
    splits = {split: str(tweets) for split in options.pop("splits", {})}
    spec = spec_of(tweets, splits=splits, **options)
    assert evaluation_line(load_dataset(spec.data), spec) == expected


@pytest.mark.parametrize(
    ("searches", "runs", "speed", "expected"),
    [
        (6, 29, None, "29 runs after 6 searches, 2 at once"),
        # 100.5 s each: three rounds of searches, then two of runs
        (6, 4, 1e10, "4 runs after 6 searches, 2 at once: about 8 min"),
        (0, 1, 1e12, "1 run, 1 at once: about 5 s"),
        (0, 0, 1e12, "every run is stored: nothing to train"),
    ],
)
def test_what_will_run_and_how_long(tweets, searches, runs, speed, expected):
    spec = spec_of(tweets)
    assert plan_line(plan_of(spec, jobs_of(spec, searches, runs), speed)) == expected


def test_a_search_with_a_time_budget_takes_its_budget(tweets):
    spec = spec_of(tweets)
    jobs = jobs_of(spec, 4, 0, SearchSpec(budget=600))
    assert plan_line(plan_of(spec, jobs)) == "4 searches, 2 at once: about 20 min"


def test_the_machines_of_a_cluster_are_counted(tweets):
    spec = spec_of(tweets)
    plan = plan_of(spec, jobs_of(spec, 0, 9), speed=None, workers=4)
    plan = dataclasses.replace(plan, slots=dataclasses.replace(plan.slots, machines=3))
    assert plan_line(plan) == "9 runs, 4 at once on 3 machines"


def test_the_most_harmful_findings_come_first_and_no_more_than_five(toy, tmp_path, encoder):
    leaky = pd.concat([toy, toy.head(20), toy.head(5).assign(label="positive"), toy.head(5).assign(label="negative")])
    leaky.to_csv(tmp_path / "leaky.csv", index=False)
    spec = toy_spec(encoder, tmp_path / "leaky.csv")
    lines = opening(plan_of(spec, [], extension="extends results/toy: head is new"))
    findings = [line for line in lines if line.startswith("! ")]
    assert findings[0].startswith("! leakage from train into test: ")
    assert len(findings) == 6
    assert findings[-1].endswith(" more: tuneoff inspect")
    assert lines[2] == "extends results/toy: head is new"


def test_clean_data_has_no_findings(tweets):
    spec = spec_of(tweets)
    assert len(opening(plan_of(spec, []))) == 3
