"""Errors: rates by label and length, shared errors, likely label errors, and the example browser."""

import altair as alt
import pandas as pd

from tuneoff.comparison.errors import Errors
from tuneoff.comparison.result import Comparison
from tuneoff.formats import shorten
from tuneoff.report.chart import (
    BEST,
    HEIGHT,
    INK,
    MAX_LABELLED_CELLS,
    WIDTH,
    charted_rows,
    heat_map,
    strategy_colour,
)
from tuneoff.report.examples import browser_data
from tuneoff.report.section import (
    Block,
    Chart,
    Examples,
    Heading,
    Section,
    TableBlock,
    Text,
    figures_if_any,
)
from tuneoff.report.sections.classes import by_class
from tuneoff.report.sections.phenomena import length_sentence
from tuneoff.scoring.metrics import display_name
from tuneoff.tables import (
    COUNT,
    ESTIMATE,
    LONG_TEXT,
    SCORE,
    TEXT,
    Column,
    Table,
)

_MAX_WORDS = 12  # in the chart, on each side of zero
_MAX_LISTED = 25  # rows of the tables of words and likely label errors
_TEXT_LENGTH = 300  # characters of a text in a table
_SIGNIFICANT = 0.05  # false discovery rate among the words that are called significant


def section(comparison: Comparison) -> Section | None:
    """Return the error analysis; None without a successful run."""
    errors = comparison.errors
    if errors is None:
        return None
    blocks = [*_by_label(comparison), *_by_length(comparison, errors)]
    blocks += [*_shared(comparison, errors), *_label_errors(comparison, errors)]
    return Section("errors", "Error analysis", [*blocks, *_examples(comparison, errors)], menu="Errors")


def _by_label(comparison: Comparison) -> list[Block]:
    charts = {
        "errors-true": by_class(comparison, "recall", "error rate by true label", "oranges"),
        "errors-predicted": by_class(comparison, "precision", "error rate by predicted label", "oranges"),
    }
    text = "Share of errors among the test examples of each true label, and among the predictions of each label, over "
    text += f"all {comparison.repeat}s."
    if comparison.data.is_multilabel:
        text += " Multi-label data: in the analyses below, an example counts as wrong if any of its labels is wrong."
    return [
        Heading("By label"),
        Text(text),
        *figures_if_any(charts),
    ]


def _by_length(comparison: Comparison, errors: Errors) -> list[Block]:
    if not len(errors.by_length):
        return []
    text = (
        f"Error rate by length of the text in {errors.length_unit}, in groups of about equally many test examples. "
        "Lengths are of the whole text, before truncation."
    )
    return [
        Heading("By length"),
        Text(text),
        *([Text(sentence, is_key=True)] if (sentence := length_sentence(comparison)) else []),
        Text("Point at a dot of the chart to see its 95 % confidence interval.", is_page_only=True),
        *figures_if_any({"errors-length": length_chart(comparison, errors)}),
    ]


def _shared(comparison: Comparison, errors: Errors) -> list[Block]:
    if len(errors.learners) < 2:
        return []
    text = "Share of their errors that two strategies have in common, and the number of test examples by how many "
    text += "strategies misclassify them. Examples that all of them misclassify are hard, ambiguous or mislabelled."
    charts = {"overlap": overlap_chart(comparison, errors), "missed": num_wrong_chart(errors)}
    return [Heading("Shared errors"), Text(text), *figures_if_any(charts)]


def _label_errors(comparison: Comparison, errors: Errors) -> list[Block]:
    heading, table = Heading("Likely label errors"), label_errors(comparison, errors)
    if not table.rows:
        reason = "Not computed for multi-label data." if comparison.data.is_multilabel else "None were found."
        return [heading, Text(reason)]
    text = (
        "Test examples whose label is probably wrong by confident learning: the mean probability of another class "
        f"reaches that class's usual confidence, and is higher. {len(errors.label_errors):,} were found. Check them "
        "before relying on small differences."
    )
    blocks: list[Block] = [heading, Text(text)]
    if comparison.label_noise:
        how = (
            "Hard examples are doubted too, and the list comes from the mean probabilities of the strategies: leaving "
        )
        how += "its examples out favours those that agree with the others, and re-labelling favours them more."
        blocks += [Text(comparison.label_noise.summary, is_key=True), Text(how)]
        blocks += [TableBlock(label_noise_scores(comparison))]
    if len(errors.label_errors) > len(table.rows):
        blocks.append(Text(f"The {len(table.rows)} most likely are listed here.", is_page_only=True))
    return [*blocks, TableBlock(table, is_tall=True, is_page_only=True)]


