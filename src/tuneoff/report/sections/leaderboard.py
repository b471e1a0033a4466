"""Verdict and leaderboard: what to pick, how sure that is, every pairwise comparison and every metric."""

from pathlib import Path

from tuneoff.comparison.result import Comparison, Row, has_several_encoders
from tuneoff.costs import COSTS, choosable_costs
from tuneoff.report.section import Block, Bullets, Details, Heading, Rows, Section, Text
from tuneoff.scoring.metrics import display_name
from tuneoff.strategies import STRATEGIES
from tuneoff.tables import (
    COUNT,
    ESTIMATE,
    HUNDREDTHS,
    INTERVAL,
    MEAN_SD,
    P_VALUE,
    SCORE,
    SIGNED_ESTIMATE,
    SIGNED_INTERVAL,
    TEXT,
    Column,
    Table,
)


def section(comparison: Comparison) -> Section:
    """Return the first section of the report."""
    blocks: list[Block] = []
    if comparison.verdict:
        blocks += [Text(comparison.verdict.text, is_key=True), Text(_explanation(comparison))]
        blocks += [Rows(leaderboard(comparison))]
        if comparison.pairs:
            blocks += [
                Details(
                    "Every pair of strategies: differences, tests, and the sample size that would settle them",
                    [Text(_PAIRS_TEXT), Rows(pairs(comparison), is_tall=True)],
                )
            ]
        blocks += [
            Details("Sources of uncertainty, and every metric", [Text(_METRICS_TEXT), Rows(metrics(comparison))])
        ]
    else:
        blocks += [Text("No run succeeded; the reasons are below.", is_key=True)]
    if comparison.failures:
        blocks += [
            Heading("Failed runs"),
            Text("They are left out of everything else. Running the study again repeats the failed ones."),
            Bullets([f"{f.label}, seed {f.seed}: {f.status} – {f.reason}" for f in comparison.failures]),
        ]
    return Section("verdict", "Verdict", blocks)


def _explanation(comparison: Comparison) -> str:
    text = (
        "Test scores, best first, with 95 % confidence intervals over test examples and seeds. Shaded rows are "
        "statistically tied with the best: the difference is not significant at 0.05 after Holm's correction over all "
        "pairs. The interval of a difference is for that pair only, without correction; the p value decides. Latency "
        "is the time from one text to its class in fp32, the median over texts. The size of a model leaves out the "
        "encoder that a probe, LoRA or adapter needs in addition. Click a column's heading to sort."
    )
    if any(len(row.seeds) == 1 and STRATEGIES[row.strategy].is_seeded for row in comparison.rows):
        text += (
            " Some strategies ran with one seed: their intervals leave out the variance between seeds, or take it from "
            "the other strategies."
        )
    return text


_PAIRS_TEXT = (
    "Both strategies on the same test examples and, where they share seeds, on the same seeds. A difference is "
    "significant where p after Holm's correction over all pairs is below 0.05; intervals are for each pair only. "
    "McNemar: mid-p value of the test that both are right equally often, median over seeds. Cohen's g: among the test "
    "examples that only one of the two classifies correctly, the share of the better one minus one half. The last "
    "columns give the number of test examples, or of seeds, that would detect a difference of this size with 80 % "
    "power."
)
_METRICS_TEXT = (
    "Means over seeds on the test split. The standard deviations show how much the score would vary with other test "
    "examples and with other seeds; a single run cannot show the second."
)


