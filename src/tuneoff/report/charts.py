"""Charts of a comparison, as Vega-Altair charts."""

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from tuneoff.comparison.result import Comparison

alt.data_transformers.disable_max_rows()  # the page is checked for size as a whole, not chart by chart

WIDTH, HEIGHT = 380, 230
_MOST_CLASSES = 40  # a confusion matrix of more is neither legible nor small
_MOST_POINTS = 12_000  # of all loss curves together
_INK = "#777777"  # legible on white and on near-black
_BEST, _TIED, _BEHIND = "#0072b2", "#56b4e9", "#b0b0b0"  # Okabe & Ito, told apart without colour vision


def charts(comparison: Comparison) -> dict[str, alt.TopLevelMixin]:
    """Every chart by its name; a chart without data is left out."""
    made: dict[str, Any] = {"scores": scores(comparison), "cost": score_against_cost(comparison)}
    epochs, steps = _epochs(comparison), _steps(comparison)
    if len(epochs):
        made["validation"] = validation_curves(epochs, comparison.metric)
    if len(steps):
        made["loss"] = loss_curves(steps)
    for row in comparison.rows:
        made[f"confusion-{row.group}"] = confusion(comparison, row.group)
    return {name: _styled(chart) for name, chart in made.items()}


def _styled(chart: Any) -> Any:
    return (
        chart.configure(background="transparent", font="system-ui, sans-serif")
        .configure_view(stroke=None)
        .configure_axis(labelColor=_INK, titleColor=_INK, gridColor="#88888833", domainColor=_INK, tickColor=_INK)
        .configure_legend(labelColor=_INK, titleColor=_INK, labelLimit=300, orient="bottom")
        .configure_header(labelColor=_INK, titleColor=_INK)
        .configure_title(color=_INK)
    )


def _score_title(metric: str) -> str:
    return f"test {metric.replace('_', ' ')}"


def _rows(comparison: Comparison) -> pd.DataFrame:
    def kind(index: int, is_tied: bool) -> str:
        return "best" if index == 0 else "cannot be told from it" if is_tied else "behind"

    return pd.DataFrame(
        {
            "strategy": comparison.names[row.group],
            "score": row.score,
            "low": row.interval[0],
            "high": row.interval[1],
            "standing": kind(index, row.is_tied),
            "seconds": max(row.costs["train_seconds"], 0.01),
        }
        for index, row in enumerate(comparison.rows)
    )


def _standing() -> alt.Color:
    names = ["best", "cannot be told from it", "behind"]
    return alt.Color("standing:N", title=None, scale=alt.Scale(domain=names, range=[_BEST, _TIED, _BEHIND]))


def scores(comparison: Comparison) -> Any:
    """Mean test score of each strategy, with its interval."""
    data = _rows(comparison)
    order = alt.Y("strategy:N", sort=list(data["strategy"]), title=None, axis=alt.Axis(labelLimit=260))
    base = alt.Chart(data).encode(y=order, color=_standing())
    title = _score_title(comparison.metric)
    ranges = base.mark_rule(strokeWidth=3).encode(
        x=alt.X("low:Q", title=title, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=6)),
        x2="high:Q",
        tooltip=["strategy", alt.Tooltip("low", format=".3f"), alt.Tooltip("high", format=".3f")],
    )
    dots = base.mark_circle(size=90, opacity=1).encode(
        x="score:Q", tooltip=["strategy", alt.Tooltip("score", format=".3f")]
    )
    return (ranges + dots).properties(width=WIDTH, height=alt.Step(26))


def score_against_cost(comparison: Comparison) -> Any:
    """Score against training time."""
    base = alt.Chart(_rows(comparison)).encode(
        x=alt.X("seconds:Q", title="training seconds (log scale)", scale=alt.Scale(type="log", nice=True)),
        y=alt.Y("score:Q", title=_score_title(comparison.metric), scale=alt.Scale(zero=False)),
        tooltip=["strategy", alt.Tooltip("score", format=".3f"), alt.Tooltip("seconds", format=",.1f")],
    )
    dots = base.mark_circle(size=90, opacity=1).encode(color=_standing())
    names = base.mark_text(align="left", dx=8, color=_INK, limit=180).encode(text="strategy")
    return (dots + names).properties(width=WIDTH, height=HEIGHT)


