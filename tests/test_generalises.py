"""Test sets from elsewhere in a study: every strategy predicts them, and nothing else about a run changes."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest

from tests.studies import changed, toy_spec
from tests.tiny import toy_texts
from tuneoff.deliver.classifier import load_classifier
from tuneoff.errors import ConfigError, DataError
from tuneoff.report.sections import sections
from tuneoff.spec import study_from
from tuneoff.study import Study

STRATEGIES = ["majority", "tfidf", "probe", "head:learning_rate=0.05", "lora:learning_rate=0.05", "full:learning_rate=0.01"]  # fmt: skip


@pytest.fixture
def other_csv(tmp_path):
    """Forty texts of another source, whose labels are ids."""
    texts, labels = toy_texts(40, np.random.default_rng(7))
    path = tmp_path / "elsewhere" / "other.csv"
    path.parent.mkdir()
    pd.DataFrame({"text": texts, "label": labels}).to_csv(path, index=False)
    return path


@pytest.fixture
def study(encoder, toy_csv, tmp_path):
    """A study of two epochs without test sets from elsewhere."""
    recipe = {"epochs": 2, "batch_size": 4, "max_length": 16, "precision": "fp32"}
    return Study(toy_spec(encoder, toy_csv, strategies=STRATEGIES, recipe=recipe, keep="all"), tmp_path / "results")


def stored_files(study):
    return {path: path.read_bytes() for path in study.folder.glob("runs/*/run.json")}


def test_every_strategy_predicts_it_as_its_saved_model_does(study, other_csv):
    comparison = changed(study, tests={"other": str(other_csv)}).run()
    (test,) = comparison.elsewhere
    assert {row.group for row in test.rows} == {row.group for row in comparison.rows}
    assert test.examples == 40
    texts = pd.read_csv(other_csv)["text"].tolist()
    for record in comparison.records:
        table = study.store.runs.test_predictions(record.run_id, "other")
        model = load_classifier([study.folder / "runs" / record.run_id / "model"])
        np.testing.assert_allclose(table[["p0", "p1"]], model.predict_proba(texts), atol=1e-6)
        assert list(table["split"].unique()) == ["test:other"]
    row = test.row(next(row.group for row in comparison.rows if row.label.startswith("lora")))
    assert row is not None
    assert row.drop == pytest.approx(row.own_score - row.score)
    assert row.drop_interval[0] <= row.drop <= row.drop_interval[1]


def test_a_run_is_the_same_with_and_without_it(study, other_csv, tmp_path):
    plain = study.run()
    also = Study(changed(study, tests={"other": str(other_csv)}).spec, tmp_path / "again").run()
    assert [record.run_id for record in plain.records] == [record.run_id for record in also.records]
    for first, second in zip(plain.records, also.records, strict=True):
        assert first.metrics == second.metrics
        tables = [Study(study.spec, tmp_path / name).store.runs.predictions(first.run_id, "test") for name in ("results", "again")]  # fmt: skip
        pd.testing.assert_frame_equal(*tables)


def test_stored_models_predict_a_new_test_set_without_training(study, other_csv):
    study.run()
    before = stored_files(study)
    comparison = changed(study, tests={"other": str(other_csv)}).run()
    assert stored_files(study) == before
    assert len(comparison.elsewhere[0].rows) == len(comparison.rows)
    events = []
    changed(study, tests={"other": str(other_csv)}).run(events.append)
    assert events == []  # nothing is missing
    pd.DataFrame({"text": ["so good", "so bad"], "label": [1, 0]}).to_csv(other_csv, index=False)
    assert changed(study, tests={"other": str(other_csv)}).run().elsewhere[0].examples == 2
    assert stored_files(study) == before


def test_runs_without_a_model_are_trained_again(study, other_csv):
    changed(study, keep="none", strategies=["tfidf"]).run()
    comparison = changed(study, keep="none", strategies=["tfidf"], tests={"other": str(other_csv)}).run()
    assert len(comparison.elsewhere[0].rows) == 1


def test_strategies_that_are_not_asked_for_again_are_named(study, other_csv):
    changed(study, strategies=["tfidf", "probe"]).run()
    comparison = changed(study, strategies=["tfidf"], tests={"other": str(other_csv)}).run()
    assert [comparison.names[group] for group in comparison.elsewhere[0].missing] == ["probe"]
    (section,) = [section for section in sections(comparison) if section.key == "generalises"]
    assert "Probe did not predict it" in str(section.blocks).replace("probe did", "Probe did")
    whole = Study.open(study.folder).run()  # the stored study, with both
    assert whole.elsewhere[0].missing == ()


def test_a_source_that_is_gone_is_read_from_the_study(study, other_csv):
    small = changed(study, strategies=["tfidf"], tests={"other": str(other_csv)})
    small.run()
    shutil.rmtree(other_csv.parent)
    comparison = changed(small, strategies=["tfidf", "probe"]).run()
    assert len(comparison.elsewhere[0].rows) == 2


def test_the_models_of_folds_each_predict_it(study, other_csv):
    changes = {"evaluate": {"folds": 3}, "seeds": None, "strategies": ["tfidf", "probe", "head:learning_rate=0.05"]}
    comparison = changed(study, **changes, tests={"other": str(other_csv)}).run()
    (test,) = comparison.elsewhere
    assert len(test.rows) == 3
    assert comparison.final is not None
    assert test.final is not None
    assert 0 <= test.final[1] <= test.final[0] <= test.final[2] <= 1


def test_the_report_says_what_generalises(study, other_csv):
    comparison = changed(study, strategies=["majority", "tfidf", "probe"], tests={"other": str(other_csv)}).run()
    page = (study.folder / "report.md").read_text(encoding="utf-8")
    assert "## What generalises" in page
    assert "On other, accuracy of" in page
    assert "0 as negative and 1 as positive" in page
    assert (study.folder / "tables" / "generalises-other.csv").is_file()
    stored = json.loads((study.folder / "comparison.json").read_text(encoding="utf-8"))
    assert stored["elsewhere"][0]["name"] == "other"
    assert comparison.verdict is not None


def test_another_pick_is_a_sentence_of_the_verdict(study, other_csv):
    frame = pd.read_csv(other_csv)
    frame.assign(label=1 - frame["label"]).to_csv(other_csv, index=False)  # what learns is always wrong there
    comparison = changed(study, strategies=["majority", "tfidf"], tests={"other": str(other_csv)}).run()
    assert comparison.verdict is not None
    if comparison.verdict.recommended:
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


def test_a_test_set_that_cannot_be_read_leaves_no_study(study, tmp_path):
    with pytest.raises(DataError, match="test set 'gone'"):
        changed(study, tests={"gone": str(tmp_path / "gone.csv")}).run()
    assert not (study.folder / "study.yaml").exists()


def test_a_key_that_a_study_file_has_twice_is_an_error(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("data: {source: x.csv}\ntests:\n  a: x.csv\n  a: y.csv\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="'a' twice"):
        Study.open(path)
    assert os.listdir(tmp_path) == ["twice.yaml"]
