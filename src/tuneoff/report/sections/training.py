"""Training: validation score by epoch, training loss, and the parameters of each strategy."""

import altair as alt
import pandas as pd

from tuneoff.comparison.result import Comparison
from tuneoff.report.chart import HEIGHT, WIDTH, charted_rows, left_out_note, score_axis, strategy_colour
from tuneoff.report.section import Block, Chart, Section, Text, figures_if_any, table_if_any
from tuneoff.scoring.metrics import display_name
from tuneoff.tables import COUNT, FACTOR, SMALL_SHARE, TEXT, Column, Table

_MAX_POINTS = 12_000  # of all loss curves together


def section(comparison: Comparison) -> Section | None:
    """Return the training curves and parameter counts; None without a successful run."""
    if not comparison.rows:
        return None
    charts = {"validation": validation_chart(comparison), "loss": loss_chart(comparison)}
    blocks: list[Block] = []
    if any(chart is not None for chart in charts.values()):
        text = "Validation score after each epoch, which selects the epoch whose weights are kept, and training loss; "
        blocks += [Text(f"{text}one line per {comparison.repeat}.{left_out_note(comparison)}"), *figures_if_any(charts)]
    text = (
        "Trainable parameters of each strategy. The head counts as trainable, added parameters as part of the total; "
    )
    blocks += [Text(text + "the last column compares with full fine-tuning of the same encoder.")]
    return Section("training", "Training", [*blocks, *table_if_any(parameters(comparison))])


def parameters(comparison: Comparison) -> Table:
    """Trainable and added parameters of each strategy, and the reduction against full fine-tuning."""
    columns = (
        Column("strategy", "strategy", TEXT),
        *[Column(f"{kind}_parameters", kind, COUNT) for kind in ("total", "trainable", "added", "head")],
        Column("trainable_share", "trainable share", SMALL_SHARE),
        Column("times_fewer_than_full", "fewer than full", FACTOR),
    )
    rows = []
    for row in comparison.rows:
        if row.parameters:
            total, trainable, added, head = (row.parameters[kind] for kind in ("total", "trainable", "added", "head"))
            factor = (total - added) / trainable if trainable and row.model else None
            counts = [total, trainable, added, head, trainable / max(1, total), factor]
            rows.append([comparison.names[row.group], *counts])
    return Table("parameters", columns, rows)


def _history(comparison: Comparison, kind: str) -> pd.DataFrame:
    """Return the history rows of a kind, "step" or "epoch", of every run that charts show."""
    names, parts = {row.group: comparison.names[row.group] for row in charted_rows(comparison)}, []
    for record in comparison.records:
        history = comparison.histories[record.run_id]
        if len(history) and record.group in names:
            rows = history[history["kind"] == kind].dropna(axis=1, how="all")
            parts.append(rows.assign(strategy=names[record.group], seed=record.seed))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def validation_chart(comparison: Comparison) -> Chart | None:
    """The metric on validation after each epoch, one line per seed; None if nothing trains in epochs.

    Of a metric that the runs did not compute after each epoch, the one that selected the epoch is shown.
    """
    epochs = _history(comparison, "epoch")
    if not len(epochs):
        return None
    # after each epoch only what the runs computed is stored: not the metrics of a later version, or of another class
    stored = [str(name).removeprefix("validation_") for name in epochs.dropna(axis=1)]
    metric = next((name for name in (comparison.metric, comparison.selection_metric) if name in stored), None)
    if metric is None:
        return None
    # a name of its own: Vega reads a dot in the name of a field as a path
    values = epochs.rename(columns={f"validation_{metric}": "score"})[["strategy", "seed", "epoch", "score"]]
    lines = alt.Chart(values.round(4)).mark_line(point=True)
    lines = lines.encode(
        x=alt.X("epoch:O", title="epoch", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("score:Q", **score_axis(f"validation {display_name(metric)}")),
        color=strategy_colour(comparison),
        detail="seed:N",
        tooltip=["strategy", "seed", "epoch", alt.Tooltip("score", format=".3f")],
    )
    return lines.properties(width=WIDTH, height=HEIGHT)


def loss_chart(comparison: Comparison) -> Chart | None:
    """The training loss, averaged over pieces of the run, one line per seed; None if nothing trains in steps."""
    steps = _binned_steps(comparison)
    if not len(steps):
        return None
    lines = alt.Chart(steps).mark_line(opacity=0.7)
    lines = lines.encode(
        x=alt.X("step:Q", title="step"),
        y=alt.Y("loss:Q", title="training loss"),
        color=strategy_colour(comparison),
        detail="seed:N",
        tooltip=["strategy", "seed", alt.Tooltip("step", format=".0f"), alt.Tooltip("loss", format=".3f")],
    )
    return lines.properties(width=WIDTH, height=HEIGHT)


def _binned_steps(comparison: Comparison) -> pd.DataFrame:
    """Average losses over bins of steps, so that the page stays small however many runs there are."""
    steps = _history(comparison, "step")
    num_bins = max(10, min(24, _MAX_POINTS // max(1, len(comparison.records))))
    if not len(steps):
        return steps
    last = steps.groupby(["strategy", "seed"])["step"].transform("max")
    binned = steps.assign(bin=((steps["step"] - 1) * num_bins // last).astype(int))
    grouped = binned.groupby(["strategy", "seed", "bin"], as_index=False)
    return grouped.agg(step=("step", "mean"), loss=("loss", "mean")).drop(columns="bin").round(4)
