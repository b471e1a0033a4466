"""Hyperparameters that each strategy ran with, and scores by a numeric option that varies on the leaderboard."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from tuneoff.comparison.result import Comparison
from tuneoff.comparison.rows import Row
from tuneoff.engine.recipe import Recipe
from tuneoff.formats import signed
from tuneoff.report.chart import HEIGHT, INK, WIDTH, score_axis, strategy_colour
from tuneoff.report.section import Block, Chart, ChartMenu, Figures, Heading, TableBlock, Text
from tuneoff.runs import RunRecord
from tuneoff.scoring.metrics import display_name, has_points
from tuneoff.scoring.metrics import points as points_of
from tuneoff.strategies import STRATEGIES
from tuneoff.strategies.base import COMMON_OPTIONS, format_option
from tuneoff.tables import COUNT, RATE, SHARE, TEXT, Column, Format, Table

# option -> value
OPTIONS = Format(
    lambda options: ", ".join(f"{display_name(name)} {format_option(value)}" for name, value in options.items()) or "–",
    is_text=True,
    is_json=True,
)
# recipe fields with a column of their own
_RECIPE_COLUMNS = (
    Column("batch_size", "batch size", COUNT),
    Column("epochs", "epochs", COUNT),
    Column("max_length", "max length", COUNT),
    Column("warmup", "warm-up", SHARE),
    Column("schedule", "schedule", TEXT),
    Column("weight_decay", "weight decay", RATE),
    Column("dropout", "dropout", RATE),
)


def hyperparameter_blocks(comparison: Comparison) -> list[Block]:
    """Return what each strategy ran with; nothing for runs whose specification is not stored."""
    table, charts = hyperparameters(comparison), option_charts(comparison)
    if not table.rows:
        return []
    text = (
        "Settings that each strategy ran with, defaults included; a dash where a strategy does not use one. Dropout is "
        "that of the pretrained model unless the recipe replaces it. Source: which options the study sets for this "
        "strategy, and which a search found or validation chose; its other options are defaults."
    )
    blocks: list[Block] = [Heading("Hyperparameters"), Text(text), TableBlock(table)]
    if charts:
        text = "Test score by an option that varies on the leaderboard, with 95 % confidence intervals"
        if comparison.searches:
            text += "; other options, such as a learning rate that was searched, may differ between the points"
        first, *more = charts
        names = {name: name.removeprefix("option-").replace("-", " ") for name in charts}
        menu = ChartMenu("option", names, charts, first) if more else None
        findings = " ".join(option_findings(comparison))
        blocks += [Text(f"{text}. {findings}".strip()), Figures({} if menu else charts, menu)]
    return blocks


def hyperparameters(comparison: Comparison) -> Table:
    """Learning rate, recipe and options of each strategy, and where they come from."""
    first = {record.group: record for record in reversed(comparison.records) if record.spec.get("strategy")}
    columns = (
        Column("strategy", "strategy", TEXT),
        Column("learning_rate", "learning rate", RATE),
        *_RECIPE_COLUMNS,
        Column("recipe", "more of the recipe", OPTIONS),
        Column("options", "options", OPTIONS),
        Column("source", "source", TEXT),
    )
    rows = []
    for row in comparison.rows:
        if row.group not in first:
            continue
        record = first[row.group]
        ran = options_of(record)
        options = {name: value for name, value in ran.items() if value is not None and name not in COMMON_OPTIONS}
        recipe = _recipe_of(record)
        rate = options.pop("learning_rate", None)
        shown = {column.key for column in _RECIPE_COLUMNS}
        defaults = Recipe().model_dump(mode="json")
        more = {key: value for key, value in recipe.items() if key not in shown and value != defaults.get(key)}
        cells = [recipe.get(column.key) for column in _RECIPE_COLUMNS]
        rows.append([comparison.names[row.group], rate, *cells, more or None, options or None, _source(record)])
    return _without_if_empty("recipe", Table("hyperparameters", columns, rows))


def _without_if_empty(key: str, table: Table) -> Table:
    """Return a table without a column in which no row has a value."""
    index = [column.key for column in table.columns].index(key)
    if any(row[index] is not None for row in table.rows):
        return table
    columns = (*table.columns[:index], *table.columns[index + 1 :])
    return Table(table.name, columns, [[*row[:index], *row[index + 1 :]] for row in table.rows])


def options_of(record: RunRecord) -> dict[str, Any]:
    """Return the options that a run's strategy ran with: given, found by a search, or chosen on validation."""
    (given,) = record.spec["strategy"].values()
    return {**given, **record.spec.get("searched_options", {}), **record.selected_options}


def _recipe_of(record: RunRecord) -> dict[str, Any]:
    """Return the recipe of a run as far as its strategy uses it."""
    used, recipe = STRATEGIES[record.strategy].recipe_fields, record.spec.get("recipe", {})
    return {key: value for key, value in recipe.items() if used is None or key in used}


