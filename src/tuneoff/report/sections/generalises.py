"""What generalises: scores on test sets from elsewhere, the drop, and whether the order and the pick hold there."""

from pathlib import Path

import altair as alt
import pandas as pd

from tuneoff.comparison.other_tests import Elsewhere, ElsewhereRow
from tuneoff.comparison.result import Comparison
from tuneoff.formats import fixed, join_names, p_value
from tuneoff.report.chart import WIDTH, charted_rows, score_axis, strategy_colour
from tuneoff.report.section import Block, Bullets, Chart, Heading, Section, TableBlock, Text, figures_if_any
from tuneoff.scoring.metrics import direction, display_name, has_points, points
from tuneoff.tables import COUNT, ESTIMATE, P_VALUE, SIGNED_ESTIMATE, TEXT, Column, Table, csv_key

_OWN = "own test"  # name of the study's own test examples in the chart


def section(comparison: Comparison) -> Section | None:
    """Return the scores on test sets from elsewhere; None without them."""
    tests = [test for test in comparison.elsewhere if test.rows or test.missing]
    if not tests:
        return None
    blocks: list[Block] = [Text(sentence, is_key=True) for test in tests for sentence in [pick_text(comparison, test)]]
    blocks += [Text(_explanation(comparison))]
    blocks += figures_if_any({"generalises": score_chart(comparison)})
    for test in tests:
        source = test.source if ":" in test.source else Path(test.source).name
        blocks += [Heading(f"{test.name}: {test.examples:,} examples of {source}")]
        blocks += [Text(text) for text in (order_text(comparison, test), _final_text(comparison, test)) if text]
        notes = [*test.notes, *_missing_notes(comparison, test)]
        blocks += [Bullets([f"{note[0].upper()}{note[1:]}." for note in notes])] if notes else []
        blocks += [TableBlock(scores(comparison, test))] if test.rows else []
    return Section("generalises", "What generalises", blocks, menu="Generalises")


def _explanation(comparison: Comparison) -> str:
    own = "all labelled examples, each predicted by a model that did not train on it"
    own = own if comparison.data.folds else "the study's own test examples"
    text = (
        f"{display_name(comparison.metric).capitalize()} of the same trained models on {own}, and on test sets from "
        "elsewhere, which took no part in training or selection; with 95 % confidence intervals over examples and "
        f"{comparison.repeat}s. Strategies are compared on the same examples of one test set. A drop is between "
        "different examples, so that it also holds how hard each set is."
    )
    if comparison.data.folds:
        text += " The models of the folds each predict the whole test set, and their scores are averaged."
    return text


def pick_text(comparison: Comparison, test: Elsewhere) -> str:
    """Return sentences on the score of the study's pick on a test set, its drop, and the pick there."""
    names, metric = comparison.names, comparison.metric
    own, there = test.row(test.own_pick), test.row(test.picked)
    if not test.rows:
        return f"No strategy has predictions of {test.name}."
    subject, is_pick = (own, True) if own else (test.rows[0], False)
    changed = "falls" if subject.drop >= 0 else "rises"
    text = (
        f"On {test.name}, {display_name(metric)} of {names[subject.group]} {changed} from {fixed(subject.own_score)} "
    )
    text += f"to {fixed(subject.score)}: {_drop(subject, metric)}."
    if subject.drop_interval[0] <= 0 <= subject.drop_interval[1]:
        text += " The change may be chance."
    if not is_pick:
        return text
    if test.picked == test.own_pick:
        return f"{text} It would be picked there too."
    if there is None:
        return f"{text} No strategy is shown to be better there than the most frequent class."
    if there.score == subject.score:
        return f"{text} {names[there.group]} would be picked there, with the same score."
    gap = points(abs(there.score - subject.score), metric)
    is_better = direction(metric) * (there.score - subject.score) > 0
    text += f" {names[there.group]} would be picked there: {gap} {'better' if is_better else 'worse'}"
    if there.rank == 1 and is_better:
        kind = "significant" if subject.p_value < 0.05 else "not significant"
        return f"{text} ({kind} after Holm's correction, p {_p(subject.p_value)})."
    return f"{text}, for less {comparison.costs[comparison.study.cost].name}." if not is_better else f"{text}."


def _p(value: float) -> str:
    text = p_value(value)
    return text if text.startswith("<") else f"= {text}"


