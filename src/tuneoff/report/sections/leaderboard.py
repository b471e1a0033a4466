"""Verdict and leaderboard: what to pick, how sure that is, every pairwise comparison and every metric."""

from typing import Any

from tuneoff.comparison.notes import is_of_positive, metric_note, threshold_note, unfinished_note
from tuneoff.comparison.result import Comparison
from tuneoff.comparison.rows import BEST, EQUIVALENT, Row, has_several_encoders
from tuneoff.costs import COSTS
from tuneoff.formats import fixed, join_names, money
from tuneoff.report.chart import left_out_note
from tuneoff.report.findings import finding_blocks
from tuneoff.report.section import Block, Bullets, Details, Heading, Section, TableBlock, Text
from tuneoff.report.variance import variance_blocks
from tuneoff.scoring.metrics import display_name, points
from tuneoff.seeds import SOURCES
from tuneoff.tables import (
    COUNT,
    ESTIMATE,
    INTERVAL,
    MEAN_SD,
    P_VALUE,
    SCORE,
    SIGNED_ESTIMATE,
    SIGNED_HUNDREDTHS,
    SIGNED_INTERVAL,
    TEXT,
    Column,
    Format,
    Table,
)


def section(comparison: Comparison) -> Section:
    """Return the first section of the report."""
    blocks: list[Block] = []
    if comparison.verdict:
        verdict = comparison.verdict
        blocks += [Text(" ".join(verdict.summary), is_key=True)]
        blocks += [Text(unfinished)] if (unfinished := unfinished_note(comparison)) else []
        blocks += finding_blocks(comparison)
        if comparison.final:
            place = f" Its model is in runs/{comparison.final.run_id}/model." if comparison.model_folder else ""
            blocks += [Text(final_text(comparison) + place)]
        blocks += [Text(" ".join(verdict.details))] if verdict.details else []
        blocks += [Text(comparison.epochs_note)] if comparison.epochs_note else []
        blocks += [Text(_explanation(comparison) + left_out_note(comparison))]
        blocks += [Text(_PAGE_TEXT, is_page_only=True), TableBlock(leaderboard(comparison))]
        if comparison.pairs:
            blocks += [
                Details(
                    "Every pair of strategies: differences, tests, and the sample size that would settle them",
                    [
                        Text(_PAIRS_TEXT[comparison.repeat] + _GRID_TEXT * bool(comparison.study.seed_grid)),
                        TableBlock(pairs(comparison), is_tall=True),
                    ],
                )
            ]
        blocks += [
            Details(
                "Sources of uncertainty, and every metric",
                [
                    Text(_METRICS_TEXT[comparison.repeat] + _roles_text(comparison)),
                    TableBlock(metrics(comparison)),
                    Text(_VALIDATION_TEXT[comparison.repeat]),
                    TableBlock(validation_metrics(comparison)),
                    *variance_blocks(comparison),
                ],
            )
        ]
    else:
        is_early = comparison.missing_runs[0] and not comparison.failures
        reason = "No run is stored yet." if is_early else "No run succeeded; the reasons are below."
        blocks += [Text(reason, is_key=True)]
    if comparison.failures:
        blocks += [
            Heading("Failed runs"),
            Text(_FAILURES_TEXT[comparison.repeat]),
            Bullets([f"{f.label}, {f.repeat}: {f.status} – {f.reason}" for f in comparison.failures]),
        ]
    noted = [f"{r.label}, {r.repeat}: {note}" for r in comparison.records for note in r.notes]
    if noted:
        blocks += [Heading("Notes on runs"), Bullets(noted)]
    return Section("verdict", "Verdict", blocks)


