"""Hyperparameter search: budget, search spaces, every trial, and the options that were chosen."""

from collections.abc import Mapping

import altair as alt
import pandas as pd

from tuneoff import formats
from tuneoff.comparison.result import Comparison
from tuneoff.report.chart import HEIGHT, INK, WIDTH, charted_rows, score_axis, strategy_colour
from tuneoff.report.section import Block, Chart, Section, TableBlock, Text, details_if_any, figures_if_any, table_if_any
from tuneoff.scoring.metrics import display_name
from tuneoff.search.record import CUT, DONE, FAILED, SearchRecord
from tuneoff.strategies.base import format_option
from tuneoff.tables import COUNT, SCORE, SCORES, SECONDS, TEXT, Column, Format, Table

_STATES = {"done": "complete", "stopped": "stopped early", "cut": "cut by the time budget", "failed": "failed"}


def _show_space(space: Mapping[str, list[object] | dict[str, float]]) -> str:
    return "; ".join(f"{display_name(option)} {_show_values(values)}" for option, values in space.items())


def _show_values(values: list[object] | dict[str, float]) -> str:
    if isinstance(values, dict):
        return f"{values['low']:.3g} to {values['high']:.3g}{' (log)' if values['log'] else ''}"
    return ", ".join(format_option(value) for value in values)


def _show_options(options: Mapping[str, object]) -> str:
    return ", ".join(f"{display_name(option)} {format_option(value)}" for option, value in options.items())


# option -> value, or option -> its search space
OPTIONS = Format(_show_options, is_text=True, is_json=True)
CHOSEN = Format(lambda o: _show_options(o) or "the defaults: every trial failed", is_text=True, is_json=True)
SPACE = Format(_show_space, is_text=True, is_json=True)


def section(comparison: Comparison) -> Section | None:
    """Return the searches, or the statement that there was none; None without a successful run."""
    if not comparison.rows:
        return None
    has_searches = bool(comparison.searches)
    blocks: list[Block] = [Text(search_text(comparison))]
    blocks += [*figures_if_any(search_charts(comparison)), *table_if_any(searches(comparison))]
    if has_searches:
        blocks += details_if_any("Every trial", TableBlock(trials(comparison), is_tall=True))
    return Section("search", "Hyperparameter search", blocks, menu="Search")


def search_text(comparison: Comparison) -> str:
    """Return the budget and the rules of the search in words."""
    spec = comparison.study.search
    if spec is None:
        return "There was no hyperparameter search: every strategy ran with the options in the study, or its defaults."
    budget = formats.counted(spec.trials, "trial") if spec.trials else f"{formats.seconds(spec.budget)} of trials"
    seeds = comparison.study.seeds
    where = f"with seed {seeds[0]}" if isinstance(seeds, tuple) else "with the first seed"
    if comparison.data.folds:
        where = "on the training and validation examples of fold 0 (they are test examples of other folds)"
    text = (
        f"Before the runs, every strategy had a search with the same budget: {budget}, scored on validation only, "
        f"{where}. The first trial is the strategy with its default options, where the search "
        "space contains them (for a probe: the middle of its values of C). The options of the best trial were used for "
        "the runs."
    )
    if comparison.race:
        text += " In a race a strategy that has stopped gets no more trials, and a time limit may leave some out."
    if spec.halving:
        text += (
            " Successive halving stopped a trial that after 1, 2, 4, ... epochs was not in the better half of the "
            "trials so far."
        )
    if any(trial.state in (CUT, FAILED) for record in comparison.searches for trial in record.trials):
        text += " Trials that failed, or that the end of the time budget cut short, count as trials."
    unsearched = set(comparison.names.values()) - {search_name(comparison, record) for record in comparison.searches}
    if unsearched:
        names = ", ".join(sorted(unsearched))
        text += f" Without a search: {names}; there is no hyperparameter to search, or the study sets it."
    return text


