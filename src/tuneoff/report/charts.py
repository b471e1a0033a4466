"""Charts of scores, costs, data and training, as Vega-Altair charts."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from tuneoff.comparison.pareto import front
from tuneoff.comparison.result import Comparison, Row
from tuneoff.formats import short_names
from tuneoff.metrics import direction, spoken
from tuneoff.runs import COSTS

alt.data_transformers.disable_max_rows()  # the page is checked for size as a whole, not chart by chart

WIDTH, HEIGHT = 400, 240
MOST_STRATEGIES = 10  # in charts with a line, a box or a panel for each: the best
INK = "#777777"  # legible on white and on near-black
BEST, TIED, BEHIND = "#0072b2", "#56b4e9", "#a5a5a5"
# Okabe & Ito, told apart without colour vision; black would vanish in the dark
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#b8a800", "#8c6bb1", "#8c564b", "#7f7f7f")
_MOST_POINTS = 12_000  # of all loss curves together
MOST_LABELS = 60  # in the chart of labels by split
_LETTER, _LINE = 6.2, 13  # pixels of a letter and of a line, for placing names
_PHASES = {
    "encode_seconds": "tokenising",
    "prefix_seconds": "frozen blocks",
    "alone_seconds": "training",
    "evaluate_seconds": "evaluating",
}


def charts(comparison: Comparison) -> dict[str, Any]:
    """Every chart of this file by its name; a chart without data is left out."""
    made: dict[str, Any] = {"scores": scores(comparison)}
    for cost in COSTS:
        if sum(_has_cost(row, cost) for row in comparison.rows) > 1:
            made[f"cost-{cost}"] = score_against_cost(comparison, cost)
    made |= {"labels": labels(comparison), **lengths(comparison.data["lengths"])}
    epochs, steps = _epochs(comparison), _steps(comparison)
    if len(epochs):
        made["validation"] = validation_curves(comparison, epochs)
    if len(steps):
        made["loss"] = loss_curves(comparison, steps)
    return {**made, "compute": compute(comparison)}


def shown(comparison: Comparison) -> Sequence[Row]:
    """The rows that charts with something for each strategy show: the best of those that learn."""
    joint = comparison.errors.joint if comparison.errors else ()
    return [row for row in comparison.rows if row.group in joint][:MOST_STRATEGIES]


def by_strategy(comparison: Comparison, is_named: bool = True) -> alt.Color:
    """The colour of each strategy, the same in every chart. is_named: whether a legend says which is which."""
    names = [comparison.names[row.group] for row in shown(comparison)]
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(names))]
    scale = alt.Scale(domain=names, range=colours)
    legend = alt.Legend(columns=4, symbolLimit=0) if is_named else None
    return alt.Color("strategy:N", title=None, scale=scale, legend=legend)


def _standing() -> alt.Color:
    names = ["best", "cannot be told from it", "behind"]
    return alt.Color("standing:N", title=None, scale=alt.Scale(domain=names, range=[BEST, TIED, BEHIND]))


def _standing_of(index: int, row: Row) -> str:
    return "best" if index == 0 else "cannot be told from it" if row.is_tied else "behind"


def scores(comparison: Comparison) -> Any:
    """Mean test score of each strategy with its interval, and the score of each seed."""
    names, metric = comparison.names, comparison.metric
    rows = pd.DataFrame(
        {
            "strategy": names[row.group],
            "score": round(row.score, 4),
            "low": round(row.interval[0], 4),
            "high": round(row.interval[1], 4),
            "standing": _standing_of(index, row),
        }
        for index, row in enumerate(comparison.rows)
    )
    seeds = pd.DataFrame(
        {"strategy": names[r.group], "seed": r.seed, "score": round(r.metrics["test"][metric], 4)}
        for r in comparison.records
    )
    order = alt.Y("strategy:N", sort=list(rows["strategy"]), title=None, axis=alt.Axis(labelLimit=260))
    base = alt.Chart(rows).encode(y=order, color=_standing())
    across = alt.X(
        "low:Q", title=f"test {spoken(metric)}, 95 % interval", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=6)
    )
    ranges = base.mark_rule(strokeWidth=3).encode(
        x=across,
        x2="high:Q",
        tooltip=["strategy", alt.Tooltip("low", format=".3f"), alt.Tooltip("high", format=".3f")],
    )
    ticks = (
        alt.Chart(seeds)
        .mark_tick(thickness=1.5, size=14, color=INK)
        .encode(x="score:Q", y=order, tooltip=["strategy", "seed", alt.Tooltip("score", format=".3f")])
    )
    dots = base.mark_circle(size=80, opacity=1).encode(
        x="score:Q", tooltip=["strategy", alt.Tooltip("score", format=".3f")]
    )
    return (ranges + ticks + dots).properties(width=WIDTH, height=alt.Step(26))


_COST_AXES = {
    "train_seconds": ("training seconds", 1.0),
    "trainable_parameters": ("trainable parameters", 1.0),
    "model_bytes": ("size on disk, MB", 1e-6),
    "peak_bytes": ("peak memory, MB", 1e-6),
    "latency_seconds": ("milliseconds to classify one text", 1e3),
}


def score_against_cost(comparison: Comparison, cost: str) -> Any:
    """Score against one cost; a line joins the strategies that none beats in both."""
    title, unit = _COST_AXES[cost]
    rows = [(index, row) for index, row in enumerate(comparison.rows) if _has_cost(row, cost)]
    best = front([row.costs[cost] for _, row in rows], [row.score * direction(comparison.metric) for _, row in rows])
    points = pd.DataFrame(
        {
            "strategy": comparison.names[row.group],
            "score": round(row.score, 4),
            "cost": float(f"{row.costs[cost] * unit:.4g}"),
            "standing": _standing_of(index, row),
            "is_on_front": is_on_front,
        }
        for (index, row), is_on_front in zip(rows, best, strict=True)
    )
    points = points.assign(**_named(points))
    base = alt.Chart(points).encode(
        x=alt.X(
            "cost:Q",
            title=f"{title} (log scale)",
            scale=alt.Scale(type="log", nice=True),
            axis=alt.Axis(tickCount=4, grid=False),
        ),
        y=alt.Y("score:Q", title=f"test {spoken(comparison.metric)}", scale=alt.Scale(zero=False)),
        tooltip=["strategy", alt.Tooltip("score", format=".3f"), alt.Tooltip("cost", title=title, format=",.4~g")],
    )
    line = base.transform_filter(alt.datum.is_on_front).mark_line(strokeDash=[4, 3], color=INK, opacity=0.7)
    dots = base.mark_circle(size=80, opacity=1).encode(color=_standing())
    names = [
        base.transform_filter(alt.datum.side == side)
        .mark_text(align=align, dx=dx, dy=dy, color=INK, limit=180)
        .encode(text="strategy")
        for side, (align, dx, dy) in _SIDES.items()
        if (points["side"] == side).any()
    ]
    return alt.layer(line, dots, *names).properties(width=WIDTH, height=HEIGHT)


def _has_cost(row: Row, cost: str) -> bool:
    """Whether a row has a place on a log scale of costs. The most frequent class would only stretch the axes."""
    return row.costs.get(cost, 0) > 0 and row.strategy != "majority"


# where a name may stand beside its point
_SIDES: dict[str, tuple[Any, int, int]] = {
    "right": ("left", 9, 1),
    "left": ("right", -9, 1),
    "above": ("center", 0, -13),
    "below": ("center", 0, 14),
    "upper right": ("left", 7, -10),
    "lower right": ("left", 7, 12),
    "upper left": ("right", -7, -10),
    "lower left": ("right", -7, 12),
}


def _named(points: pd.DataFrame) -> dict[str, list[str]]:
    """On which side of its point each name stands so that none covers another; "none" where there is no room."""
    x = _pixels(points["cost"].map(math.log), WIDTH)
    y = [HEIGHT - at for at in _pixels(points["score"], HEIGHT)]
    taken = [(left - 6, top - 6, left + 6, top + 6) for left, top in zip(x, y, strict=True)]
    sides = []
    for across, down, name in zip(x, y, points["strategy"], strict=True):
        wide = min(180, len(name) * _LETTER)
        for side, (align, dx, dy) in _SIDES.items():
            left = across + dx - {"left": 0, "right": wide, "center": wide / 2}[align]
            box = (left, down + dy - _LINE / 2, left + wide, down + dy + _LINE / 2)
            is_inside = box[0] > -10 and box[2] < WIDTH + 60
            if is_inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                sides.append(side)
                break
        else:
            sides.append("none")
    return {"side": sides}


def _pixels(values: pd.Series, length: int) -> list[float]:
    """About where values stand on an axis that is a little longer than they need."""
    low, width = values.min(), max(values.max() - values.min(), 1e-9)
    return [length * (0.06 + 0.88 * (value - low) / width) for value in values]


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def labels(comparison: Comparison) -> Any:
    """The share of each label in each split."""
    splits, names = comparison.data["splits"], short_names(comparison.label_names)
    rows = pd.DataFrame(
        {"split": split, "label": names[i], "examples": count, "share": round(count / max(1, found["examples"]), 4)}
        for split, found in splits.items()
        for i, count in enumerate(found["labels"][:MOST_LABELS])
    )
    order = alt.Y("label:N", sort=names, title=None, axis=alt.Axis(labelLimit=220))
    bars = (
        alt.Chart(rows)
        .mark_bar()
        .encode(
            y=order,
            yOffset=alt.YOffset("split:N", sort=list(splits)),
            x=alt.X("share:Q", title="share of the split's examples", axis=alt.Axis(format="%", tickCount=5)),
            color=_by_split(splits),
            tooltip=["split", "label", "examples", alt.Tooltip("share", format=".1%")],
        )
    )
    return bars.properties(width=WIDTH, height=alt.Step(9 if len(names) <= 12 else 4))


def _by_split(splits: Mapping[str, Any]) -> alt.Color:
    scale = alt.Scale(domain=list(splits), range=list(COLOURS[: len(splits)]))
    return alt.Color("split:N", title=None, sort=list(splits), scale=scale)


def lengths(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Tokens an example, of the first encoder: a histogram and a box for each split."""
    splits = next(iter(found.values()), {})
    if not all("histogram" in measured for measured in splits.values()) or not splits:
        return {}  # no encoder, or a study of an earlier version
    bins = pd.DataFrame(
        {"split": split, "from": start, "to": end, "share": round(count / max(1, sum(pieces["examples"])), 5)}
        for split, pieces in ((split, measured["histogram"]) for split, measured in splits.items())
        for start, end, count in zip(pieces["edges"][:-1], pieces["edges"][1:], pieces["examples"], strict=True)
    )
    boxes = pd.DataFrame(
        {"split": split, **dict(zip(("low", "q1", "median", "q3", "high"), measured["box"], strict=True))}
        for split, measured in splits.items()
    )
    tokens = "tokens of an example, after cutting"
    steps = (
        alt.Chart(bins)
        .mark_line(interpolate="step-after", strokeWidth=1.8)
        .encode(
            x=alt.X("from:Q", title=tokens),
            y=alt.Y("share:Q", title="share of the split's examples", axis=alt.Axis(format="%", tickCount=5)),
            color=_by_split(splits),
            tooltip=["split", "from", "to", alt.Tooltip("share", format=".1%")],
        )
    )
    return {
        "lengths": steps.properties(width=WIDTH, height=HEIGHT),
        "lengths-box": box_plot(boxes, "split", list(splits), tokens, _by_split(splits)),
    }


