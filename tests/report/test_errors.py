"""Sections about errors: numbers and kinds of mistakes, words by strategy and phenomena, with sentences from tests."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.stored import stored_study
from tuneoff.report.examples import browser_data
from tuneoff.report.section import Figures, Text
from tuneoff.report.sections import classes, errors, mistakes, phenomena, sections, words
from tuneoff.study import Study

CANDIDATES = [("full", "full", 0.85), ("lora", "lora", 0.6), ("tfidf", "tfidf", 0.5), ("majority", "majority", 0.3)]
TEXTS = [
    f"we went to the place that they said it was{' not' if i % 4 == 0 else ''} and {'?' if i % 3 else ''} {'far ' * (i % 7)}"
    for i in range(300)
]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("errors") / "s"
    return stored_study(folder, CANDIDATES, ("a", "b", "c"), texts=TEXTS, num_test=300, tags={"far": "far (?=far)"})


@pytest.fixture(scope="module")
def comparison(study):
    return study.comparison()


def text_of(section):
    return " ".join(block.text for block in section.every_block() if isinstance(block, Text))


def test_mistakes_add_up_to_the_share_of_wrong_predictions(comparison):
    for row, cells in zip(comparison.rows, mistakes.numbers(comparison, comparison.mistakes).rows, strict=True):
        assert cells[0] == row.label
        assert cells[3] == pytest.approx(1 - row.scores["accuracy"])
        assert cells[1] == pytest.approx(300 * (1 - row.scores["accuracy"]))
    by_label = mistakes.mistakes_by_label(comparison, comparison.mistakes)
    for row in comparison.rows:
        shares = [cells[5] for cells in by_label.rows if cells[0] == row.label]
        assert sum(shares) == pytest.approx(1)


def test_confusions_are_counted_for_each_seed(comparison):
    rows = [cells for cells in classes.confusions(comparison).rows if cells[0] == "full"]
    (full,) = [row for row in comparison.rows if row.label == "full"]
    assert sum(cells[3] for cells in rows) == pytest.approx(300 * (1 - full.scores["accuracy"]))
    assert sum(cells[5] for cells in rows) == pytest.approx(1)
    (numbers,) = classes.confusion(comparison, full.group).to_dict()["datasets"].values()
    assert sum(cell["examples"] for cell in numbers) == pytest.approx(300)


def test_strategies_that_differ_in_number_only_are_described_so(comparison):
    sentence = mistakes.profile_conclusion(comparison, comparison.mistakes)
    rest = "; they are not shown to differ in the kind of their mistakes."
    assert comparison.metric == "accuracy"
    assert sentence == f"Strategies differ in the number of their mistakes{rest}"
    by_f1 = replace(comparison, metric="macro_f1")  # whose pairs say nothing of a number
    assert mistakes.profile_conclusion(by_f1, by_f1.mistakes) == f"Strategies differ in macro f1{rest}"
    lines = mistakes.profile_sentences(comparison, comparison.mistakes)
    assert [line.split(":")[0] for line in lines] == ["By true label", "By predicted label", "By length"]
    assert "Konietschke & Pauly" in text_of(mistakes.section(comparison))


def test_every_part_reaches_the_files(study):
    study.report()
    names = {path.name for folder in ("tables", "figures") for path in (study.folder / folder).iterdir()}
    assert {"mistakes.csv", "mistakes-by-label.csv", "mistake-profiles.csv", "gaps.csv", "confusions.csv"} <= names
    assert {"phenomena.csv", "phenomena-by-strategy.csv", "length-trend.csv", "words-by-strategy.csv"} <= names
    assert {"mistakes-true.svg", "mistakes-predicted.svg", "profiles-true.svg", "phenomena.svg"} <= names
    assert {"phenomena-strategies.svg", "words-by-strategy.svg", "gap-full-00000000.svg"} <= names
    stored = json.loads((study.folder / "comparison.json").read_text())
    assert set(stored["mistakes"]) == {"misclassified", "by_label", "profiles"}
    assert stored["phenomena"]["texts"]["negation"] == 75


def test_tags_are_filters_of_the_example_browser(comparison):
    data = browser_data(comparison)
    assert data is not None
    assert data.tags["negation"] == list(range(0, 300, 4))
    assert data.tags["far"]
    json.dumps(data.to_json())


def test_tags_change_no_run(study):
    assert study.comparison().phenomena.masks["far"].any()
    changed = study.changed(tags={})
    assert [r.run_id for r in changed.comparison().records] == [r.run_id for r in study.comparison().records]
    assert "far" not in changed.comparison().phenomena.masks


def planted(tmp_path, tag=" not", length=None):
    """A study whose strategies are wrong on texts with a tag, or on short ones."""
    rng = np.random.default_rng(0)
    fillers = [3 + int(n) for n in rng.integers(0, 30, 400)]
    texts = [f"they said that it was{tag if i % 5 == 0 else ''} {'so ' * n}" for i, n in enumerate(fillers)]
    study = stored_study(tmp_path / "s", [("full", "full", 0.9), ("lora", "lora", 0.9)], texts=texts, num_test=400)
    for path in (study.folder / "runs").glob("*/predictions.parquet"):
        table = pd.read_parquet(path)
        is_test = (table["split"] == "test").to_numpy()
        chosen = [n < 8 for n in fillers] if length else [i % 5 == 0 for i in range(400)]
        wrong = rng.random(400) < np.where(chosen, 0.6, 0.1)
        table.loc[is_test, "predicted"] = np.where(wrong, 1 - table["label"][is_test], table["label"][is_test])
        table.to_parquet(path)
    return Study.open(study.folder).comparison()


def test_a_significant_phenomenon_is_a_sentence(tmp_path):
    comparison = planted(tmp_path)
    first = phenomena.sentences(comparison, comparison.phenomena)[0]
    assert first.startswith("Texts with negation are misclassified more often: ")
    assert "80 texts, 20.0 %" in first
    assert first.endswith("; taken one by one, significant for every strategy.")
    assert "No phenomenon" not in " ".join(phenomena.sentences(comparison, comparison.phenomena))


def test_short_texts_with_the_highest_error_rate_are_a_sentence(tmp_path):
    comparison = planted(tmp_path, length="short")
    sentence = phenomena.length_sentence(comparison)
    assert sentence.startswith("Short texts have the highest error rate: ")
    assert "p < 0.001" in sentence
    assert sentence in text_of(errors.section(comparison))


def test_what_is_not_significant_is_said(comparison):
    lines = phenomena.sentences(comparison, comparison.phenomena)
    assert any(line.startswith("No trend of the error rate with length is shown") for line in lines)
    assert any(line.startswith("No phenomenon is shown to change the error rate: negation") for line in lines)
    assert any("Not tested, with fewer than 10 texts" in line for line in lines)


def test_words_of_each_strategy_are_described(comparison):
    text = text_of(words.section(comparison))
    assert "false discovery rate of 5 % over all words and strategies" in text
    assert "No word is significantly over-represented for a single strategy." in text


def test_one_strategy_has_neither_pairs_nor_a_mean(tmp_path):
    comparison = stored_study(tmp_path / "s", [("full", "full", 0.7)], texts=TEXTS, num_test=300).comparison()
    keys = {section.key for section in sections(comparison)}
    assert {"mistakes", "words", "phenomena"} <= keys
    assert "Konietschke" not in text_of(mistakes.section(comparison))
    assert set(comparison.phenomena.rates["group"]) == {"full-00000000"}
    charts = {name for section in sections(comparison) for name, _ in section.charts()}
    assert "phenomena-strategies" not in charts
    assert "words-by-strategy" not in charts


def test_many_classes_have_rows_in_place_of_bars(tmp_path):
    names = [f"class {i}" for i in range(77)]
    comparison = stored_study(tmp_path / "s", CANDIDATES[:2], names, num_test=770, seeds=1).comparison()
    chart = mistakes.labels_chart(comparison, comparison.mistakes, "true")
    gaps = mistakes.gap_chart(comparison, comparison.mistakes, "full-00000000")
    assert chart is not None
    assert gaps is not None
    (cells,) = chart.to_dict()["datasets"].values()
    assert len({cell["label"] for cell in cells}) == 30
    (boxes,) = gaps.to_dict()["datasets"].values()
    assert len(boxes) <= 20
    section = mistakes.section(comparison)
    assert section is not None
    (menu,) = [b.menu for b in section.every_block() if isinstance(b, Figures) and b.menu]
    assert list(menu.names.values()) == ["full", "lora"]
    assert "The 30 labels with the most mistakes are shown." in text_of(mistakes.section(comparison))
