"""Score against cost: scores with confidence intervals, and what a better score costs."""

import math
from collections.abc import Sequence
from typing import Literal

import altair as alt
import pandas as pd

from tuneoff.comparison.pareto import pareto_front
from tuneoff.comparison.result import Comparison
from tuneoff.comparison.rows import Row
from tuneoff.costs import COSTS, choosable_costs
from tuneoff.report.chart import HEIGHT, INK, WIDTH, log_axis, score_axis, standing_colour
from tuneoff.report.section import Block, Chart, ChartMenu, Figures, Section, Text
from tuneoff.scoring.metrics import direction, display_name

_LETTER, _LINE = 6.2, 13  # pixels of a letter and of a line, to place names


def section(comparison: Comparison) -> Section | None:
    """Return the charts of scores and costs; None without a successful run."""
    if comparison.verdict is None:
        return None
    costs = [cost for cost in choosable_costs() if sum(_has_cost(row, cost) for row in comparison.rows) > 1]
    text = (
        "Chart of scores: dots are means over seeds, ticks are single seeds, and lines are 95 % confidence intervals."
    )
    if comparison.data.folds:
        text = "Chart of scores: dots are scores over all folds, ticks are single folds, lines are 95 % confidence "
        text += "intervals."
    if costs:
        text += (
            " Chart of score against cost: the dashed line is the Pareto front, the strategies that no other one beats "
            "in both."
        )
    chosen = comparison.verdict.cost
    if chosen not in costs:
        text += f" Fewer than two strategies have a {COSTS[chosen].name} to compare."
    menu = None
    if costs:
        menu = ChartMenu(
            label="cost",
            names={f"cost-{cost}": COSTS[cost].name for cost in costs},
            charts={f"cost-{cost}": score_against_cost(comparison, cost) for cost in costs},
            selected=f"cost-{chosen if chosen in costs else costs[0]}",
        )
    blocks: list[Block] = [Text(text), Figures({"scores": scores(comparison)}, menu)]
    return Section("costs", "Score against cost", blocks + two_scores_blocks(comparison))


def two_scores_blocks(comparison: Comparison) -> list[Block]:
    """Return bars of accuracy and F1 side by side; nothing where an earlier version did not store both."""
    names = [display_name(metric) for metric in comparison.estimates]
    if len(names) < 2:
        return []
    text = (
        f"{names[0][0].upper()}{names[0][1:]} and {names[1]} of each strategy on test, with 95 % confidence intervals."
    )
    return [Text(text), Figures({"accuracy-f1": two_scores(comparison)})]


def two_scores(comparison: Comparison) -> Chart:
    """Bars of two scores for each strategy, with confidence intervals."""
    rows = pd.DataFrame(
        {
            "strategy": comparison.names[row.group],
            "metric": display_name(metric),
            **dict(zip(("score", "low", "high"), (round(v, 4) for v in by_group[row.group]), strict=True)),
        }
        for metric, by_group in comparison.estimates.items()
        for row in comparison.rows
    )
    metrics = [display_name(metric) for metric in comparison.estimates]
    base = alt.Chart(rows).encode(
        y=alt.Y("strategy:N", sort=list(comparison.names.values()), title=None, axis=alt.Axis(labelLimit=260)),
        yOffset=alt.YOffset("metric:N", sort=metrics),
        tooltip=["strategy", "metric", *[alt.Tooltip(name, format=".3f") for name in ("score", "low", "high")]],
    )
    colour = alt.Color(
        "metric:N", title=None, sort=metrics, scale=alt.Scale(domain=metrics, range=["#0072b2", "#e69f00"])
    )
    bars = base.mark_bar().encode(x=alt.X("score:Q", title="test score, 95 % interval"), color=colour)
    intervals = base.mark_rule(color=INK, strokeWidth=2).encode(x="low:Q", x2="high:Q")
    return (bars + intervals).properties(width=WIDTH, height=alt.Step(14))


def scores(comparison: Comparison) -> Chart:
    """Mean test score of each strategy with its confidence interval, and the score of each seed or fold."""
    names, metric = comparison.names, comparison.metric
    rows = pd.DataFrame(
        {
            "strategy": names[row.group],
            "score": round(row.score, 4),
            "low": round(row.interval[0], 4),
            "high": round(row.interval[1], 4),
            "standing": row.standing,
        }
        for row in comparison.rows
    )
    seeds = pd.DataFrame(
        {
            "strategy": names[r.group],
            comparison.repeat: r.repeat if r.sources else r.seed,
            "score": round(r.metrics["test"][metric], 4),
        }
        for r in comparison.records
    )
    order = alt.Y("strategy:N", sort=list(rows["strategy"]), title=None, axis=alt.Axis(labelLimit=260))
    base = alt.Chart(rows).encode(y=order, color=standing_colour())
    title = f"test {display_name(metric)}, 95 % interval"
    ranges = base.mark_rule(strokeWidth=3).encode(
        x=alt.X("low:Q", axis=alt.Axis(tickCount=6), **score_axis(title)),
        x2="high:Q",
        tooltip=["strategy", alt.Tooltip("low", format=".3f"), alt.Tooltip("high", format=".3f")],
    )
    score = alt.Tooltip("score", format=".3f")
    ticks = alt.Chart(seeds).mark_tick(thickness=1.5, size=14, color=INK)
    ticks = ticks.encode(x="score:Q", y=order, tooltip=["strategy", comparison.repeat, score])
    dots = base.mark_circle(size=80, opacity=1).encode(x="score:Q", tooltip=["strategy", score])
    return (ranges + ticks + dots).properties(width=WIDTH, height=alt.Step(26))