def box_plot(boxes: pd.DataFrame, what: str, order: list[str], title: str, colour: alt.Color) -> Any:
    """Boxes from their five numbers, one a row. boxes: columns `what`, low, q1, median, q3, high."""
    five = [alt.Tooltip(name, format=",.3~f") for name in ("low", "q1", "median", "q3", "high")]
    base = alt.Chart(boxes).encode(
        y=alt.Y(f"{what}:N", sort=order, title=None, axis=alt.Axis(labelLimit=220)), tooltip=[what, *five]
    )
    whiskers = base.mark_rule(color=INK).encode(x=alt.X("low:Q", title=title), x2="high:Q")
    bodies = base.mark_bar(size=13).encode(x="q1:Q", x2="q3:Q", color=colour)
    middles = base.mark_tick(color="white", size=13, thickness=2).encode(x="median:Q")
    return (whiskers + bodies + middles).properties(width=WIDTH, height=alt.Step(24))


def _runs(comparison: Comparison, kind: str) -> pd.DataFrame:
    names, parts = {row.group: comparison.names[row.group] for row in shown(comparison)}, []
    for record in comparison.records:
        history = comparison.histories[record.run_id]
        if len(history) and record.group in names:
            rows = history[history["kind"] == kind].dropna(axis=1, how="all")
            parts.append(rows.assign(strategy=names[record.group], seed=record.seed))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _epochs(comparison: Comparison) -> pd.DataFrame:
    epochs, score = _runs(comparison, "epoch"), f"validation_{comparison.metric}"
    return epochs[["strategy", "seed", "epoch", score]].round(4) if len(epochs) else epochs


