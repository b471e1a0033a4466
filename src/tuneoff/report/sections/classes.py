"""Classes: confusion matrices, and precision, recall and F1 of each class."""

import altair as alt
import numpy as np
import pandas as pd

from tuneoff.comparison.result import Comparison
from tuneoff.comparison.rows import Row
from tuneoff.formats import short_names
from tuneoff.report.chart import MAX_LABELLED_CELLS, Scheme, charted_rows, heat_map
from tuneoff.report.section import Block, Chart, Section, TableBlock, Text, details_if_any, figures_if_any
from tuneoff.scoring.metrics import ClassScores
from tuneoff.tables import COUNT, SCORE, SHARE, TENTHS, TEXT, Column, Table

MAX_CLASSES = 40  # a confusion matrix of more is neither readable nor small
_MAX_CONFUSIONS = 10  # of each strategy in the table


def section(comparison: Comparison) -> Section | None:
    """Return the scores of each class; None without a successful run."""
    if not comparison.rows:
        return None
    blocks: list[Block] = []
    if comparison.data.is_multilabel:
        blocks += [
            Text(
                "Multi-label data: every label is a yes-or-no decision of its own, with the threshold that had the "
                "best F1 on validation. Accuracy is subset accuracy: the share of examples with every label right."
            )
        ]
    else:
        text = "Confusion matrices: of the test examples with a true label (row), the share predicted as each label "
        text += f"(column), over all {comparison.repeat}s"
        if len(comparison.label_names) <= MAX_LABELLED_CELLS:
            text += " and below it their number" + ("" if comparison.data.folds else ", a mean over seeds")
        text += "."
        if len(comparison.label_names) > MAX_CLASSES:
            text += f" The {MAX_CLASSES} labels with the most mistakes are shown."
        charts = {f"confusion-{row.group}": confusion(comparison, row.group) for row in charted_rows(comparison)}
        blocks += [Text(text), *figures_if_any(charts)]
        blocks += details_if_any("The most frequent confusions", TableBlock(confusions(comparison), is_tall=True))
    blocks += [Text("F1 of each class by strategy: the harmonic mean of precision and recall.")]
    blocks += figures_if_any({"f1": by_class(comparison, "f1", "F1", "greens")})
    blocks += details_if_any("Precision, recall and F1 of each class", TableBlock(classes(comparison), is_tall=True))
    return Section("classes", "Classes", blocks)


def classes(comparison: Comparison) -> Table:
    """Precision, recall and F1 of each class and strategy."""
    columns = (
        Column("strategy", "strategy", TEXT),
        Column("label", "label", TEXT),
        *[Column(name.lower(), name, SCORE) for name in ("precision", "recall", "F1")],
        Column("examples", "examples", COUNT),
    )
    rows = [
        [comparison.names[row.group], c.label, c.precision, c.recall, c.f1, c.examples]
        for row in comparison.rows
        for c in comparison.classes[row.group]
    ]
    return Table("classes", columns, rows)


def confusions(comparison: Comparison) -> Table:
    """Pairs of true and predicted label that each strategy confuses most often. Counts are means over seeds."""
    columns = (
        Column("strategy", "strategy", TEXT),
        Column("true", "true label", TEXT),
        Column("predicted", "predicted", TEXT),
        Column("examples", "examples", TENTHS),
        Column("true_share", "of the true label", SHARE),
        Column("mistakes_share", "of the mistakes", SHARE),
    )
    rows = []
    for row in comparison.rows:
        matrix = comparison.confusion[row.group] / _num_predictions(row)
        mistakes = matrix - np.diag(matrix.diagonal())
        for place in np.argsort(-mistakes, axis=None, kind="stable")[:_MAX_CONFUSIONS]:
            i, j = divmod(int(place), len(matrix))
            if count := float(mistakes[i, j]):
                names = [comparison.names[row.group], comparison.label_names[i], comparison.label_names[j]]
                rows.append([*names, count, count / matrix[i].sum(), count / mistakes.sum()])
    return Table("confusions", columns, rows)


