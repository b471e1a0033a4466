"""Sections: a table, a chart, a cost or a whole section is added in one place and reaches every format."""

import json
import re
from dataclasses import replace

import altair as alt
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tests.stored import stored_study
from tuneoff.costs import COSTS, Cost, check_cost, choosable_costs
from tuneoff.files import read_json, write_json, write_table
from tuneoff.report import sections as sections_module
from tuneoff.report.chart import log_axis
from tuneoff.report.examples import fit_into_budget
from tuneoff.report.section import Bullets, Figures, Section, TableBlock, Text
from tuneoff.report.sections import classes, compute, costs, errors, leaderboard, reported, search, sections, slices
from tuneoff.scoring import metrics
from tuneoff.search.record import Trial
from tuneoff.strategies.base import format_option
from tuneoff.study import Study
from tuneoff.tables import BYTES, COUNT, TEXT, Column, Table

CANDIDATES = [("full", "full", 0.95), ("lora", "lora", 0.7), ("tfidf", "tfidf", 0.6), ("majority", "majority", 0.3)]
LABELS = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A stored study of four strategies and classes."""
    return stored_study(
        tmp_path_factory.mktemp("stored") / "s",
        CANDIDATES,
        LABELS,
        reported=[{"strategy": "full", "score": 0.93, "source": "somebody"}],
    )


@pytest.fixture(scope="module")
def comparison(study):
    return study.comparison()


def vocabulary_section(comparison):
    """A section as somebody would add it: a sentence, a table of numbers and a chart."""
    counts = pd.DataFrame({"text": text, "words": len(text.split())} for text in comparison.texts)
    rows = [[row.label, int(counts["words"].sum())] for row in comparison.rows]
    table = Table("vocabulary", (Column("strategy", "strategy", TEXT), Column("words", "words", COUNT)), rows)
    chart = alt.Chart(counts).mark_bar().encode(x="words:Q", y="count():Q")
    return Section(
        "vocabulary",
        "Vocabulary",
        [Text("Words of the test texts."), TableBlock(table), Figures({"words-histogram": chart})],
    )


def test_every_chart_is_valid_vega_lite(comparison):
    charts = [chart for section in sections(comparison) for _, chart in section.charts()]
    assert len(charts) > 20
    for chart in charts:
        chart.to_dict(validate=True)  # raises altair.SchemaValidationError; reports do not validate


def test_a_section_is_added_by_one_function(study, monkeypatch, tmp_path):
    monkeypatch.setattr(sections_module, "SECTIONS", [*sections_module.SECTIONS, vocabulary_section])
    study.report()
    page, text = (study.folder / "report" / "index.html").read_text(), (study.folder / "report.md").read_text()
    assert '<section id="vocabulary">' in page
    assert 'id="table-vocabulary"' in page
    assert 'data-chart="words-histogram"' in page
    assert "## Vocabulary\n\nWords of the test texts.\n\n| strategy | words |" in text
    assert "(figures/words-histogram.svg)" in text
    assert (study.folder / "tables" / "vocabulary.csv").read_text().startswith("strategy,words\nfull,")
    assert "tabular" in (study.folder / "tables" / "vocabulary.tex").read_text()
    assert (study.folder / "figures" / "words-histogram.png").stat().st_size > 0
    monkeypatch.undo()
    study.report()
    assert not (study.folder / "tables" / "vocabulary.csv").exists()
    assert not (study.folder / "figures" / "words-histogram.png").exists()


def test_a_cost_is_added_by_one_row(tmp_path, monkeypatch):
    cost = Cost(name="energy", column="energy", format=BYTES, axis="energy, J", is_choosable=True)
    monkeypatch.setitem(COSTS, "train_joules", cost)
    study = stored_study(tmp_path / "s", CANDIDATES)
    for path in (study.folder / "runs").glob("*/run.json"):  # the place that measures it
        record = read_json(path)
        record["costs"]["train_joules"] = 100.0 if record["strategy"] == "full" else 50.0
        write_json(path, record)
    comparison = study.comparison(cost=check_cost("train_joules"))
    assert comparison.verdict.cost == "train_joules"
    assert [column.title for column in leaderboard.leaderboard(comparison).columns][-1] == "energy"
    assert "cost-train_joules" in {name for section in sections(comparison) for name, _ in section.charts()}
    assert "train_joules" in comparison.leaderboard
    monkeypatch.setitem(COSTS, "train_joules", replace(cost, is_choosable=False, phase="energy phase"))
    assert compute.costs(study.comparison()).columns[-1].key == "train_joules"


def test_costs_without_a_rate_are_not_shown(tmp_path):
    comparison = stored_study(tmp_path / "s", CANDIDATES, seeds=1).comparison()
    titles = [column.title for column in leaderboard.leaderboard(comparison).columns]
    assert titles[-1] == "trainable"
    assert "usd" not in comparison.leaderboard
    assert "joules" not in str(compute.costs(replace(comparison, rows=without_cost(comparison, "fit_joules"))).columns)


def without_cost(comparison, cost):
    """The rows of a comparison without one of their costs."""
    return tuple(replace(row, costs={k: v for k, v in row.costs.items() if k != cost}) for row in comparison.rows)


def test_a_price_shows_money_everywhere(tmp_path):
    rates = {"usd_per_hour": 0.9, "grams_per_kwh": 400}
    study = stored_study(tmp_path / "s", CANDIDATES, rates=rates, cost="usd")
    comparison = study.report()
    titles = [column.title for column in leaderboard.leaderboard(comparison).columns]
    assert titles[-3:] == ["training USD", "USD per million", "CO2"]
    charts = {name for section in sections(comparison) for name, _ in section.charts()}
    assert {"cost-usd", "cost-usd_per_million", "cost-co2_grams"} <= charts
    for suffix in ("csv", "tex"):
        text = (study.folder / "tables" / f"leaderboard.{suffix}").read_text()
        assert {"csv": "usd_per_million", "tex": "USD per million"}[suffix] in text
    assert comparison.verdict.cost == "usd"
    assert "Money is time at 0.90 USD an hour" in texts_of(leaderboard.section(comparison))
    assert "400 g per kWh" in texts_of(leaderboard.section(comparison))
    assert "That time costs 0.015 USD." in compute.whole_study(comparison)
    assert "2.0 Wh (800.0 mg of CO2)" in compute.whole_study(comparison)


def test_every_chart_and_table_has_a_name_of_its_own(comparison):
    parts = sections(comparison)
    charts = [name for section in parts for name, _ in section.charts()]
    tables = [table.name for section in parts for table in section.tables()]
    assert len(charts) == len(set(charts)) > 20
    assert len(tables) == len(set(tables)) > 10
    assert len({section.key for section in parts}) == len(parts)


def test_tables_hold_numbers(comparison):
    for section in sections(comparison):
        for table in section.tables():
            for row in table.rows:
                for column, value in zip(table.columns, row, strict=True):
                    plain = column.format.plain(value)
                    kinds = str if column.format.is_text else (int, float, np.integer, np.floating)
                    assert all(v is None or isinstance(v, kinds) for v in plain), (table.name, column.key, value)


def test_published_scores_are_compared_with_the_measured_ones(comparison):
    (row,) = reported.reported(comparison).rows
    score = comparison.rows[0].scores["accuracy"]
    assert row[:5] == ["full", None, "accuracy", 0.93, score]
    assert row[5] == pytest.approx(score - 0.93)


def test_the_time_and_energy_of_the_whole_study(comparison):
    assert compute.whole_study(comparison) == (
        "6 runs that took 72.0 s in total, finished in 60.0 s with 2 at once. "
        "The machine's processors used 2.0 Wh in that time, including other work."
    )


def test_the_compute_section_says_that_runs_waited_for_other_work(comparison):
    assert "Other work" not in text_of(compute.section(comparison))
    first, *others = comparison.rows
    rows = [replace(first, costs={**first.costs, "waited_seconds": 0.4 * first.costs["run_seconds"]}), *others]
    text = text_of(compute.section(replace(comparison, rows=rows)))
    assert f"Other work had the processors for up to 40 % of a run's time ({comparison.names[first.group]})" in text


def text_of(section):
    """The paragraphs of a section."""
    assert section is not None
    return "\n".join(block.text for block in section.blocks if isinstance(block, Text))


def chart_rows(chart):
    """The data of a chart, or of its first layer."""
    (rows,) = chart.to_dict()["datasets"].values()
    return rows


def test_shares_of_a_confusion_matrix_are_of_all_examples_of_a_label(tmp_path):
    names = [f"c{i}" for i in range(60)]
    comparison = stored_study(tmp_path / "s", [("full", "full", 0.5)], names, num_test=600, seeds=1).comparison()
    matrix = comparison.confusion["full-00000000"]
    for cell in chart_rows(classes.confusion(comparison, "full-00000000")):
        i, j = names.index(cell["true"]), names.index(cell["predicted"])
        assert cell["share"] == pytest.approx(matrix[i, j] / matrix[i].sum(), abs=1e-4)


@pytest.mark.parametrize(
    ("measure", "expected"),
    [("precision", {"a": 0, "c": 0, "d": 1}), ("recall", {"a": 0.5, "b": 1, "c": 0})],
)
def test_a_label_without_predictions_or_examples_has_no_error_rate(comparison, measure, expected):
    group, matrix = "full-00000000", np.array([[5, 0, 0, 5], [0, 0, 0, 4], [0, 0, 3, 0], [0, 0, 0, 0]])
    labels, predicted = (np.repeat(index, matrix.ravel()) for index in np.indices((4, 4)).reshape(2, -1))
    per_class = metrics.per_class(labels, predicted, LABELS)
    changed = replace(
        comparison, confusion={**comparison.confusion, group: matrix}, classes={**comparison.classes, group: per_class}
    )
    cells = chart_rows(classes.by_class(changed, measure, "", "oranges"))
    assert {cell["label"]: cell["value"] for cell in cells if cell["strategy"] == "full"} == expected


def test_texts_are_shortened_before_examples_are_left_out():
    kept, length = fit_into_budget([["a" * 500] * 10], np.arange(10), budget=2_000)
    assert (list(kept), 160 <= length <= 200) == (list(range(10)), True)
    kept, length = fit_into_budget([["a" * 500] * 10], np.arange(9, -1, -1), budget=480)
    assert (list(kept), length) == ([7, 8, 9], 160)


def test_names_include_the_encoder_where_there_are_several(comparison):
    rows = (*comparison.rows, replace(comparison.rows[0], group="full-2", model="other", difference=-0.01))
    both = replace(comparison, rows=rows)
    assert [row[0] for row in leaderboard.metrics(both).rows][::4] == ["full on m", "full on other"]
    assert leaderboard.leaderboard(both).columns[1].title == "encoder"


def test_failed_runs_are_listed_with_their_reason(tmp_path):
    comparison = stored_study(tmp_path / "s", [*CANDIDATES, ("head", "head", None)]).comparison()
    bullets = [block for block in leaderboard.section(comparison).blocks if isinstance(block, Bullets)]
    assert bullets[-1].items[0] == "head, seed 0: failed – ValueError: <b>it broke</b>"


def test_the_short_leaderboard_fits_a_plain_terminal(comparison):
    table = leaderboard.short_leaderboard(comparison)
    assert table.text_width <= 80 - len("probe classifier=svm") + len("strategy")
    cells = [row[2] for row in table.text_rows()]
    assert cells[0] == "best"
    assert all(re.fullmatch(r"\d\.\d{3} (equivalent|undecided|worse)", cell) for cell in cells[1:])


def test_a_difference_that_rounds_to_zero_has_no_sign(comparison):
    rows = (comparison.rows[0], replace(comparison.rows[1], difference=-0.0001), *comparison.rows[2:])
    table = leaderboard.short_leaderboard(replace(comparison, rows=rows))
    assert table.text_rows()[1][2].startswith("0.000 ")


def test_columns_of_strategies_have_names_for_csv(tmp_path):
    study = stored_study(tmp_path / "s", [("probe", "probe classifier=svm_low", 0.9), ("lora", "lora", 0.7)])
    examples = study.comparison().examples.assign(**{"slice:source": "web"})
    write_table(pa.Table.from_pandas(examples, preserve_index=False), study.folder / "test.parquet")
    keys = [column.key for column in slices.slices(Study.open(study.folder).comparison()).columns]
    assert keys[3:] == ["score_probe_classifier_svm_low", "score_lora"]


def test_cells_of_trials_have_full_precision():
    trial = Trial({"learning_rate": 0.00021234}, [1 / 3, 2 / 3], 2 / 3, "done", 1.5)
    assert search.OPTIONS.text(trial.options) == f"learning rate {format_option(0.00021234)}"
    assert json.loads(search.OPTIONS.plain(trial.options)[0]) == trial.options
    assert search.CHOSEN.text({}) == "the defaults: every trial failed"


def test_choosable_costs_have_names_for_help():
    assert {key: cost.name for key, cost in choosable_costs().items()}["fit_seconds"] == "training time"


def texts_of(section):
    """The sentences of a section."""
    return " ".join(block.text for block in section.every_block() if isinstance(block, Text))


def test_the_error_analysis_describes_how_it_counts(comparison):
    text = texts_of(errors.section(comparison))
    assert "Lengths are of the whole text, before truncation." in text
    assert "Point at a dot of the chart to see its 95 % confidence interval." in text
    assert "any of its labels" not in text
    multilabel = replace(comparison, data=replace(comparison.data, is_multilabel=True))
    assert "an example counts as wrong if any of its labels is wrong" in texts_of(errors.section(multilabel))


def test_charts_of_cost_are_described_only_if_there_are_any(comparison):
    assert "Pareto front" in texts_of(costs.section(comparison))
    free = replace(comparison, rows=tuple(replace(row, costs={}) for row in comparison.rows))
    assert "Pareto front" not in texts_of(costs.section(free))


def test_no_row_is_marked_as_the_pick_if_the_verdict_recommends_none(comparison):
    def num_picks(changed):
        return sum("recommended" in marks for marks in leaderboard.leaderboard(changed).marks)

    assert num_picks(comparison) == 1
    assert num_picks(replace(comparison, verdict=replace(comparison.verdict, recommended=None))) == 0


def test_a_class_counts_each_test_example_once(tmp_path):
    comparison = stored_study(
        tmp_path / "made", [("lora", "lora", 0.9), ("majority", "majority", 0.5)], seeds=3
    ).comparison()
    for row in comparison.rows:
        assert [scores.examples for scores in comparison.classes[row.group]] == [40, 40]


@pytest.mark.parametrize("values", [[1.2], [1.0, 1.0], [0.9, 1.1], [3e-7, 2e-6], [5.0, 12.0], [1e3, 2e9], [0.1, 0.3]])
def test_a_log_axis_has_several_ticks_and_holds_every_value(values):
    (low, high), ticks = log_axis(values)
    assert low <= min(values) <= max(values) <= high
    assert 2 <= len(ticks) <= 12
    assert all(low <= tick <= high for tick in ticks)


def test_equal_strategies_differ_by_zero_without_a_sign(tmp_path):
    study = stored_study(tmp_path / "made", [("lora", "lora", 1.0), ("full", "full", 1.0)])
    row = study.comparison().rows[1]
    assert str(row.difference) == "0.0"