def _steps(comparison: Comparison) -> pd.DataFrame:
    """Losses per step, averaged in pieces, so that the page stays small however many runs there are."""
    steps = _runs(comparison, "step")
    points = max(10, min(24, _MOST_POINTS // max(1, len(comparison.records))))
    if not len(steps):
        return steps
    last = steps.groupby(["strategy", "seed"])["step"].transform("max")
    piece = ((steps["step"] - 1) * points // last).astype(int)
    grouped = steps.groupby(["strategy", "seed", piece.rename("piece")], as_index=False)
    return grouped.agg(step=("step", "mean"), loss=("loss", "mean")).drop(columns="piece").round(4)


def validation_curves(comparison: Comparison, epochs: pd.DataFrame) -> Any:
    """The study's metric on validation after every epoch, a line a seed."""
    score = f"validation_{comparison.metric}"
    return (
        alt.Chart(epochs)
        .mark_line(point=True)
        .encode(
            x=alt.X("epoch:O", title="epoch", axis=alt.Axis(labelAngle=0)),
            y=alt.Y(f"{score}:Q", title=f"validation {spoken(comparison.metric)}", scale=alt.Scale(zero=False)),
            color=by_strategy(comparison),
            detail="seed:N",
            tooltip=["strategy", "seed", "epoch", alt.Tooltip(score, format=".3f")],
        )
        .properties(width=WIDTH, height=HEIGHT)
    )


def loss_curves(comparison: Comparison, steps: pd.DataFrame) -> Any:
    """The training loss, smoothed in pieces, a line a seed."""
    return (
        alt.Chart(steps)
        .mark_line(opacity=0.7)
        .encode(
            x=alt.X("step:Q", title="step"),
            y=alt.Y("loss:Q", title="training loss"),
            color=by_strategy(comparison),
            detail="seed:N",
            tooltip=["strategy", "seed", alt.Tooltip("step", format=".0f"), alt.Tooltip("loss", format=".3f")],
        )
        .properties(width=WIDTH, height=HEIGHT)
    )


def compute(comparison: Comparison) -> Any:
    """Seconds of a run by phase, mean over seeds."""
    rows = pd.DataFrame(
        {"strategy": comparison.names[row.group], "phase": name, "seconds": round(costs.get(key, 0.0), 3)}
        for row in comparison.rows
        for costs in ({**row.costs, "alone_seconds": row.costs["train_seconds"] - row.costs.get("prefix_seconds", 0)},)
        for key, name in _PHASES.items()
    )
    order, phases = [comparison.names[row.group] for row in comparison.rows], list(_PHASES.values())
    rows["order"] = rows["phase"].map(phases.index)
    colour = alt.Color("phase:N", title=None, sort=phases, scale=alt.Scale(domain=phases, range=list(COLOURS[:4])))
    bars = (
        alt.Chart(rows)
        .mark_bar()
        .encode(
            y=alt.Y("strategy:N", sort=order, title=None, axis=alt.Axis(labelLimit=260)),
            x=alt.X("seconds:Q", title="seconds of a run, mean over seeds"),
            color=colour,
            order=alt.Order("order:Q"),
            tooltip=["strategy", "phase", alt.Tooltip("seconds", format=",.1f")],
        )
    )
    return bars.properties(width=WIDTH, height=alt.Step(22))
