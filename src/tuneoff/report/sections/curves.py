"""Learning curves: scores with parts of the training examples."""

import altair as alt
import pandas as pd

from tuneoff.comparison.result import Comparison
from tuneoff.comparison.rows import CurvePoint
from tuneoff.formats import number
from tuneoff.report.chart import HEIGHT, WIDTH, charted_rows, score_axis, strategy_colour
from tuneoff.report.section import Block, Chart, Section, Text, figures_if_any, table_if_any
from tuneoff.scoring.metrics import display_name
from tuneoff.tables import ESTIMATE, TEXT, Column, Table, csv_key


def section(comparison: Comparison) -> Section | None:
    """Return the learning curves; None without runs on subsets of train."""
    if not comparison.curve:
        return None
    over = "examples" if comparison.data.folds else "examples and seeds"
    text = (
        "Test scores after training on subsets of the training examples, with 95 % confidence intervals over test "
        f"{over}. Each {comparison.repeat} draws its own subset, the same for all strategies. Validation and test stay "
        "whole, so that with few training examples most labels in use are those that epochs were selected on. Runs on "
        "a subset train for at least as many steps as runs on all of train, up to 60."
    )
    blocks: list[Block] = [Text(text)]
    blocks += [Text(comparison.advice, is_key=True)] if comparison.advice else []
    blocks += figures_if_any({"learning-curve": curve_chart(comparison)})
    return Section("curves", "Learning curves", [*blocks, *table_if_any(curves(comparison))], menu="Curves")


def curves(comparison: Comparison) -> Table:
    """Score of each strategy with each subset of train."""
    sizes = list(dict.fromkeys((point.size, point.examples) for point in comparison.curve))
    by_cell = {(point_name(comparison, point), point.size): point for point in comparison.curve}
    columns = (
        Column("strategy", "strategy", TEXT),
        *[Column(f"score_{csv_key(size)}", f"{size} ({number(count)})", ESTIMATE) for size, count in sizes],
    )
    rows = []
    for row in comparison.rows:
        points = [by_cell.get((comparison.names[row.group], size)) for size, _ in sizes]
        rows.append([comparison.names[row.group], *[(p.score, *p.interval) if p else None for p in points]])
    return Table("curves", columns, rows)


def curve_chart(comparison: Comparison) -> Chart | None:
    """Score against training examples, one line per strategy; None if no strategy has a curve."""
    names = {comparison.names[row.group] for row in charted_rows(comparison)}
    rows = pd.DataFrame(
        {
            "strategy": point_name(comparison, point),
            "examples": point.examples,
            "score": round(point.score, 4),
            "low": round(point.interval[0], 4),
            "high": round(point.interval[1], 4),
        }
        for point in comparison.curve
        if point_name(comparison, point) in names
    )
    if not len(rows):
        return None
    numbers = [alt.Tooltip("examples", format=","), *(alt.Tooltip(n, format=".3f") for n in ("score", "low", "high"))]
    base = alt.Chart(rows).encode(
        x=alt.X(
            "examples:Q",
            title="training examples (log scale)",
            scale=alt.Scale(type="log", nice=False),
            axis=alt.Axis(values=sorted(set(rows["examples"])), format=",", grid=False, labelOverlap=True),
        ),
        color=strategy_colour(comparison),
        tooltip=[alt.Tooltip("strategy"), *numbers],
    )
    score = alt.Y("score:Q", **score_axis(f"test {display_name(comparison.metric)}"))
    lines = base.mark_line(point=True).encode(y=score)
    intervals = base.mark_rule(opacity=0.35, strokeWidth=3).encode(y=alt.Y("low:Q"), y2="high:Q")
    return (intervals + lines).properties(width=int(1.3 * WIDTH), height=int(1.2 * HEIGHT))


def point_name(comparison: Comparison, point: CurvePoint) -> str:
    """Return the name of a point's strategy in the comparison."""
    rows = [row for row in comparison.rows if (row.label, row.model) == (point.label, point.model)]
    return comparison.names[rows[0].group] if rows else point.label
