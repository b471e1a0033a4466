"""Charts of where strategies fail, as Vega-Altair charts."""

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from tuneoff.comparison.errors import Errors
from tuneoff.comparison.result import Comparison
from tuneoff.formats import cut, legible, short_names
from tuneoff.report.charts import BEHIND, BEST, HEIGHT, INK, WIDTH, box_plot, by_strategy, shown

MOST_CLASSES = 40  # a confusion matrix of more is neither legible nor small
_MOST_WRITTEN = 12  # classes or strategies up to which cells hold their number
_MOST_WORDS = 12  # on each side
_LEAST_PREDICTIONS = 10  # in a bin of the reliability chart; a few say nothing
LEAST_SURE = 0.05  # share of false findings among the words that are called sure


def error_charts(comparison: Comparison) -> dict[str, Any]:
    """Every chart of this file by its name; a chart without data is left out."""
    if comparison.errors is None:
        return {}
    errors = comparison.errors
    made: dict[str, Any] = {f"confusion-{r.group}": confusion(comparison, r.group) for r in shown(comparison)}
    made["f1"] = by_class(comparison, "f1", "F1", "greens")
    made["errors-true"] = by_class(comparison, "recall", "share of the label's examples that are missed", "oranges")
    made["errors-predicted"] = by_class(
        comparison, "precision", "share of the label's predictions that are wrong", "oranges"
    )
    made["confidence"] = confidence(comparison, errors, "wrong", "probability given to a wrong prediction")
    made["margin"] = confidence(comparison, errors, "margin", "predicted less true label's probability, where wrong")
    made["reliability"] = reliability(comparison)
    if len(errors.by_length):
        made["errors-length"] = by_length(comparison, errors)
    if len(errors.words):
        made["words"] = words(errors.words)
    if len(errors.joint) > 1:
        made |= {"overlap": overlap(comparison, errors), "missed": missed(errors)}
    return {name: chart for name, chart in made.items() if chart is not None}


def confusion(comparison: Comparison, group: str) -> Any:
    """Test examples by true and predicted label; shares are of the true label's examples."""
    matrix, labels = comparison.confusion[group], short_names(comparison.label_names)
    if matrix.ndim == 3:  # of several labels none stands in another's place
        return None
    totals = matrix.sum(1).clip(min=1)
    if len(labels) > MOST_CLASSES:
        mistakes = matrix.sum(0) + matrix.sum(1) - 2 * matrix.diagonal()
        kept = np.sort(np.argsort(-mistakes, kind="stable")[:MOST_CLASSES])
        matrix, totals, labels = matrix[np.ix_(kept, kept)], totals[kept], [labels[index] for index in kept]
    is_written = len(labels) <= _MOST_WRITTEN
    cells = pd.DataFrame(
        {"true": labels[i], "predicted": labels[j], "examples": int(count), "share": round(count / totals[i], 4)}
        for (i, j), count in np.ndenumerate(matrix)
        if count or is_written
    )
    angle = 0 if len(labels) <= 3 else -40
    base = alt.Chart(cells).encode(
        x=alt.X("predicted:N", sort=labels, axis=alt.Axis(labelLimit=100, labelAngle=angle), scale=_all_of(labels)),
        y=alt.Y("true:N", sort=labels, axis=alt.Axis(labelLimit=100), scale=_all_of(labels)),
        tooltip=["true", "predicted", "examples", alt.Tooltip("share", format=".1%")],
    )
    side = 200 if is_written else 420
    title = alt.Title(comparison.names[group], anchor="start")
    return _heat(base, "share", ".0%", "blues", is_written).properties(width=side, height=side, title=title)


def _all_of(labels: list[str]) -> alt.Scale:
    return alt.Scale(domain=labels)


def _heat(base: alt.Chart, value: str, number: str, scheme: Any, is_written: bool) -> Any:
    """Cells coloured by a value from 0 to 1, with its number where there is room."""
    cells = base.mark_rect().encode(
        color=alt.Color(f"{value}:Q", scale=alt.Scale(scheme=scheme, domain=[0, 1]), legend=None)
    )
    if not is_written:
        return cells
    ink = alt.when(alt.datum[value] > 0.6).then(alt.value("white")).otherwise(alt.value("#222222"))
    return cells + base.mark_text(fontSize=11).encode(text=alt.Text(f"{value}:Q", format=number), color=ink)