def score_against_cost(comparison: Comparison, cost: str) -> Chart:
    """Score against one cost, with the Pareto front."""
    row_of_cost = COSTS[cost]
    rows = [row for row in comparison.rows if _has_cost(row, cost)]
    sign = direction(comparison.metric)
    front = pareto_front([row.costs[cost] for row in rows], [row.score * sign for row in rows])
    points = pd.DataFrame(
        {
            "strategy": comparison.names[row.group],
            "score": round(row.score, 4),
            "cost": float(f"{row.costs[cost] * row_of_cost.axis_factor:.4g}"),
            "standing": row.standing,
            "is_on_front": is_on_front,
        }
        for row, is_on_front in zip(rows, front, strict=True)
    )
    ends, ticks = log_axis(list(points["cost"]))
    points = points.assign(side=_name_sides(points, ends))
    base = alt.Chart(points).encode(
        x=alt.X(
            "cost:Q",
            title=f"{row_of_cost.axis} (log scale)",
            scale=alt.Scale(type="log", nice=False, domain=ends),
            axis=alt.Axis(values=ticks, grid=False, format="~g", labelOverlap=True),
        ),
        y=alt.Y("score:Q", **score_axis(f"test {display_name(comparison.metric)}")),
        tooltip=[
            "strategy",
            alt.Tooltip("score", format=".3f"),
            alt.Tooltip("cost", title=row_of_cost.axis, format=",.4~g"),
        ],
    )
    line = base.transform_filter(alt.datum.is_on_front).mark_line(strokeDash=[4, 3], color=INK, opacity=0.7)
    dots = base.mark_circle(size=80, opacity=1).encode(color=standing_colour())
    names = [
        base.transform_filter(alt.datum.side == side)
        .mark_text(align=align, dx=dx, dy=dy, color=INK, limit=180)
        .encode(text="strategy")
        for side, (align, dx, dy) in _SIDES.items()
        if (points["side"] == side).any()
    ]
    return alt.layer(line, dots, *names).properties(width=WIDTH, height=HEIGHT)


def _has_cost(row: Row, cost: str) -> bool:
    """Return True if a row has a place on a log scale. The class prior costs next to nothing and would stretch it."""
    return row.costs.get(cost, 0) > 0 and not row.is_class_prior


# positions of a name relative to its point: alignment, horizontal and vertical offset
_SIDES: dict[str, tuple[Literal["left", "center", "right"], int, int]] = {
    "right": ("left", 9, 1),
    "left": ("right", -9, 1),
    "above": ("center", 0, -13),
    "below": ("center", 0, 14),
    "upper right": ("left", 7, -10),
    "lower right": ("left", 7, 12),
    "upper left": ("right", -7, -10),
    "lower left": ("right", -7, 12),
}


def _name_sides(points: pd.DataFrame, ends: Sequence[float]) -> list[str]:
    """Return the side of its point on which each name covers no other; "none" where there is no room.

    ends: of the axis of costs. Greedy, in the order of the rows: the first free side of _SIDES is taken.
    """
    low, high = map(math.log, ends)
    x = [WIDTH * (math.log(cost) - low) / (high - low) for cost in points["cost"]]
    y = [HEIGHT - pixel for pixel in _pixels(points["score"], HEIGHT)]
    taken = [(left - 6, top - 6, left + 6, top + 6) for left, top in zip(x, y, strict=True)]
    sides = []
    for across, down, name in zip(x, y, points["strategy"], strict=True):
        width = min(180, len(name) * _LETTER)
        for side, (align, dx, dy) in _SIDES.items():
            left = across + dx - {"left": 0, "right": width, "center": width / 2}[align]
            box = (left, down + dy - _LINE / 2, left + width, down + dy + _LINE / 2)
            is_inside = box[0] > -10 and box[2] < WIDTH + 60
            if is_inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                sides.append(side)
                break
        else:
            sides.append("none")
    return sides


def _pixels(values: pd.Series, length: int) -> list[float]:
    """Return approximate positions on an axis that is a little longer than the values need."""
    low, width = values.min(), max(values.max() - values.min(), 1e-9)
    return [length * (0.06 + 0.88 * (value - low) / width) for value in values]


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
