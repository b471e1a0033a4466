"""The training section: losses, rates and scores by epoch, parameters, and the hyperparameters of each row."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.studies import toy_spec
from tuneoff.comparison.epochs import LateGain
from tuneoff.report.histories import learning_rates, training_losses, validation_scores
from tuneoff.report.options import hyperparameters, option_charts, option_findings, options_of
from tuneoff.report.parameters import parameters, parameters_chart
from tuneoff.report.sections import costs, leaderboard, sections, training
from tuneoff.study import Study


@pytest.fixture(scope="module")
def comparison(finished):
    """The comparison of eight strategies with two seeds and four epochs."""
    return finished[1]


@pytest.fixture(scope="module")
def ranks(encoder, tmp_path_factory, finished):
    """A comparison of three ranks, one of them searched, and a probe."""
    folder = tmp_path_factory.mktemp("ranks")
    strategies = ["lora:rank=2", "lora:rank=4", "lora", "probe"]
    spec = toy_spec(
        encoder,
        finished[0].spec.data.source,
        strategies=strategies,
        seeds=[0],
        search={"trials": 2, "spaces": {"lora rank=2": {"learning_rate": [0.01, 0.02]}}},
        recipe={"epochs": 2, "batch_size": 4, "max_length": 16, "precision": "fp32", "label_smoothing": 0.1},
    )
    return Study(spec, folder / "results").run()


def drawn(chart):
    """The specification of a chart, which must be there."""
    assert chart is not None
    return chart.to_json()


def blocks_of(section):
    """The blocks of a section, which must be there, as text."""
    assert section is not None
    return str(section.blocks)


def by_title(table):
    """Each row of a table as a dictionary."""
    titles = [column.title for column in table.columns]
    return [dict(zip(titles, row, strict=True)) for row in table.text_rows()]


def test_the_table_of_epochs_has_the_stored_means(comparison):
    rows = [row for row in by_title(training.epochs(comparison)) if row["strategy"] == "full learning_rate=0.01"]
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    records = [record for record in comparison.records if record.strategy == "full"]
    histories = [comparison.histories[record.run_id] for record in records]
    last = [history[(history["kind"] == "epoch") & (history["epoch"] == 4)].iloc[0] for history in histories]
    for title, column in {
        "training loss": "train_loss",
        "validation loss": "validation_log_loss",
        "validation accuracy": "validation_accuracy",
        "validation macro f1": "validation_macro_f1",
    }.items():
        assert rows[-1][title] == f"{np.mean([row[column] for row in last]):.3f}", title
    assert sum(int(row["kept"]) for row in rows) == 2
    strategies = {row["strategy"] for row in by_title(training.epochs(comparison))}
    assert len(strategies) == 4  # those that train in epochs


def test_losses_are_at_their_place_in_epochs(comparison):
    losses = training_losses(comparison)
    assert losses["position"].between(0, 4).all()
    assert set(validation_scores(comparison, "log_loss")["position"]) == {1, 2, 3, 4}


def test_evaluations_within_epochs_are_points_of_the_curves(comparison):
    record = next(record for record in comparison.records if record.strategy == "full")
    history = comparison.histories[record.run_id]
    per_epoch = history.loc[history["epoch"] == 1, "step"].max()
    rows = pd.DataFrame({"kind": "evaluation", "step": [per_epoch / 2], "epoch": [1], "validation_log_loss": [0.25]})
    histories = {**comparison.histories, record.run_id: pd.concat([history, rows], ignore_index=True)}
    scores = validation_scores(replace(comparison, histories=histories), "log_loss")
    (score,) = scores.loc[scores["position"] == 0.5, "score"]
    assert score == 0.25
    assert len(scores) == len(validation_scores(comparison, "log_loss")) + 1


def test_histories_of_earlier_versions_lack_columns(comparison):
    histories = {
        run_id: history.drop(columns=["learning_rate", "validation_log_loss"], errors="ignore")
        for run_id, history in comparison.histories.items()
    }
    earlier = replace(comparison, histories=histories)
    assert training.rate_chart(earlier) is None
    assert training.evaluation_loss_chart(earlier) is None
    assert training.losses_chart(earlier) is not None
    assert costs.section(earlier) is not None
    records = tuple(replace(record, spec={}) for record in comparison.records)
    assert hyperparameters(replace(comparison, records=records)).rows == []


def test_the_learning_rate_is_that_of_the_steps(comparison):
    rates = learning_rates(comparison)
    full = rates[rates["strategy"] == "full learning_rate=0.01"]
    assert full["learning_rate"].max() <= 0.01
    assert full["learning_rate"].max() > 0.008
    assert full["learning_rate"].idxmax() > full.index[0]  # warm-up
    assert len(full["seed"].unique()) == 1


def test_every_chart_is_there(comparison):
    charts = {name for section in sections(comparison) for name, _ in section.charts()}
    assert {"losses", "loss", "evaluation-loss", "validation", "learning-rate"} <= charts
    assert {"parameters", "trainable-parameters", "accuracy-f1"} <= charts


def test_the_panels_have_both_losses(comparison):
    chart = drawn(training.losses_chart(comparison))
    assert '"validation"' in chart
    assert '"training"' in chart
    assert '"lora learning_rate=0.05"' in chart


def test_the_reduction_is_against_full_fine_tuning(comparison):
    rows = {row["strategy"]: row for row in by_title(parameters(comparison))}
    full = rows["full learning_rate=0.01"]
    assert (full["reduction"], full["frozen"]) == ("0.000 %", "0")
    lora = rows["lora learning_rate=0.05"]
    counts = {name: int(lora[name].replace(",", "")) for name in ("total", "trainable", "frozen", "added")}
    assert counts["frozen"] == counts["total"] - counts["trainable"]
    reduced = 100 * (1 - counts["trainable"] / (counts["total"] - counts["added"]))
    assert lora["reduction"] == f"{reduced:.3f} %"
    assert rows["tfidf"]["reduction"] == "–"
    assert f'"{reduced:.1f} % fewer"' in drawn(parameters_chart(comparison))


def test_accuracy_and_f1_have_the_same_intervals_as_a_comparison_by_them(finished):
    study, comparison, _ = finished
    by_f1 = study.comparison(metric="macro_f1")
    for row in by_f1.rows:
        assert comparison.estimates["macro_f1"][row.group] == pytest.approx((row.score, *row.interval))
        assert comparison.estimates["accuracy"][row.group] == pytest.approx(by_f1.estimates["accuracy"][row.group])
    assert '"macro f1"' in costs.two_scores(comparison).to_json()


def test_hyperparameters_are_those_that_the_runs_had(ranks):
    rows = {row["strategy"]: row for row in by_title(hyperparameters(ranks))}
    searched = next(record for record in ranks.records if record.label == "lora rank=2")
    rate = searched.spec["searched_options"]["learning_rate"]
    assert rows["lora rank=2"]["learning rate"] == f"{rate:.3g}"
    assert rows["lora rank=2"]["source"] == "rank: study; learning rate: search"
    assert rows["lora rank=2"]["options"].startswith("rank 2, alpha 16")
    lora = rows["lora"]
    assert (lora["batch size"], lora["epochs"], lora["max length"], lora["warm-up"]) == ("4", "2", "16", "10.0 %")
    assert lora["more of the recipe"] == "label smoothing 0.1, precision fp32"
    probe = rows["probe"]
    assert (probe["learning rate"], probe["epochs"], probe["batch size"], probe["max length"]) == ("–", "–", "–", "16")
    assert "C" in options_of(next(record for record in ranks.records if record.strategy == "probe"))
    assert all(row["source"] for row in rows.values())


def test_a_column_without_values_is_left_out(comparison):
    titles = [column.title for column in hyperparameters(comparison).columns]
    assert "more of the recipe" in titles  # fp32
    plain = [
        replace(record, spec={**record.spec, "recipe": {**record.spec["recipe"], "precision": "auto"}})
        for record in comparison.records
    ]
    assert "more of the recipe" not in str(hyperparameters(replace(comparison, records=tuple(plain))).columns)


def test_an_option_that_varies_is_a_curve(ranks, comparison):
    (name,) = option_charts(ranks)
    assert name == "option-lora-rank"
    chart = option_charts(ranks)[name].to_json()
    assert all(f'"value": {rank}' in chart for rank in (2, 4, 8))
    assert option_charts(comparison) == {}
    assert option_findings(comparison) == []
    (sentence,) = option_findings(ranks)
    lines = [row for row in ranks.rows if row.strategy == "lora"]
    if lines[0].label == "lora rank=2":
        assert sentence == "Of lora's rank, 2, the smallest value, scores best."
    else:
        assert re.fullmatch(
            r"Of lora's rank, [48] scores best, .* points better than 2 \(95 % interval .*significant\)\.", sentence
        )
    assert sentence in blocks_of(training.section(ranks))
    assert name in {chart for section in sections(ranks) for chart, _ in section.charts()}


def test_a_loss_on_another_scale_is_named(ranks, comparison):
    assert "With label smoothing, the training loss is on another scale" in blocks_of(training.section(ranks))
    assert "on another scale" not in blocks_of(training.section(comparison))


def test_strategies_that_still_improve_are_named(comparison):
    row = next(row for row in comparison.rows if row.strategy == "head")
    late = replace(comparison, late_gains=(LateGain(row.group, 4, 0.034, 0.01, 2, 2),))
    note = "Still improving in the last epoch, on validation: head learning_rate=0.05 (by 3.4 points); more epochs may "
    assert late.epochs_note == f"{note}help (--epochs 8)."
    for section in (training.section(late), leaderboard.section(late)):
        assert late.epochs_note in blocks_of(section)
    assert replace(comparison, late_gains=()).epochs_note == ""
    assert late.to_json()["late_gains"][0]["gain"] == 0.034