def _of(comparison: Comparison, group: str, measure: str) -> list[int]:
    """Of how many examples each class's measure is a share; of none there is nothing to say. (C,)."""
    parts = {"recall": ("examples",), "precision": ("predicted",), "f1": ("examples", "predicted")}[measure]
    return [sum(found[part] for part in parts) for found in comparison.classes[group]]


def by_class(comparison: Comparison, measure: str, title: str, scheme: str) -> Any:
    """One measure of each class and strategy. Recall and precision are shown as what is missing to 1."""
    is_error, labels = measure != "f1", short_names(comparison.label_names)
    names = {row.group: comparison.names[row.group] for row in shown(comparison)}
    cells = pd.DataFrame(
        {"strategy": name, "label": label, "value": round(abs(is_error - found[measure]), 4)}
        for group, name in names.items()
        for label, found, count in zip(labels, comparison.classes[group], _of(comparison, group, measure), strict=True)
        if count
    )
    is_written = len(labels) <= 2 * _MOST_WRITTEN
    base = alt.Chart(cells).encode(
        x=alt.X("strategy:N", sort=list(names.values()), title=None, axis=alt.Axis(labelAngle=-40, labelLimit=140)),
        y=alt.Y("label:N", sort=labels, title=None, axis=alt.Axis(labelLimit=160)),
        tooltip=["strategy", "label", alt.Tooltip("value", title=title, format=".3f")],
    )
    chart = _heat(base, "value", ".0%" if is_error else ".2f", scheme, is_written)
    size = {"width": alt.Step(38), "height": alt.Step(26 if is_written else 11)}
    return chart.properties(title=alt.Title(title, anchor="start", fontSize=11, fontWeight="normal"), **size)


def confidence(comparison: Comparison, errors: Errors, kind: str, title: str) -> Any:
    """Boxes of one kind of confidence, one a strategy."""
    names = {row.group: comparison.names[row.group] for row in shown(comparison)}
    table = errors.confidence
    boxes = table[(table["of"] == kind) & table["group"].isin(list(names))]
    if not len(boxes):
        return None
    boxes = boxes.assign(strategy=boxes["group"].map(names)).drop(columns=["group", "of"]).round(4)
    return box_plot(boxes, "strategy", list(names.values()), title, by_strategy(comparison, is_named=False))


def reliability(comparison: Comparison) -> Any:
    """How often predictions of a confidence are right; the broken line is where they mean what they say."""
    rows = pd.DataFrame(
        {
            "strategy": comparison.names[row.group],
            "confidence": round(float(confidence), 4),
            "accuracy": round(float(accuracy), 4),
            "predictions": int(count),
        }
        for row in shown(comparison)
        for bins in (comparison.calibration[row.group].reliability,)
        for confidence, accuracy, count in zip(bins.confidence, bins.accuracy, bins.examples, strict=True)
        if count >= _LEAST_PREDICTIONS
    )
    if not len(rows):
        return None
    ends = pd.DataFrame({"confidence": [0, 1], "accuracy": [0, 1]})
    ideal = alt.Chart(ends).mark_line(strokeDash=[4, 3], color=INK).encode(x="confidence:Q", y="accuracy:Q")
    base = alt.Chart(rows).encode(
        x=alt.X("confidence:Q", title="confidence", scale=alt.Scale(domain=[0, 1])),
        y=alt.Y("accuracy:Q", title="share predicted right", scale=alt.Scale(domain=[0, 1])),
        color=by_strategy(comparison),
        tooltip=[
            "strategy",
            alt.Tooltip("confidence", format=".2f"),
            alt.Tooltip("accuracy", format=".2f"),
            "predictions",
        ],
    )
    dots = base.mark_circle(opacity=0.9).encode(
        size=alt.Size("predictions:Q", legend=None, scale=alt.Scale(range=[8, 160]))
    )
    return (ideal + base.mark_line(strokeWidth=1.2, opacity=0.7) + dots).properties(width=WIDTH, height=300)