def leaderboard(comparison: Comparison) -> Table:
    """Strategies, best first, with confidence intervals, differences to the best, and costs."""
    has_encoders = has_several_encoders(comparison.rows)
    metric, costs = comparison.metric, [key for key in COSTS if key in choosable_costs()]
    columns = (
        Column("strategy", "strategy", TEXT),
        *([Column("encoder", "encoder", TEXT)] if has_encoders else []),
        Column(metric, display_name(metric), MEAN_SD),
        Column(metric, "95 % interval", INTERVAL),
        Column("difference", "difference to best", SIGNED_ESTIMATE),
        Column("p_holm", "p", P_VALUE),
        Column("standing", "standing", TEXT),
        Column("seeds", "seeds", COUNT),
        *[Column(key, COSTS[key].column, COSTS[key].format) for key in costs],
    )
    rows = []
    for index, row in enumerate(comparison.rows):
        rows.append(
            [
                row.label,
                *([row.model] if has_encoders else []),
                (row.score, row.seed_sd),
                row.interval,
                (row.difference, *row.difference_interval) if index else None,
                row.p_value if index else None,
                _standing(index, row),
                len(row.seeds),
                *[_cost(row, key) for key in costs],
            ]
        )
    recommended = comparison.verdict.recommended if comparison.verdict else ""
    marks = [" ".join(_marks(row, recommended)) for row in comparison.rows]
    return Table("leaderboard", columns, rows, marks=marks)


def _standing(index: int, row: Row) -> str:
    return "best" if index == 0 else "tied" if row.is_tied else "worse"


def _marks(row: Row, recommended: str) -> list[str]:
    return [*(["tied"] if row.is_tied else []), *(["recommended"] if row.group == recommended else [])]


def _cost(row: Row, key: str) -> float | None:
    if key == "trainable_parameters" and not row.parameters:
        return None
    return row.costs.get(key)


def short_leaderboard(comparison: Comparison) -> Table:
    """The leaderboard in the width of a plain terminal."""
    has_encoders = has_several_encoders(comparison.rows)
    metric, cost = comparison.metric, COSTS["fit_seconds"]
    columns = (
        Column("strategy", "strategy", TEXT),
        Column(metric, f"{display_name(metric)} (95 % interval)", ESTIMATE),
        Column("difference", "difference", SCORE),
        Column("p_holm", "p", P_VALUE),
        Column("standing", "standing", TEXT),
        Column("fit_seconds", cost.column, cost.format),
    )
    rows = []
    for index, row in enumerate(comparison.rows):
        name = f"{row.label} {Path(row.model).name}" if has_encoders and row.model else row.label
        difference = (row.difference, row.p_value) if index else (None, None)
        score = (row.score, *row.interval)
        rows.append([name, score, *difference, _standing(index, row), row.costs.get("fit_seconds")])
    return Table("leaderboard", columns, rows)


def pairs(comparison: Comparison) -> Table:
    """Every two strategies: difference, tests, and the sample size that would settle an insignificant difference."""
    columns = (
        Column("better", "better", TEXT),
        Column("worse", "worse", TEXT),
        Column("difference", "difference", SCORE),
        Column("difference", "95 % interval", SIGNED_INTERVAL),
        Column("p_holm", "p (Holm)", P_VALUE),
        Column("p", "p", P_VALUE),
        Column("p_mcnemar", "McNemar", P_VALUE),
        Column("cohen_g", "Cohen's g", HUNDREDTHS),
        Column("required_examples", "examples to settle", COUNT),
        Column("required_seeds", "seeds to settle", COUNT),
    )
    rows = [
        [
            comparison.names[pair.better],
            comparison.names[pair.worse],
            pair.difference,
            pair.interval,
            pair.p_corrected,
            pair.p_value,
            pair.mcnemar,
            pair.effect,
            None if pair.is_significant else pair.required_examples or None,
            None if pair.is_significant else pair.required_seeds or None,
        ]
        for pair in comparison.pairs
    ]
    return Table("pairs", columns, rows)


def metrics(comparison: Comparison) -> Table:
    """Every metric on test, mean over seeds, and the standard deviations of the study's own."""
    names = list(comparison.rows[0].scores) if comparison.rows else []
    metric = comparison.metric
    columns = (
        Column("strategy", "strategy", TEXT),
        *[Column(name, display_name(name), SCORE) for name in names],
        Column(f"validation_{metric}", f"validation {display_name(metric)}", SCORE),
        Column("sd_from_examples", "sd from examples", SCORE),
        Column("sd_from_seeds", "sd from seeds", SCORE),
    )
    rows = [
        [
            comparison.names[row.group],
            *[row.scores[name] for name in names],
            row.validation,
            row.sd_from_examples,
            row.sd_from_seeds,
        ]
        for row in comparison.rows
    ]
    return Table("metrics", columns, rows)
