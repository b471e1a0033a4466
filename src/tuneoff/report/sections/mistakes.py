"""Mistakes of each strategy: how many, of which labels, how far off, and whether strategies differ in their kind."""

from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

from tuneoff.comparison.errors import Errors
from tuneoff.comparison.mistakes import LENGTH, Mistakes, ProfilePair
from tuneoff.comparison.result import Comparison
from tuneoff.formats import equals_p, fixed, short_names
from tuneoff.report.chart import (
    INK,
    MAX_LABELLED_CELLS,
    WIDTH,
    box_plot,
    charted_rows,
    heat_map,
    strategy_colour,
)
from tuneoff.report.section import (
    Block,
    Bullets,
    Chart,
    ChartMenu,
    Figures,
    Heading,
    Section,
    TableBlock,
    Text,
    details_if_any,
    figures_if_any,
)
from tuneoff.scoring.metrics import display_name
from tuneoff.tables import COUNT, P_VALUE, SCORE, SHARE, TENTHS, TEXT, Column, Table

_MAX_BARS = 6  # labels that have bars; more are rows of a heat map
_MAX_LABELS = 30  # of a heat map: those with the most mistakes
_MAX_BOXES = 20  # labels of a chart of boxes
_SIGNIFICANT = 0.05


def section(comparison: Comparison) -> Section | None:
    """Return the mistakes of each strategy; None without a successful run."""
    mistakes, errors = comparison.mistakes, comparison.errors
    if mistakes is None or errors is None:
        return None
    blocks = [*_numbers(comparison, mistakes), *_labels(comparison, mistakes)]
    blocks += [*_gaps(comparison, mistakes, errors), *_profiles(comparison, mistakes)]
    return Section("mistakes", "Mistakes by strategy", blocks, menu="Mistakes")


def _numbers(comparison: Comparison, mistakes: Mistakes) -> list[Block]:
    text = "Misclassified test examples of each strategy"
    text += "" if comparison.data.folds else ", on average over its seeds"
    text += ", the label that most of its mistakes have, and the label that it predicts most often by mistake."
    if comparison.data.is_multilabel:
        text += (
            " Multi-label data: an example is misclassified if any of its labels is wrong. A label counts as the true "
            "one of a mistake where it is missed, and as the predicted one where it is wrongly added."
        )
    return [Text(text), TableBlock(numbers(comparison, mistakes))]


def _labels(comparison: Comparison, mistakes: Mistakes) -> list[Block]:
    charts = {
        "mistakes-true": labels_chart(comparison, mistakes, "true"),
        "mistakes-predicted": labels_chart(comparison, mistakes, "predicted"),
    }
    text = "Labels of the mistakes of each strategy: shares of all its mistakes, by true and by predicted label."
    if len(comparison.label_names) <= _MAX_BARS:
        text += " Dashes mark the share of each label among all test examples."
    elif len(comparison.label_names) > _MAX_LABELS:
        text += f" The {_MAX_LABELS} labels with the most mistakes are shown."
    sentence = hardest_label(comparison, mistakes)
    return [
        Heading("Labels of the mistakes"),
        Text(text),
        *([Text(sentence, is_key=True)] if sentence else []),
        *figures_if_any(charts),
        *details_if_any(
            "Mistakes by label and strategy", TableBlock(mistakes_by_label(comparison, mistakes), is_tall=True)
        ),
    ]


def _gaps(comparison: Comparison, mistakes: Mistakes, errors: Errors) -> list[Block]:
    charts = {
        "confidence": confidence_chart(comparison, errors, "wrong", "probability of a wrong prediction"),
        "margin": confidence_chart(
            comparison, errors, "margin", "probability of the predicted minus of the true label, where wrong"
        ),
    }
    if all(chart is None for chart in charts.values()):
        return []
    text = (
        "Confidence of wrong predictions, and the gap between the probabilities of the predicted and of the true "
        f"label. Boxes hold the middle half of the wrong predictions of all {comparison.repeat}s."
    )
    blocks: list[Block] = [Heading("How far off they are"), Text(text)]
    blocks += figures_if_any(charts)
    rows = {f"gap-{row.group}": row for row in charted_rows(comparison)}
    by_label = {name: c for name, row in rows.items() if (c := gap_chart(comparison, mistakes, row.group)) is not None}
    text = "The same gap by true label, for each strategy."
    if len(comparison.label_names) > _MAX_BOXES:
        text += f" The {_MAX_BOXES} labels with the most mistakes are shown."
    if len(comparison.label_names) <= _MAX_BARS:
        blocks += [Text(text), *figures_if_any(by_label)]
    elif by_label:  # side by side they would be taller than the rest of the page
        names = {name: comparison.names[rows[name].group] for name in by_label}
        blocks += [Text(text), Figures({}, ChartMenu("strategy", names, by_label, next(iter(by_label))))]
    return [
        *blocks,
        *details_if_any("Gaps by label and strategy", TableBlock(gaps(comparison, mistakes), is_tall=True)),
    ]


