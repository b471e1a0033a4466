"""Training: losses, learning rate and validation scores by epoch, parameters and hyperparameters of each strategy."""

import math

import altair as alt
import pandas as pd

from tuneoff.comparison.epochs import Epoch
from tuneoff.comparison.result import Comparison
from tuneoff.report.chart import COLOURS, HEIGHT, WIDTH, score_axis, strategy_colour
from tuneoff.report.histories import learning_rates, training_losses, validation_scores
from tuneoff.report.options import hyperparameter_blocks
from tuneoff.report.parameters import parameter_blocks
from tuneoff.report.section import Block, Chart, Section, TableBlock, Text, figures_if_any
from tuneoff.scoring.metrics import display_name
from tuneoff.tables import COUNT, SCORE, TEXT, Column, Table

_PANEL_WIDTH, _PANEL_HEIGHT = 190, 130
_KINDS = ("training", "validation")
_CURVES_TEXT = (
    "Validation score after each epoch, which selects the epoch whose weights are kept; losses on training and "
    "validation examples; learning rate. The training loss is measured while weights change and dropout is on, the "
    "validation loss (log loss) after the epoch and without dropout. "
)
_GAIN_TEXT = (
    " The last epoch is the best one in most runs, by more than the standard error of a score on so many validation "
    "examples."
)


def section(comparison: Comparison) -> Section | None:
    """Return the training curves, epochs, parameters and hyperparameters; None without a successful run."""
    if not comparison.rows:
        return None
    charts = {
        "validation": validation_chart(comparison),
        "evaluation-loss": evaluation_loss_chart(comparison),
        "loss": loss_chart(comparison),
        "learning-rate": rate_chart(comparison),
    }
    blocks: list[Block] = []
    if any(chart is not None for chart in charts.values()):
        text = f"{_CURVES_TEXT}One line per {comparison.repeat}.{_loss_note(comparison)}"
        blocks += [Text(text)]
        blocks += [Text(comparison.epochs_note + _GAIN_TEXT, is_key=True)] if comparison.epochs_note else []
        blocks += figures_if_any({"losses": losses_chart(comparison), **charts})
    table = epochs(comparison)
    if table.rows:
        text = f"Means over {comparison.repeat}s by epoch. Kept: runs that kept the weights of this epoch."
        blocks += [Text(text), TableBlock(table, is_tall=True)]
    blocks += [*parameter_blocks(comparison), *hyperparameter_blocks(comparison)]
    return Section("training", "Training", blocks)


def _loss_note(comparison: Comparison) -> str:
    """Return a sentence on training losses that are no plain cross-entropy, with a space before it; else empty."""
    recipe = comparison.study.recipe
    changes = {
        "focal loss": recipe.loss == "focal",
        "label smoothing": recipe.label_smoothing > 0,
        "class weights": recipe.class_weights != "none",
        "balanced sampling": recipe.sampling != "natural",
    }
    names = [name for name, is_used in changes.items() if is_used]
    if not names:
        return ""
    return f" With {' and '.join(names)}, the training loss is on another scale than the validation loss."


def epochs(comparison: Comparison) -> Table:
    """Losses and validation scores of each strategy by epoch, mean over runs; imported logs at the end."""
    by_group: dict[str, list[Epoch]] = {row.group: [] for row in comparison.rows}
    for epoch in comparison.epochs:
        by_group.setdefault(epoch.group, []).append(epoch)
    names = {**comparison.names, **{imported.group: imported.title for imported in comparison.imported}}
    by_group |= {imported.group: imported.epochs for imported in comparison.imported}
    has_micro = comparison.data.is_multilabel
    metrics = dict.fromkeys(
        [
            *("accuracy", "micro_f1", "macro_f1")[:: 1 if has_micro else 2],
            comparison.metric,
            comparison.selection_metric or comparison.metric,
        ]
    )
    metrics.pop("log_loss", None)  # it is the validation loss
    columns = (
        Column("strategy", "strategy", TEXT),
        Column("epoch", "epoch", COUNT),
        Column("train_loss", "training loss", SCORE),
        Column("validation_loss", "validation loss", SCORE),
        *[Column(f"validation_{name}", f"validation {display_name(name)}", SCORE) for name in metrics],
        Column("runs", "runs", COUNT),
        Column("kept", "kept", COUNT),
    )
    rows = []
    for group, of_group in by_group.items():
        for epoch in of_group if group in names else ():
            is_imported = group not in comparison.names
            scores = [epoch.scores.get(name) for name in metrics]
            counts = [None, None] if is_imported else [epoch.runs, epoch.kept]
            losses = [epoch.train_loss, epoch.scores.get("log_loss")]
            rows.append([names[group], epoch.epoch, *losses, *scores, *counts])
    return Table("epochs", columns, rows)


