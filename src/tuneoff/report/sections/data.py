"""Data: splits, class balance, lengths, sample texts and what the checks found."""

from collections.abc import Mapping

import altair as alt
import pandas as pd

from tuneoff.comparison.result import Comparison
from tuneoff.data.describe import DataDescription, LengthSummary, SplitSummary
from tuneoff.data.spec import TruncationPolicy
from tuneoff.formats import short_names
from tuneoff.report.chart import COLOURS, HEIGHT, WIDTH, box_plot
from tuneoff.report.section import (
    Block,
    Bullets,
    Chart,
    Details,
    Heading,
    Section,
    TableBlock,
    Text,
    figures_if_any,
    table_if_any,
)
from tuneoff.report.sections.data_lengths import (
    BOXES_TEXT,
    character_blocks,
    class_blocks,
    token_profiles,
    truncation_blocks,
)
from tuneoff.report.sections.data_tokens import token_blocks
from tuneoff.report.sections.data_words import vocabulary_blocks
from tuneoff.tables import COUNT, LONG_TEXT, SHARE, TENTHS, TEXT, Column, Table

_MAX_LABELS = 60  # in the chart of labels by split


def section(comparison: Comparison) -> Section:
    """Return the description of a comparison's data."""
    return data_section(comparison.data, comparison.study.recipe.truncation)


def data_section(data: DataDescription, truncation: TruncationPolicy) -> Section:
    """Return the description of a dataset."""
    blocks = _overview_blocks(data, has_samples=False)
    blocks += _length_blocks(data, truncation)
    if data.first_examples:
        # texts of the dataset, which may not be published
        blocks += [Details("Some training examples", [_samples_block(data)])]
    if data.token_examples:
        blocks += [Details("Tokens of some examples", token_blocks(data.token_examples))]
    if data.vocabulary:
        blocks += [Details("Vocabulary and words by class", vocabulary_blocks(data.vocabulary, has_charts=False))]
    return Section("data", "Data", blocks)


def data_sections(data: DataDescription, truncation: TruncationPolicy) -> list[Section]:
    """Return the description of a dataset on a page of its own: what a report folds away is open."""
    sections = [Section("data", "Data", _overview_blocks(data))]
    if data.lengths:
        sections += [Section("lengths", "Lengths and truncation", _token_length_blocks(data, truncation))]
    if data.characters:
        sections += [Section("characters", "Lengths in characters", [Text(BOXES_TEXT), *character_blocks(data)])]
        sections += [Section("classes", "Lengths by class", class_blocks(data))]
    if data.token_examples:
        sections += [Section("tokens", "Tokens of examples", token_blocks(data.token_examples), menu="Tokens")]
    if data.vocabulary:
        sections += [Section("vocabulary", "Vocabulary", vocabulary_blocks(data.vocabulary, has_charts=True))]
    return sections


def _overview_blocks(data: DataDescription, has_samples: bool = True) -> list[Block]:
    """Return the findings, the class balance and the first examples."""
    text = (
        "Class balance in each split, how the splits were made, and what the checks for duplicates, leakage between "
        "splits, contradicting labels and rare classes found."
    )
    if len(data.label_names) > _MAX_LABELS:
        text += f" The chart shows the first {_MAX_LABELS} labels."
    findings = [finding.line for finding in data.findings] or [
        "The checks found no duplicates, leakage, contradicting labels or rare classes."
    ]
    blocks: list[Block] = [Text(text), Bullets([*data.notes, *findings, *data.heads.values()])]
    blocks += figures_if_any({"labels": label_chart(data)}, labels(data))
    if has_samples and data.first_examples:
        blocks += [Heading("First training examples of each class"), _samples_block(data)]
    return blocks


def _samples_block(data: DataDescription) -> TableBlock:
    return TableBlock(samples(data), is_tall=True, is_page_only=True, has_files=False)


def _length_blocks(data: DataDescription, truncation: TruncationPolicy) -> list[Block]:
    """Return the lengths in tokens, and behind summaries those in characters and by class."""
    blocks: list[Block] = []
    if data.lengths:
        blocks += [Heading("Lengths and truncation"), *_token_length_blocks(data, truncation)]
    if data.characters:
        blocks += [Details("Lengths in characters", [Text(BOXES_TEXT), *character_blocks(data)])]
        blocks += [Details("Lengths by class", class_blocks(data))]
    return blocks


def _token_length_blocks(data: DataDescription, truncation: TruncationPolicy) -> list[Block]:
    if len(token_profiles(data)) == len(data.lengths):
        return truncation_blocks(data, truncation)
    # an earlier version stored the lengths of some encoders, and only those after truncation
    return [Text(_lengths_text(data, truncation)), *table_if_any(lengths(data)), *figures_if_any(length_charts(data))]


