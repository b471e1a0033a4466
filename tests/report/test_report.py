"""What stands in a report is data: inert, legible, and the same in every format."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

from tests.made import made_study
from tuneoff import formats, metrics
from tuneoff.comparison.result import Pair, Row
from tuneoff.comparison.verdict import judge
from tuneoff.report import error_charts, tables
from tuneoff.report.browser import fitting
from tuneoff.runs import read_json, write_json

HOSTILE = "<script>window.hit=1</script>"
LABELS = (HOSTILE, "=SUM(A1)", "50 % & more_$#", "مرحبا 😀")


def row(name, score, seconds, is_tied, strategy=None, **changes):
    given = Row(
        group=f"{name}-1",
        label=name,
        strategy=strategy or name,
        model="m",
        seeds=(0, 1),
        score=score,
        spread=0.01,
        interval=(score - 0.02, score + 0.02),
        from_examples=0.01,
        from_seeds=0.005,
        validation=score,
        scores={"accuracy": score, "macro_f1": score},
        difference=score - 0.9,
        difference_interval=(score - 0.92, 0.01 if is_tied else score - 0.88),
        p_value=0.4 if is_tied else 0.001,
        is_tied=is_tied,
        costs={"train_seconds": seconds, "peak_bytes": 2e9, "model_bytes": 9e7, "run_seconds": seconds + 1},
        parameters={"trainable": 10, "added": 2, "head": 8, "total": 100},
    )
    return replace(given, **changes)


def pairs_of(rows, **changes):
    return tuple(
        Pair(
            better=one.group,
            worse=other.group,
            difference=one.score - other.score,
            interval=(one.score - other.score - 0.02, one.score - other.score + 0.02),
            p_value=other.p_value / 3,
            p_corrected=other.p_value,
            mcnemar=other.p_value / 2,
            effect=0.1,
            **{"needed_examples": 4321, "needed_seeds": None, **changes},
        )
        for one, other in itertools.combinations(rows, 2)
    )


def judged(rows, metric="accuracy", cost="train_seconds", num_test=1000, **changes):
    return judge(rows, pairs_of(rows, **changes), metric, cost, num_test)


CANDIDATES = [("full", "full", 0.95), ("lora", "lora", 0.7), ("tfidf", "tfidf", 0.6), ("majority", "majority", 0.3)]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study whose texts and labels are hostile, with a run that failed."""
    return made_study(
        tmp_path_factory.mktemp("made") / "s",
        [*CANDIDATES, ("head", HOSTILE, None)],
        LABELS,
        texts=[HOSTILE, "fine", "=1+1", "\x00\x1b[31m bell\x07", "\u202eright to left", "😀 " * 40_000],
        reported=[{"strategy": "full", "score": 0.93, "source": HOSTILE}],
    )


@pytest.fixture(scope="module")
def comparison(study):
    return study.comparison()


@pytest.fixture(scope="module")
def written(study):
    study.report()
    return study.folder


def test_the_verdict_picks_the_cheapest_of_the_tied():
    verdict = judged((row("full", 0.9, 100, True), row("lora", 0.89, 40, True), row("head", 0.7, 5, False)))
    assert (verdict.best, verdict.recommended, verdict.tied) == ("full-1", "lora-1", ("full-1", "lora-1"))
    assert verdict.text == (
        "full scores best: accuracy 0.900 (95 % interval 0.880 to 0.920, 2 seeds). On 1,000 test examples it cannot be told "
        "from lora. The cheapest of them in training time is lora (2.5 times less than full): pick it. "
        "To tell full from lora, were they 0.010 apart as here, would take about 4,400 test examples (80 % power)."
    )


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        ({"needed_examples": None, "needed_seeds": 12}, "would take 12 seeds (80 % power)."),
        ({"needed_examples": 950, "needed_seeds": 12}, "would take about 950 test examples or 12 seeds (80 % power)."),
        ({"needed_examples": None}, "would take more test examples and more seeds."),
    ],
)
def test_what_would_settle_it_is_said(needs, said):
    assert judged((row("full", 0.9, 100, True), row("lora", 0.89, 40, True)), **needs).text.endswith(said)


def test_what_says_nothing_of_a_text_is_never_the_pick():
    rows = (row("full", 0.5, 100, True), row("lora", 0.49, 40, True), row("majority", 0.48, 0.1, True, model=None))
    verdict = judged(rows)
    assert verdict.recommended == "lora-1"
    assert "majority says nothing of a text: so far nothing is shown to have been learnt." in verdict.text
    alone = (row("majority", 0.5, 0.1, True, model=None),)
    assert judged(alone).text.endswith("Pick majority.")


def test_an_untrained_head_that_guesses_wildly_is_not_said_to_be_as_good():
    rows = (
        row("full", 0.7, 100, True),
        row("untrained", 0.3, 0.1, True),
        row("majority", 0.25, 0.1, False, model=None),
    )
    assert "untrained" not in judged(rows).text.split("Pick")[0].split("nearest")[0]
    assert judged(rows).tied == ("full-1",)
    without = judged(rows[:2])  # nothing says that anything was learnt
    assert "untrained says nothing of a text: so far nothing is shown to have been learnt." in without.text