def by_length(comparison: Comparison, errors: Errors) -> Any:
    """Error rate of texts of like length, one line a strategy."""
    names = {row.group: comparison.names[row.group] for row in shown(comparison)}
    rows = errors.by_length[errors.by_length["group"].isin(list(names))]
    rows = rows.assign(strategy=rows["group"].map(names), middle=(rows["shortest"] + rows["longest"]) / 2)
    rows = rows.drop(columns="group").round(4)
    base = alt.Chart(rows).encode(
        x=alt.X("middle:Q", title=f"{errors.length_unit} of the text"),
        y=alt.Y("rate:Q", title="error rate", axis=alt.Axis(format="%")),
        color=by_strategy(comparison),
        tooltip=[
            "strategy",
            "shortest",
            "longest",
            "examples",
            *(alt.Tooltip(name, format=".1%") for name in ("rate", "low", "high")),
        ],
    )
    return base.mark_line(point=True).properties(width=WIDTH, height=HEIGHT)


def words(found: pd.DataFrame) -> Any:
    """Log-odds ratios of the words that are surest to stand in errors more, and less, often than elsewhere."""
    more, less = found[found["log_odds"] > 0].head(_MOST_WORDS), found[found["log_odds"] < 0].head(_MOST_WORDS)
    rows = pd.concat([more, less]).sort_values("log_odds", ascending=False)
    rows = rows.assign(word=rows["word"].map(lambda word: legible(cut(word, 32))), is_sure=rows["q"] < LEAST_SURE)
    rows = rows[["word", "log_odds", "low", "high", "texts", "in_errors", "is_sure"]].round(3)
    colour = alt.when(alt.datum.is_sure).then(alt.value(BEST)).otherwise(alt.value(BEHIND))
    wrong = alt.Tooltip("in_errors", title="of them wrong", format=".1f")
    base = alt.Chart(rows).encode(
        y=alt.Y("word:N", sort=list(rows["word"]), title=None, axis=alt.Axis(labelLimit=160)),
        color=colour,
        tooltip=["word", "texts", wrong, "log_odds", "low", "high"],
    )
    zero = alt.Chart(pd.DataFrame({"zero": [0]})).mark_rule(color=INK, strokeDash=[4, 3]).encode(x="zero:Q")
    title = "log-odds of standing in an error, 95 % interval"
    ranges = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title), x2="high:Q")
    dots = base.mark_circle(size=50, opacity=1).encode(x="log_odds:Q")
    return (zero + ranges + dots).properties(width=WIDTH, height=alt.Step(17))


def overlap(comparison: Comparison, errors: Errors) -> Any:
    """The share of their errors that two strategies have in common."""
    names = {row.group: comparison.names[row.group] for row in comparison.rows if row.group in errors.joint}
    cells = errors.overlap
    cells = cells.assign(one=cells["one"].map(names), other=cells["other"].map(names)).round(4)
    order = list(names.values())
    base = alt.Chart(cells).encode(
        x=alt.X("other:N", sort=order, title=None, axis=alt.Axis(labelAngle=-40, labelLimit=140)),
        y=alt.Y("one:N", sort=order, title=None, axis=alt.Axis(labelLimit=160)),
        tooltip=["one", "other", alt.Tooltip("shared", format=".0%")],
    )
    is_written = len(order) <= _MOST_WRITTEN
    step = 34 if is_written else 14
    return _heat(base, "shared", ".0%", "purples", is_written).properties(width=alt.Step(step), height=alt.Step(step))


def missed(errors: Errors) -> Any:
    """How many examples so many strategies miss."""
    rows = pd.DataFrame({"strategies": range(len(errors.missed_by)), "examples": errors.missed_by})
    base = alt.Chart(rows).encode(
        x=alt.X(
            "strategies:O",
            title=f"strategies, of {len(errors.joint)}, that miss an example",
            axis=alt.Axis(labelAngle=0),
        ),
        y=alt.Y("examples:Q", title="test examples"),
        tooltip=["strategies", "examples"],
    )
    bars = base.mark_bar(color=BEST)
    numbers = base.mark_text(dy=-7, color=INK).encode(text="examples:Q")
    return (bars + numbers if len(rows) <= 2 * _MOST_WRITTEN else bars).properties(width=WIDTH, height=HEIGHT)
