"""Time of the training steps by part (data, forward, backward, optimizer), and inference: parts of the compute section.

The sentences say from measured times why a strategy trains slower or faster than full fine-tuning of the same encoder.
"""

import altair as alt
import pandas as pd

from tuneoff.comparison.result import Comparison
from tuneoff.comparison.rows import Row
from tuneoff.costs import COSTS
from tuneoff.formats import join_names, number
from tuneoff.report.chart import COLOURS, WIDTH
from tuneoff.report.section import Block, Bullets, Chart, Text, table_if_any
from tuneoff.tables import SECONDS, TEXT, Column, Table

PARTS = {key: cost.part for key, cost in COSTS.items() if cost.part}
_REST = "rest of the loop"
_BASELINE = "full"  # the strategy that others are compared with
_SMALL = 0.02  # share of the baseline's time below which a sentence leaves out a part


def step_blocks(comparison: Comparison) -> list[Block]:
    """Return the table of times by part and what explains them; nothing for runs of earlier versions."""
    rows = _measured(comparison)
    if not rows:
        return []
    text = (
        f"Seconds of the training steps by part, means over {comparison.repeat}s, by the clock of the processor: "
        "drawing and packing batches, forward pass with the loss, backward pass, optimizer with clipping. On a GPU the "
        "backward pass includes the wait for the forward pass."
    )
    sentences = reasons(comparison)
    blocks: list[Block] = [Text(text), *table_if_any(step_seconds(comparison))]
    return [*blocks, *([Bullets(sentences)] if sentences else [])]


def inference_blocks(comparison: Comparison) -> list[Block]:
    """Return the table of latency and throughput; nothing for runs of earlier versions."""
    text = (
        "Inference in fp32: latency of one text at a time, and texts per second in the final predictions, in batches "
        "of similar lengths; strategies on frozen embeddings include the encoder's pass. Merged: the same after the "
        "update was merged into the encoder's weights, as tuneoff export does; a sample of 64 texts is classified both "
        "ways."
    )
    table = inference(comparison)
    return [Text(text), *table_if_any(table)] if table.rows else []


def step_seconds(comparison: Comparison) -> Table:
    """Seconds of the training steps of each strategy by part, and per 1,000 training examples."""
    columns = (
        Column("strategy", "strategy", TEXT),
        *[Column(key, part, SECONDS) for key, part in PARTS.items()],
        Column("rest_seconds", _REST, SECONDS),
        Column("train_seconds", "all steps", SECONDS),
        Column("seconds_per_1000", "per 1,000 examples", SECONDS),
    )
    rows = []
    for row in _measured(comparison):
        own = [row.costs[key] for key in PARTS]
        per_example = row.costs["train_seconds"] / _examples(row)
        total = row.costs["train_seconds"]
        rows.append([comparison.names[row.group], *own, total - sum(own), total, 1000 * per_example])
    return Table("step_seconds", columns, rows)


def step_chart(comparison: Comparison) -> Chart | None:
    """Milliseconds per training example by part, one stacked bar per strategy; None for runs of earlier versions."""
    measured = _measured(comparison)
    if not measured:
        return None
    records = [
        {
            "strategy": comparison.names[row.group],
            "part": part,
            "order": index,
            "milliseconds": round(1000 * row.costs[key] / _examples(row), 4),
        }
        for row in measured
        for index, (key, part) in enumerate(PARTS.items())
    ]
    names, parts = [comparison.names[row.group] for row in measured], list(PARTS.values())
    scale = alt.Scale(domain=parts, range=list(COLOURS[: len(parts)]))
    bars = alt.Chart(pd.DataFrame(records)).mark_bar()
    bars = bars.encode(
        y=alt.Y("strategy:N", sort=names, title=None, axis=alt.Axis(labelLimit=260)),
        x=alt.X("milliseconds:Q", title="milliseconds of a training step per example"),
        color=alt.Color("part:N", title=None, sort=parts, scale=scale),
        order=alt.Order("order:Q"),
        tooltip=["strategy", "part", alt.Tooltip("milliseconds", format=",.3f")],
    )
    return bars.properties(width=WIDTH, height=alt.Step(22))