def validation_chart(comparison: Comparison) -> Chart | None:
    """A metric on validation by epoch, one line per seed; None if nothing trains in epochs.

    The study's metric, or where the runs did not compute it after each epoch, the one that selected the epoch.
    """
    for metric in dict.fromkeys([comparison.metric, comparison.selection_metric]):
        chart = _evaluation_chart(comparison, metric, f"validation {display_name(metric)}")
        if chart is not None:
            return chart
    return None


def evaluation_loss_chart(comparison: Comparison) -> Chart | None:
    """The loss on validation by epoch; None if nothing trains in epochs, or if the other chart shows it."""
    return None if comparison.metric == "log_loss" else _evaluation_chart(comparison, "log_loss", "validation loss")


def _evaluation_chart(comparison: Comparison, metric: str, title: str) -> Chart | None:
    points = validation_scores(comparison, metric)
    if not len(points):
        return None
    lines = alt.Chart(points.round(4)).mark_line(point=True)
    lines = lines.encode(
        x=_epoch_axis(points),
        y=alt.Y("score:Q", **score_axis(title)),
        color=strategy_colour(comparison, has_imported=True),
        detail="seed:N",
        tooltip=["strategy", "seed", *_numbers(position="epoch", score=title)],
    )
    return lines.properties(width=WIDTH, height=HEIGHT)


def _epoch_axis(points: pd.DataFrame) -> alt.X:
    """Return an axis of epochs with ticks at whole ones."""
    last = max(1, math.ceil(points["position"].max()))
    ticks = list(range(0, last + 1, math.ceil(last / 10)))
    return alt.X("position:Q", title="epoch", axis=alt.Axis(values=ticks, format="d"))


def _numbers(**titles: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{column}:Q", title=title, format=",.3~g") for column, title in titles.items()]


def loss_chart(comparison: Comparison) -> Chart | None:
    """The training loss, averaged over pieces of the run, one line per seed; None if nothing trains in steps."""
    steps = training_losses(comparison)
    if not len(steps):
        return None
    lines = alt.Chart(steps.round(4)).mark_line(opacity=0.7)
    lines = lines.encode(
        x=alt.X("step:Q", title="step"),
        y=alt.Y("loss:Q", title="training loss"),
        color=strategy_colour(comparison, has_imported=True),
        detail="seed:N",
        tooltip=["strategy", "seed", *_numbers(step="step", loss="loss")],
    )
    return lines.properties(width=WIDTH, height=HEIGHT)


def losses_chart(comparison: Comparison) -> Chart | None:
    """Training and validation loss of each strategy, a panel each; None if nothing trains in steps."""
    parts = {
        "training": training_losses(comparison).drop(columns="step"),
        "validation": validation_scores(comparison, "log_loss").rename(columns={"score": "loss"}),
    }
    frames = [frame.assign(kind=kind) for kind, frame in parts.items() if len(frame)]
    if not frames:
        return None
    points = pd.concat(frames, ignore_index=True).round(4)
    present = set(points["strategy"])
    order = [comparison.names[row.group] for row in comparison.rows] + [log.title for log in comparison.imported]
    base = alt.Chart().encode(
        x=_epoch_axis(points),
        y=alt.Y("loss:Q", title="loss", scale=alt.Scale(zero=False)),
        color=alt.Color("kind:N", title=None, scale=alt.Scale(domain=list(_KINDS), range=list(COLOURS[:2]))),
        detail="seed:N",
        tooltip=["strategy:N", "kind:N", "seed:N", *_numbers(position="epoch", loss="loss")],
    )
    is_validation = alt.datum.kind == "validation"
    dots = base.transform_filter(is_validation).mark_circle(size=36, opacity=1)
    panels = alt.layer(base.mark_line(opacity=0.8), dots, data=points)
    facet = alt.Facet(
        "strategy:N",
        title=None,
        sort=[name for name in order if name in present],
        header=alt.Header(labelLimit=_PANEL_WIDTH, labelFontWeight="bold"),
    )
    # narrow figures are readable on a phone, where they are scaled to its width
    return panels.properties(width=_PANEL_WIDTH, height=_PANEL_HEIGHT).facet(
        facet, columns=2 if len(present) < 5 else 3
    )


def rate_chart(comparison: Comparison) -> Chart | None:
    """The learning rate by step, one line per strategy; None if nothing trains in steps, or no rate is stored."""
    rates = learning_rates(comparison)
    if not len(rates):
        return None
    lines = alt.Chart(rates).mark_line()
    lines = lines.encode(
        x=alt.X("step:Q", title="step"),
        y=alt.Y(
            "learning_rate:Q",
            title="learning rate (log scale)",
            scale=alt.Scale(type="log"),
            axis=alt.Axis(format=".0e", tickCount=5, grid=False),
        ),
        color=strategy_colour(comparison, has_imported=True),
        tooltip=["strategy", *_numbers(step="step", learning_rate="learning rate")],
    )
    return lines.properties(width=WIDTH, height=HEIGHT)