def search_name(comparison: Comparison, record: SearchRecord) -> str:
    """Return the name of a search's strategy in the comparison."""
    rows = [row for row in comparison.rows if (row.label, row.model) == (record.label, record.model)]
    name = comparison.names[rows[0].group] if rows else record.label
    return f"{name} on {record.part}" if record.part else name


def searches(comparison: Comparison) -> Table:
    """One row per search: its space, its trials, and the options that it chose."""
    columns = (
        Column("strategy", "strategy", TEXT),
        Column("space", "search space", SPACE),
        Column("trials", "trials", COUNT),
        Column("complete_trials", "complete", COUNT),
        Column("seconds", "time", SECONDS),
        Column("first_score", "first score", SCORE),
        Column("best_score", "best score", SCORE),
        Column("chosen", "chosen", CHOSEN),
    )
    rows = []
    for record in comparison.searches:
        best = record.best
        rows.append(
            [
                search_name(comparison, record),
                record.space,
                len(record.trials),
                sum(trial.state == DONE for trial in record.trials),
                record.seconds,
                record.trials[0].score if record.trials else None,
                best.score if best else None,
                best.options if best else {},
            ]
        )
    return Table("searches", columns, rows)


def trials(comparison: Comparison) -> Table:
    """Every trial of every search."""
    metric = comparison.searches[0].metric if comparison.searches else comparison.metric
    columns = (
        Column("strategy", "strategy", TEXT),
        Column("trial", "trial", COUNT),
        Column("options", "options", OPTIONS),
        Column("score_by_epoch", "score by epoch", SCORES),
        Column(f"validation_{metric}", f"validation {display_name(metric)}", SCORE),
        Column("state", "state", TEXT),
        Column("seconds", "time", SECONDS),
    )
    rows = [
        [
            search_name(comparison, record),
            index + 1,
            trial.options or None,
            trial.scores or None,
            trial.score,
            _STATES[trial.state],
            trial.seconds,
        ]
        for record in comparison.searches
        for index, trial in enumerate(record.trials)
    ]
    return Table("trials", columns, rows)


def search_charts(comparison: Comparison) -> dict[str, Chart]:
    """Validation score against each numeric hyperparameter, one line per strategy."""
    names, rows = {comparison.names[row.group] for row in charted_rows(comparison)}, []
    for record in comparison.searches:
        name = search_name(comparison, record)
        for trial in record.trials if name in names else ():
            for option, value in trial.options.items():
                if trial.score is not None and isinstance(value, (int, float)) and value > 0:
                    row = {"strategy": name, "option": option, "value": value, "score": round(trial.score, 4)}
                    rows.append({**row, "state": _STATES[trial.state]})
    if not rows:
        return {}
    by_option = pd.DataFrame(rows).groupby("option", sort=False)
    return {f"search-{option}": _chart(comparison, str(option), points) for option, points in by_option}


def _chart(comparison: Comparison, option: str, points: pd.DataFrame) -> Chart:
    base = alt.Chart(points).encode(
        x=alt.X(
            "value:Q",
            title=f"{display_name(option)} (log scale)",
            scale=alt.Scale(type="log", nice=True),
            axis=alt.Axis(tickCount=5, format=".2~g", grid=False),
        ),
        y=alt.Y("score:Q", **score_axis(f"validation {display_name(comparison.searches[0].metric)}")),
        color=strategy_colour(comparison),
        tooltip=[
            alt.Tooltip("strategy"),
            alt.Tooltip("value", title=display_name(option), format=".3~g"),
            alt.Tooltip("score", format=".3f"),
            alt.Tooltip("state"),
        ],
    )
    shapes = alt.Shape(
        "state:N",
        title=None,
        scale=alt.Scale(domain=list(_STATES.values())[:3], range=["circle", "cross", "square"]),
        legend=alt.Legend(orient="top", symbolFillColor=INK, symbolStrokeColor=INK),
    )
    dots = base.mark_point(filled=True, size=60, opacity=1).encode(shape=shapes)
    return (base.mark_line(opacity=0.5) + dots).properties(width=WIDTH, height=HEIGHT)
