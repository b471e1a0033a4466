"""Scores on parts of test: a table and a chart."""

from typing import Any

import altair as alt

from tuneoff.comparison.result import Comparison
from tuneoff.formats import Table, number
from tuneoff.metrics import direction, spoken
from tuneoff.report.charts import WIDTH, by_strategy, shown


def slices(comparison: Comparison) -> Table:
    """The metric of each strategy on each part of test."""
    names, found = comparison.names, comparison.slices
    head = ["slice", "value", "examples", *names.values()]
    if not len(found):
        return head, []
    body = []
    for (column, value), part in found.groupby(["slice", "value"], sort=False):
        scores = {row.group: f"{row.score:.3f} ({row.low:.3f} to {row.high:.3f})" for row in part.itertuples()}
        body.append([str(column), str(value), number(part["examples"].iloc[0]), *[scores[group] for group in names]])
    return head, body


def weakest(comparison: Comparison) -> str:
    """Where what is recommended does worst, in a sentence."""
    if not len(comparison.slices) or comparison.verdict is None:
        return ""
    group, sign = comparison.verdict.recommended, direction(comparison.metric)
    own = comparison.slices[comparison.slices["group"] == group]
    row = own.iloc[int((sign * own["score"]).to_numpy().argmin())]
    whole = next(row.score for row in comparison.rows if row.group == group)
    if sign * (whole - row["score"]) <= 0:
        return f"{comparison.names[group]} does nowhere worse than on all of test."
    return (
        f"{comparison.names[group]} does worst where {row['slice']} is {row['value']}: {spoken(comparison.metric)} "
        f"{row['score']:.3f} ({row['low']:.3f} to {row['high']:.3f}) on {row['examples']:,} examples, "
        f"{whole:.3f} on all. Of many parts, some are worst by chance."
    )


def slice_charts(comparison: Comparison) -> dict[str, Any]:
    """For each column that parts test: scores by its values, a dot a strategy."""
    names = {row.group: comparison.names[row.group] for row in shown(comparison)}
    if not len(comparison.slices):
        return {}
    rows = comparison.slices[comparison.slices["group"].isin(list(names))].round(4)
    rows = rows.assign(strategy=rows["group"].map(names))
    made = {}
    for column, part in rows.groupby("slice", sort=False):
        values = [f"{value} ({count:,})" for value, count in part[["value", "examples"]].drop_duplicates().to_numpy()]
        part = part.assign(value=[f"{v} ({n:,})" for v, n in zip(part["value"], part["examples"], strict=True)])
        base = alt.Chart(part.drop(columns=["group", "slice"])).encode(
            y=alt.Y("value:N", sort=values, title=str(column), axis=alt.Axis(labelLimit=220)),
            yOffset=alt.YOffset("strategy:N", sort=list(names.values())),
            color=by_strategy(comparison),
            tooltip=[
                alt.Tooltip("value"),
                alt.Tooltip("strategy"),
                *(alt.Tooltip(name, format=".3f") for name in ("score", "low", "high")),
            ],
        )
        title = f"test {spoken(comparison.metric)}, 95 % interval"
        across = alt.X("low:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=6))
        ranges = base.mark_rule(strokeWidth=2).encode(x=across, x2="high:Q")
        dots = base.mark_circle(size=50, opacity=1).encode(x="score:Q")
        made[f"slice-{_plain(str(column))}"] = (ranges + dots).properties(width=WIDTH, height=alt.Step(11))
    return made


def _plain(name: str) -> str:
    """A column's name as part of a file's."""
    return "".join(c if c.isalnum() else "-" for c in name)
