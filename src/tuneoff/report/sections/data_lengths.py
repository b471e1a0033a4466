"""Lengths of texts: tables and charts of characters and tokens, by split and class, and of what truncation cuts."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import altair as alt
import pandas as pd

from tuneoff.data.describe import DataDescription
from tuneoff.data.lengths import ACCEPTABLE_CUT, Cut, LengthProfile, Spread, recommended_length
from tuneoff.data.spec import TruncationPolicy
from tuneoff.formats import short_names
from tuneoff.report.chart import COLOURS, HEIGHT, INK, WIDTH, log_axis
from tuneoff.report.section import Block, Chart, Figures, TableBlock, Text, figures_if_any
from tuneoff.tables import COUNT, SHARE, TENTHS, TEXT, Column, Table

_MAX_CLASSES = 20  # in the chart of lengths by class: half of them the longest, half the shortest
_COLUMNS = {"text": "text", "text_pair": "second text"}
_BOX = ("low", "q1", "median", "q3", "high")


def token_profiles(data: DataDescription) -> dict[str, dict[str, LengthProfile]]:
    """Return the lengths in tokens before truncation: encoder -> split. Encoders of earlier versions are left out."""
    profiles = {
        encoder: {split: summary.before for split, summary in splits.items() if summary.before}
        for encoder, splits in data.lengths.items()
    }
    return {encoder: splits for encoder, splits in profiles.items() if splits}


def truncation_blocks(data: DataDescription, truncation: TruncationPolicy) -> list[Block]:
    """Return the lengths in tokens before truncation, and what each max_length cuts."""
    profiles = token_profiles(data)
    encoder, splits = next(iter(profiles.items()))
    text = "Lengths are in tokens, before truncation and with special tokens. Truncated is the share of texts that "
    text += f"are longer than the encoder reads: {truncation.describe()}. {BOXES_TEXT}"
    text += " The charts are of the first encoder." if len(profiles) > 1 else ""
    title = "tokens per example, before truncation"
    charts = {"lengths": histogram(splits, title), "lengths-box": boxes(_split_rows(splits), title)}
    return [
        Text(text),
        TableBlock(lengths(data)),
        *figures_if_any(charts),
        *[
            Text(_recommendation(name, of_encoder, data, truncation, is_only=len(profiles) == 1), is_key=True)
            for name, of_encoder in profiles.items()
        ],
        Text(
            "Share of the texts that each max_length truncates, and share of all tokens that is lost if the first "
            "tokens are kept."
        ),
        Figures({"truncation": truncation_chart(profiles[encoder], truncation)}, table=cuts(profiles)),
    ]


BOXES_TEXT = (
    "Boxes hold the middle half of the examples, whiskers reach the last one within 1.5 times that range, and points "
    "are outliers; their axis is logarithmic."
)


def character_blocks(data: DataDescription) -> list[Block]:
    """Return the lengths in characters: a table, a histogram and box plots with outliers."""
    title = "characters per text"
    rows = [
        row
        for column, splits in data.characters.items()
        for row in _split_rows(splits, f" · {_COLUMNS[column]}" if len(data.characters) > 1 else "")
    ]
    charts = {
        f"characters-{column}": histogram(s, _title(title, column, data)) for column, s in data.characters.items()
    }
    return [TableBlock(characters(data)), *figures_if_any({**charts, "characters-box": boxes(rows, title)})]


def class_blocks(data: DataDescription) -> list[Block]:
    """Return the lengths of each class in train, in tokens if an encoder counted them, else in characters."""
    profiles = token_profiles(data)
    profile, unit = (
        (next(iter(profiles.values()))["train"], "tokens")
        if profiles
        else (data.characters["text"]["train"], "characters")
    )
    text = f"Training texts of each class, in {unit}{' before truncation' if profiles else ''}."
    names = short_names(data.label_names)
    by_median = sorted(
        ((name, spread) for name, spread in zip(names, profile.by_class, strict=True) if spread),
        key=lambda row: -row[1].box[2],
    )
    if len(by_median) > _MAX_CLASSES:
        half = _MAX_CLASSES // 2
        text += f" The chart shows the {half} classes with the longest medians and the {half} with the shortest."
        by_median = by_median[:half] + by_median[-half:]
    chart = boxes(
        [(name, "train", spread) for name, spread in by_median], f"{unit} per training text", has_legend=False
    )
    return [Text(text), Figures({"class-lengths": chart}), TableBlock(class_lengths(data), is_tall=True)]


def _recommendation(
    encoder: str,
    splits: Mapping[str, LengthProfile],
    data: DataDescription,
    truncation: TruncationPolicy,
    is_only: bool,
) -> str:
    """Return a sentence on the max_length that truncates few training texts, and on the present one."""
    cuts, start = splits["train"].cuts, "" if is_only else f"{encoder}: "
    best, last = recommended_length(cuts), cuts[-1]
    lengths = f"the lengths {cuts[0].max_length} to {last.max_length}"
    limit = f"{100 * ACCEPTABLE_CUT:.0f} % of the training texts"
    if best:
        text = f"{start}Of {lengths}, max_length {best.max_length} is the smallest that truncates at most {limit}: "
        text += f"{_percent(best.texts)}{_loss(best)}."
    else:
        text = f"{start}Each of {lengths} truncates more than {limit}; {last.max_length} tokens truncate "
        text += f"{_percent(last.texts)}{_loss(last)}."
        if not data.is_pair:
            text += " long_texts head_tail also reads the end of a long text, windows all of it."
    if best is None or truncation.max_length != best.max_length:
        share = data.lengths[encoder]["train"].truncated
        text += f" The present max_length {truncation.max_length} truncates {_percent(share)}."
    return f"{text} A larger max_length costs only the time of the tokens that it adds: no text is padded to it."


def _loss(cut: Cut) -> str:
    return f", with a loss of {_percent(cut.tokens)} of their tokens" if cut.texts else ""


def _percent(share: float) -> str:
    """Return a share as a percentage; one that is not 0 does not read 0.0 %."""
    if not share:
        return "none"
    return f"{100 * share:.1f} %" if share >= 0.0005 else "less than 0.1 %"


def lengths(data: DataDescription) -> Table:
    """Tokens per example before truncation, and share of truncated examples, for each encoder and split."""
    columns = (
        Column("encoder", "encoder", TEXT),
        Column("split", "split", TEXT),
        *_spread_columns("tokens"),
        Column("truncated_share", "truncated", SHARE),
    )
    rows = [
        [encoder, split, *_spread_cells(profile.all), data.lengths[encoder][split].truncated]
        for encoder, splits in token_profiles(data).items()
        for split, profile in splits.items()
    ]
    return Table("lengths", columns, rows)


def characters(data: DataDescription) -> Table:
    """Characters per text, for each split and, of pairs, each of the two texts."""
    columns = (Column("split", "split", TEXT), Column("text", "text", TEXT), *_spread_columns("characters"))
    rows = [
        [split, _COLUMNS[column], *_spread_cells(profile.all)]
        for column, splits in data.characters.items()
        for split, profile in splits.items()
    ]
    return Table("characters", columns, rows)


def class_lengths(data: DataDescription) -> Table:
    """Lengths of the training texts of each class, in characters and in the tokens of each encoder."""
    units = {
        **{f"characters_{c}": ("characters" + _of(c, data), s["train"]) for c, s in data.characters.items()},
        **{
            f"tokens_{n}": (f"tokens{_by(e, data)}", s["train"])
            for n, (e, s) in enumerate(token_profiles(data).items())
        },
    }
    columns = [Column("label", "label", TEXT), Column("examples", "examples", COUNT)]
    for key, (title, _) in units.items():
        columns += [
            Column(f"{key}_median", f"{title}: median", COUNT),
            Column(f"{key}_p95", "95 %", COUNT),
            Column(f"{key}_max", "longest", COUNT),
        ]
    rows = []
    for label, name in enumerate(data.label_names):
        spreads = [profile.by_class[label] for _, profile in units.values()]
        first = spreads[0]
        cells = [cell for s in spreads for cell in ((s.box[2], s.p95, s.max) if s else (None, None, None))]
        rows.append([name, first.examples if first else 0, *cells])
    return Table("class-lengths", tuple(columns), rows)


def _of(column: str, data: DataDescription) -> str:
    return f" of {_COLUMNS[column]}" if len(data.characters) > 1 else ""


def _by(encoder: str, data: DataDescription) -> str:
    return f" by {encoder}" if len(data.lengths) > 1 else ""


def cuts(profiles: Mapping[str, Mapping[str, LengthProfile]]) -> Table:
    """Shares of texts and tokens that each max_length cuts, for each encoder and split."""
    splits = next(iter(profiles.values()))
    columns = [Column("max_length_tokens", "max_length", COUNT)]
    for split in splits:
        columns += [
            Column(f"{split}_texts_share", f"{split} texts", SHARE),
            Column(f"{split}_tokens_share", f"{split} tokens", SHARE),
        ]
    has_names = len(profiles) > 1
    rows = [
        [
            *([name] if has_names else []),
            at_length[0].max_length,
            *[v for cut in at_length for v in (cut.texts, cut.tokens)],
        ]
        for name, of_encoder in profiles.items()
        for at_length in zip(*[profile.cuts for profile in of_encoder.values()], strict=True)
    ]
    return Table("truncation", (*([Column("encoder", "encoder", TEXT)] if has_names else []), *columns), rows)


def _spread_columns(unit: str) -> tuple[Column, ...]:
    return (
        Column(f"mean_{unit}", f"mean {unit}", TENTHS),
        Column(f"median_{unit}", "median", COUNT),
        Column(f"p95_{unit}", "95th percentile", COUNT),
        Column(f"max_{unit}", "longest", COUNT),
        Column("outliers", "outliers", COUNT),
    )


def _spread_cells(spread: Spread) -> list[float]:
    return [spread.mean, spread.box[2], spread.p95, spread.max, spread.num_outliers]


def _split_rows(splits: Mapping[str, LengthProfile], suffix: str = "") -> list[tuple[str, str, Spread]]:
    return [(f"{split}{suffix}", split, profile.all) for split, profile in splits.items()]


def _title(title: str, column: str, data: DataDescription) -> str:
    return f"{title}{_of(column, data)}"


def boxes(rows: Sequence[tuple[str, str, Spread]], title: str, has_legend: bool = True) -> Chart:
    """Draw a box with its outliers for each row, on a log axis. rows: name, split and lengths."""
    order = [name for name, _, _ in rows]
    table = pd.DataFrame(
        {
            "name": name,
            "split": split,
            **{key: max(1, value) for key, value in zip(_BOX, spread.box, strict=True)},
            "longest": spread.max,
            "outliers": spread.num_outliers,
        }
        for name, split, spread in rows
    )
    points = pd.DataFrame(
        ({"name": name, "length": max(1, length)} for name, _, spread in rows for length in spread.outliers),
        columns=["name", "length"],
    )
    ends, ticks = log_axis([*table["low"], *table["high"], *points["length"]])
    x: dict[str, Any] = {
        "scale": alt.Scale(type="log", domain=ends),
        "axis": alt.Axis(values=ticks, format="~s"),
        "title": title,
    }
    y = alt.Y("name:N", sort=order, title=None, axis=alt.Axis(labelLimit=220))
    base = alt.Chart(table).encode(y=y, tooltip=["name", *_BOX, "longest", "outliers"])
    colour = split_colour(list(dict.fromkeys(split for _, split, _ in rows)), has_legend)
    whiskers = base.mark_rule(color=INK).encode(x=alt.X("low:Q", **x), x2="high:Q")
    bodies = base.mark_bar(size=13).encode(x=alt.X("q1:Q", **x), x2="q3:Q", color=colour)
    medians = base.mark_tick(color="white", size=13, thickness=2).encode(x=alt.X("median:Q", **x))
    outliers = alt.Chart(points).mark_point(size=14, opacity=0.55, filled=True, color=INK)
    outliers = outliers.encode(y=y, x=alt.X("length:Q", **x), tooltip=["name:N", "length:Q"])
    return (outliers + whiskers + bodies + medians).properties(
        width=WIDTH, height=alt.Step(22 if len(rows) < 10 else 17)
    )


def histogram(splits: Mapping[str, LengthProfile], title: str) -> Chart:
    """Draw the lengths of each split as steps; the last one also holds all longer texts."""
    is_clipped = any(profile.all.max > profile.histogram.edges[-1] for profile in splits.values())
    steps = alt.Chart(pd.DataFrame(_steps(splits))).mark_line(interpolate="step-after", strokeWidth=1.8)
    steps = steps.encode(
        x=alt.X("from:Q", title=[title, "(the last step also holds longer ones)"] if is_clipped else title),
        y=alt.Y("share:Q", title="share of the split's examples", axis=alt.Axis(format="%", tickCount=5)),
        color=split_colour(list(splits)),
        tooltip=["split", "from", "to", alt.Tooltip("share", format=".1%")],
    )
    return steps.properties(width=WIDTH, height=HEIGHT)


def _steps(splits: Mapping[str, LengthProfile]) -> Iterator[dict[str, str | float]]:
    for split, profile in splits.items():
        edges, counts = profile.histogram.edges, profile.histogram.examples
        for (start, end), count in zip(pairwise(edges), counts, strict=True):
            yield {"split": split, "from": start, "to": end, "share": round(count / max(1, sum(counts)), 5)}
        yield {"split": split, "from": edges[-1], "to": edges[-1], "share": round(counts[-1] / max(1, sum(counts)), 5)}


def truncation_chart(splits: Mapping[str, LengthProfile], truncation: TruncationPolicy) -> Chart:
    """Draw the share of training texts and tokens that each max_length cuts, and the present max_length."""
    rows = pd.DataFrame(
        {"max_length": cut.max_length, "share of": kind, "cut": round(value, 5)}
        for cut in splits["train"].cuts
        for kind, value in (("training texts", cut.texts), ("their tokens", cut.tokens))
    )
    lengths = sorted({*rows["max_length"], truncation.max_length})
    x = alt.X(
        "max_length:Q",
        title="max_length (dashed: the present one)",
        scale=alt.Scale(type="log", base=2, domain=[lengths[0], lengths[-1]]),
        axis=alt.Axis(values=sorted(set(rows["max_length"])), labelOverlap=True),
    )
    names = ["training texts", "their tokens"]
    lines = alt.Chart(rows).mark_line(point=True)
    lines = lines.encode(
        x=x,
        y=alt.Y("cut:Q", title="share that is cut", axis=alt.Axis(format="%", tickCount=5)),
        color=alt.Color("share of:N", title=None, sort=names, scale=alt.Scale(domain=names, range=list(COLOURS[:2]))),
        tooltip=["max_length", "share of", alt.Tooltip("cut", format=".1%")],
    )
    present = alt.Chart(pd.DataFrame({"max_length": [truncation.max_length]}))
    return (lines + present.mark_rule(strokeDash=[4, 3], color=INK).encode(x=x)).properties(width=WIDTH, height=HEIGHT)


def split_colour(splits: Sequence[str], has_legend: bool = True) -> alt.Color:
    """Return the colour of each split, the same in every chart."""
    scale = alt.Scale(domain=list(splits), range=list(COLOURS[: len(splits)]))
    return alt.Color("split:N", title=None, sort=list(splits), scale=scale, legend=alt.Legend() if has_legend else None)