def _profiles(comparison: Comparison, mistakes: Mistakes) -> list[Block]:
    if not mistakes.profiles:
        return []
    text = (
        "Do strategies fail on the same kinds of examples? For every two strategies, the shares of the true labels, of "
        "the predicted labels and of the text lengths among their mistakes are compared: the charts show which share "
        "of one's mistakes is of another kind than the other's. Both predict the same examples, so the test swaps "
        "their predictions on random examples (a paired permutation test with a studentized statistic, after "
        "Konietschke & Pauly, 2014), and reacts to the kind of mistakes only, not to their number. * is significant "
        "after Holm's correction over all pairs."
    )
    charts = {
        f"profiles-{by.split()[0]}": profile_chart(comparison, [p for p in mistakes.profiles if p.by == by], by)
        for by in dict.fromkeys(pair.by for pair in mistakes.profiles)
    }
    return [
        Heading("Kinds of mistakes"),
        Text(profile_conclusion(comparison, mistakes), is_key=True),
        Bullets(profile_sentences(comparison, mistakes)),
        Text(text),
        *figures_if_any(charts),
        *details_if_any("Every pair of strategies", TableBlock(profiles(comparison, mistakes), is_tall=True)),
    ]


def numbers(comparison: Comparison, mistakes: Mistakes) -> Table:
    """Number and share of misclassified examples, and the most frequent labels of the mistakes."""
    has_seeds = any(len(row.seeds) > 1 for row in comparison.rows) and not comparison.data.folds
    columns = (
        Column("strategy", "strategy", TEXT),
        Column("misclassified", "misclassified", TENTHS if has_seeds else COUNT),
        Column("examples", "of examples", COUNT),
        Column("share", "share", SHARE),
        Column("true_label", "most are", TEXT),
        Column("true_label_share", "of its mistakes", SHARE),
        Column("predicted_label", "most often predicted", TEXT),
        Column("predicted_label_share", "of its mistakes", SHARE),
    )
    rows = []
    for row in comparison.rows:
        total, part = mistakes.totals[row.group], mistakes.by_label[mistakes.by_label["group"] == row.group]
        cells: list[object] = []
        for by in ("true", "predicted"):
            counts = part[by].to_numpy()
            top = int(counts.argmax())
            cells += [comparison.label_names[top], counts[top] / counts.sum()] if counts.sum() else [None, None]
        rows.append([comparison.names[row.group], total, mistakes.examples, total / mistakes.examples, *cells])
    return Table("mistakes", columns, rows)


def mistakes_by_label(comparison: Comparison, mistakes: Mistakes) -> Table:
    """Mistakes of each strategy by true and by predicted label, beside the label's share of the examples."""
    columns = (
        Column("strategy", "strategy", TEXT),
        Column("label", "label", TEXT),
        Column("examples", "examples", COUNT),
        Column("examples_share", "of all", SHARE),
        Column("mistakes_with_true_label", "mistakes, true label", TENTHS),
        Column("true_label_share", "of the mistakes", SHARE),
        Column("error_rate", "error rate", SHARE),
        Column("p_value", "p of other error rate", P_VALUE),
        Column("mistakes_with_predicted_label", "mistakes, predicted label", TENTHS),
        Column("predicted_label_share", "of the mistakes", SHARE),
    )
    rows = []
    for row in comparison.rows:
        part = mistakes.by_label[mistakes.by_label["group"] == row.group]
        true_total, predicted_total = part["true"].sum() or 1.0, part["predicted"].sum() or 1.0
        for r in part.to_dict("records"):
            rows.append(
                [
                    comparison.names[row.group],
                    comparison.label_names[r["label"]],
                    r["examples"],
                    r["examples"] / mistakes.examples,
                    r["true"],
                    r["true"] / true_total,
                    r["true"] / r["examples"] if r["examples"] else None,
                    None if np.isnan(r["p_value"]) else r["p_value"],
                    r["predicted"],
                    r["predicted"] / predicted_total,
                ]
            )
    return Table("mistakes-by-label", columns, rows)