def _explanation(comparison: Comparison) -> str:
    margin = comparison.verdict.margin if comparison.verdict else comparison.study.margin
    text = "Test scores, best first, with 95 % confidence intervals over test examples and seeds."
    if comparison.data.folds:
        text = (
            f"Scores over {comparison.data.folds} folds, best first, with 95 % confidence intervals over the examples. "
            "Every labelled example is a test example once: runs that were trained on the other folds predict it, and "
            "the predictions of all folds are scored together. Costs are means over the folds, whose runs train on a "
            "part of the examples."
        )
    text += (
        " Standing against the "
        f"best measured strategy: equivalent, if it loses at most the margin of {points(margin, comparison.metric)} "
        "with 95 % confidence (the column 'loses at most' is that limit, for all strategies at once); worse, if the "
        "difference is significant at 0.05 after Holm's correction over all pairs; undecided otherwise. The interval "
        "of a difference is for that pair only, without correction. Latency is the time from one text to its class in "
        "fp32, the median over texts. The size of a model leaves out the encoder that a probe, LoRA or adapter needs "
        "in addition."
    )
    if comparison.race:
        text += (
            f" In a race, scores are looked at up to {comparison.race.num_looks} times: intervals, tests and limits "
            "are wider, so that the error rate of 0.05 holds for all looks together."
        )
    stopped = _stopped_elsewhere(comparison)
    if stopped:
        text += f" Not in the table, because the race stopped them before these runs: {join_names(stopped)}."
    grid = comparison.study.seed_grid
    if grid:
        fixed_sources = [source for source in SOURCES if len(grid.get(source, ())) < 2]
        text += (
            f" Seeds of {join_names(list(grid))} vary apart, and every combination ran: intervals take into account "
            "that runs which share a seed are alike."
        )
        if fixed_sources:
            text += f" They leave out the variance from {join_names(fixed_sources)}, of which there is one seed."
    if any(row.repeats == "one run" and row.is_seeded and (row.sources or not grid) for row in comparison.rows):
        text += (
            " Some strategies ran with one seed: the variance between seeds is that of the other strategies, or a "
            "typical one of 0.6 points."
        )
    external = [row.label for row in comparison.rows if row.is_external]
    if external:
        text += f" Predictions from files, with costs as stated: {join_names(external)}."
    if _imported(comparison):
        text += " Imported rows are scores that the training logs of others state; they are not ranked or tested."
    parts = [
        comparison.recipe_note,
        metric_note(comparison),
        comparison.selection_note,
        threshold_note(comparison),
        text + _rates_text(comparison),
        *comparison.notes,
    ]
    return " ".join(filter(None, parts))


def _stopped_elsewhere(comparison: Comparison) -> list[str]:
    """Name the strategies that the race stopped and that have no row."""
    encoders, rows = comparison.study_encoders, {(row.label, row.model) for row in comparison.rows}
    stopped = [key for key in (comparison.race.stopped if comparison.race else ()) if key not in rows]
    return [f"{label} on {encoders[m]}" if m and len(encoders) > 1 else label for label, m in stopped]


def _rates_text(comparison: Comparison) -> str:
    """Sentences on how money and CO2 were computed, each with a space before it; empty without rates."""
    rates, text = comparison.study.rates, ""
    if rates.usd_per_hour is not None:
        text += (
            f" Money is time at {money(rates.usd_per_hour)} USD an hour: that of training once, and a million times "
            "the latency, one text at a time."
        )
    if "co2_grams" in comparison.costs:
        power = "the measured power of the processors" if rates.watts is None else f"a power of {rates.watts:g} W"
        text += f" CO2 is that of the energy of training once, at {power} and {rates.grams_per_kwh:g} g per kWh."
    return text


_PAGE_TEXT = "Shaded rows are the best strategy and those equivalent to it. Click a column's heading to sort."
_PAIRS_TEXT = {
    "seed": "Both strategies on the same test examples and, where they share seeds, on the same seeds. A difference is "
    "significant where p after Holm's correction over all pairs is below 0.05; intervals are for each pair only. "
    "McNemar: mid-p value of the test that both are right equally often, median over seeds. Cohen's g: among the test "
    "examples that only one of the two classifies correctly, the share of the better one minus one half. The last "
    "columns give the number of test examples, or of seeds, that would detect a difference of this size with 80 % "
    "power.",
    "fold": "Both strategies on the same examples, trained on the same folds. A difference is significant where p "
    "after Holm's correction over all pairs is below 0.05; intervals are for each pair only. McNemar: mid-p value of "
    "the test that both are right equally often. Cohen's g: among the examples that only one of the two classifies "
    "correctly, the share of the better one minus one half. The last columns give the number of examples that would "
    "detect a difference of this size with 80 % power.",
}
_GRID_TEXT = " A number of seeds is of each source whose seeds vary apart."
_METRICS_TEXT = {
    "seed": "Means over seeds on the test split. The standard deviations show how much the score would vary with other "
    "test examples and with other seeds; a single run cannot show the second.",
    "fold": "Of the predictions of all folds together; the validation score is the mean over the folds. The standard "
    "deviation shows how much the score would vary with other examples.",
}
_VALIDATION_TEXT = {
    "seed": "The same on the validation split, which chose epochs and hyperparameters: the scores of what it chose are "
    "a little too good. Means over seeds.",
    "fold": "The same on the validation examples, which chose epochs and hyperparameters: the scores of what they "
    "chose are a little too good. Means over the folds.",
}
_FAILURES_TEXT = {
    "seed": "They are left out of everything else. Running the study again repeats the failed ones.",
    "fold": "A strategy that lacks a fold is left out of everything else. Running the study again repeats the failed "
    "runs.",
}


