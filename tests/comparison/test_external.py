"""Predictions from files as rows: in the leaderboard, the pairs, the error analysis, the browser and the charts."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.stored import stored_study
from tests.studies import changed
from tuneoff.errors import DataError, StoreError
from tuneoff.report.examples import browser_data
from tuneoff.report.parameters import parameters
from tuneoff.report.sections import calibration, compute, curves, errors, leaderboard, sections
from tuneoff.study import Study

CANDIDATES = [("full", "full", 0.8), ("tfidf", "tfidf", 0.6), ("majority", "majority", 0.5)]


def write_predictions(study, path, num_wrong=4, has_probabilities=False, shift=0):
    """Write predictions of a study's test split of which some are wrong. shift: of the row numbers."""
    labels = study.store.test_examples()["label"].to_numpy()
    predicted = np.where(np.arange(len(labels)) < num_wrong, 1 - labels, labels)
    columns = {"example": np.arange(len(labels)) + shift, "predicted": predicted}
    if has_probabilities:
        columns |= {"p0": np.where(predicted == 0, 0.9, 0.2), "p1": np.where(predicted == 0, 0.1, 0.8)}
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A stored study with two rows from files: labels alone with a stated cost, and probabilities without one."""
    folder = tmp_path_factory.mktemp("external")
    study = stored_study(folder / "s", CANDIDATES, seeds=2)
    vendor = write_predictions(study, folder / "vendor.csv")
    former = write_predictions(study, folder / "former.csv", num_wrong=9, has_probabilities=True)
    study = study.add_predictions([f"vendor={vendor}:seconds=0.5:usd=0.001", {"name": "former", "file": str(former)}])
    vendor.unlink()  # the study's folder is enough
    return study


@pytest.fixture(scope="module")
def comparison(study):
    return study.report()


def browsed(comparison):
    """What the example browser shows of each strategy, by name."""
    data = browser_data(comparison)
    assert data is not None
    return {strategy.name: strategy for strategy in data.strategies}


def row_of(comparison, label):
    return next(row for row in comparison.rows if row.label == label)


def test_rows_from_files_are_ranked_and_paired_with_all_others(comparison):
    assert [row.label for row in comparison.rows] == ["vendor", "former", "full", "tfidf", "majority"]
    vendor = comparison.rows[0]
    assert vendor.score == pytest.approx(76 / 80)
    assert (vendor.is_external, vendor.is_seeded, vendor.learns, vendor.is_class_prior) == (True, False, True, False)
    assert (vendor.seed_sd, vendor.sd_from_seeds, vendor.validation) == (None, 0, None)
    assert len(comparison.pairs) == 10
    to_full = next(
        p for p in comparison.pairs if (p.better, p.worse) == ("external-vendor", row_of(comparison, "full").group)
    )
    assert to_full.difference == pytest.approx(vendor.score - row_of(comparison, "full").score)
    assert to_full.interval[0] < to_full.difference < to_full.interval[1]


def test_only_stated_costs_are_shown(comparison):
    vendor, former = comparison.rows[:2]
    assert vendor.costs == {"fit_seconds": 0, "latency_seconds": 0.5, "usd_per_million": pytest.approx(1000)}
    assert former.costs == {}
    table = leaderboard.leaderboard(comparison)
    assert [column.title for column in table.columns][-2:] == ["trainable", "USD per million"]
    assert table.text_rows()[1][-6:] == ["–"] * 6
    assert [row[0] for row in compute.costs(comparison).rows] == ["full", "tfidf", "majority"]
    assert comparison.verdict.recommended != "external-former"


def test_an_unstated_cost_is_never_the_cheapest(tmp_path):
    candidates = [candidate for candidate in CANDIDATES if candidate[0] != "majority"]
    study = stored_study(tmp_path / "s", candidates, seeds=2)
    study = study.add_predictions([f"vendor={write_predictions(study, tmp_path / 'v.csv', num_wrong=22)}"])
    rows = study.comparison().rows
    assert [row.label for row in rows[:2]] == ["full", "vendor"]
    assert study.comparison().verdict.recommended == rows[0].group


def test_without_probabilities_there_is_neither_log_loss_nor_calibration_nor_confidence(comparison):
    vendor, former = comparison.rows[:2]
    assert "log_loss" not in vendor.scores
    assert "log_loss" in former.scores
    metrics = leaderboard.metrics(comparison)
    position = [column.key for column in metrics.columns].index("log_loss")
    assert [row[position] is None for row in metrics.rows] == [True, False, False, False, False]
    assert vendor.group not in comparison.calibration
    assert comparison.calibration[former.group].temperature is None
    assert [row[0] for row in calibration.calibration(comparison).rows] == ["former", "full", "tfidf"]
    assert np.isnan(comparison.leaderboard["calibration_error"][0])
    assert vendor.group not in set(comparison.errors.confidence["group"])
    assert former.group in set(comparison.errors.confidence["group"])
    assert browsed(comparison)["vendor"].confidence is None
    assert browsed(comparison)["former"].confidence[:4] == [80, 90, 80, 90]


def test_errors_are_shared_with_and_browsed_beside_those_of_runs(comparison):
    overlap = comparison.errors.overlap.set_index(["one", "other"])["shared"]
    assert overlap["external-vendor", "external-former"] == pytest.approx(4 / 9)
    strategies = browsed(comparison)
    assert list(strategies) == ["vendor", "former", "full", "tfidf"]
    assert strategies["vendor"].wrong == [1] * 4 + [0] * 76
    assert comparison.confusion["external-vendor"].sum() == 80
    assert comparison.confusion["external-vendor"].trace() == 76


def test_charts_have_the_rows(comparison):
    charts = dict(chart for section in sections(comparison) for chart in section.charts())
    assert {"confusion-external-vendor", "confusion-external-former", "cost-latency_seconds"} <= set(charts)
    assert '"vendor"' not in charts["compute"].to_json()
    for name in ("scores", "f1", "errors-true", "errors-length", "overlap", "cost-latency_seconds"):
        assert '"vendor"' in charts[name].to_json(), name
    assert parameters(comparison).rows
    assert curves.section(comparison) is None


def test_the_report_and_its_data_name_the_files(study, comparison):
    text = (study.folder / "report.md").read_text()
    assert "Predictions from files, with costs as stated: vendor and former." in text
    assert "Without probabilities: vendor." in text
    assert "Predictions of vendor: " in text
    rows = json.loads((study.folder / "comparison.json").read_text())["leaderboard"]
    assert rows[0]["label"] == "vendor"
    assert rows[0]["validation"] is None


def test_predictions_given_again_replace_the_stored_ones(study, tmp_path):
    before = study.comparison().rows[0].score
    again = study.add_predictions([f"vendor={write_predictions(study, tmp_path / 'v.csv', num_wrong=40)}"])
    assert row_of(again.comparison(), "vendor").score == pytest.approx(0.5)
    assert row_of(Study.open(study.folder).comparison(), "vendor").costs["latency_seconds"] == 0.5
    study.add_predictions([f"vendor={write_predictions(study, tmp_path / 'v.csv')}"])
    assert study.comparison().rows[0].score == before


def test_predictions_that_do_not_fit_leave_the_study_as_it_was(study, tmp_path):
    stored = (study.folder / "study.yaml").read_text()
    path = write_predictions(study, tmp_path / "v.csv", shift=1)
    with pytest.raises(DataError, match=r"1 of 80 test examples have no prediction .*: 0, .*no test example for 1 row"):
        study.add_predictions([f"other={path}"])
    assert (study.folder / "study.yaml").read_text() == stored
    assert not study.store.has_predictions("other")


def test_rows_that_match_nothing_are_noted(study, tmp_path):
    path = tmp_path / "more.csv"
    frame = pd.read_csv(write_predictions(study, path))
    pd.concat([frame, pd.DataFrame({"example": [900], "predicted": [1]})]).to_csv(path, index=False)
    other = stored_study(tmp_path / "s", CANDIDATES, seeds=1).add_predictions([f"more={path}"])
    (note,) = other.report().notes
    assert note == "more: 1 row matches no test example and is left out."
    assert note in (other.folder / "report.md").read_text()


def test_log_loss_ranks_only_predictions_with_probabilities(study):
    with pytest.raises(DataError, match="predictions vendor: log loss needs probabilities"):
        changed(study, metric="log_loss").comparison()
    with pytest.raises(DataError, match="predictions vendor: ROC AUC needs probabilities; add a column for each class"):
        study.comparison(metric="roc_auc")


def test_lost_predictions_are_named(study, tmp_path):
    lost = changed(study, predictions=["lost=lost.csv"])
    with pytest.raises(StoreError, match=r"predictions/lost\.parquet cannot be read"):
        lost.comparison()


def test_without_a_successful_run_there_is_nothing_to_compare_with(tmp_path):
    study = stored_study(tmp_path / "s", [("full", "full", None)], seeds=1)
    study = study.add_predictions([f"vendor={write_predictions(study, tmp_path / 'v.csv')}"])
    assert study.report().rows == ()


def test_a_study_runs_with_predictions_and_keeps_them_without_their_file(small, toy, tmp_path):
    path = tmp_path / "vendor.csv"
    toy.rename(columns={"label": "predicted"}).to_csv(path, index=False)  # all examples: more than test has
    study = changed(small, predictions=[f"vendor={path}:usd=0.01"], rates={"usd_per_hour": 1})
    comparison = study.run()
    vendor = row_of(comparison, "vendor")
    assert vendor.score == 1
    assert vendor.costs == pytest.approx({"fit_seconds": 0, "usd": 0, "usd_per_million": 10_000})
    assert comparison.notes == ("vendor: 48 rows match no test example and are left out.",)
    path.unlink()
    assert study.run().rows == comparison.rows
    assert errors.section(replace(comparison, examples=None)) is not None


def test_predictions_that_do_not_fit_are_found_before_anything_runs(small, tmp_path):
    (tmp_path / "vendor.csv").write_text("text,predicted\nanother text,good\n")
    with pytest.raises(DataError, match="12 of 12 test examples have no prediction"):
        changed(small, predictions=[f"vendor={tmp_path / 'vendor.csv'}"]).run()
    assert not (small.folder / "study.yaml").exists()