def _runs(comparison: Comparison, kind: str) -> pd.DataFrame:
    names, parts = comparison.names, []
    for record in comparison.records:
        history = comparison.histories[record.run_id]
        if len(history):
            rows = history[history["kind"] == kind].dropna(axis=1, how="all")
            parts.append(rows.assign(strategy=names[record.group], seed=record.seed))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _epochs(comparison: Comparison) -> pd.DataFrame:
    return _runs(comparison, "epoch")


def _steps(comparison: Comparison) -> pd.DataFrame:
    """Losses per step, averaged in pieces, so that the page stays small however many runs there are."""
    steps = _runs(comparison, "step")
    points = max(10, min(60, _MOST_POINTS // max(1, len(comparison.records))))
    if not len(steps):
        return steps
    last = steps.groupby(["strategy", "seed"])["step"].transform("max")
    piece = ((steps["step"] - 1) * points // last).astype(int)
    grouped = steps.groupby(["strategy", "seed", piece.rename("piece")], as_index=False)
    return grouped.agg(step=("step", "mean"), loss=("loss", "mean"))


def validation_curves(epochs: pd.DataFrame, metric: str) -> Any:
    """The study's metric on validation after every epoch, a line a seed."""
    return (
        alt.Chart(epochs)
        .mark_line(point=True)
        .encode(
            x=alt.X("epoch:O", title="epoch", axis=alt.Axis(labelAngle=0)),
            y=alt.Y(
                f"validation_{metric}:Q", title=f"validation {metric.replace('_', ' ')}", scale=alt.Scale(zero=False)
            ),
            color=alt.Color("strategy:N", title=None),
            detail="seed:N",
            tooltip=["strategy", "seed", "epoch", alt.Tooltip(f"validation_{metric}", format=".3f")],
        )
        .properties(width=WIDTH, height=HEIGHT)
    )


def loss_curves(steps: pd.DataFrame) -> Any:
    """The training loss, smoothed in pieces, a line a seed."""
    return (
        alt.Chart(steps)
        .mark_line(opacity=0.8)
        .encode(
            x=alt.X("step:Q", title="step"),
            y=alt.Y("loss:Q", title="training loss"),
            color=alt.Color("strategy:N", title=None),
            detail="seed:N",
            tooltip=["strategy", "seed", alt.Tooltip("step", format=".0f"), alt.Tooltip("loss", format=".3f")],
        )
        .properties(width=WIDTH, height=HEIGHT)
    )


def confusion(comparison: Comparison, group: str) -> Any:
    """Test examples by true and predicted label; shares are of the true label's examples."""
    matrix, labels = comparison.confusion[group], list(comparison.label_names)
    if len(labels) > _MOST_CLASSES:
        mistakes = matrix.sum(0) + matrix.sum(1) - 2 * matrix.diagonal()
        shown = np.sort(np.argsort(-mistakes, kind="stable")[:_MOST_CLASSES])
        matrix, labels = matrix[np.ix_(shown, shown)], [labels[index] for index in shown]
    totals = matrix.sum(1, keepdims=True).clip(min=1)
    cells = pd.DataFrame(
        {"true": labels[i], "predicted": labels[j], "examples": int(matrix[i, j]), "share": matrix[i, j] / totals[i, 0]}
        for i in range(len(labels))
        for j in range(len(labels))
    )
    base = alt.Chart(cells).encode(
        x=alt.X("predicted:N", sort=labels, axis=alt.Axis(labelLimit=120, labelAngle=0 if len(labels) <= 3 else -40)),
        y=alt.Y("true:N", sort=labels, axis=alt.Axis(labelLimit=120)),
        tooltip=["true", "predicted", "examples", alt.Tooltip("share", format=".1%")],
    )
    colour = alt.Color("share:Q", scale=alt.Scale(scheme="blues", domain=[0, 1]), legend=None)
    heat = base.mark_rect().encode(color=colour)
    side = 220 if len(labels) <= 12 else 420
    chart = heat
    if len(labels) <= 12:
        ink = alt.when(alt.datum.share > 0.5).then(alt.value("white")).otherwise(alt.value("#222222"))
        chart = heat + base.mark_text().encode(text=alt.Text("share:Q", format=".0%"), color=ink)
    return chart.properties(width=side, height=side, title=alt.Title(comparison.names[group], anchor="start"))
