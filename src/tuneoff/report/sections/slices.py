"""Slices: scores on parts of test, by the values of a column."""

import altair as alt

from tuneoff.comparison.result import Comparison
from tuneoff.formats import fixed
from tuneoff.report.chart import WIDTH, charted_rows, score_axis, strategy_colour
from tuneoff.report.section import Block, Chart, Section, TableBlock, Text, details_if_any, figures_if_any
from tuneoff.scoring.metrics import direction, display_name
from tuneoff.tables import COUNT, ESTIMATE, TEXT, Column, Table, csv_key


def section(comparison: Comparison) -> Section | None:
    """Return the scores of each slice; None without slice columns."""
    if not len(comparison.slices):
        return None
    over = "their examples" if comparison.data.folds else "their examples and the seeds"
    text = f"Test scores on slices of the data, with 95 % confidence intervals over {over}. "
    text += "Slices of a single example are left out."
    blocks: list[Block] = [Text(text)]
    blocks += [Text(sentence, is_key=True)] if (sentence := weakest_slice(comparison)) else []
    blocks += figures_if_any(slice_charts(comparison))
    return Section(
        "slices", "Slices", [*blocks, *details_if_any("Every slice", TableBlock(slices(comparison), is_tall=True))]
    )


def slices(comparison: Comparison) -> Table:
    """The metric of each strategy on each slice."""
    names = comparison.names
    columns = (
        Column("slice", "slice", TEXT),
        Column("value", "value", TEXT),
        Column("examples", "examples", COUNT),
        *[Column(f"score_{csv_key(name)}", name, ESTIMATE) for name in names.values()],
    )
    rows = []
    for (column, value), part in comparison.slices.groupby(["slice", "value"], sort=False):
        scores = {row.group: (row.score, row.low, row.high) for row in part.itertuples()}
        rows.append([str(column), str(value), part["examples"].iloc[0], *[scores[group] for group in names]])
    return Table("slices", columns, rows)


def weakest_slice(comparison: Comparison) -> str:
    """Return a sentence about the slice with the lowest score of the recommended strategy."""
    if comparison.verdict is None or comparison.verdict.recommended is None:
        return ""
    group, sign, name = comparison.verdict.recommended, direction(comparison.metric), display_name(comparison.metric)
    own = comparison.slices[comparison.slices["group"] == group]
    row = own.iloc[int((sign * own["score"]).to_numpy().argmin())]
    overall = next(row.score for row in comparison.rows if row.group == group)
    if sign * (overall - row["score"]) <= 0:
        return f"No slice has a worse score of {comparison.names[group]} than the whole test split."
    return (
        f"The worst score of {comparison.names[group]} is where {row['slice']} is {row['value']}: {name} "
        f"{fixed(row['score'])} ({fixed(row['low'])} to {fixed(row['high'])}) on {row['examples']:,} examples, against "
        f"{fixed(overall)} on the whole test split. Among many slices, some are bad by chance."
    )


def slice_charts(comparison: Comparison) -> dict[str, Chart]:
    """Scores by the values of each slice column, one dot per strategy."""
    names = {row.group: comparison.names[row.group] for row in charted_rows(comparison)}
    rows = comparison.slices[comparison.slices["group"].isin(list(names))].round(4)
    rows = rows.assign(strategy=rows["group"].map(names))
    charts = {}
    for column, part in rows.groupby("slice", sort=False):
        values = [f"{value} ({count:,})" for value, count in part[["value", "examples"]].drop_duplicates().to_numpy()]
        part = part.assign(value=[f"{v} ({n:,})" for v, n in zip(part["value"], part["examples"], strict=True)])
        numbers = [alt.Tooltip(name, format=".3f") for name in ("score", "low", "high")]
        base = alt.Chart(part.drop(columns=["group", "slice"])).encode(
            y=alt.Y("value:N", sort=values, title=str(column), axis=alt.Axis(labelLimit=220)),
            yOffset=alt.YOffset("strategy:N", sort=list(names.values())),
            color=strategy_colour(comparison),
            tooltip=[alt.Tooltip("value"), alt.Tooltip("strategy"), *numbers],
        )
        axis = score_axis(f"test {display_name(comparison.metric)}, 95 % interval")
        intervals = base.mark_rule(strokeWidth=2).encode(
            x=alt.X("low:Q", axis=alt.Axis(tickCount=6), **axis), x2="high:Q"
        )
        dots = base.mark_circle(size=50, opacity=1).encode(x="score:Q")
        charts[f"slice-{_file_name(str(column))}"] = (intervals + dots).properties(width=WIDTH, height=alt.Step(11))
    return charts


def _file_name(column: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in column)