def final_text(comparison: Comparison) -> str:
    """Return sentences on the run on all labelled examples, whose model is handed over; empty if there is none."""
    final = comparison.final
    if final is None:
        return ""
    text = f"{final.label} was then trained on all {final.train_examples:,} labelled examples"
    if final.best_epoch is not None:
        epochs = "1 epoch" if final.best_epoch == 1 else f"{final.best_epoch} epochs"
        text += f" for {epochs}, the median of the folds' best"
    text += f": run {final.run_id}."
    if not comparison.is_final_picked:
        text += " The verdict has changed since; running the study again trains its pick."
    if comparison.metric in final.metrics.get("test", {}):
        text += (
            f" On the test split of {comparison.data.splits['test'].examples:,} examples, which no other run reads, "
            f"its {display_name(comparison.metric)} is {fixed(final.metrics['test'][comparison.metric])}."
        )
    return text


def _imported(comparison: Comparison) -> list[tuple[str, float, str]]:
    """Return title, stated score and mark of the imported logs that state the metric; last, they are not ranked."""
    stated = [(imported.title, imported.score(comparison.metric)) for imported in comparison.imported]
    return [(title, score[0], f"imported: {score[1]}") for title, score in stated if score]


def leaderboard(comparison: Comparison) -> Table:
    """Strategies, best first, with confidence intervals, differences to the best, and costs; imported logs last."""
    has_encoders = has_several_encoders(comparison.rows)
    metric, costs = comparison.metric, {key: cost for key, cost in comparison.costs.items() if cost.is_choosable}
    columns = (
        Column("strategy", "strategy", TEXT),
        *([Column("encoder", "encoder", TEXT)] if has_encoders else []),
        Column(metric, display_name(metric), MEAN_SD),
        Column(metric, "95 % interval", INTERVAL),
        # missing for the best row, which sorts as a difference of 0
        Column("difference", "difference to best", SIGNED_ESTIMATE, missing_sort_key=0.0),
        Column("standing", "standing", TEXT),
        Column("loss_bound", "loses at most", SCORE),
        Column(f"{comparison.repeat}s", "runs" if comparison.study.seed_grid else f"{comparison.repeat}s", COUNT),
        *[Column(key, cost.column, cost.format) for key, cost in costs.items()],
    )
    rows: list[list[Any]] = []
    for index, row in enumerate(comparison.rows):
        rows.append(
            [
                row.label,
                *([comparison.encoders.get(row.model or "")] if has_encoders else []),
                (row.score, row.seed_sd),
                row.interval,
                (row.difference, *row.difference_interval) if index else None,
                row.standing,
                row.loss_bound,
                len(row.seeds),
                *[_cost(row, key) for key in costs],
            ]
        )
    for title, score, mark in _imported(comparison):
        cells: dict[str, Any] = {"strategy": title, display_name(metric): (score, None), "standing": mark}
        cells["difference to best"] = (None, None, None)  # not missing as that of the best row, which sorts as 0
        rows.append([cells.get(column.title) for column in columns])
    marks = [*[_marks(row, comparison) for row in comparison.rows], *[""] * len(_imported(comparison))]
    return Table("leaderboard", columns, rows, marks=marks)