def test_a_clear_winner_is_said_to_be_one():
    rows = (row("full", 0.9, 100, True), row("head", 0.7, 5, False))
    text = judged(rows, "macro_f1").text
    assert "better than every other: the nearest, head, is 0.200 behind (0.180 to 0.220)" in text
    assert text.endswith("Pick full.")


def test_one_strategy_alone_has_a_verdict():
    assert judged((row("full", 0.9, 100, True),)).text.endswith("Pick full.")


def test_data_cannot_become_markup(written):
    found = (written / "report" / "index.html").read_text()
    assert HOSTILE not in found
    assert "&lt;script&gt;window.hit=1" in found
    assert "<script" not in (written / "report.md").read_text()


def test_characters_that_do_not_show_are_made_visible(written):
    found = (written / "report" / "index.html").read_text()
    assert not set("\x00\x07\x1b\u202e") & set(found)
    assert "⟨U+202E⟩right to left" in found


def test_the_page_asks_for_nothing_from_elsewhere(written):
    found = (written / "report" / "index.html").read_text()
    markup = re.sub(r"<(script|style).*?</\1>", "", found, flags=re.DOTALL)
    assert not re.search(r"""(src=|href="(?!#)|url\()""", markup)
    assert "default-src 'none'" in found


def test_every_file_is_written(written):
    names = {str(path.relative_to(written)) for path in written.rglob("*") if path.is_file()}
    charts = [
        "scores", "cost-train_seconds", "cost-latency_seconds", "labels", "lengths", "lengths-box", "validation", "loss", "compute",
        "confusion-full-00000000", "f1", "errors-true", "errors-predicted", "errors-length", "confidence", "margin", "reliability", "overlap", "missed",
    ]  # fmt: skip
    for name in charts:
        assert {f"figures/{name}.svg", f"figures/{name}.png"} <= names
    for name in (
        "leaderboard",
        "pairs",
        "data",
        "metrics",
        "parameters",
        "classes",
        "calibration",
        "costs",
        "reported",
    ):
        assert {f"tables/{name}.csv", f"tables/{name}.tex", f"tables/{name}.md"} <= names


def test_figures_of_strategies_that_are_gone_go_too(study, written):
    (written / "figures" / "confusion-gone.svg").write_text("<svg/>")
    study.report()
    assert not (written / "figures" / "confusion-gone.svg").exists()


def test_published_numbers_stand_beside_measured_ones(comparison):
    _, body = tables.reported(comparison)
    score = comparison.rows[0].scores["accuracy"]
    assert body[0][:6] == ["full", "–", "accuracy", "0.930", f"{score:.3f}", f"{score - 0.93:+.3f}"]


def test_what_the_whole_study_took_is_said(comparison):
    assert tables.whole_study(comparison) == (
        "6 runs of 72.0 s in all, made in 60.0 s, 2 at once. "
        "The machine's processors drew 2.0 Wh meanwhile, other work included."
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategies", "changes"),
    [
        pytest.param([("full", "full", 0.8)], {"seeds": 1}, id="one strategy, one seed"),
        pytest.param([("majority", "majority", 0.5)], {}, id="the most frequent class alone"),
        pytest.param([("full", "full", 1.0), ("lora", "lora", 1.0)], {}, id="all right"),
        pytest.param([("full", "full", 0.0), ("lora", "lora", 0.0)], {}, id="all wrong"),
        pytest.param(CANDIDATES, {"num_test": 1}, id="one test example"),
        pytest.param(CANDIDATES, {"num_test": 3, "label_names": [f"class {i}" for i in range(9)]}, id="classes that test lacks"),
        pytest.param(CANDIDATES, {"metric": "log_loss"}, id="log loss"),
        pytest.param([("full", "full", None)], {}, id="nothing succeeded"),
        pytest.param(CANDIDATES, {"texts": [""]}, id="empty texts"),
        pytest.param(CANDIDATES, {"texts": ["日本語の文章はここに空白なしで書かれている。とても長い文になることもある。"]}, id="no spaces"),
        pytest.param([("lora", f"lora rank={i}", 0.5 + i / 100) for i in range(40)], {"seeds": 1}, id="40 strategies"),
        pytest.param(CANDIDATES, {"label_names": [f"a label with a long name {i} " * 9 for i in range(150)], "num_test": 600}, id="150 classes"),
    ],
)  # fmt: skip
def test_any_study_gives_a_page(strategies, changes, tmp_path):
    study = made_study(tmp_path / "s", strategies, **changes)
    comparison = study.report()
    found = (study.folder / "report" / "index.html").read_text()
    assert len(found) < 8e6
    assert ("No run succeeded" in found) == (not comparison.rows)
    for row in comparison.rows:
        assert row.label in found


