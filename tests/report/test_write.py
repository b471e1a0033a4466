"""The written report: complete, inert, readable, and the same in every format."""

import re

import pytest

from tests.stored import stored_study
from tuneoff.files import read_json, write_json

HOSTILE = "<script>window.hit=1</script>"
LABELS = (HOSTILE, "=SUM(A1)", "50 % & more_$#", "مرحبا 😀")
CANDIDATES = [("full", "full", 0.95), ("lora", "lora", 0.7), ("tfidf", "tfidf", 0.6), ("majority", "majority", 0.3)]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study whose texts and labels are hostile, with a run that failed."""
    return stored_study(
        tmp_path_factory.mktemp("stored") / "s",
        [*CANDIDATES, ("head", HOSTILE, None)],
        LABELS,
        texts=[HOSTILE, "fine", "=1+1", "\x00\x1b[31m bell\x07", "\u202eright to left", "😀 " * 40_000],
        reported=[{"strategy": "full", "score": 0.93, "source": HOSTILE}],
    )


@pytest.fixture(scope="module")
def written(study):
    study.report()
    return study.folder


def test_data_cannot_become_markup(written):
    page = (written / "report" / "index.html").read_text()
    assert HOSTILE not in page
    assert "&lt;script&gt;window.hit=1" in page
    assert "<script" not in (written / "report.md").read_text()


def test_characters_that_do_not_show_are_made_visible(written):
    page = (written / "report" / "index.html").read_text()
    assert not set("\x00\x07\x1b\u202e") & set(page)
    assert "⟨U+202E⟩right to left" in page
    for path in [written / "report.md", *(written / "tables").glob("*.md")]:
        assert not set("\x00\x07\x1b\u202e") & set(path.read_text())


def test_the_page_asks_for_nothing_from_elsewhere(written):
    page = (written / "report" / "index.html").read_text()
    markup = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)
    assert not re.search(r"""(src=|href="(?!#)|url\()""", markup)
    assert "default-src 'none'" in page


def test_every_file_is_written(written):
    names = {str(path.relative_to(written)) for path in written.rglob("*") if path.is_file()}
    charts = [
        "scores", "cost-fit_seconds", "cost-latency_seconds", "labels", "lengths", "lengths-box", "validation", "loss", "compute",
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


def test_only_files_that_a_report_wrote_are_removed(study, written):
    users = [
        written / "tables" / "my-notes.md",
        written / "figures" / "logo.png",
        written / "figures" / "confusion-my.svg",
    ]
    former = [written / "figures" / "confusion-gone.svg", written / "tables" / "gone.csv"]
    for path in [*users, *former]:
        path.write_text("x")
    names = read_json(written / "report" / "written.json")
    outside = written / "data.json"
    stored = [*names, "figures/confusion-gone.svg", "tables/gone.csv", "data.json", "tables/../data.json"]
    write_json(written / "report" / "written.json", stored)
    study.report()
    assert [path.exists() for path in former] == [False, False]
    assert all(path.exists() for path in [*users, outside])
    assert read_json(written / "report" / "written.json") == names
    for path in users:
        path.unlink()


def test_a_report_of_an_earlier_version_loses_only_figures_named_after_the_study(study, written):
    (written / "report" / "written.json").unlink()
    kept = [
        written / "tables" / "confusion-notes.md",
        written / "tables" / "gone.csv",
        written / "figures" / "logo.png",
    ]
    former = [written / "figures" / f"{name}-gone.{suffix}" for name in ("confusion", "slice", "search") for suffix in ("svg", "png")]  # fmt: skip
    for path in [*kept, *former]:
        path.write_text("x")
    study.report()
    assert not any(path.exists() for path in former)
    assert all(path.exists() for path in kept)
    for path in kept:
        path.unlink()


def test_texts_of_the_dataset_are_on_the_page_only(tmp_path):
    strategies = [("full", "full", 0.9), ("lora", "lora", 0.7)]
    texts = [f"secretword number {i} of the texts" for i in range(400)]
    study = stored_study(tmp_path / "s", strategies, num_test=400, texts=texts)
    description = read_json(study.folder / "data.json")
    description["first_examples"] = [{"label": "negative", "text": "secretword first"}]
    write_json(study.folder / "data.json", description)
    study.report()
    page = (study.folder / "report" / "index.html").read_text()
    assert "secretword first" in page
    assert 'id="table-label-errors"' in page
    assert "secretword" not in (study.folder / "report.md").read_text()
    assert {path.name for path in (study.folder / "tables").iterdir() if "secretword" in path.read_text()} <= {
        f"{name}.{suffix}"
        for name in ("label-errors", "words", "words-by-strategy", "frequent-words")
        for suffix in ("csv", "md", "tex")
    }


def test_markdown_is_about_neither_shading_nor_clicks(written):
    text = (written / "report.md").read_text()
    assert not re.search(r"Shaded|Click|Point at|Left:|Right:", text)
    page = (written / "report" / "index.html").read_text()
    assert "Shaded rows" in page
    assert "Click a column&#39;s heading" in page


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
    study = stored_study(tmp_path / "s", strategies, **changes)
    comparison = study.report()
    page = (study.folder / "report" / "index.html").read_text()
    assert len(page) < 8e6
    assert ("No run succeeded" in page) == (not comparison.rows)
    for row in comparison.rows:
        assert row.label in page


def test_a_study_of_an_earlier_version_says_what_is_missing(tmp_path):
    study = stored_study(tmp_path / "s", CANDIDATES)
    (study.folder / "test.parquet").unlink()
    (study.folder / "sessions.json").unlink()
    data = read_json(study.folder / "data.json")
    del data["first_examples"]
    for lengths in data["lengths"]["m"].values():
        del lengths["box"], lengths["histogram"]
    write_json(study.folder / "data.json", data)
    comparison = study.report()
    assert comparison.errors is not None
    assert "did not store the test texts" in (study.folder / "report" / "index.html").read_text()


def test_a_word_that_vega_would_run_is_only_a_word(tmp_path):
    study = stored_study(tmp_path / "made", [("full", "full", 0.9), ("lora", "lora", 0.7)], label_names=("if", "else"))
    study.report()
    assert (study.folder / "figures" / "f1.svg").is_file()