def _marks(row: Row, comparison: Comparison) -> str:
    """CSS classes of a row."""
    is_pick = comparison.verdict is not None and row.group == comparison.verdict.recommended
    is_shaded = row.standing in (BEST, EQUIVALENT)
    return " ".join([*([EQUIVALENT] if is_shaded else []), *(["recommended"] if is_pick else [])])


def _cost(row: Row, key: str) -> float | None:
    if key == "trainable_parameters" and not row.parameters:
        return None
    return row.costs.get(key)


def _short_difference(difference: float | None, standing: str) -> str:
    """Phrase such as "0.013 undecided"; "best" for the best, and the mark of an imported log."""
    return standing if standing == BEST or difference is None else f"{fixed(-difference)} {standing}"


# (difference to the best, standing)
_SHORT_DIFFERENCE = Format(lambda value: _short_difference(*value), ("", "_standing"))


def short_leaderboard(comparison: Comparison) -> Table:
    """The leaderboard in the width of a plain terminal."""
    metric, cost = comparison.metric, COSTS["fit_seconds"]
    columns = (
        Column("strategy", "strategy", TEXT),
        Column(metric, f"{display_name(metric)} (95 %)", ESTIMATE),
        Column("difference", "behind the best", _SHORT_DIFFERENCE),
        Column("fit_seconds", cost.column, cost.format),
    )
    rows: list[list[Any]] = []
    for row in comparison.rows:
        rows.append(
            [
                comparison.names[row.group],
                (row.score, *row.interval),
                (row.difference, row.standing),
                row.costs.get("fit_seconds"),
            ]
        )
    rows += [[title, (score, None, None), (None, mark), None] for title, score, mark in _imported(comparison)]
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
        Column("cohen_g", "Cohen's g", SIGNED_HUNDREDTHS),
        Column("required_examples", "examples to settle", COUNT),
        *([] if comparison.data.folds else [Column("required_seeds", "seeds to settle", COUNT)]),
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
            *([] if comparison.data.folds else [None if pair.is_significant else pair.required_seeds or None]),
        ]
        for pair in comparison.pairs
    ]
    return Table("pairs", columns, rows)


def _roles_text(comparison: Comparison) -> str:
    """Sentences on the roles of the labels in the table of metrics, each with a space before it."""
    options, text = comparison.options, ""
    if options.positive is not None:
        area = " and PR AUC" if is_of_positive("pr_auc", options) else ""
        text += f" F1, precision, recall{area} without macro or weighted are of the class {options.positive_name!r}"
        text += "." if comparison.study.positive else ", the second label; positive (--positive) names another."
    if options.is_ordered:
        order = ", ".join(map(repr, options.label_names))
        text += f" Quadratic kappa and mean absolute error take the labels in this order: {order}."
    return text


def validation_metrics(comparison: Comparison) -> Table:
    """Every metric on validation, mean over seeds."""
    names = list(dict.fromkeys(name for row in comparison.rows for name in row.validation_scores))
    columns = (Column("strategy", "strategy", TEXT), *[Column(name, display_name(name), SCORE) for name in names])
    rows = [
        [comparison.names[row.group], *[row.validation_scores.get(name) for name in names]]
        for row in comparison.rows
        if row.validation_scores
    ]
    return Table("validation", columns, rows)


def metrics(comparison: Comparison) -> Table:
    """Every metric on test, mean over seeds, and the standard deviations of the study's own."""
    names = list(dict.fromkeys(name for row in comparison.rows for name in row.scores))
    metric = comparison.metric
    columns = (
        Column("strategy", "strategy", TEXT),
        *[Column(name, display_name(name), SCORE) for name in names],
        Column(f"validation_{metric}", f"validation {display_name(metric)}", SCORE),
        Column("sd_from_examples", "sd from examples", SCORE),
        *([] if comparison.data.folds else [Column("sd_from_seeds", "sd from seeds", SCORE)]),
    )
    rows = [
        [
            comparison.names[row.group],
            *[row.scores.get(name) for name in names],
            row.validation,
            row.sd_from_examples,
            *([] if comparison.data.folds else [row.sd_from_seeds]),
        ]
        for row in comparison.rows
    ]
    return Table("metrics", columns, rows)