def _source(record: RunRecord) -> str:
    """Write where values come from that are not defaults; "defaults" if all are."""
    (given,) = record.spec["strategy"].values()
    searched, chosen = record.spec.get("searched_options", {}), record.selected_options
    fields = STRATEGIES[record.strategy].config.model_fields
    set_by_study = [
        name
        for name, value in given.items()
        if name in fields and value != _plain(fields[name].default) and name not in searched
    ]
    parts = {"study": set_by_study, "search": list(searched), "validation": [n for n in chosen if n not in searched]}
    phrases = [f"{', '.join(map(display_name, names))}: {source}" for source, names in parts.items() if names]
    return "; ".join(phrases) or "defaults"


def _plain(value: Any) -> Any:
    """Return a default as JSON holds it."""
    return list(value) if isinstance(value, tuple) else value


def option_charts(comparison: Comparison) -> dict[str, Chart]:
    """Draw test scores by each numeric option in which at least two rows of a strategy differ, and in no other."""
    return {
        f"option-{strategy}-{option}": _option_chart(comparison, option, points)
        for (strategy, option), points in _points_by_option(comparison).items()
    }


def option_findings(comparison: Comparison) -> list[str]:
    """Compare the best value of each option with the smallest one, by their tested difference, a sentence each."""
    sentences = []
    for (strategy, option), points in _points_by_option(comparison).items():
        for _, line in points.groupby("line", sort=False):
            best, smallest = line.iloc[0], line.sort_values("value").iloc[0]  # rows are in order of score
            name = f"Of {strategy}'s {display_name(option)},"
            if best["group"] == smallest["group"]:
                sentences.append(f"{name} {best['value']:g}, the smallest value, scores best.")
                continue
            pair = next(p for p in comparison.pairs if (p.better, p.worse) == (best["group"], smallest["group"]))
            factor, digits = (100, 1) if has_points(comparison.metric) else (1, 3)  # as points() writes differences
            low, high = (signed(factor * end, digits) for end in pair.interval)
            significant = "significant" if pair.is_significant else "not significant"
            sentences.append(
                f"{name} {best['value']:g} scores best, {points_of(pair.difference, comparison.metric)} better than "
                f"{smallest['value']:g} (95 % interval {low} to {high}, {significant})."
            )
    return sentences


def _points_by_option(comparison: Comparison) -> dict[tuple[str, str], pd.DataFrame]:
    """Return the rows of each strategy and numeric option that differ in that option alone."""
    first = {record.group: record for record in reversed(comparison.records) if record.spec.get("strategy")}
    by_option: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in comparison.rows:
        if row.group in first:
            (given,) = first[row.group].spec["strategy"].values()
            for option, value in given.items():
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    by_option.setdefault((row.strategy, option), []).append(_point(comparison, row, given, option))
    varying = {}
    for key, points in by_option.items():
        frame = pd.DataFrame(points)
        varies = frame.groupby("line")["value"].transform("nunique") > 1
        if varies.any():
            varying[key] = frame[varies]
    return varying


def _point(comparison: Comparison, row: Row, given: Mapping[str, Any], option: str) -> dict[str, Any]:
    """Return the point of a row. Points are on one line if they have the same encoder and all other options."""
    rest = sorted((name, str(value)) for name, value in given.items() if name != option)
    return {
        "group": row.group,
        "strategy": comparison.names[row.group],
        "line": str((row.model, rest)),
        "value": given[option],
        "score": round(row.score, 4),
        "low": round(row.interval[0], 4),
        "high": round(row.interval[1], 4),
    }


def _option_chart(comparison: Comparison, option: str, points: pd.DataFrame) -> Chart:
    values = sorted(set(points["value"]))
    is_log = values[0] > 0 and values[-1] >= 4 * values[0]
    scale = alt.Scale(type="log", nice=False, padding=20) if is_log else alt.Scale(zero=False, padding=20)
    title = display_name(option) + (" (log scale)" if is_log else "")
    base = alt.Chart(points).encode(
        x=alt.X("value:Q", title=title, scale=scale, axis=alt.Axis(values=values, format="~g", grid=False)),
        detail="line:N",
        tooltip=["strategy", *[alt.Tooltip(name, format=".3f") for name in ("score", "low", "high")]],
    )
    score = alt.Y("score:Q", **score_axis(f"test {display_name(comparison.metric)}, 95 % interval"))
    lines = base.mark_line(color=INK).encode(y=score)
    intervals = base.mark_rule(color=INK, strokeWidth=2, opacity=0.6).encode(y="low:Q", y2="high:Q")
    dots = base.mark_circle(size=80, opacity=1).encode(y=score, color=strategy_colour(comparison))
    return (lines + intervals + dots).properties(width=WIDTH, height=HEIGHT)
