"""Takeaways: every sentence comes from a tested difference."""

import numpy as np

from tests.stored import stored_study
from tuneoff.report.sections.takeaways import takeaways

CANDIDATES = [("full", "full", 0.9), ("lora", "lora", 0.7)]


def test_kinds_lengths_and_labels_are_named(tmp_path):
    rng = np.random.default_rng(0)
    texts = [" ".join(["word"] * int(rng.integers(3, 30))) for _ in range(400)]
    items = takeaways(stored_study(tmp_path / "s", CANDIDATES, texts=texts, num_test=400).comparison())
    assert any("trend of the error rate with length" in item or "rror rate" in item for item in items)
    assert any("label" in item.lower() or "of the mistakes of" in item for item in items)
    assert any(item.startswith("Strategies ") for item in items)
    assert "" not in items


def test_a_study_without_runs_has_none(tmp_path):
    assert takeaways(stored_study(tmp_path / "s", [("full", "full", None)]).comparison()) == []


def test_the_report_lists_them_below_the_leaderboard(tmp_path):
    study = stored_study(tmp_path / "s", CANDIDATES, num_test=200)
    study.report()
    text = (study.folder / "report.md").read_text()
    start = text.index("## Takeaways")
    assert text.index("| strategy") < start < text.index("## Score against cost")
    assert "- Strategies " in text[start : start + 3000]
