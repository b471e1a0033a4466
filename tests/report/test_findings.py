"""Findings on top of the report, and what it says of folds."""

from dataclasses import replace

from tests.stored import stored_study
from tuneoff.data.doctor.finding import Finding, ranked
from tuneoff.report.findings import finding_blocks
from tuneoff.report.section import Bullets, Text


def test_the_most_harmful_findings_are_on_top_and_folds_leak_nothing(tmp_path):
    comparison = stored_study(tmp_path / "s", [("tfidf", "tfidf", 0.9), ("majority", "majority", 0.5)]).comparison()
    findings = ranked(Finding(f"kind {i}", "text", "do this", harm=i / 10) for i in range(7))
    comparison = replace(comparison, data=replace(comparison.data, findings=tuple(findings), folds=5))
    blocks = finding_blocks(comparison)
    items = next(block.items for block in blocks if isinstance(block, Bullets))
    assert items[0] == "kind 6: text; do this"
    assert items[5] == "2 more: see the section Data"
    assert isinstance(blocks[-1], Text)
    assert "no text is scored by a model that was trained on it" in blocks[-1].text