def gaps(comparison: Comparison, mistakes: Mistakes) -> Table:
    """Gap of predicted minus true probability of wrong predictions, by strategy and true label."""
    columns = (
        Column("strategy", "strategy", TEXT),
        Column("label", "true label", TEXT),
        Column("wrong_predictions", "wrong predictions", COUNT),
        Column("q1", "lower quartile", SCORE),
        Column("median", "median gap", SCORE),
        Column("q3", "upper quartile", SCORE),
    )
    rows = [
        [comparison.names[r["group"]], comparison.label_names[r["label"]], r["examples"], r["q1"], r["median"], r["q3"]]
        for r in mistakes.gaps.to_dict("records")
    ]
    return Table("gaps", columns, rows)


def profiles(comparison: Comparison, mistakes: Mistakes) -> Table:
    """Comparison of the kinds of mistakes of every two strategies."""
    columns = (
        Column("by", "by", TEXT),
        Column("strategy", "strategy", TEXT),
        Column("other", "other", TEXT),
        Column("distance", "of another kind", SHARE),
        Column("kind", "largest difference", TEXT),
        Column("strategy_share", "of strategy's mistakes", SHARE),
        Column("other_share", "of other's", SHARE),
        Column("p_value", "p value", P_VALUE),
        Column("p_corrected", "corrected", P_VALUE),
    )
    names = comparison.names
    rows = [
        [
            p.by,
            names[p.first],
            names[p.second],
            p.distance,
            p.kind,
            p.first_share,
            p.second_share,
            p.p_value,
            p.p_corrected,
        ]
        for p in mistakes.profiles
    ]
    return Table("mistake-profiles", columns, rows)


def hardest_label(comparison: Comparison, mistakes: Mistakes) -> str:
    """Return a sentence on the label with the most mistakes beyond its share of the examples, of the pick or the best.

    Empty for multi-label data, and where no label differs significantly.
    """
    if comparison.data.is_multilabel or comparison.verdict is None:
        return ""
    group = comparison.verdict.recommended or comparison.verdict.best
    part = mistakes.by_label[mistakes.by_label["group"] == group]
    total = part["true"].sum()
    if not total:
        return ""
    shares = part.assign(share=part["true"] / total, of_examples=part["examples"] / mistakes.examples)
    over = shares[(shares["p_value"] < _SIGNIFICANT) & (shares["share"] > shares["of_examples"])]
    if not len(over):
        return f"No label is shown to have more of {comparison.names[group]}'s mistakes than its share of the examples."
    worst = over.iloc[int((over["share"] - over["of_examples"]).to_numpy().argmax())]
    return (
        f"{_label(comparison.label_names[int(worst['label'])])} is {_percent(worst['share'])} of the mistakes of "
        f"{comparison.names[group]}, but {_percent(worst['of_examples'])} of the test examples (p "
        f"{equals_p(worst['p_value'])}, corrected for the number of labels)."
    )


def profile_conclusion(comparison: Comparison, mistakes: Mistakes) -> str:
    """Return the conclusion of all comparisons of kinds of mistakes."""
    groups = {group for pair in mistakes.profiles for group in (pair.first, pair.second)}
    pairs = [pair for pair in comparison.pairs if pair.better in groups and pair.worse in groups]
    differ_in_kind = any(pair.p_corrected < _SIGNIFICANT for pair in mistakes.profiles)
    if differ_in_kind:
        return "Strategies differ in the kind of their mistakes, not in their number alone."
    counted = "the number of their mistakes" if comparison.metric == "accuracy" else display_name(comparison.metric)
    if any(pair.is_significant for pair in pairs):
        return f"Strategies differ in {counted}; they are not shown to differ in the kind of their mistakes."
    return f"Strategies are shown to differ neither in {counted} nor in the kind of their mistakes."


