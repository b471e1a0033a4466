"""Imported training logs: shown next to the rows, in the charts and tables of training, and in no statistics."""

import json
import re

import pytest

from tests.stored import stored_study
from tests.trainer import run_trainer
from tuneoff.errors import ConfigError, DataError
from tuneoff.report.sections import imported, leaderboard, sections, training
from tuneoff.spec.file import study_from
from tuneoff.spec.stated import merged_imports

CANDIDATES = [("full", "full", 0.8), ("tfidf", "tfidf", 0.6), ("majority", "majority", 0.5)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The output folder of a real training."""
    return run_trainer(tmp_path_factory.mktemp("trainer") / "out")


@pytest.fixture(scope="module")
def study(folder, tmp_path_factory):
    """A stored study with two logs: a folder with curves and test scores, and scores alone."""
    study = stored_study(tmp_path_factory.mktemp("stored") / "s", CANDIDATES)
    scores = folder.parent / "theirs.json"
    scores.write_text(json.dumps({"eval_f1_macro": 0.7, "eval_accuracy": 93.1}))
    study = study.add_imported([f"theirs={folder}", {"name": "paper", "file": str(scores)}])
    scores.unlink()  # the study's folder is enough
    return study


@pytest.fixture(scope="module")
def comparison(study):
    return study.report()


def test_an_imported_log_takes_no_part_in_the_statistics(study, comparison, tmp_path):
    plain = stored_study(tmp_path / "plain", CANDIDATES).comparison()
    assert [row.group for row in comparison.rows] == [row.group for row in plain.rows]
    assert comparison.pairs == plain.pairs
    assert comparison.verdict == plain.verdict


def test_the_leaderboard_ends_with_the_score_that_a_log_states(comparison):
    *rows, last = leaderboard.leaderboard(comparison).text_rows()
    assert len(rows) == len(comparison.rows)  # the other log's accuracy of 93.1 is no share
    stated = f"{comparison.imported[0].log.scores['test']['accuracy']:.3f}"
    assert last[:5] == ["theirs (imported)", stated, "–", "–", "imported: test"]
    assert set(last[5:]) == {"–"}
    short = leaderboard.short_leaderboard(comparison).text_rows()[-1]
    assert short == ["theirs (imported)", stated, "imported: test", "–"]
    assert "are not ranked or tested" in str(leaderboard.section(comparison).blocks)


def test_stated_scores_are_shown_under_their_own_names(comparison):
    rows = imported.scores(comparison.imported).rows
    assert {(row[0], row[1], row[2]) for row in rows} == {
        *[
            ("theirs (imported)", split, name)
            for split in ("evaluation", "test")
            for name in ("loss", "accuracy", "f1")
        ],
        ("paper (imported)", "evaluation", "f1_macro"),
        ("paper (imported)", "evaluation", "accuracy"),
    }
    settings = imported.settings(comparison.imported).text_rows()
    assert settings[0][1:5] == ["3", "15", "8", "0.00467"]
    assert settings[1][1:6] == ["–"] * 5


def test_a_score_is_found_by_the_name_of_our_metric(comparison):
    theirs, paper = comparison.imported
    assert theirs.score("accuracy") == (theirs.log.scores["test"]["accuracy"], "test")
    assert theirs.score("macro_f1") is None  # f1 may be binary
    assert paper.score("macro_f1") == (0.7, "evaluation")
    assert paper.score("accuracy") is None


def test_epochs_and_curves_are_in_the_training_section(comparison):
    rows = [row for row in training.epochs(comparison).text_rows() if row[0] == "theirs (imported)"]
    assert [row[1] for row in rows] == ["1", "2", "3"]
    log = comparison.imported[0].log
    losses = [step["loss"] for step in log.steps if 1 < step["epoch"] <= 2]
    assert rows[1][2] == f"{sum(losses) / len(losses):.3f}"
    assert rows[1][3] == f"{log.evaluations[1]['loss']:.3f}"
    charts = dict(chart for section in sections(comparison) for chart in section.charts())
    for name in ("losses", "loss", "evaluation-loss", "validation", "learning-rate"):
        assert "theirs (imported)" in charts[name].to_json(), name
    assert "theirs (imported)" not in charts["scores"].to_json()


def test_logs_are_in_the_study_and_can_be_replaced(study, folder):
    assert [entry.name for entry in study.spec.imported] == ["theirs", "paper"]
    assert "imported" in (study.folder / "report.md").read_text()
    assert study.store.has_imported("paper")
    entries = merged_imports(study.spec.imported, [f"theirs={folder / 'trainer_state.json'}"])
    assert [entry["name"] for entry in entries] == ["theirs", "paper"]
    assert entries[0]["file"].endswith("trainer_state.json")
    with pytest.raises(DataError, match=re.escape("imported other: file 'gone.json' does not exist")):
        study.add_imported(["other=gone.json"])
    assert not study.store.has_imported("other")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["x.json"], "'x.json' is not name=file; write e.g. theirs=trainer_state.json"),
        (["LoRA=x.json"], "imported logs 'LoRA' have the name of a strategy"),
        (["a=x.json", "A=y.json"], "imported logs 'a' are given twice"),
        ([{"name": "a", "path": "x"}], "imported.0.file: Field required"),
    ],
)
def test_mistakes_are_one_line(entries, message):
    with pytest.raises(ConfigError) as error:
        study_from({"data": {"source": "x"}, "imported": entries})
    assert message in str(error.value)