def _examples(comparison: Comparison, errors: Errors) -> list[Block]:
    data = browser_data(comparison)
    if data is None:
        reason = "An earlier version made this study and did not store the test texts; run it again to see them."
        return [Text(reason)]
    text = "Every test example with the prediction of each strategy"
    if len(data.examples) < data.all:
        text += f"; the page has room for {len(data.examples):,} of {data.all:,}, hardest first"
    text += ". Where seeds disagree, the majority counts; percentages are the mean probability of the prediction"
    if comparison.data.folds:
        text = text.partition(". Where")[0] + ". Percentages are the probability of the prediction"
    text += ", for multi-label data of its least confident label." if comparison.data.is_multilabel else "."
    return [Examples(text, data, errors.length_unit)]


def label_errors(comparison: Comparison, errors: Errors) -> Table:
    """Test examples whose label is most likely wrong."""
    columns = (
        Column("example", "example", COUNT),
        Column("label", "label", TEXT),
        Column("likely_label", "likely", TEXT),
        Column("label_probability", "probability of label", SCORE),
        Column("likely_probability", "of likely", SCORE),
        Column("text", "text", LONG_TEXT),
    )
    names, texts = comparison.label_names, comparison.texts
    rows = [
        [
            row["example"],
            names[int(row["label"])],
            names[int(row["likely"])],
            row["label_probability"],
            row["likely_probability"],
            shorten(texts[int(row["example"])], _TEXT_LENGTH) if texts else None,
        ]
        for row in errors.label_errors.head(_MAX_LISTED).to_dict("records")
    ]
    return Table("label-errors", columns, rows)


def label_noise_scores(comparison: Comparison) -> Table:
    """Score of each strategy on all examples, without those with a doubtful label, and with the likely label there."""
    noise = comparison.label_noise
    assert noise is not None
    columns = (
        Column("strategy", "strategy", TEXT),
        Column(comparison.metric, display_name(comparison.metric), ESTIMATE),
        Column("left_out", "doubtful labels left out", ESTIMATE),
        Column("relabelled", "re-labelled", ESTIMATE),
    )
    rows = [
        [
            comparison.names[row.group],
            (row.score, *row.interval),
            noise.left_out.estimates[row.group],
            noise.relabelled.estimates[row.group],
        ]
        for row in comparison.rows
    ]
    return Table("label-noise", columns, rows)


def length_chart(comparison: Comparison, errors: Errors) -> Chart:
    """Error rate by length, one line per strategy."""
    names = {row.group: comparison.names[row.group] for row in charted_rows(comparison)}
    rows = errors.by_length[errors.by_length["group"].isin(list(names))]
    rows = rows.assign(strategy=rows["group"].map(names), middle=(rows["shortest"] + rows["longest"]) / 2)
    rates = [alt.Tooltip(name, format=".1%") for name in ("rate", "low", "high")]
    base = alt.Chart(rows.drop(columns="group").round(4)).encode(
        x=alt.X("middle:Q", title=f"{errors.length_unit} of the text"),
        y=alt.Y("rate:Q", title="error rate", axis=alt.Axis(format="%")),
        color=strategy_colour(comparison),
        tooltip=["strategy", "shortest", "longest", "examples", *rates],
    )
    return base.mark_line(point=True).properties(width=WIDTH, height=HEIGHT)


def overlap_chart(comparison: Comparison, errors: Errors) -> Chart:
    """Share of their errors that two strategies have in common."""
    names = {row.group: comparison.names[row.group] for row in comparison.rows if row.group in errors.learners}
    cells = errors.overlap
    cells = cells.assign(one=cells["one"].map(names), other=cells["other"].map(names)).round(4)
    order = list(names.values())
    base = alt.Chart(cells).encode(
        x=alt.X("other:N", sort=order, title=None, axis=alt.Axis(labelAngle=-40, labelLimit=140)),
        y=alt.Y("one:N", sort=order, title=None, axis=alt.Axis(labelLimit=160)),
        tooltip=["one", "other", alt.Tooltip("shared", format=".0%")],
    )
    is_labelled = len(order) <= MAX_LABELLED_CELLS
    step = alt.Step(34 if is_labelled else 14)
    return heat_map(base, "shared", ".0%", "purples", is_labelled).properties(width=step, height=step)


def num_wrong_chart(errors: Errors) -> Chart:
    """Number of test examples by how many strategies misclassify them."""
    counts = errors.examples_by_num_wrong
    rows = pd.DataFrame({"strategies": range(len(counts)), "examples": counts})
    title = f"strategies, of {len(errors.learners)}, that misclassify an example"
    base = alt.Chart(rows).encode(
        x=alt.X("strategies:O", title=title, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("examples:Q", title="test examples"),
        tooltip=["strategies", "examples"],
    )
    bars = base.mark_bar(color=BEST)
    numbers = base.mark_text(dy=-7, color=INK).encode(text="examples:Q")
    is_labelled = len(rows) <= 2 * MAX_LABELLED_CELLS
    return (bars + numbers if is_labelled else bars).properties(width=WIDTH, height=HEIGHT)