def _drop(row: ElsewhereRow, metric: str) -> str:
    """Phrase such as "4.1 points lower (95 % interval 1.0 to 7.2)"."""
    factor, digits = (100, 1) if has_points(metric) else (1, 3)  # as points() writes differences
    ends = row.drop_interval if row.drop >= 0 else (-row.drop_interval[1], -row.drop_interval[0])
    low, high = (fixed(factor * end, digits) for end in ends)
    word = "worse" if row.drop >= 0 else "better"
    return f"{points(abs(row.drop), metric)} {word} (95 % interval {low} to {high})"


def order_text(comparison: Comparison, test: Elsewhere) -> str:
    """Return a sentence on the order of the strategies on a test set; empty for fewer than two."""
    learners = {row.group for row in comparison.rows if row.learns}
    rows = [row for row in test.rows if row.group in learners]
    if len(rows) < 2:
        return ""
    here = [comparison.names[row.group] for row in sorted(rows, key=lambda row: row.own_rank)]
    there = [comparison.names[row.group] for row in rows]
    if here == there:
        return f"The order of the {len(rows)} strategies that use the text is the same on both."
    if len(rows) > 6:
        moved = sum(a != b for a, b in zip(here, there, strict=True))
        return f"{moved} of the {len(rows)} strategies that use the text have another place than on the own test."
    return f"The order is {join_names(there)}; on the study's own test it is {join_names(here)}."


def _final_text(comparison: Comparison, test: Elsewhere) -> str:
    if test.final is None or comparison.final is None:
        return ""
    score, low, high = map(fixed, test.final)
    return (
        f"The model that is handed over, {comparison.final.label} trained on all labelled examples, has "
        f"{display_name(comparison.metric)} {score} ({low} to {high}) on it."
    )


def _missing_notes(comparison: Comparison, test: Elsewhere) -> list[str]:
    if not test.missing:
        return []
    labels = join_names([comparison.names[group] for group in test.missing])
    return [f"there are no predictions by {labels}; tuneoff run {comparison.folder} makes them"]


def scores(comparison: Comparison, test: Elsewhere) -> Table:
    """Scores, drops and differences on one test set."""
    columns = (
        Column("rank", "place", COUNT),
        Column("strategy", "strategy", TEXT),
        Column("score", f"{display_name(comparison.metric)} on {test.name}", ESTIMATE),
        Column("own_rank", "own place", COUNT),
        Column("own_score", "own test", ESTIMATE),
        Column("drop", "drop", SIGNED_ESTIMATE),
        Column("difference", "to the best there", SIGNED_ESTIMATE),
        Column("p_value", "p", P_VALUE),
    )
    intervals = {row.group: row.interval for row in comparison.rows}
    rows = [
        [
            row.rank,
            comparison.names[row.group],
            (row.score, *row.interval),
            row.own_rank,
            (row.own_score, *intervals[row.group]),
            (row.drop, *row.drop_interval),
            (row.difference, *row.difference_interval) if row.rank > 1 else None,
            row.p_value if row.rank > 1 else None,
        ]
        for row in test.rows
    ]
    return Table(f"generalises-{csv_key(test.name)}", columns, rows)


def score_chart(comparison: Comparison) -> Chart | None:
    """Scores on each test set, one dot per strategy; None without predictions."""
    names = {row.group: comparison.names[row.group] for row in charted_rows(comparison)}
    own = [(_OWN, row.group, row.score, *row.interval) for row in comparison.rows if not row.is_external]
    there = [(t.name, row.group, row.score, *row.interval) for t in comparison.elsewhere for row in t.rows]
    rows = pd.DataFrame(own + there, columns=["test", "group", "score", "low", "high"]).round(4)
    rows = rows[rows["group"].isin(list(names))].assign(strategy=lambda frame: frame["group"].map(names))
    if not there or not len(rows):
        return None
    numbers = [alt.Tooltip(name, format=".3f") for name in ("score", "low", "high")]
    base = alt.Chart(rows.drop(columns="group")).encode(
        y=alt.Y(
            "test:N", sort=[_OWN, *[t.name for t in comparison.elsewhere]], title=None, axis=alt.Axis(labelLimit=160)
        ),
        yOffset=alt.YOffset("strategy:N", sort=list(names.values())),
        color=strategy_colour(comparison),
        tooltip=[alt.Tooltip("test"), alt.Tooltip("strategy"), *numbers],
    )
    axis = score_axis(f"{display_name(comparison.metric)}, 95 % interval")
    intervals = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", axis=alt.Axis(tickCount=6), **axis), x2="high:Q")
    return (intervals + base.mark_circle(size=50, opacity=1).encode(x="score:Q")).properties(
        width=WIDTH, height=alt.Step(11)
    )