def profile_sentences(comparison: Comparison, mistakes: Mistakes) -> list[str]:
    """Return a sentence for each way to divide mistakes: how many pairs differ, and the two that differ most."""
    sentences = []
    for by in dict.fromkeys(pair.by for pair in mistakes.profiles):
        pairs = [pair for pair in mistakes.profiles if pair.by == by]
        different = [pair for pair in pairs if pair.p_corrected < _SIGNIFICANT]
        if not different:
            smallest = min(pair.p_corrected for pair in pairs)
            sentences.append(f"By {by}: no two strategies differ (smallest corrected p {equals_p(smallest)}).")
            continue
        most = max(different, key=lambda pair: pair.distance)
        unit = comparison.errors.length_unit if comparison.errors else ""
        kind = f"Texts of {most.kind} {unit}" if by == LENGTH else _label(most.kind)
        of_pairs = f"{len(different)} of {len(pairs)} pairs differ" if len(pairs) > 1 else "the two strategies differ"
        first, second = comparison.names[most.first], comparison.names[most.second]
        verb = "are" if by == LENGTH else "is"
        sentences.append(
            f"By {by}: {of_pairs}, most of all {first} and {second}: {_percent(most.distance)} of their mistakes are "
            f"of another kind. {kind} {verb} {_percent(most.first_share)} of the mistakes of {first} and "
            f"{_percent(most.second_share)} of those of {second}."
        )
    return sentences


def _label(name: str) -> str:
    """Return the name of a label at the start of a sentence; one without letters is called a label."""
    return name if any(c.isalpha() for c in name) else f"Label {name}"


def _percent(share: float) -> str:
    return f"{fixed(100 * share, 0 if share >= 0.1 else 1)} %"


def labels_chart(comparison: Comparison, mistakes: Mistakes, by: str) -> Chart | None:
    """Shares of the labels among the mistakes of each strategy: bars, or for many labels a heat map.

    by: true or predicted.
    """
    names = {row.group: comparison.names[row.group] for row in charted_rows(comparison)}
    table = mistakes.by_label[mistakes.by_label["group"].isin(list(names))]
    totals = table.groupby("group")[by].transform("sum")
    if not (totals > 0).any():
        return None
    labels = short_names(comparison.label_names)
    shown = _most_frequent(table, by, _MAX_LABELS)
    cells = table.assign(
        strategy=table["group"].map(names),
        share=(table[by] / totals.where(totals > 0, 1)).round(4),
        of_examples=(table["examples"] / mistakes.examples).round(4),
        mistakes=table[by].round(1),
    )
    cells = cells[cells["label"].isin(shown)]
    order = [labels[label] for label in shown]
    cells = cells.assign(label=[labels[label] for label in cells["label"]])
    cells = cells[["strategy", "label", "share", "of_examples", "mistakes"]]
    title = f"share of the mistakes, by {by} label"
    shares = [alt.Tooltip("share", format=".1%"), alt.Tooltip("of_examples", title="of the examples", format=".1%")]
    if len(labels) <= _MAX_BARS:
        base = alt.Chart(cells).encode(
            y=alt.Y("label:N", sort=order, title=None, axis=alt.Axis(labelLimit=160)),
            yOffset=alt.YOffset("strategy:N", sort=list(names.values())),
            tooltip=["strategy", "label", "mistakes", *shares],
        )
        axis = alt.X("share:Q", title=title, axis=alt.Axis(format="%"))
        bars = base.mark_bar().encode(x=axis, color=strategy_colour(comparison))
        ticks = base.mark_tick(color=INK, thickness=2).encode(x="of_examples:Q")
        return (bars + ticks).properties(width=WIDTH, height=alt.Step(11))
    base = alt.Chart(cells).encode(
        x=alt.X("strategy:N", sort=list(names.values()), title=None, axis=alt.Axis(labelAngle=-40, labelLimit=140)),
        y=alt.Y("label:N", sort=order, title=None, axis=alt.Axis(labelLimit=200)),
        tooltip=["strategy", "label", "mistakes", *shares],
    )
    chart = heat_map(base, "share", ".0%", "oranges", True, highest=float(cells["share"].max()) or 1.0)
    return chart.properties(
        width=alt.Step(38),
        height=alt.Step(20),
        title=alt.Title(title, anchor="start", fontSize=11, fontWeight="normal"),
    )


