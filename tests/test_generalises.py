"""Test sets from elsewhere in a study: every strategy predicts them, and nothing else about a run changes."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.studies import changed, toy_spec
from tests.tiny import toy_texts
from tuneoff.deliver.classifier import load_classifier
from tuneoff.errors import ConfigError, DataError
from tuneoff.spec.file import study_from
from tuneoff.study import Study

pytestmark = pytest.mark.slow
STRATEGIES = ["majority", "tfidf", "probe", "head:learning_rate=0.05", "lora:learning_rate=0.05", "full:learning_rate=0.01"]  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Sixty toy texts, and forty texts of another source, whose labels are ids."""
    folder = tmp_path_factory.mktemp("generalises")
    texts, labels = toy_texts(60, np.random.default_rng(0))
    pd.DataFrame({"text": texts, "label": np.where(labels == 1, "positive", "negative")}).to_csv(folder / "toy.csv")
    texts, labels = toy_texts(40, np.random.default_rng(7))
    pd.DataFrame({"text": texts, "label": labels}).to_csv(folder / "other.csv", index=False)
    return folder


def spec_of(encoder, files, **changes):
    """The spec of a small study that keeps its models."""
    recipe = {"epochs": 2, "batch_size": 4, "max_length": 16, "precision": "fp32"}
    options = {"strategies": STRATEGIES, "recipe": recipe, "keep": "all", "seeds": [0]}
    return toy_spec(encoder, files / "toy.csv", **{**options, **changes})


@pytest.fixture(scope="module")
def plain(encoder, files):
    """A finished study without test sets from elsewhere, and its comparison; tests do not change it."""
    study = Study(spec_of(encoder, files), files / "plain")
    return study, study.run()


@pytest.fixture(scope="module")
def predicted(plain, files):
    """A copy of it, whose stored models have predicted a test set; tests do not change it."""
    shutil.copytree(plain[0].folder, files / "predicted")
    study = changed(Study(plain[0].spec, files / "predicted"), tests={"other": str(files / "other.csv")})
    return study, study.run()


@pytest.fixture
def copy(plain, tmp_path):
    """A copy of the study without test sets, for a test to change."""
    shutil.copytree(plain[0].folder, tmp_path / "copy")
    return Study(plain[0].spec, tmp_path / "copy")


@pytest.fixture
def other_csv(files, tmp_path):
    """A copy of the test set, for a test to change."""
    (tmp_path / "elsewhere").mkdir()
    return Path(shutil.copy(files / "other.csv", tmp_path / "elsewhere" / "other.csv"))


def stored_records(study):
    return {path.parent.name: path.read_bytes() for path in study.folder.glob("runs/*/run.json")}


def test_stored_models_predict_a_test_set_without_training(plain, predicted):
    assert stored_records(predicted[0]) == stored_records(plain[0])
    assert len(predicted[1].elsewhere[0].rows) == len(STRATEGIES)
    events: list[object] = []
    predicted[0].run(events.append)
    assert events == []  # nothing is missing


def test_every_strategy_predicts_it_as_its_saved_model_does(predicted, files):
    study, comparison = predicted
    (test,) = comparison.elsewhere
    assert test.examples == 40
    texts = pd.read_csv(files / "other.csv")["text"].tolist()
    for record in comparison.records:
        table = study.store.runs.test_predictions(record.run_id, "other")
        model = load_classifier([study.folder / "runs" / record.run_id / "model"])
        np.testing.assert_allclose(table[["p0", "p1"]], model.predict_proba(texts), atol=1e-6)
        assert list(table["split"].unique()) == ["test:other"]
    row = test.row(next(row.group for row in comparison.rows if row.label.startswith("lora")))
    assert row is not None
    assert row.drop == pytest.approx(row.own_score - row.score)
    assert row.drop_interval[0] <= row.drop <= row.drop_interval[1]


def test_a_run_that_predicts_it_is_the_same_run(plain, predicted, encoder, files, tmp_path):
    study = Study(spec_of(encoder, files, tests={"other": str(files / "other.csv")}), tmp_path / "at once")
    comparison = study.run()
    assert [record.run_id for record in plain[1].records] == [record.run_id for record in comparison.records]
    for before, after in zip(plain[1].records, comparison.records, strict=True):
        assert before.metrics == after.metrics
        first, second = (s.store.runs.predictions(before.run_id, "test") for s in (plain[0], study))
        pd.testing.assert_frame_equal(first, second)
        # a run and its stored model predict the same
        first, second = (s.store.runs.test_predictions(before.run_id, "other") for s in (predicted[0], study))
        pd.testing.assert_frame_equal(first, second, atol=1e-6)


