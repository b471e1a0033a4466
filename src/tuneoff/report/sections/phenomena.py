"""Phenomena: error rates of texts with and without negation, contrast, questions and the like, and by length."""

from collections.abc import Hashable, Mapping
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from tuneoff.comparison.phenomena import EVERY, MIN_TEXTS, Phenomena
from tuneoff.comparison.result import Comparison
from tuneoff.formats import counted, equals_p, join_names, show_control_characters, signed
from tuneoff.report.chart import BEST, INK, WIDTH, WORSE, charted_rows, difference_map
from tuneoff.report.section import (
    Block,
    Bullets,
    Chart,
    Section,
    TableBlock,
    Text,
    details_if_any,
    figures_if_any,
)
from tuneoff.tables import COUNT, LONG_TEXT, P_VALUE, SHARE, SIGNED_INTERVAL, SIGNED_SCORE, TEXT, Column, Table

_SIGNIFICANT = 0.05
_LARGEST = 0.15  # difference of error rates of the strongest colour
_MAX_MAPPED = 30  # tags of the chart of tags and strategies


def section(comparison: Comparison) -> Section | None:
    """Return the error rates by phenomenon; None without test texts."""
    phenomena = comparison.phenomena
    if phenomena is None or not phenomena.masks:
        return None
    several = comparison.errors is not None and len(comparison.errors.learners) > 1
    text = (
        "Error rates of the test texts with a phenomenon and of all others"
        f"{', on average over the strategies that use the text' if several else ''}. Phenomena are cues, matched by "
        "word lists and patterns, so that a few texts are tagged wrongly. Intervals and tests are Welch's, over "
        "examples (Agresti and Caffo's adjustment for few of them), and p values are after Holm's correction over "
        "all phenomena and length. A phenomenon may go with a label or with length: a difference tells where errors "
        "are, not why."
    )
    if comparison.data.is_pair:
        text += " Of a pair, either text may have it."
    blocks: list[Block] = [Text(text), Bullets(sentences(comparison, phenomena))]
    blocks += [Bullets(phenomena.notes)] if phenomena.notes else []
    blocks += figures_if_any({"phenomena": phenomena_chart(phenomena)})
    blocks += [TableBlock(phenomena_table(phenomena))]
    if several and len(phenomena.rates):
        blocks += [
            Text(
                "Difference of the error rates with and without a tag for each strategy, in points; * is significant "
                f"after Holm's correction over all {phenomena.num_tests:,} tests of tags, length and strategies."
            ),
            *figures_if_any({"phenomena-strategies": strategies_chart(comparison, phenomena)}),
        ]
        table = phenomena_by_strategy(comparison, phenomena)
        blocks += details_if_any("Every tag and strategy", TableBlock(table, is_tall=True))
    blocks += details_if_any("Trend with length", TableBlock(length_trend(comparison, phenomena)))
    blocks += [
        Text(
            r"Phenomena of your own: tags: {late_but: '\bbut\b.{0,40}$'} in the study, or --tag name=pattern; one with "
            "the name of a built-in phenomenon replaces it. The browser of test examples has a filter for them.",
            is_page_only=True,
        )
    ]
    return Section("phenomena", "Phenomena", blocks)


def main_group(phenomena: Phenomena) -> str:
    """Return the group that sentences are about: the mean over the strategies, or the only strategy."""
    groups = [*phenomena.trends["group"], *phenomena.rates["group"]]
    return EVERY if EVERY in groups or not groups else str(groups[0])


def sentences(comparison: Comparison, phenomena: Phenomena) -> list[str]:
    """Return a sentence for every significant difference, largest first, and one for what is not significant."""
    own, significant = _own_rates(phenomena)
    lines = significant_sentences(comparison, phenomena)
    lines += [line] if (line := length_sentence(comparison)) else []
    single = phenomena.rates[(phenomena.rates["group"] != EVERY) & (phenomena.rates["p_corrected"] < _SIGNIFICANT)]
    single = single[~single["tag"].isin(set(significant["tag"]))]
    lines += [f"For single strategies only: {join_names(_by_tag(comparison, single))}."] if len(single) else []
    shown = {*significant["tag"], *single["tag"]}
    rest = [str(tag) for tag in own["tag"] if tag not in shown]
    if rest:
        subject = "Not shown" if shown else "No phenomenon is shown"
        lines.append(f"{subject} to change the error rate: {join_names(rest)}.")
    untested = [
        f"{tag} ({counted(int(mask.sum()), 'text')})"
        for tag, mask in phenomena.masks.items()
        if tag not in set(own["tag"])
    ]
    if untested:
        lines.append(f"Not tested, with fewer than {MIN_TEXTS} texts with or without it: {join_names(untested)}.")
    return lines


