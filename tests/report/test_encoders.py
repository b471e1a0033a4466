"""Studies of several encoders: their names, the grid of scores, and the sentence on which is better."""

import json

import pytest

from tests.stored import stored_study
from tuneoff.deliver.find import find
from tuneoff.report.sections.encoders import encoders_text, scores, section
from tuneoff.report.sections.leaderboard import leaderboard, short_leaderboard
from tuneoff.study import Study

ROWS = [("probe", "probe", 0.95), ("lora", "lora", 0.9), ("probe", "probe", 0.6), ("majority", "majority", 0.5)]


@pytest.fixture
def comparison(tmp_path):
    """Two strategies on the encoder m, one of them also on another."""
    study = stored_study(tmp_path / "made", ROWS, num_test=300)
    for path in study.folder.glob("runs/probe-00000002-*/run.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "model": "/a/folder/other"}))
    return study.comparison()


def test_names_are_short(comparison):
    assert list(comparison.names.values()) == ["probe on m", "lora on m", "probe on other", "majority"]
    assert [row[1] for row in leaderboard(comparison).rows] == ["m", "m", "other", None]
    assert [row[0] for row in short_leaderboard(comparison).rows] == list(comparison.names.values())


def test_the_grid_holds_every_strategy_and_encoder(comparison):
    table = scores(comparison)
    assert [column.title for column in table.columns] == ["strategy", "m", "other"]
    assert [[cell[0] if isinstance(cell, tuple) else cell for cell in row] for row in table.rows] == [
        ["probe", comparison["probe on m"].score, comparison["probe on other"].score],
        ["lora", comparison["lora on m"].score, None],
    ]


@pytest.mark.parametrize(("metric", "unit"), [("accuracy", " points"), ("log_loss", "")])
def test_a_sentence_compares_the_best_strategies_of_the_encoders(comparison, metric, unit, tmp_path):
    changed = Study.open(tmp_path / "made").comparison(metric=metric)
    best = changed.rows[0]
    pair = next(p for p in changed.pairs if {p.better, p.worse} == {best.group, "probe-00000002"})
    text = encoders_text(changed)
    assert text.startswith(f"The best encoder is m, with {best.label} (")
    gap = f"{100 * pair.difference:.1f}" if unit else f"{pair.difference:.3f}"
    assert f" other is {gap}{unit} behind, with probe (95 % interval " in text
    assert text.endswith("; significant after Holm's correction).")


def test_one_encoder_has_no_such_section(tmp_path):
    assert section(stored_study(tmp_path / "one", ROWS[:2]).comparison()) is None


def test_a_strategy_is_found_by_its_name_on_the_leaderboard(comparison, tmp_path):
    folder = tmp_path / "made"
    (folder / "comparison.json").write_text(json.dumps(comparison.to_json(), default=str))
    for run in folder.glob("runs/*"):
        (run / "model").mkdir(exist_ok=True)
    for name, group in (
        ("probe on other", "probe-00000002"),
        ("probe on m", "probe-00000000"),
        ("probe", "probe-00000000"),
    ):
        assert find(folder, strategy=name).runs[0].group == group