def test_a_test_set_that_changes_is_predicted_again(copy, other_csv):
    other = changed(copy, tests={"other": str(other_csv)})
    assert other.run().elsewhere[0].examples == 40
    pd.DataFrame({"text": ["so good", "so bad"], "label": [1, 0]}).to_csv(other_csv, index=False)
    before = stored_records(copy)
    assert other.run().elsewhere[0].examples == 2
    assert stored_records(copy) == before


def test_runs_without_a_model_are_trained_again(copy, other_csv):
    (folder,) = copy.folder.glob("runs/tfidf-*/model")
    shutil.rmtree(folder)
    before = stored_records(copy)
    asked = changed(copy, keep="recommended", strategies=["tfidf"], tests={"other": str(other_csv)})
    assert len(asked.run().elsewhere[0].rows) == 1
    assert folder.is_dir()
    assert {name for name, record in stored_records(copy).items() if before[name] != record} == {folder.parent.name}


def test_strategies_that_are_not_asked_for_again_are_named(copy, other_csv):
    comparison = changed(copy, strategies=["tfidf"], tests={"other": str(other_csv)}).run()
    assert len(comparison.elsewhere[0].missing) == len(STRATEGIES) - 1
    assert "There are no predictions by" in (copy.folder / "report.md").read_text(encoding="utf-8")
    whole = Study.open(copy.folder).run()  # the stored study, with all of them
    assert whole.elsewhere[0].missing == ()


def test_a_source_that_is_gone_is_read_from_the_study(copy, other_csv):
    small = changed(copy, strategies=["tfidf"], tests={"other": str(other_csv)})
    small.run()
    shutil.rmtree(other_csv.parent)
    comparison = changed(small, strategies=["tfidf", "probe"]).run()
    assert len(comparison.elsewhere[0].rows) == 2


def test_the_models_of_folds_each_predict_it(encoder, files, tmp_path):
    changes = {"evaluate": {"folds": 3}, "seeds": None, "strategies": ["majority", "tfidf", "probe"]}
    comparison = Study(spec_of(encoder, files, **changes, tests={"other": str(files / "other.csv")}), tmp_path).run()
    (test,) = comparison.elsewhere
    assert len(test.rows) == 3
    assert comparison.final is not None
    assert test.final is not None
    assert 0 <= test.final[1] <= test.final[0] <= test.final[2] <= 1


def test_the_report_says_what_generalises_and_how_far_layers_moved(predicted):
    folder = predicted[0].folder
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert "## What generalises" in page
    assert "On other, accuracy of" in page
    assert "0 as negative and 1 as positive" in page
    assert "## How far representations moved" in page
    assert "moved the encoder most: CKA" in page
    for name in ("generalises-other", "movement"):
        assert (folder / "tables" / f"{name}.csv").is_file()
    stored = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    assert stored["elsewhere"][0]["name"] == "other"


def test_another_pick_is_a_sentence_of_the_verdict(copy, other_csv):
    frame = pd.read_csv(other_csv)
    frame.assign(label=1 - frame["label"]).to_csv(other_csv, index=False)  # what learns is always wrong there
    comparison = changed(copy, tests={"other": str(other_csv)}).run()
    assert comparison.verdict is not None
    assert comparison.verdict.recommended is not None
    assert "no strategy is shown to be better than the most frequent class" in comparison.verdict.text


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        (["a b=x.csv"], "no valid name"),
        ({"test": "x.csv"}, "no valid name"),
        (["twitter=x.csv", "Twitter=y.csv"], "given twice"),
        (["twitter"], "not name=source"),
        ({"twitter": {"source": "x.csv", "txt": "tweet"}}, "did you mean|unknown"),
    ],
)
def test_wrong_test_sets_are_one_line(tests, message):
    with pytest.raises(ConfigError, match=message) as error:
        study_from({"data": {"source": "x.csv"}, "tests": tests})
    assert "\n" not in str(error.value)


def test_a_test_set_that_cannot_be_read_leaves_no_study(encoder, files, tmp_path):
    study = Study(spec_of(encoder, files, tests={"gone": "nowhere.csv"}), tmp_path / "new")
    with pytest.raises(DataError, match="test set 'gone'"):
        study.run()
    assert not (study.folder / "study.yaml").exists()


def test_a_key_that_a_study_file_has_twice_is_an_error(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("data: {source: x.csv}\ntests:\n  a: x.csv\n  a: y.csv\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="'a' twice"):
        Study.open(path)
    assert os.listdir(tmp_path) == ["twice.yaml"]
