"""Words in mistakes: those over-represented in misclassified texts, over all strategies and for each."""

import altair as alt
import pandas as pd

from tuneoff.comparison.errors import Errors
from tuneoff.comparison.result import Comparison
from tuneoff.formats import join_names, shorten, show_control_characters, signed
from tuneoff.report.chart import BEST, INK, WIDTH, WORSE, charted_rows, difference_map
from tuneoff.report.section import Block, Chart, Details, Section, TableBlock, Text, figures_if_any
from tuneoff.tables import COUNT, P_VALUE, SIGNED_HUNDREDTHS, SIGNED_HUNDREDTHS_INTERVAL, TENTHS, TEXT, Column, Table

_MAX_WORDS = 12  # in the chart, on each side of zero
_MAX_MAPPED = 24  # words of the chart of words and strategies
_MAX_LISTED = 25  # rows of the table of words
_MAX_NAMED = 10  # words in a sentence
_SIGNIFICANT = 0.05  # false discovery rate among the words that are called significant
_LARGEST = 1.5  # log-odds ratio of the strongest colour


def section(comparison: Comparison) -> Section | None:
    """Return the words in mistakes; None without test texts."""
    errors = comparison.errors
    if errors is None or not len(errors.words):
        return None
    text = (
        "Words that are over-represented in misclassified texts (right of the line) or under-represented (left), over "
        "all strategies that use the text: log-odds ratio with an informative Dirichlet prior, which corrects for how "
        f"frequent a word is. {_significant_words(errors)}"
    )
    blocks: list[Block] = [Text(text), *figures_if_any({"words": word_chart(errors.words)})]
    blocks += [Details("The most significant words", [TableBlock(words(errors), is_tall=True, is_page_only=True)])]
    if len(errors.learners) > 1 and len(errors.words_by_group):
        by_strategy = words_by_strategy(comparison, errors)
        blocks += [
            Text(
                "The same for each strategy: log-odds ratios of the words that differ most for any of them; * is "
                "significant at a false discovery rate of 5 % over all words and strategies."
            ),
            Text(_shared_words(comparison, errors), is_page_only=True),
            *figures_if_any({"words-by-strategy": word_map(comparison, errors)}),
            Details("Words by strategy", [TableBlock(by_strategy, is_tall=True, is_page_only=True)]),
        ]
    return Section("words", "Words in mistakes", blocks, menu="Words")


def _significant_words(errors: Errors) -> str:
    count, rate = int((errors.words["q"] < _SIGNIFICANT).sum()), f"{100 * _SIGNIFICANT:.0f} %"
    if count == 0:
        return f"No word is significant at a false discovery rate of {rate}: among many words, some differ by chance."
    verb = "word is" if count == 1 else "words are"
    return f"{count:,} {verb} significant at a false discovery rate of {rate}, shown in colour."


def _shared_words(comparison: Comparison, errors: Errors) -> str:
    """Return a sentence on the words that are over-represented for several strategies, and those for one alone."""
    table = errors.words_by_group
    over = table[(table["q"] < _SIGNIFICANT) & (table["log_odds"] > 0)]
    if not len(over):
        return "No word is significantly over-represented for a single strategy."
    counts = over.groupby("word", sort=False)["group"].count()
    several, alone = counts[counts > 1], counts[counts == 1]
    parts = []
    if len(several):
        named = [f"{_shown(word)} ({count})" for word, count in several.head(_MAX_NAMED).items()]
        parts.append(
            f"Over-represented in the mistakes of several strategies (of {len(errors.learners)}): {join_names(named)}."
        )
    if len(alone):
        owners = over.set_index("word")["group"]
        named = [f"{_shown(word)} ({comparison.names[owners[word]]})" for word in alone.index[:_MAX_NAMED]]
        parts.append(f"Of one strategy alone: {join_names(named)}.")
    return " ".join(parts)


def _shown(word: object) -> str:
    return show_control_characters(shorten(str(word), 32))


def words(errors: Errors) -> Table:
    """Words over- or under-represented in misclassified texts, most significant first."""
    columns = (
        Column("word", "word", TEXT),
        Column("log_odds", "log-odds", SIGNED_HUNDREDTHS),
        Column("log_odds", "95 % interval", SIGNED_HUNDREDTHS_INTERVAL),
        Column("false_discovery_rate", "false discovery rate", P_VALUE),
        Column("texts", "texts", COUNT),
        Column("misclassified_texts", "misclassified", TENTHS),
    )
    rows = [
        [str(row["word"]), row["log_odds"], (row["low"], row["high"]), row["q"], row["texts"], row["in_errors"]]
        for row in errors.words.head(_MAX_LISTED).to_dict("records")
    ]
    return Table("words", columns, rows)


