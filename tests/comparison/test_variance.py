"""Variance by source in comparisons and reports: of a grid of seeds, of plain seeds, of folds and of single runs."""

import json

import numpy as np
import pytest

from tests.stored import stored_study
from tuneoff.comparison.variance import variance_sources
from tuneoff.report.section import TableBlock
from tuneoff.report.sections import leaderboard
from tuneoff.report.variance import steps_table, variance_blocks, variance_table
from tuneoff.scoring import stats
from tuneoff.scoring.components import levels_of

STRATEGIES = [("lora", "lora", 0.9), ("full", "full", 0.88), ("untrained", "untrained", 0.5), ("tfidf", "tfidf", 0.7)]


def texts(blocks):
    return " ".join(block.text for block in blocks if hasattr(block, "text"))


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """A comparison on a grid of two heads and three orders."""
    folder = tmp_path_factory.mktemp("stored") / "s"
    return stored_study(folder, STRATEGIES, seeds={"head": 2, "order": 3}, num_test=200).comparison()


def test_rows_know_their_grid(comparison):
    rows = {row.label: row for row in comparison.rows}
    assert rows["lora"].sources == {"head": 2, "order": 3}
    assert rows["lora"].repeats == "6 runs (2 head x 3 order seeds)"
    assert (rows["untrained"].repeats, rows["tfidf"].repeats) == ("2 seeds", "one run")
    assert {record.repeat for record in comparison.records if record.label == "untrained"} == {
        "seeds head 0",
        "seeds head 1",
    }


def test_the_variance_is_split_by_source_and_pooled_over_the_learners(comparison):
    variance = comparison.variance
    by_label = {row.label: variance.by_group[row.group] for row in comparison.rows}
    assert set(by_label["lora"].sd_by_source) == set(variance.pooled.sd_by_source) == {"head", "order"}
    assert by_label["lora"].sd_from_rest is not None
    assert set(by_label["untrained"].sd_by_source) == {"head"}
    assert by_label["untrained"].sd_from_rest is None
    assert by_label["tfidf"].sd_by_source == {}
    # a binomial proportion of 200 examples
    assert by_label["lora"].sd_from_examples == pytest.approx(np.sqrt(0.9 * 0.1 / 200), rel=0.2)
    assert variance.pooled.sd_from_examples > 0


def test_next_steps_narrow_the_interval_of_the_best_two(comparison):
    variance = comparison.variance
    assert variance.pair == tuple(row.group for row in comparison.rows[:2])
    assert [(step.source, step.more_runs) for step in variance.steps] == [("head", 3), ("order", 2), (None, 0)]
    assert all(step.half_width <= variance.half_width for step in variance.steps)
    pair = comparison.pairs[0]
    assert variance.half_width == pytest.approx((pair.interval[1] - pair.interval[0]) / 2)


def test_the_report_shows_variance_and_next_steps(comparison):
    assert [column.title for column in variance_table(comparison).columns] == [
        *("strategy", "test examples", "head", "order", "interaction of seeds"),
    ]
    assert [row[0] for row in steps_table(comparison).rows] == [
        *("none", "one more seed of head", "one more seed of order", "twice as many test examples"),
    ]
    text = texts(variance_blocks(comparison))
    assert "On average over the strategies with seeds, the score of one run varies by " in text
    assert (
        f"The 95 % interval of the difference between {comparison.rows[0].label} and {comparison.rows[1].label}" in text
    )
    section = leaderboard.section(comparison)
    assert "They leave out the variance from dropout and split, of which there is one seed." in texts(section.blocks)
    tables = [block.table.name for block in section.every_block() if isinstance(block, TableBlock)]
    assert tables == ["leaderboard", "pairs", "metrics", "validation", "variance", "next-steps"]
    stored = json.loads(json.dumps(comparison.to_json()))["variance"]
    assert {step["source"] for step in stored["steps"]} == {"head", "order", None}


def test_plain_seeds_are_one_source(tmp_path):
    comparison = stored_study(tmp_path / "s", STRATEGIES[:2], seeds=3).comparison()
    assert set(comparison.variance.pooled.sd_by_source) == {"seed"}
    assert [row[0] for row in steps_table(comparison).rows] == ["none", "one more seed", "twice as many test examples"]
    assert [column.title for column in variance_table(comparison).columns] == ["strategy", "test examples", "seeds"]


def test_single_runs_show_the_variance_over_test_examples_alone(tmp_path):
    comparison = stored_study(tmp_path / "s", STRATEGIES[:2], seeds=1).comparison()
    assert comparison.variance.pooled is None
    assert [row[0] for row in steps_table(comparison).rows] == ["none", "one more seed", "twice as many test examples"]
    assert "No strategy ran with several seeds" in texts(variance_blocks(comparison))


def test_a_failed_run_leaves_a_grid_with_a_hole(comparison, tmp_path):
    study = stored_study(tmp_path / "s", STRATEGIES[:2], seeds={"head": 2, "order": 3}, num_test=200)
    failed = next(record for record in comparison.records if record.label == "lora" and record.seed == 3)
    path = study.folder / "runs" / failed.run_id / "run.json"
    path.write_text(path.read_text().replace('"status": "ok"', '"status": "failed"'))
    again = study.comparison()
    lora = next(row for row in again.rows if row.label == "lora")
    assert len(lora.seeds) == 5
    assert again.variance.by_group[lora.group].sd_from_rest is None
    assert again.variance.pooled.sd_from_rest is not None  # of full, whose grid is complete
    assert np.isfinite(lora.interval).all()


def test_nothing_to_compare_has_no_pair():
    runs = stats.RunScores(np.array([0.5]), np.full((1, 10), 0.5), (0,), is_seeded=False)
    variance = variance_sources({"a": runs}, ["a"], 10, None)
    assert (variance.pair, variance.pooled, variance.steps) == (None, None, ())
    assert levels_of(runs.seeds) == {}
