"""A report by another metric than the study's: everything follows it, nothing is trained."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.stored import stored_study
from tests.studies import changed
from tuneoff.errors import ConfigError

STRATEGIES = [("majority", "majority", 0.4), ("probe", "probe", 0.7), ("lora", "lora", 0.8)]


@pytest.fixture
def study(tmp_path):
    return stored_study(tmp_path / "made", STRATEGIES, label_names=("a", "b", "c"))


@pytest.mark.parametrize("metric", ["macro_f1", "mcc", "log_loss"])
def test_scores_order_and_verdict_follow_the_metric(study, metric):
    comparison = study.comparison(metric=metric)
    assert (comparison.metric, comparison.selection_metric) == (metric, "accuracy")
    for row in comparison.rows:
        records = [record for record in comparison.records if record.group == row.group]
        assert row.score == pytest.approx(np.mean([record.metrics["test"][metric] for record in records]))
        assert row.validation == pytest.approx(np.mean([record.metrics["validation"][metric] for record in records]))
        assert row.interval[0] < row.score < row.interval[1]
    scores = [row.score for row in comparison.rows]
    assert scores == sorted(scores, reverse=metric != "log_loss")
    assert f"{metric.replace('_', ' ')} {comparison.rows[0].score:.3f}" in comparison.verdict.text
    better, worse = comparison.rows[:2]
    assert comparison.pairs[0].difference == pytest.approx(abs(better.score - worse.score))
    assert list(comparison.leaderboard.columns)[2] == metric


def test_the_report_states_what_was_chosen_by_the_other_metric(study):
    note = (
        "Epochs and a probe's C were chosen by validation accuracy, not by macro f1; to choose by it, run the study "
        "again with --metric macro_f1 and another --name."
    )
    assert study.report(metric="macro_f1").selection_note == note
    assert note.replace("_", "\\_") in (study.folder / "report.md").read_text()
    assert note.replace("'", "&#39;") in (study.folder / "report" / "index.html").read_text()
    stored = json.loads((study.folder / "comparison.json").read_text())
    assert (stored["metric"], stored["selection_metric"]) == ("macro_f1", "accuracy")
    assert study.report().selection_note == ""
    assert "were chosen by" not in (study.folder / "report.md").read_text()


def test_nothing_was_chosen_for_strategies_without_choices(tmp_path):
    study = stored_study(tmp_path / "made", STRATEGIES[:1])
    assert study.comparison(metric="macro_f1").selection_note == ""


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("macrof1", "metric 'macrof1' is unknown; did you mean 'macro_f1'"),
        ("micro_f1", "metric micro_f1 equals accuracy for single-label data; use accuracy"),
    ],
)
def test_a_metric_that_the_data_does_not_have_is_an_error(study, metric, message):
    with pytest.raises(ConfigError, match=message):
        study.report(metric=metric)


def test_a_metric_that_a_run_of_an_earlier_version_lacks_is_computed_from_its_predictions(study):
    expected = {row.label: (row.score, row.validation) for row in study.comparison(metric="mcc").rows}
    for path in study.folder.glob("runs/*/run.json"):
        stored = json.loads(path.read_text())
        for scores in stored["metrics"].values():
            for name in ("mcc", "kappa", "roc_auc", "pr_auc", "balanced_accuracy"):
                del scores[name]
        path.write_text(json.dumps(stored))
    for row in study.comparison(metric="mcc").rows:
        assert (row.score, row.validation) == pytest.approx(expected[row.label], abs=1e-6)


NEW_METRICS = ["f1", "precision", "recall", "balanced_accuracy", "kappa", "quadratic_kappa", "mae", "roc_auc", "pr_auc"]


@pytest.mark.parametrize("metric", NEW_METRICS)
def test_every_metric_ranks_with_intervals_pairs_and_a_verdict(study, metric):
    comparison = changed(study, positive="b", ordered=True).comparison(metric=metric)
    scores = [row.score for row in comparison.rows]
    assert scores == sorted(scores, reverse=metric != "mae")
    assert all(row.interval[0] <= row.score <= row.interval[1] for row in comparison.rows)
    assert all(pair.difference >= 0 for pair in comparison.pairs)
    assert comparison.verdict.recommended == comparison.rows[0].group
    assert comparison.rows[-1].label == "majority"


def test_the_report_names_the_positive_class_and_the_order(study):
    changed(study, positive="b", ordered=True).report(metric="f1")
    text = (study.folder / "report.md").read_text()
    assert "F1 is that of the class 'b'." in text
    assert "F1, precision, recall without macro or weighted are of the class 'b'." in text
    assert "take the labels in this order: 'a', 'b', 'c'." in text
    columns = (study.folder / "tables" / "validation.csv").read_text().splitlines()[0].split(",")
    assert set(NEW_METRICS) <= set(columns)


def test_of_two_classes_the_default_positive_class_is_stated(tmp_path):
    study = stored_study(tmp_path / "two", STRATEGIES)
    study.report(metric="f1")
    assert "F1 is that of the class 'positive', the second label (--positive names another)." in (
        (study.folder / "report.md").read_text()
    )
    other = changed(study, positive="negative").comparison(metric="f1")
    for row in other.rows:
        assert row.score == pytest.approx(np.mean([scores.f1 for scores in other.classes[row.group][:1]]), abs=0.02)


def test_epochs_may_be_selected_by_another_metric_than_the_one_that_ranks(study):
    comparison = changed(study, metric="macro_f1", select_by="log_loss").comparison()
    assert (comparison.metric, comparison.selection_metric) == ("macro_f1", "log_loss")
    assert comparison.selection_note == (
        "Epochs and a probe's C were chosen by validation log loss, as the study says (select_by)."
    )


def test_a_function_of_a_stored_study_is_imported_only_if_it_is_named(study, tmp_path, monkeypatch):
    folder = tmp_path / "of somebody else"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "theirs.py").write_text(
        "open('imported', 'w').close()\ndef score(labels, predicted, probabilities):\n    return (labels == predicted).mean()"
    )
    theirs = changed(study, metric="theirs:score")
    with pytest.raises(ConfigError, match="not imported for a stored study unless you name it: --metric theirs:score"):
        theirs.report()
    assert theirs.comparison(metric="accuracy").metric == "accuracy"
    assert not (folder / "imported").exists()
    comparison = theirs.report(metric="theirs:score")
    assert (folder / "imported").exists()
    for row, other in zip(comparison.rows, theirs.comparison(metric="accuracy").rows, strict=True):
        assert (row.label, row.score) == (other.label, pytest.approx(other.score))
    text = (study.folder / "report.md").read_text()
    assert "theirs:score is a Python function; a higher value counts as better." in text
    assert "Intervals are from 200 resamples of the test examples instead of 2,000" in text


@pytest.mark.parametrize("metric", ["log_loss", "mae"])
def test_of_a_metric_that_is_better_if_lower_the_lowest_model_on_validation_is_used(study, metric):
    comparison = changed(study, ordered=True, keep="all").comparison(metric=metric)
    group = comparison.verdict.recommended
    records = [record for record in comparison.records if record.group == group]
    stored = replace(comparison, stored_models=frozenset(record.run_id for record in records))
    best = min(records, key=lambda record: record.metrics["validation"][metric])
    assert best.run_id in stored.model_folder