def _num_predictions(row: Row) -> int:
    """Return the number of predictions of each example: of every seed one; with folds one."""
    return 1 if row.fold_scores else len(row.seeds)


def confusion(comparison: Comparison, group: str) -> Chart:
    """Test examples by true and predicted label; shares are of the examples of the true label."""
    matrix, labels = comparison.confusion[group], short_names(comparison.label_names)
    num_predictions = next(_num_predictions(row) for row in comparison.rows if row.group == group)
    totals = matrix.sum(1).clip(min=1)
    if len(labels) > MAX_CLASSES:
        mistakes = matrix.sum(0) + matrix.sum(1) - 2 * matrix.diagonal()
        kept = np.sort(np.argsort(-mistakes, kind="stable")[:MAX_CLASSES])
        matrix, totals, labels = matrix[np.ix_(kept, kept)], totals[kept], [labels[index] for index in kept]
    is_labelled = len(labels) <= MAX_LABELLED_CELLS
    cells = pd.DataFrame(
        {
            "true": labels[i],
            "predicted": labels[j],
            "examples": round(count / num_predictions, 1),
            "share": round(count / totals[i], 4),
        }
        for (i, j), count in np.ndenumerate(matrix)
        if count or is_labelled
    )
    angle, every_label = 0 if len(labels) <= 3 else -40, alt.Scale(domain=labels)
    base = alt.Chart(cells).encode(
        x=alt.X("predicted:N", sort=labels, axis=alt.Axis(labelLimit=100, labelAngle=angle), scale=every_label),
        y=alt.Y("true:N", sort=labels, axis=alt.Axis(labelLimit=100), scale=every_label),
        tooltip=["true", "predicted", "examples", alt.Tooltip("share", format=".1%")],
    )
    title = alt.Title(comparison.names[group], anchor="start")
    chart = heat_map(base, "share", ".0%", "blues", is_labelled, dy=-6 if is_labelled else 0)
    if is_labelled:
        ink = alt.when(alt.datum["share"] > 0.6).then(alt.value("white")).otherwise(alt.value("#222222"))
        chart = chart + base.mark_text(fontSize=9, dy=7).encode(text=alt.Text("examples:Q", format=",.0f"), color=ink)
    side = max(200, 36 * len(labels)) if is_labelled else 420
    return chart.properties(width=side, height=side, title=title)


def by_class(comparison: Comparison, measure: str, title: str, scheme: Scheme) -> Chart:
    """One measure of each class and strategy. Recall and precision are shown as error rates: one minus the value."""
    is_error, labels = measure != "f1", short_names(comparison.label_names)
    names = {row.group: comparison.names[row.group] for row in charted_rows(comparison)}
    cells = pd.DataFrame(
        {"strategy": name, "label": label, "value": round(abs(is_error - value), 4)}
        for group, name in names.items()
        for label, scores in zip(labels, comparison.classes[group], strict=True)
        for value, num_examples in (_measures(scores)[measure],)
        if num_examples
    )
    is_labelled = len(labels) <= 2 * MAX_LABELLED_CELLS
    base = alt.Chart(cells).encode(
        x=alt.X("strategy:N", sort=list(names.values()), title=None, axis=alt.Axis(labelAngle=-40, labelLimit=140)),
        y=alt.Y("label:N", sort=labels, title=None, axis=alt.Axis(labelLimit=160)),
        tooltip=["strategy", "label", alt.Tooltip("value", title=title, format=".3f")],
    )
    chart = heat_map(base, "value", ".0%" if is_error else ".2f", scheme, is_labelled)
    size = {"width": alt.Step(38), "height": alt.Step(26 if is_labelled else 11)}
    return chart.properties(title=alt.Title(title, anchor="start", fontSize=11, fontWeight="normal"), **size)


def _measures(scores: ClassScores) -> dict[str, tuple[float, int]]:
    """Return each measure of a class, and the number of examples that it is a share of; with none it is undefined."""
    return {
        "precision": (scores.precision, scores.predicted),
        "recall": (scores.recall, scores.examples),
        "f1": (scores.f1, scores.examples + scores.predicted),
    }