def inference(comparison: Comparison) -> Table:
    """Latency and throughput of each strategy, and where it has an update to merge, of the merged model."""
    keys = ["latency_seconds", *[key for key, cost in COSTS.items() if cost.is_inference]]
    columns = (Column("strategy", "strategy", TEXT), *[Column(k, COSTS[k].column, COSTS[k].format) for k in keys])
    rows = [row for row in comparison.rows if "predictions_per_second" in row.costs and not row.is_class_prior]
    return Table("inference", columns, [[comparison.names[row.group], *map(row.costs.get, keys)] for row in rows])


def reasons(comparison: Comparison) -> list[str]:
    """Return a sentence for each strategy on why its steps take longer or shorter than those of full fine-tuning.

    Times are per training example, so that numbers of epochs do not matter. Without full fine-tuning there are none.
    """
    sentences = []
    for row in _measured(comparison):
        baseline = next((r for r in _measured(comparison) if r.strategy == _BASELINE and r.model == row.model), None)
        if baseline and row.group != baseline.group:
            sentences.append(f"{comparison.names[row.group]} {_reason(row, baseline)}")
    return sentences


def _reason(row: Row, baseline: Row) -> str:
    own, theirs = ({part: r.costs[key] / _examples(r) for key, part in PARTS.items()} for r in (row, baseline))
    total, of_baseline = (r.costs["train_seconds"] / _examples(r) for r in (row, baseline))
    facts = {"forward": _forward_fact(row), "backward": _backward_fact(row), "optimizer": _optimizer_fact(row)}
    times = [
        f"{part} {_times(own[part] / theirs[part])}" + (f" ({facts[part]})" if facts.get(part) else "")
        for part in PARTS.values()
        if theirs[part] > 0 and max(own[part], theirs[part]) > _SMALL * of_baseline
    ]
    gaps = {part: own[part] - theirs[part] for part in own}
    decisive = max(gaps, key=lambda part: abs(gaps[part]))
    share = 100 * gaps[decisive] / of_baseline
    return (
        f"takes {_times(total / of_baseline)} the time of full fine-tuning per training example: {join_names(times)}. "
        f"The largest part of the difference is {_article(decisive)}, {share:+.0f} % of the time of full fine-tuning."
    )


def _times(factor: float) -> str:
    return f"{factor:.2g} x" if factor < 0.095 else f"{factor:.1f} x" if factor >= 9.95 else f"{factor:.2f} x"


def _article(part: str) -> str:
    return {"data": "the data", "forward": "the forward pass", "backward": "the backward pass"}.get(part, f"the {part}")


def _forward_fact(row: Row) -> str:
    added = row.parameters.get("added_matrices", 0)
    if added:
        return f"with {number(added)} added matrices"
    return "its frozen blocks are computed once, before training" if row.costs.get("prefix_seconds") else ""


def _backward_fact(row: Row) -> str:
    if row.costs.get("prefix_seconds"):
        return "it ends at the first block that trains"
    total, trainable = row.parameters.get("total", 0), row.parameters.get("trainable", 0)
    return "without the gradients of frozen weights" if trainable < 0.5 * total else ""


def _optimizer_fact(row: Row) -> str:
    total, trainable = row.parameters.get("total", 0), row.parameters.get("trainable", 0)
    return f"it updates {100 * trainable / total:.2g} % of the parameters" if trainable < total else ""


def _examples(row: Row) -> float:
    """Return the training examples of a run, summed over epochs."""
    return row.costs["examples_per_second"] * row.costs["train_seconds"]


def _measured(comparison: Comparison) -> list[Row]:
    """Return the rows whose runs measured the parts of their steps."""
    return [row for row in comparison.rows if all(key in row.costs for key in PARTS) and row.costs.get("train_seconds")]
