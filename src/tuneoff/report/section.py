"""Sections of a report and the blocks that they consist of.

A section is built from a Comparison by one module of report/sections. The page, the Markdown report, and the files of
tables and figures only iterate over sections: a new table or chart is a change of its section's module alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import altair as alt

from tuneoff.data.pieces import Piece
from tuneoff.report.examples import BrowserData
from tuneoff.tables import Table

Chart = alt.Chart | alt.LayerChart | alt.FacetChart


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    text: str
    is_key: bool = False  # the conclusion of a section, set apart from its explanations
    is_page_only: bool = False  # about the page itself: how to use it, or its colours


@dataclass(frozen=True)
class Heading:
    """Heading of a part of a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Bullets:
    """A list."""

    kind: ClassVar[str] = "bullets"
    items: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Preformatted text, on the page only."""

    kind: ClassVar[str] = "code"
    text: str


@dataclass(frozen=True)
class ChartMenu:
    """Charts of which one shows, chosen from a menu. Keys are the names of their files."""

    label: str  # of the menu
    names: Mapping[str, str]  # chart -> its entry in the menu
    charts: Mapping[str, Chart]
    selected: str  # the chart that shows first, and in Markdown


@dataclass(frozen=True)
class Figures:
    """Charts side by side, with a menu of more charts or a small table. Keys are the names of their files."""

    kind: ClassVar[str] = "figures"
    charts: Mapping[str, Chart]
    menu: ChartMenu | None = None
    table: Table | None = None


@dataclass(frozen=True)
class TableBlock:
    """A table."""

    kind: ClassVar[str] = "table"
    table: Table
    is_tall: bool = False  # scrolls within its own height on the page
    # not in report.md, which is published: tables that contain texts of the dataset
    is_page_only: bool = False
    has_files: bool = True  # in tables/


@dataclass(frozen=True)
class Examples:
    """The browser of test examples, on the page only."""

    kind: ClassVar[str] = "examples"
    text: str
    data: BrowserData
    length_unit: str


@dataclass(frozen=True)
class TokenStrip:
    """Tokens of an example in a row, on the page only: pieces over their ids, truncated ones struck through."""

    kind: ClassVar[str] = "tokens"
    caption: str
    pieces: Sequence[Piece]


@dataclass(frozen=True)
class Details:
    """Blocks behind a summary that opens them."""

    kind: ClassVar[str] = "details"
    summary: str
    blocks: Sequence["Block"]


Block = Text | Heading | Bullets | Code | Figures | TableBlock | Examples | TokenStrip | Details


@dataclass(frozen=True)
class Section:
    """A part of the report with a heading of its own."""

    key: str  # anchor on the page
    heading: str
    blocks: Sequence[Block]
    menu: str = field(default="")  # entry in the page's navigation, if not the heading

    def every_block(self) -> Iterator[Block]:
        """Yield every block, also those inside details."""
        yield from _flatten(self.blocks)

    def tables(self) -> Iterator[Table]:
        """Yield every table that has files."""
        for block in self.every_block():
            match block:
                case TableBlock(has_files=True, table=table) | Figures(table=Table() as table):
                    yield table

    def charts(self) -> Iterator[tuple[str, Chart]]:
        """Yield every chart with its name."""
        for block in self.every_block():
            if isinstance(block, Figures):
                yield from block.charts.items()
                yield from block.menu.charts.items() if block.menu else ()


def _flatten(blocks: Sequence[Block]) -> Iterator[Block]:
    for block in blocks:
        yield block
        if isinstance(block, Details):
            yield from _flatten(block.blocks)


def table_if_any(table: Table, is_tall: bool = False) -> list[Block]:
    """Return a table as a block; nothing for a table without rows."""
    return [TableBlock(table, is_tall)] if table.rows else []


def details_if_any(summary: str, *blocks: Block) -> list[Block]:
    """Return blocks behind a summary; nothing if there are no tables or charts among them."""
    return [Details(summary, blocks)] if any(not isinstance(block, Text) for block in blocks) else []


def figures_if_any(charts: Mapping[str, Chart | None], table: Table | None = None) -> list[Block]:
    """Return the charts that exist, side by side; nothing if there are none and no table."""
    existing = {name: chart for name, chart in charts.items() if chart is not None}
    table = table if table is not None and table.rows else None
    return [Figures(existing, table=table)] if existing or table else []
