"""Learning curves: a table and a chart."""

from typing import Any

import altair as alt
import pandas as pd

from tuneoff.comparison.curve import Point
from tuneoff.comparison.result import Comparison
from tuneoff.formats import Table, number
from tuneoff.metrics import spoken
from tuneoff.report.charts import HEIGHT, WIDTH, by_strategy, shown


def curves(comparison: Comparison) -> Table:
    """What each strategy scores with each part of train."""
    sizes = list(dict.fromkeys((point.size, point.examples) for point in comparison.curve))
    found = {(name(comparison, point), point.size): point for point in comparison.curve}
    body = []
    for row in comparison.rows if comparison.curve else ():
        cells = [found.get((comparison.names[row.group], size)) for size, _ in sizes]
        scores = ["–" if p is None else f"{p.score:.3f} ({p.interval[0]:.3f} to {p.interval[1]:.3f})" for p in cells]
        body.append([comparison.names[row.group], *scores])
    return ["strategy", *[f"{size} ({number(examples)})" for size, examples in sizes]], body


def curve_charts(comparison: Comparison) -> dict[str, Any]:
    """Score against training examples, a line a strategy; nothing without parts of train."""
    names = {comparison.names[row.group] for row in shown(comparison)}
    rows = pd.DataFrame(
        {
            "strategy": name(comparison, point),
            "examples": point.examples,
            "score": round(point.score, 4),
            "low": round(point.interval[0], 4),
            "high": round(point.interval[1], 4),
        }
        for point in comparison.curve
        if name(comparison, point) in names
    )
    if not len(rows):
        return {}
    numbers = [alt.Tooltip("examples", format=","), *(alt.Tooltip(n, format=".3f") for n in ("score", "low", "high"))]
    base = alt.Chart(rows).encode(
        x=alt.X(
            "examples:Q",
            title="training examples (log scale)",
            scale=alt.Scale(type="log", nice=False),
            axis=alt.Axis(values=sorted(set(rows["examples"])), format=",", grid=False, labelOverlap=True),
        ),
        color=by_strategy(comparison),
        tooltip=[alt.Tooltip("strategy"), *numbers],
    )
    score = alt.Y("score:Q", title=f"test {spoken(comparison.metric)}", scale=alt.Scale(zero=False))
    lines = base.mark_line(point=True).encode(y=score)
    bars = base.mark_rule(opacity=0.35, strokeWidth=3).encode(y=alt.Y("low:Q"), y2="high:Q")
    return {"learning-curve": (bars + lines).properties(width=int(1.3 * WIDTH), height=int(1.2 * HEIGHT))}


def name(comparison: Comparison, point: Point) -> str:
    """What the strategy of a point is called in the comparison."""
    rows = [row for row in comparison.rows if (row.label, row.model) == (point.label, point.model)]
    return comparison.names[rows[0].group] if rows else point.label