def words_by_strategy(comparison: Comparison, errors: Errors) -> Table:
    """Words over- or under-represented in the mistakes of each strategy."""
    columns = (
        Column("word", "word", TEXT),
        Column("strategy", "strategy", TEXT),
        Column("log_odds", "log-odds", SIGNED_HUNDREDTHS),
        Column("log_odds", "95 % interval", SIGNED_HUNDREDTHS_INTERVAL),
        Column("false_discovery_rate", "false discovery rate", P_VALUE),
        Column("texts", "texts", COUNT),
        Column("misclassified_texts", "misclassified", TENTHS),
    )
    rows = [
        [
            str(r["word"]),
            comparison.names[r["group"]],
            r["log_odds"],
            (r["low"], r["high"]),
            r["q"],
            r["texts"],
            r["in_errors"],
        ]
        for r in errors.words_by_group.to_dict("records")
    ]
    return Table("words-by-strategy", columns, rows)


def word_chart(table: pd.DataFrame) -> Chart:
    """Log-odds ratios of the most significant words, over- and under-represented."""
    over, under = table[table["log_odds"] > 0].head(_MAX_WORDS), table[table["log_odds"] < 0].head(_MAX_WORDS)
    rows = pd.concat([over, under]).sort_values("log_odds", ascending=False)
    names = rows["word"].map(_shown)
    rows = rows.assign(word=names, is_significant=rows["q"] < _SIGNIFICANT)
    rows = rows[["word", "log_odds", "low", "high", "texts", "in_errors", "is_significant"]].round(3)
    colour = alt.when(alt.datum.is_significant).then(alt.value(BEST)).otherwise(alt.value(WORSE))
    base = alt.Chart(rows).encode(
        y=alt.Y("word:N", sort=list(rows["word"]), title=None, axis=alt.Axis(labelLimit=160)),
        color=colour,
        tooltip=[
            "word",
            "texts",
            alt.Tooltip("in_errors", title="misclassified", format=".1f"),
            "log_odds",
            "low",
            "high",
        ],
    )
    zero = alt.Chart(pd.DataFrame({"zero": [0]})).mark_rule(color=INK, strokeDash=[4, 3]).encode(x="zero:Q")
    title = "log-odds ratio, misclassified against other texts, 95 % interval"
    intervals = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title), x2="high:Q")
    dots = base.mark_circle(size=50, opacity=1).encode(x="log_odds:Q")
    return (zero + intervals + dots).properties(width=WIDTH, height=alt.Step(17))


def word_map(comparison: Comparison, errors: Errors) -> Chart:
    """Log-odds ratios by word and strategy."""
    names = {row.group: comparison.names[row.group] for row in charted_rows(comparison)}
    table = errors.words_by_group
    mapped = list(dict.fromkeys(table["word"]))[:_MAX_MAPPED]
    cells = table[table["group"].isin(list(names)) & table["word"].isin(mapped)]
    marks = ["*" if q < _SIGNIFICANT else "" for q in cells["q"]]
    cells = cells.assign(
        strategy=cells["group"].map(names),
        word=cells["word"].map(_shown),
        text=[f"{signed(odds, 1)}{mark}" for odds, mark in zip(cells["log_odds"], marks, strict=True)],
    )
    mean = cells.groupby("word", sort=False)["log_odds"].mean()
    base = alt.Chart(cells.drop(columns="group").round(3)).encode(
        x=alt.X("strategy:N", sort=list(names.values()), title=None, axis=alt.Axis(labelAngle=-40, labelLimit=140)),
        y=alt.Y(
            "word:N", sort=list(mean.sort_values(ascending=False).index), title=None, axis=alt.Axis(labelLimit=160)
        ),
        tooltip=[
            "word",
            "strategy",
            "log_odds",
            "low",
            "high",
            "texts",
            alt.Tooltip("in_errors", title="misclassified"),
        ],
    )
    chart = difference_map(base, "log_odds", "text", _LARGEST)
    title = alt.Title(
        "log-odds ratio, misclassified against other texts", anchor="start", fontSize=11, fontWeight="normal"
    )
    return chart.properties(width=alt.Step(46), height=alt.Step(20), title=title)