def _most_frequent(table: pd.DataFrame, by: str, limit: int) -> list[int]:
    """Return the labels with the most mistakes over all strategies, in the order of the labels."""
    totals = table.groupby("label")[by].sum()
    return sorted(int(label) for label in totals.sort_values(ascending=False, kind="stable").index[:limit])


def gap_chart(comparison: Comparison, mistakes: Mistakes, group: str) -> Chart | None:
    """Boxes of the gap of one strategy by true label; None without wrong predictions that have probabilities."""
    table = mistakes.gaps[mistakes.gaps["group"] == group]
    if not len(table):
        return None
    labels = short_names(comparison.label_names)
    own = mistakes.gaps[mistakes.gaps["group"].isin([row.group for row in charted_rows(comparison)])]
    totals = own.groupby("label")["examples"].sum().sort_values(ascending=False, kind="stable")
    shown = sorted(totals.index[:_MAX_BOXES])
    boxes = table[table["label"].isin(shown)]
    boxes = boxes.assign(label=[labels[label] for label in boxes["label"]]).drop(columns="group").round(4)
    colour = strategy_colour(comparison, has_legend=False)
    title = "probability of the predicted minus of the true label, where wrong"
    chart = box_plot(
        boxes.assign(strategy=comparison.names[group]),
        "label",
        [labels[label] for label in shown],
        title,
        colour,
        domain=(0.0, 1.0),
    )
    return chart.properties(title=alt.Title(comparison.names[group], anchor="start"))


def profile_chart(comparison: Comparison, pairs: Sequence[ProfilePair], by: str) -> Chart:
    """Share of mistakes that are of another kind, for every two strategies."""
    groups = list(dict.fromkeys(group for pair in pairs for group in (pair.first, pair.second)))
    order = [comparison.names[group] for group in groups]
    cells = []
    for pair in pairs:
        mark = "*" if pair.p_corrected < _SIGNIFICANT else ""
        details = {
            "distance": round(pair.distance, 4),
            "text": f"{100 * pair.distance:.0f} %{mark}",
            "largest": pair.kind,
            "p_corrected": round(pair.p_corrected, 4),
        }
        for one, other in ((pair.first, pair.second), (pair.second, pair.first)):
            cells.append({"one": comparison.names[one], "other": comparison.names[other], **details})
    highest = max([0.2, *(pair.distance for pair in pairs)])
    base = alt.Chart(pd.DataFrame(cells)).encode(
        x=alt.X("other:N", sort=order, title=None, axis=alt.Axis(labelAngle=-40, labelLimit=140)),
        y=alt.Y("one:N", sort=order, title=None, axis=alt.Axis(labelLimit=160)),
        tooltip=["one", "other", alt.Tooltip("distance", format=".1%"), "largest", "p_corrected"],
    )
    is_labelled = len(order) <= MAX_LABELLED_CELLS
    chart = heat_map(base, "distance", ".0%", "purples", False, highest)
    if is_labelled:
        ink = alt.when(alt.datum["distance"] > 0.6 * highest).then(alt.value("white")).otherwise(alt.value("#222222"))
        chart = chart + base.mark_text(fontSize=11).encode(text="text:N", color=ink)
    title = alt.Title(f"of another kind, by {by}", anchor="start", fontSize=11, fontWeight="normal")
    return chart.properties(width=alt.Step(40), height=alt.Step(34), title=title)


def confidence_chart(comparison: Comparison, errors: Errors, kind: str, title: str) -> Chart | None:
    """Boxes of one kind of confidence, one per strategy; None if no strategy has such predictions."""
    names = {row.group: comparison.names[row.group] for row in charted_rows(comparison)}
    table = errors.confidence
    boxes = table[(table["kind"] == kind) & table["group"].isin(list(names))]
    if not len(boxes):
        return None
    boxes = boxes.assign(strategy=boxes["group"].map(names)).drop(columns=["group", "kind"]).round(4)
    return box_plot(boxes, "strategy", list(names.values()), title, strategy_colour(comparison, has_legend=False))
