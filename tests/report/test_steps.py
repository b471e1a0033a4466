"""Times by part of a step, what they explain, and inference, in the report."""

from dataclasses import replace

import pytest

from tests.stored import stored_study
from tuneoff.report import steps
from tuneoff.report.sections import compute


def measured(row, factor=1.0, **changes):
    """A row whose steps took 10 s in 1,000 examples: data 1 s, forward 3 s, backward 4 s, optimizer 2 s."""
    parts = {"data_seconds": 1.0, "forward_seconds": 3.0, "backward_seconds": 4.0, "optimizer_seconds": 1.5}
    costs = {
        **parts,
        **changes,
        "prefix_seconds": 0.0,
        "examples_per_second": 100.0 / factor,
        "train_seconds": 10.0 * factor,
    }
    return replace(row, costs={**row.costs, **costs, "predictions_per_second": 50.0, "latency_seconds": 0.01})


@pytest.fixture
def comparison(tmp_path):
    study = stored_study(
        tmp_path / "s", [("full", "full", 0.9), ("lora", "lora", 0.8), ("tfidf", "tfidf", 0.6)], ("a", "b")
    )
    comparison = study.comparison()
    full, lora, tfidf = comparison.rows
    lora = measured(lora, 1.2, forward_seconds=6.0, backward_seconds=3.0, optimizer_seconds=0.15)
    parameters = {"total": 1000, "trainable": 10, "added": 10, "head": 2, "added_matrices": 24}
    return replace(comparison, rows=(measured(full), replace(lora, parameters=parameters), tfidf))


def test_a_sentence_says_from_measured_times_why_a_strategy_is_slower(comparison):
    assert steps.reasons(comparison) == [
        "lora takes 1.20 x the time of full fine-tuning per training example: data 1.00 x, forward 2.00 x (with 24 added "
        "matrices), backward 0.75 x (without the gradients of frozen weights) and optimizer 0.10 x (it updates 1 % of "
        "the parameters). The largest part of the difference is the forward pass, +30 % of the time of full fine-tuning."
    ]


def test_the_table_holds_every_part_and_the_rest(comparison):
    table = steps.step_seconds(comparison)
    assert [column.key for column in table.columns][1:] == [
        "data_seconds", "forward_seconds", "backward_seconds", "optimizer_seconds", "rest_seconds", "train_seconds", "seconds_per_1000",
    ]  # fmt: skip
    assert table.rows[0][1:] == pytest.approx([1.0, 3.0, 4.0, 1.5, 0.5, 10.0, 10.0])
    assert [row[0] for row in table.rows] == ["full", "lora"]


def test_the_compute_section_shows_steps_and_inference(comparison):
    section = compute.section(comparison)
    assert section
    assert {"step_seconds", "inference"} <= {table.name for table in section.tables()}
    assert "steps" in dict(section.charts())
    inference = next(table for table in section.tables() if table.name == "inference")
    assert inference.rows[0][:3] == ["full", 0.01, 50.0]


def test_runs_of_earlier_versions_show_neither(tmp_path):
    old = stored_study(tmp_path / "s", [("full", "full", 0.9), ("lora", "lora", 0.8)], ("a", "b")).comparison()
    section = compute.section(old)
    assert section
    assert "step_seconds" not in {table.name for table in section.tables()}
    assert "steps" not in dict(section.charts())
