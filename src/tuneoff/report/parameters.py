"""Trainable and frozen parameters of each strategy: table and bars."""

import altair as alt
import pandas as pd

from tuneoff.comparison.result import Comparison
from tuneoff.comparison.rows import Row
from tuneoff.report.chart import COLOURS, INK, WIDTH, log_axis
from tuneoff.report.section import Block, Chart, Heading, TableBlock, Text, figures_if_any
from tuneoff.tables import COUNT, FACTOR, SMALL_SHARE, TEXT, Column, Table

_KINDS = ("trainable", "frozen")


def parameter_blocks(comparison: Comparison) -> list[Block]:
    """Return the parameters of each strategy; nothing if no strategy has any."""
    table = parameters(comparison)
    if not table.rows:
        return []
    text = (
        "The head counts as trainable, added parameters as part of the total. The reduction is the share of the "
        "encoder's own parameters and head, which full fine-tuning trains, that a strategy need not train."
    )
    charts = {"parameters": parameters_chart(comparison), "trainable-parameters": trainable_chart(comparison)}
    return [Heading("Parameters"), Text(text), *figures_if_any(charts), TableBlock(table)]


def parameters(comparison: Comparison) -> Table:
    """Trainable, frozen and added parameters of each strategy, and the reduction against full fine-tuning."""
    columns = (
        Column("strategy", "strategy", TEXT),
        *[Column(f"{kind}_parameters", kind, COUNT) for kind in ("total", "trainable", "frozen", "added", "head")],
        Column("trainable_share", "trainable share", SMALL_SHARE),
        Column("reduction", "reduction", SMALL_SHARE),
        Column("times_fewer_than_full", "fewer than full", FACTOR),
    )
    rows = []
    for row in comparison.rows:
        if row.parameters:
            total, trainable, added, head = (row.parameters[kind] for kind in ("total", "trainable", "added", "head"))
            factor = (total - added) / trainable if trainable and row.model else None
            counts = [total, trainable, total - trainable, added, head, trainable / max(1, total), reduction(row)]
            rows.append([comparison.names[row.group], *counts, factor])
    return Table("parameters", columns, rows)


def reduction(row: Row) -> float | None:
    """Return the share of the parameters of full fine-tuning that a strategy does not train; None without an encoder.

    Not below 0 for a strategy that trains everything and adds to it.
    """
    own = row.parameters["total"] - row.parameters["added"]
    return max(0.0, 1 - row.parameters["trainable"] / own) if row.model and own else None


def _encoder_rows(comparison: Comparison) -> list[Row]:
    return [row for row in comparison.rows if row.model and row.parameters]


def parameters_chart(comparison: Comparison) -> Chart | None:
    """Bars of trainable and frozen parameters, with the reduction at their end; None without an encoder."""
    rows = [
        {
            "strategy": comparison.names[row.group],
            "kind": kind,
            "order": _KINDS.index(kind),
            "millions": count / 1e6,
            "total": row.parameters["total"] / 1e6,
            "label": _label(reduction(row)) if kind == "frozen" else "",
        }
        for row in _encoder_rows(comparison)
        for kind, count in (
            ("trainable", row.parameters["trainable"]),
            ("frozen", row.parameters["total"] - row.parameters["trainable"]),
        )
    ]
    if not rows:
        return None
    frame = pd.DataFrame(rows)
    base = alt.Chart(frame).encode(y=_names(comparison))
    bars = base.mark_bar().encode(
        x=alt.X("millions:Q", title="parameters, millions", axis=alt.Axis(tickCount=5)),
        color=alt.Color("kind:N", title=None, scale=alt.Scale(domain=list(_KINDS), range=[COLOURS[0], "#c4c8cf"])),
        order=alt.Order("order:Q"),
        tooltip=["strategy", "kind", alt.Tooltip("millions:Q", format=",.4~f")],
    )
    labels = base.mark_text(align="left", dx=5, color=INK).encode(x="total:Q", text="label:N")
    return (bars + labels).properties(width=WIDTH, height=alt.Step(24))


def _label(reduced: float | None) -> str:
    """Write a reduction: "98.9 % fewer", never 100 % where something trains; empty for none."""
    return f"{min(99.9, 100 * reduced) if reduced < 1 else 100:.1f} % fewer" if reduced else ""


def trainable_chart(comparison: Comparison) -> Chart | None:
    """Bars of trainable parameters alone, on a log scale; None if nothing trains."""
    rows = pd.DataFrame(
        {
            "strategy": comparison.names[row.group],
            "trainable": row.parameters["trainable"],
            "label": f"{row.parameters['trainable']:,}",
        }
        for row in _encoder_rows(comparison)
        if row.parameters["trainable"]
    )
    if not len(rows):
        return None
    ends, ticks = log_axis([rows["trainable"].min() / 2, rows["trainable"].max()])
    scale = alt.Scale(type="log", domain=ends, nice=False)
    axis = alt.Axis(values=ticks, format="~s", grid=False)
    base = alt.Chart(rows.assign(start=ends[0])).encode(y=_names(comparison))
    bars = base.mark_bar(color=COLOURS[0]).encode(
        x=alt.X("start:Q", title="trainable parameters (log scale)", scale=scale, axis=axis),
        x2="trainable:Q",
        tooltip=["strategy", alt.Tooltip("trainable:Q", format=",")],
    )
    labels = base.mark_text(align="left", dx=5, color=INK).encode(x="trainable:Q", text="label:N")
    return (bars + labels).properties(width=WIDTH, height=alt.Step(24))


def _names(comparison: Comparison) -> alt.Y:
    order = [comparison.names[row.group] for row in comparison.rows]
    return alt.Y("strategy:N", sort=order, title=None, axis=alt.Axis(labelLimit=260))
