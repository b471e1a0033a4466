"""One study over several datasets: a study of each, an overview of all, resumed as studies are."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml

import tuneoff
from tests.tiny import toy_texts
from tuneoff.cli.app import app
from tuneoff.datasets import StudySet
from tuneoff.errors import ConfigError, StoreError
from tuneoff.study import Study


@pytest.fixture
def files(tmp_path):
    """Two files of toy texts."""
    paths = []
    for seed, name in enumerate(("tweets", "reviews")):
        texts, labels = toy_texts(60, np.random.default_rng(seed))
        path = tmp_path / f"{name}.csv"
        pd.DataFrame({"text": texts, "label": labels}).to_csv(path, index=False)
        paths.append(str(path))
    return paths


@pytest.fixture
def given(files):
    """A study over both, of strategies that need no encoder."""
    return {
        "name": "both",
        "datasets": {"tweets": files[0], "reviews": {"source": files[1], "limits": {"train": 30}}},
        "data": {"test_fraction": 0.2},
        "strategies": ["tfidf", "tfidf:ngrams=1"],
        "baselines": False,
        "seeds": [0],
    }


def test_each_dataset_is_a_study_and_all_have_an_overview(given, tmp_path):
    studies = StudySet.of(given, folder=tmp_path / "both")
    assert studies.studies["reviews"].spec.data.test_fraction == 0.2
    ran = list(studies.run(lambda name, study: study.run()))
    assert len(ran) == 2
    overview = studies.overview()
    assert [dataset.name for dataset in overview.datasets] == ["tweets", "reviews"]
    assert (tmp_path / "both" / "reviews" / "comparison.json").is_file()
    for name in ("overview.json", "report/index.html", "report.md", "tables/ranks.csv", "figures/scores.svg"):
        assert (tmp_path / "both" / name).is_file(), name
    page = (tmp_path / "both" / "report.md").read_text(encoding="utf-8")
    assert "## Ranks over the datasets" in page


def test_its_folder_is_enough_to_run_it_again_and_keeps_its_datasets(given, tmp_path):
    studies = StudySet.of(given, folder=tmp_path / "both")
    list(studies.run(lambda name, study: study.run()))
    opened = StudySet.open(tmp_path / "both")
    assert opened is not None
    assert {name: study.spec for name, study in opened.studies.items()} == {
        name: study.spec for name, study in studies.studies.items()
    }
    events: list[object] = []
    list(opened.run(lambda name, study: study.run(events.append)))
    assert events == []
    one = StudySet.of({**given, "datasets": {"tweets": given["datasets"]["tweets"]}}, folder=tmp_path / "both")
    list(one.run(lambda name, study: study.run()))
    assert len(one.overview().datasets) == 2


def test_finished_studies_are_joined_from_python(given, tmp_path):
    studies = StudySet.of(given, folder=tmp_path / "both")
    comparisons = list(studies.run(lambda name, study: study.run()))
    folders = [study.folder for study in studies.studies.values()]
    overview = tuneoff.overview(folders, out=tmp_path / "report of both", metric="macro_f1")
    assert overview.metric == "macro_f1"
    assert tuneoff.overview(comparisons).metric == "accuracy"
    assert "mean rank" in repr(overview)
    with pytest.raises(StoreError, match="holds a study"):
        tuneoff.overview(folders, out=folders[0])
    with pytest.raises(StoreError, match=r"no study\.yaml"):
        tuneoff.overview([tmp_path, *folders])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": []}, "datasets is no mapping"),
        ({"datasets": {"a b": "x.csv"}}, "no folder's name"),
        ({"datasets": {"report": "x.csv"}}, "part of the report"),
        ({"datasets": {"a": "x.csv", "A": "y.csv"}}, "given twice"),
        ({"datasets": {"a": 3}}, "neither a source nor options"),
        ({"datasets": {"a": {"sorce": "x.csv"}}}, "source"),
    ],
)
def test_wrong_datasets_are_one_line(given, changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        StudySet.of({**given, **changes})
    assert "\n" not in str(error.value)


def test_a_study_of_one_dataset_says_where_several_run(given, tmp_path):
    path = tmp_path / "both.yaml"
    path.write_text(yaml.safe_dump(given), encoding="utf-8")
    assert StudySet.open(path) is not None
    with pytest.raises(ConfigError, match="of several datasets, which only tuneoff run reads"):
        Study.open(path)


def test_the_command_line_compares_several_files(files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--strategies", "tfidf,tfidf:ngrams=1", "--search", "none", "--folds", "none", "--seeds", "1"]
    app(["compare", *files, *options, "--quiet"], standalone_mode=False)
    assert capsys.readouterr().out == ""
    folder = tmp_path / "results" / "tweets-reviews"
    assert {path.name for path in folder.glob("*/study.yaml")} == {"study.yaml"}
    app(["overview", str(folder), "--json"], standalone_mode=False)
    assert [d["name"] for d in json.loads(capsys.readouterr().out)["datasets"]] == ["tweets", "reviews"]
    app(["run", str(folder), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["metric"] == "accuracy"
    with pytest.raises(ConfigError, match="--data does not go with"):
        app(["run", str(folder), "--data", "x.csv"], standalone_mode=False)
    with pytest.raises(ConfigError, match="two datasets would have the name"):
        app(["compare", files[0], files[0], *options], standalone_mode=False)


def test_options_of_run_reach_every_dataset(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "both.yaml"
    path.write_text(yaml.safe_dump(given), encoding="utf-8")
    options = ["--margin", "0.02", "--price-per-hour", "3", "--tag", "hot=\\bhot\\b", "--metric", "macro_f1"]
    app(["run", str(path), *options, "--seeds", "1", "--quiet"], standalone_mode=False)
    opened = StudySet.open(tmp_path / "results" / "both")
    assert opened is not None
    for study in opened.studies.values():
        assert (study.spec.margin, study.spec.rates.usd_per_hour, study.spec.metric) == (0.02, 3, "macro_f1")
        assert study.spec.tags == {"hot": "\\bhot\\b"}
        assert study.spec.seeds == (0,)