def significant_sentences(comparison: Comparison, phenomena: Phenomena) -> list[str]:
    """Return a sentence for every significant difference of the mean over strategies, largest first."""
    _, significant = _own_rates(phenomena)
    order = np.argsort(-significant["difference"].abs().to_numpy(), kind="stable")
    return [_sentence(row, comparison, phenomena) for row in significant.iloc[order].to_dict("records")]


def _own_rates(phenomena: Phenomena) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the error rates by tag that sentences are about, and the significant ones among them."""
    own = phenomena.rates[phenomena.rates["group"] == main_group(phenomena)]
    return own, own[own["p_corrected"] < _SIGNIFICANT]


def _sentence(row: Mapping[Hashable, Any], comparison: Comparison, phenomena: Phenomena) -> str:
    direction = "more" if row["difference"] > 0 else "less"
    gap, low, high = (signed(100 * row[name], 1) for name in ("difference", "low", "high"))
    sentence = (
        f"Texts with {row['tag']} are misclassified {direction} often: {100 * row['rate_with']:.1f} % against "
        f"{100 * row['rate_without']:.1f} % of the others (difference {gap} points, {low} to {high}; "
        f"p {equals_p(row['p_corrected'])}; {row['examples']:,} texts, {100 * row['share']:.1f} %)"
    )
    return f"{sentence}{_for_strategies(comparison, phenomena.rates[phenomena.rates['tag'] == row['tag']])}."


def _by_tag(comparison: Comparison, single: pd.DataFrame) -> list[str]:
    """Return each tag with the strategies for which it is significant and their differences: "number (tfidf -6.1)"."""
    parts = []
    for tag, part in single.groupby("tag", sort=False):
        gaps = [
            f"{comparison.names[row['group']]} {signed(100 * row['difference'], 1)}" for row in part.to_dict("records")
        ]
        parts.append(f"{tag} ({', '.join(gaps)} points)")
    return parts


def _for_strategies(comparison: Comparison, part: pd.DataFrame) -> str:
    """Return the end of a sentence: for which strategies a difference is significant, taken one by one."""
    single = part[part["group"] != EVERY]
    if len(single) < 2:
        return ""
    names = [comparison.names[group] for group in single[single["p_corrected"] < _SIGNIFICANT]["group"]]
    if len(names) == len(single):
        return "; taken one by one, significant for every strategy"
    return f"; taken one by one, significant for {join_names(names) if names else 'no strategy'}"


def length_sentence(comparison: Comparison) -> str:
    """Return a sentence on the trend of errors with length; empty where it cannot be tested."""
    phenomena, errors = comparison.phenomena, comparison.errors
    if phenomena is None or errors is None or not len(phenomena.trends) or not len(errors.by_length):
        return ""
    group = main_group(phenomena)
    trend = phenomena.trends[phenomena.trends["group"] == group].to_dict("records")
    if not trend:
        return ""
    groups = errors.learners if group == EVERY else (group,)
    bins = errors.by_length[errors.by_length["group"].isin(groups)]
    bins = bins.groupby(["shortest", "longest"], sort=True)["rate"].mean().reset_index()
    first, last, unit = bins.iloc[0], bins.iloc[-1], errors.length_unit
    correlation, p = signed(trend[0]["correlation"], 2), equals_p(trend[0]["p_corrected"])
    test = f"Spearman's correlation of length and errors {correlation}, p {p}"
    if trend[0]["p_corrected"] >= _SIGNIFICANT or len(bins) < 2:
        return f"No trend of the error rate with length is shown ({test})."
    ends = [
        f"{100 * part['rate']:.1f} % of texts of {part['shortest']:.0f} to {part['longest']:.0f} {unit}"
        for part in (first, last)
    ]
    rises = trend[0]["correlation"] > 0
    if bins["rate"].idxmax() == (last if rises else first).name:
        subject = f"{'Long' if rises else 'Short'} texts have the highest error rate"
    else:
        subject = f"The error rate {'rises' if rises else 'falls'} with length"
    high, low = reversed(ends) if rises else ends
    tail = _for_strategies(comparison, phenomena.trends)
    return f"{subject}: {high} are misclassified, against {low} ({test}){tail}."


def phenomena_table(phenomena: Phenomena) -> Table:
    """Error rates with and without each tag, on average over the strategies."""
    columns = (
        Column("tag", "phenomenon", TEXT),
        Column("meaning", "cues", LONG_TEXT),
        Column("texts", "texts", COUNT),
        Column("share", "of all", SHARE),
        *_RATES,
    )
    of_main = phenomena.rates[phenomena.rates["group"] == main_group(phenomena)]
    own = {row["tag"]: row for row in of_main.to_dict("records")}
    rows = []
    for tag, mask in phenomena.masks.items():
        cells = _cells(own[tag]) if tag in own else [None] * len(_RATES)
        rows.append([tag, phenomena.meanings[tag], int(mask.sum()), float(mask.mean()), *cells])
    return Table("phenomena", columns, rows)


_RATES = (
    Column("error_rate_with", "error rate with", SHARE),
    Column("error_rate_without", "without", SHARE),
    Column("difference", "difference", SIGNED_SCORE),
    Column("difference", "95 % interval", SIGNED_INTERVAL),
    Column("p_corrected", "p", P_VALUE),
)


def _cells(row: Mapping[Hashable, Any]) -> list[object]:
    ends = (row["low"], row["high"])
    return [row["rate_with"], row["rate_without"], row["difference"], ends, row["p_corrected"]]


def phenomena_by_strategy(comparison: Comparison, phenomena: Phenomena) -> Table:
    """Error rates with and without each tag for each strategy."""
    columns = (
        Column("tag", "phenomenon", TEXT),
        Column("strategy", "strategy", TEXT),
        Column("texts", "texts", COUNT),
        *_RATES,
    )
    rates = phenomena.rates[phenomena.rates["group"] != EVERY]
    rows = [
        [row["tag"], comparison.names[row["group"]], row["examples"], *_cells(row)] for row in rates.to_dict("records")
    ]
    return Table("phenomena-by-strategy", columns, rows)


def length_trend(comparison: Comparison, phenomena: Phenomena) -> Table:
    """Trend of errors with text length for each strategy."""
    columns = (
        Column("strategy", "strategy", TEXT),
        Column("correlation", "Spearman's correlation", SIGNED_SCORE),
        Column("p_value", "p value", P_VALUE),
        Column("p_corrected", "corrected", P_VALUE),
    )
    names = {EVERY: "mean over strategies", **comparison.names}
    rows = [
        [names[row["group"]], row["correlation"], row["p_value"], row["p_corrected"]]
        for row in phenomena.trends.to_dict("records")
    ]
    return Table("length-trend", columns, rows)


def phenomena_chart(phenomena: Phenomena) -> Chart | None:
    """Differences of error rates with and without each tag, on average over the strategies."""
    rows = phenomena.rates[phenomena.rates["group"] == main_group(phenomena)]
    if not len(rows):
        return None
    rows = rows.assign(
        is_significant=rows["p_corrected"] < _SIGNIFICANT,
        tag=[
            f"{show_control_characters(tag)} ({count:,})"
            for tag, count in zip(rows["tag"], rows["examples"], strict=True)
        ],
    ).sort_values("difference", ascending=False)
    colour = alt.when(alt.datum.is_significant).then(alt.value(BEST)).otherwise(alt.value(WORSE))
    shares = [alt.Tooltip(name, format=".1%") for name in ("rate_with", "rate_without", "difference", "low", "high")]
    base = alt.Chart(rows.drop(columns="group").round(4)).encode(
        y=alt.Y("tag:N", sort=list(rows["tag"]), title=None, axis=alt.Axis(labelLimit=220)),
        color=colour,
        tooltip=["tag", *shares, "p_corrected"],
    )
    title = "error rate with minus without, 95 % interval"
    zero = alt.Chart(pd.DataFrame({"zero": [0]})).mark_rule(color=INK, strokeDash=[4, 3]).encode(x="zero:Q")
    intervals = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title=title, axis=alt.Axis(format="+.0%")), x2="high:Q"
    )
    dots = base.mark_circle(size=50, opacity=1).encode(x="difference:Q")
    return (zero + intervals + dots).properties(width=WIDTH, height=alt.Step(20))


def strategies_chart(comparison: Comparison, phenomena: Phenomena) -> Chart:
    """Differences of error rates with and without a tag, by tag and strategy."""
    names = {row.group: comparison.names[row.group] for row in charted_rows(comparison)}
    rows = phenomena.rates[phenomena.rates["group"].isin(list(names))]
    mapped = list(dict.fromkeys(rows["tag"]))[:_MAX_MAPPED]
    rows = rows[rows["tag"].isin(mapped)]
    marks = ["*" if p < _SIGNIFICANT else "" for p in rows["p_corrected"]]
    points = [signed(100 * gap, 0) for gap in rows["difference"]]
    cells = rows.assign(
        strategy=rows["group"].map(names),
        text=[f"{value}{mark}" for value, mark in zip(points, marks, strict=True)],
    )
    shares = [alt.Tooltip(name, format=".1%") for name in ("rate_with", "rate_without", "difference", "low", "high")]
    base = alt.Chart(cells.drop(columns="group").round(4)).encode(
        x=alt.X("strategy:N", sort=list(names.values()), title=None, axis=alt.Axis(labelAngle=-40, labelLimit=140)),
        y=alt.Y("tag:N", sort=mapped, title=None, axis=alt.Axis(labelLimit=160)),
        tooltip=["tag", "strategy", "examples", *shares, "p_corrected"],
    )
    title = alt.Title("error rate with minus without, points", anchor="start", fontSize=11, fontWeight="normal")
    chart = difference_map(base, "difference", "text", _LARGEST)
    return chart.properties(width=alt.Step(44), height=alt.Step(22), title=title)