def _lengths_text(data: DataDescription, truncation: TruncationPolicy) -> str:
    text = (
        "Lengths are in tokens, after truncation. The last column is the share of truncated examples. Boxes hold the "
        "middle half of the examples, whiskers reach the last one within 1.5 times that range."
    )
    text += " The charts are of the first encoder." if len(data.lengths) > 1 else ""
    return f"{text} Of each text the encoder reads {truncation.describe()}."


def labels(data: DataDescription) -> Table:
    """Examples of each label in each split."""
    splits = data.splits
    columns = (Column("label", "label", TEXT), *[Column(f"{name}_examples", name, COUNT) for name in splits])
    rows = [[name, *[split.labels[i] for split in splits.values()]] for i, name in enumerate(data.label_names)]
    return Table("data", columns, rows, total=["all", *[split.examples for split in splits.values()]])


def lengths(data: DataDescription) -> Table:
    """Tokens per example after truncation and share of truncated examples, for each encoder and split."""
    columns = (
        Column("encoder", "encoder", TEXT),
        Column("split", "split", TEXT),
        Column("mean_tokens", "mean tokens", TENTHS),
        Column("median_tokens", "median", COUNT),
        Column("p95_tokens", "95th percentile", COUNT),
        Column("max_tokens", "longest", COUNT),
        Column("truncated_share", "truncated", SHARE),
    )
    rows = [
        [model, split, summary.mean, summary.median, summary.p95, summary.max, summary.truncated]
        for model, splits in data.lengths.items()
        for split, summary in splits.items()
    ]
    return Table("lengths", columns, rows)


def samples(data: DataDescription) -> Table:
    """First training examples of each label."""
    columns = [Column("label", "label", TEXT), Column("text", "text", LONG_TEXT)]
    if data.is_pair:
        columns.append(Column("text_pair", "second text", LONG_TEXT))
    rows = [[example[column.key] for column in columns] for example in data.first_examples]
    return Table("samples", tuple(columns), rows)


def label_chart(data: DataDescription) -> Chart:
    """Share of each label in each split."""
    splits, names = data.splits, short_names(data.label_names)
    rows = pd.DataFrame(
        {"split": split, "label": names[i], "examples": count, "share": round(count / max(1, summary.examples), 4)}
        for split, summary in splits.items()
        for i, count in enumerate(summary.labels[:_MAX_LABELS])
    )
    bars = alt.Chart(rows).mark_bar()
    bars = bars.encode(
        y=alt.Y("label:N", sort=names, title=None, axis=alt.Axis(labelLimit=220)),
        yOffset=alt.YOffset("split:N", sort=list(splits)),
        x=alt.X("share:Q", title="share of the split's examples", axis=alt.Axis(format="%", tickCount=5)),
        color=_split_colour(splits),
        tooltip=["split", "label", "examples", alt.Tooltip("share", format=".1%")],
    )
    return bars.properties(width=WIDTH, height=alt.Step(9 if len(names) <= 12 else 4))


def length_charts(data: DataDescription) -> dict[str, Chart]:
    """Tokens per example for the first encoder: a histogram and a box for each split."""
    splits = next(iter(data.lengths.values()), {})
    if not splits:
        return {}
    title = "tokens per example, after truncation"
    steps = alt.Chart(_histogram_rows(splits)).mark_line(interpolate="step-after", strokeWidth=1.8)
    steps = steps.encode(
        x=alt.X("from:Q", title=title),
        y=alt.Y("share:Q", title="share of the split's examples", axis=alt.Axis(format="%", tickCount=5)),
        color=_split_colour(splits),
        tooltip=["split", "from", "to", alt.Tooltip("share", format=".1%")],
    )
    boxes = pd.DataFrame(
        {"split": split, **dict(zip(("low", "q1", "median", "q3", "high"), summary.box, strict=True))}
        for split, summary in splits.items()
    )
    return {
        "lengths": steps.properties(width=WIDTH, height=HEIGHT),
        "lengths-box": box_plot(boxes, "split", list(splits), title, _split_colour(splits)),
    }


def _histogram_rows(splits: Mapping[str, LengthSummary]) -> pd.DataFrame:
    rows = []
    for split, summary in splits.items():
        edges, counts = summary.histogram.edges, summary.histogram.examples
        for start, end, count in zip(edges[:-1], edges[1:], counts, strict=True):
            rows.append({"split": split, "from": start, "to": end, "share": round(count / max(1, sum(counts)), 5)})
    return pd.DataFrame(rows)


def _split_colour(splits: Mapping[str, SplitSummary | LengthSummary]) -> alt.Color:
    scale = alt.Scale(domain=list(splits), range=list(COLOURS[: len(splits)]))
    return alt.Color("split:N", title=None, sort=list(splits), scale=scale)
