"""A report by another metric than the study's: everything follows it, nothing is trained."""

import json

import numpy as np
import pytest

from tests.stored import stored_study
from tuneoff.errors import ConfigError, StoreError

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


def test_a_metric_that_a_run_of_an_earlier_version_lacks_is_an_error(study):
    path = next(study.folder.glob("runs/probe-*/run.json"))
    stored = json.loads(path.read_text())
    del stored["metrics"]["validation"]["mcc"]
    path.write_text(json.dumps(stored))
    with pytest.raises(StoreError, match=f"run {path.parent.name} has no stored mcc; choose another metric"):
        study.comparison(metric="mcc")
