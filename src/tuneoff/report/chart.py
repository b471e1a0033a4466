"""Parts that charts of several sections share: sizes, colours, which strategies they show, box plots, heat maps."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import altair as alt
import pandas as pd

from tuneoff.comparison.result import Comparison
from tuneoff.comparison.rows import STANDINGS, Row
from tuneoff.report.section import Chart

alt.data_transformers.disable_max_rows()  # the page's size is limited as a whole, not chart by chart

WIDTH, HEIGHT = 400, 240
MAX_STRATEGIES = 10  # in charts with a line, a box or a panel per strategy: the best ones
INK = "#777777"  # readable on white and on near-black
BEST, EQUIVALENT, UNDECIDED, WORSE = "#0072b2", "#56b4e9", "#cc79a7", "#a5a5a5"
# Okabe & Ito, distinct without colour vision; without black, which would vanish on a dark page
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#b8a800", "#8c6bb1", "#8c564b", "#7f7f7f")
Scheme = Literal["blues", "greens", "oranges", "purples"]  # of Vega, from light to dark
MAX_LABELLED_CELLS = 12  # rows of a heat map up to which cells hold their number


def charted_rows(comparison: Comparison) -> Sequence[Row]:
    """Return the rows that charts with a part per strategy show: the best of those whose predictions use the text."""
    learners = comparison.errors.learners if comparison.errors else ()
    return [row for row in comparison.rows if row.group in learners][:MAX_STRATEGIES]


def left_out_note(comparison: Comparison) -> str:
    """Return a sentence, with a space before it, about the strategies that they leave out; empty if none."""
    num_hidden = len(comparison.rows) - len(charted_rows(comparison))
    if comparison.errors is None or num_hidden == 0:
        return ""
    if len(comparison.errors.learners) > MAX_STRATEGIES:
        return f" Charts with a part for each strategy show the best {MAX_STRATEGIES}; the tables hold all."
    return " Charts of what is predicted leave out strategies that do not use the text."


def strategy_colour(comparison: Comparison, has_legend: bool = True, has_imported: bool = False) -> alt.Color:
    """Return the colour of each strategy, the same in every chart. has_imported: of imported logs too."""
    names = [comparison.names[row.group] for row in charted_rows(comparison)]
    names += [imported.title for imported in comparison.imported] if has_imported else []
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(names))]
    scale = alt.Scale(domain=names, range=colours)
    legend = alt.Legend(columns=4, symbolLimit=0) if has_legend else None
    return alt.Color("strategy:N", title=None, scale=scale, legend=legend)


def standing_colour() -> alt.Color:
    """Return the colour of each standing against the best."""
    scale = alt.Scale(domain=list(STANDINGS), range=[BEST, EQUIVALENT, UNDECIDED, WORSE])
    return alt.Color("standing:N", title=None, scale=scale)


def score_axis(title: str) -> dict[str, Any]:
    """Return the properties of an axis of scores, which need not start at zero."""
    return {"title": title, "scale": alt.Scale(zero=False)}


def log_axis(values: Sequence[float], max_ticks: int = 7) -> tuple[list[float], list[float]]:
    """Return the ends and the ticks of a log axis: at 1, 2 and 5 times powers of ten, at least two.

    Of many, powers of ten alone.

    >>> log_axis([1.2, 1.7])
    ([1.0, 2.0], [1.0, 2.0])
    >>> log_axis([3.0, 40.0])
    ([2.0, 50.0], [2.0, 5.0, 10.0, 20.0, 50.0])
    >>> log_axis([0.2, 3000.0])
    ([0.2, 5000.0], [1.0, 10.0, 100.0, 1000.0])
    """

    def value(index: int) -> float:
        return float(f"{(1, 2, 5)[index % 3]}e{index // 3}")

    start = 3 * math.floor(math.log10(min(values)))
    low = max((index for index in range(start, start + 4) if value(index) <= min(values)), default=start - 1)
    high = next(index for index in itertools.count(low) if value(index) >= max(values))
    low, high = (low - 1, high + 1) if low == high else (low, high)
    every = range(low, high + 1)
    ticks = every if len(every) <= max_ticks else [index for index in every if index % 3 == 0]
    return [value(low), value(high)], [value(index) for index in ticks]


def box_plot(
    boxes: pd.DataFrame,
    category: str,
    order: list[str],
    title: str,
    colour: alt.Color,
    domain: tuple[float, float] | None = None,
) -> Chart:
    """Draw horizontal boxes, one per row. boxes: columns `category`, low, q1, median, q3, high. domain: of the axis."""
    scale = alt.Scale(domain=list(domain)) if domain else alt.Scale()
    five = [alt.Tooltip(name, format=",.3~f") for name in ("low", "q1", "median", "q3", "high")]
    base = alt.Chart(boxes).encode(
        y=alt.Y(f"{category}:N", sort=order, title=None, axis=alt.Axis(labelLimit=220)), tooltip=[category, *five]
    )
    whiskers = base.mark_rule(color=INK).encode(x=alt.X("low:Q", title=title, scale=scale), x2="high:Q")
    bodies = base.mark_bar(size=13).encode(x="q1:Q", x2="q3:Q", color=colour)
    medians = base.mark_tick(color="white", size=13, thickness=2).encode(x="median:Q")
    return (whiskers + bodies + medians).properties(width=WIDTH, height=alt.Step(24))


def heat_map(
    base: alt.Chart,
    value: str,
    number_format: str,
    scheme: Scheme,
    is_labelled: bool,
    highest: float = 1.0,
    dy: int = 0,
) -> Chart:
    """Draw cells coloured by a value from 0 to highest, with its number if there is room. dy: moves the number."""
    cells = base.mark_rect().encode(
        color=alt.Color(f"{value}:Q", scale=alt.Scale(scheme=scheme, domain=[0, highest]), legend=None)
    )
    if not is_labelled:
        return cells
    ink = alt.when(alt.datum[value] > 0.6 * highest).then(alt.value("white")).otherwise(alt.value("#222222"))
    numbers = base.mark_text(fontSize=11, dy=dy).encode(text=alt.Text(f"{value}:Q", format=number_format), color=ink)
    return cells + numbers


def difference_map(base: alt.Chart, value: str, text: str, largest: float) -> Chart:
    """Draw cells coloured by a value from -largest (blue) over 0 (grey) to largest (orange), with a text in each."""
    scale = alt.Scale(domain=[-largest, 0, largest], range=["#0072b2", "#f0f0f0", "#d55e00"], clamp=True)
    cells = base.mark_rect().encode(color=alt.Color(f"{value}:Q", scale=scale, legend=None))
    is_dark = abs(alt.datum[value]) > 0.7 * largest
    ink = alt.when(is_dark).then(alt.value("white")).otherwise(alt.value("#222222"))
    return cells + base.mark_text(fontSize=11).encode(text=f"{text}:N", color=ink)
