"""Movement: how far training moved the encoder's representations from the pretrained ones, by layer."""

import math

import altair as alt
import numpy as np
import pandas as pd

from tuneoff.comparison.result import Comparison
from tuneoff.formats import fixed, join_names, seconds
from tuneoff.report.chart import HEIGHT, WIDTH, charted_rows, score_axis, strategy_colour
from tuneoff.report.section import Block, Chart, Section, TableBlock, Text, details_if_any, figures_if_any
from tuneoff.tables import SCORE, TEXT, Column, Table


def section(comparison: Comparison) -> Section | None:
    """Return the similarity of each layer before and after training; None for runs that did not measure it."""
    layers = by_layer(comparison)
    if not layers:
        return None
    measured = [record.movement for record in comparison.records if record.movement]
    time = float(np.mean([m["seconds"] for m in measured]))
    text = (
        f"Similarity of the trained encoder to the pretrained one on {measured[0]['examples']:,} test texts: linear "
        "CKA (Kornblith et al. 2019, without the bias of few examples), 1 for representations that are equal up to a "
        "rotation and a scale, 0 for unrelated ones. A text is represented by the mean over its tokens; layer 0 is the "
        "embeddings. Its own pretraining task is out of reach here: a low value says that a layer now represents texts "
        "in another way, not what it can no longer do. Measured after each run, which took "
        f"{seconds(time)} that no cost of it counts; means over {comparison.repeat}s."
    )
    blocks: list[Block] = [Text(sentence, is_key=True) for sentence in [movement_text(comparison)] if sentence]
    blocks += [Text(text), *figures_if_any({"movement": movement_chart(comparison)})]
    table = details_if_any("CKA of every layer", TableBlock(movements(comparison)))
    return Section("movement", "How far representations moved", [*blocks, *table], menu="Movement")


def by_layer(comparison: Comparison) -> dict[str, list[float]]:
    """Return CKA of each layer, the mean over runs, by group; without groups that did not measure it."""
    layers = {}
    for row in comparison.rows:
        runs = [r.movement["cka"] for r in comparison.records if r.group == row.group and r.movement]
        if runs:
            values = [[math.nan if value is None else value for value in run] for run in runs]
            layers[row.group] = [float(value) for value in np.mean(values, axis=0)]
    return layers


def movement_text(comparison: Comparison) -> str:
    """Return sentences on the strategy that moved the encoder most and least, in which layer."""
    layers = {group: values for group, values in by_layer(comparison).items() if not np.isnan(values).any()}
    moved = {group: values for group, values in layers.items() if min(values) < 0.999}
    still = [comparison.names[group] for group in layers if group not in moved]
    ordered = sorted(moved, key=lambda group: min(moved[group]))
    text = ""
    if len(ordered) == 1:
        text = f"{comparison.names[ordered[0]]} moved the encoder to CKA {_lowest(moved[ordered[0]])}."
    elif ordered:
        text = f"{comparison.names[ordered[0]]} moved the encoder most: CKA {_lowest(moved[ordered[0]])}; "
        text += f"{comparison.names[ordered[-1]]} least: {_lowest(moved[ordered[-1]])}."
    if still:
        subject = "it" if text else "the encoder"
        text += f"{' ' if text else ''}{join_names(still)} hardly moved {subject}: CKA above 0.999 in every layer."
    return text


def _lowest(values: list[float]) -> str:
    """Phrase such as "0.430 in layer 6, the last"."""
    layer = int(np.argmin(values))
    place = ", the last" if layer == len(values) - 1 else ", the embeddings" if layer == 0 else f" of {len(values) - 1}"
    return f"{fixed(values[layer])} in layer {layer}{place}"


def movements(comparison: Comparison) -> Table:
    """CKA of every layer (rows) with each strategy (columns)."""
    layers = by_layer(comparison)
    most = max(map(len, layers.values()))
    columns = [Column(f"layer_{index}", str(index), SCORE) for index in range(most)]
    rows = []
    for group, values in layers.items():
        cells = [None if math.isnan(value) else value for value in values]
        rows.append([comparison.names[group], *cells, *[None] * (most - len(values))])
    return Table("movement", (Column("strategy", "strategy / layer", TEXT), *columns), rows)


def movement_chart(comparison: Comparison) -> Chart | None:
    """CKA by layer, one line per strategy."""
    names = {row.group: comparison.names[row.group] for row in charted_rows(comparison)}
    rows = pd.DataFrame(
        [
            {"strategy": names[group], "layer": layer, "cka": round(value, 4)}
            for group, values in by_layer(comparison).items()
            if group in names
            for layer, value in enumerate(values)
        ]
    ).dropna()
    if not len(rows):
        return None
    lines = alt.Chart(rows).mark_line(point=True)
    lines = lines.encode(
        x=alt.X("layer:O", title="layer (0: embeddings)", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("cka:Q", **score_axis("CKA with the pretrained encoder")),
        color=strategy_colour(comparison),
        tooltip=["strategy", "layer", alt.Tooltip("cka", format=".3f")],
    )
    return lines.properties(width=WIDTH, height=HEIGHT)