def test_a_study_of_an_earlier_version_says_what_is_missing(tmp_path):
    study = made_study(tmp_path / "s", CANDIDATES)
    (study.folder / "test.parquet").unlink()
    (study.folder / "sessions.json").unlink()
    data = read_json(study.folder / "data.json")
    del data["first_examples"]
    for found in data["lengths"]["m"].values():
        del found["box"], found["histogram"]
    write_json(study.folder / "data.json", data)
    comparison = study.report()
    assert comparison.errors is not None
    assert "test texts are not stored" in (study.folder / "report" / "index.html").read_text()


def rows_of(chart):
    """The data of a chart, or of its first layer."""
    spec = chart.to_dict()
    (rows,) = spec["datasets"].values()
    return rows


def test_shares_of_a_confusion_are_of_all_examples_of_a_label(tmp_path):
    names = [f"c{i}" for i in range(60)]
    comparison = made_study(tmp_path / "s", [("full", "full", 0.5)], names, num_test=600, seeds=1).comparison()
    matrix = comparison.confusion["full-00000000"]
    for cell in rows_of(error_charts.confusion(comparison, "full-00000000")):
        i, j = names.index(cell["true"]), names.index(cell["predicted"])
        assert cell["share"] == pytest.approx(matrix[i, j] / matrix[i].sum(), abs=1e-4)


def test_what_is_never_predicted_has_no_wrong_predictions(comparison):
    group, matrix = "full-00000000", np.array([[5, 0, 0, 5], [0, 0, 0, 4], [0, 0, 3, 0], [0, 0, 0, 0]])
    truth, guess = (np.repeat(index, matrix.ravel()) for index in np.indices((4, 4)).reshape(2, -1))
    found = metrics.per_class(truth, guess, LABELS)
    changed = replace(
        comparison, confusion={**comparison.confusion, group: matrix}, classes={**comparison.classes, group: found}
    )
    shares = {
        measure: {cell["label"]: cell["value"] for cell in rows_of(error_charts.by_class(changed, measure, "", "oranges")) if cell["strategy"] == "full"}
        for measure in ("precision", "recall")
    }  # fmt: skip
    assert shares["precision"] == {LABELS[0]: 0, LABELS[2]: 0, LABELS[3]: 1}
    assert shares["recall"] == {LABELS[0]: 0.5, LABELS[1]: 1, LABELS[2]: 0}


def test_texts_are_cut_before_examples_are_left_out():
    few, length = fitting([["a" * 500] * 10], np.arange(10), budget=2_000)
    assert (list(few), 160 <= length <= 200) == (list(range(10)), True)
    few, length = fitting([["a" * 500] * 10], np.arange(9, -1, -1), budget=480)
    assert (list(few), length) == ([7, 8, 9], 160)


def test_encoders_are_named_where_there_are_several(comparison):
    rows = (*comparison.rows, replace(comparison.rows[0], group="full-2", model="other", difference=-0.01))
    both = replace(comparison, rows=rows)
    assert [line[0] for line in tables.metrics(both)[1]][::4] == ["full on m", "full on other"]


def test_an_unknown_cost_decides_nothing():
    rows = (row("full", 0.9, 100, True, costs={}), row("lora", 0.89, 40, True))
    assert "is not known for all" in judged(rows, cost="model_bytes").text


def test_spreadsheets_see_no_formula(tmp_path):
    formats.write_csv(
        (["label", "x"], [["=SUM(A1)", "-0.013 (-0.02 to +0.01) tied"], ["@cmd", "+1.5"]]), tmp_path / "t.csv"
    )
    assert (tmp_path / "t.csv").read_text().splitlines() == [
        "label,x",
        "'=SUM(A1),-0.013 (-0.02 to +0.01) tied",
        "'@cmd,+1.5",
    ]


def test_latex_and_markdown_leave_text_as_it_is():
    assert (
        formats.latex_text("50 % & a_b $#{}~^\\<")
        == r"50 \% \& a\_b \$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}\textless{}"
    )
    assert formats.markdown_text("a|b\n<i>*") == r"a\|b &lt;i&gt;\*"


def test_a_word_that_vega_would_run_is_only_a_word(tmp_path):
    study = made_study(tmp_path / "made", [("full", "full", 0.9), ("lora", "lora", 0.7)], label_names=("if", "else"))
    study.report()
    assert (study.folder / "figures" / "f1.svg").is_file()


def test_numbers_read_well():
    assert [formats.seconds(s) for s in (0.0, 0.01, 5.25, 300, 10_000)] == [
        "0.0 s",
        "10.0 ms",
        "5.2 s",
        "5.0 min",
        "2.8 h",
    ]
    assert [formats.size(b) for b in (12, 4e3, 9.1e7, 2.5e9, None)] == ["12 B", "4.0 kB", "91.0 MB", "2.5 GB", "–"]
