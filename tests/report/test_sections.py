"""Sections: a table, a chart, a cost or a whole section is added in one place and reaches every format."""

from dataclasses import replace

import altair as alt
import numpy as np
import pandas as pd
import pytest

from tests.stored import stored_study
from tuneoff.costs import COSTS, Cost, check_cost
from tuneoff.files import read_json, write_json
from tuneoff.report import sections as sections_module
from tuneoff.report.examples import fit_into_budget
from tuneoff.report.section import Bullets, Figures, Rows, Section, Text
from tuneoff.report.sections import classes, compute, leaderboard, reported, sections
from tuneoff.scoring import metrics
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
        "vocabulary", "Vocabulary", [Text("Words of the test texts."), Rows(table), Figures({"words-histogram": chart})]
    )


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
    assert bullets[0].items[0] == "head, seed 0: failed – ValueError: <b>it broke</b>"
