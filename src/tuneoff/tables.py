"""Tables of typed values, and their Markdown, CSV and LaTeX.

A cell holds a value in its base unit (seconds, bytes, a share from 0 to 1), never a string made from one. The format
of its column decides how readers see it; CSV files hold the values themselves. A list or a mapping of values is one
cell, JSON in CSV files.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneoff import formats
from tuneoff.formats import fixed, latex_text, markdown_text, signed


@dataclass(frozen=True)
class Format:
    """Text and CSV columns of one kind of value. A cell of None is missing: a dash, and empty in CSV."""

    show: Callable[[Any], str]
    suffixes: tuple[str, ...] = ("",)  # of the CSV columns that a value fills; a value of several is a tuple
    is_text: bool = False
    is_long: bool = False  # whole texts, set as paragraphs
    is_json: bool = False  # lists and mappings, JSON in CSV files

    def text(self, value: Any) -> str:
        """Return a value as readers see it."""
        return "–" if value is None else self.show(value)

    def plain(self, value: Any) -> list[Any]:
        """Return a value as the cells of its CSV columns."""
        if value is None:
            return [None] * len(self.suffixes)
        if self.is_json:
            return [json.dumps(value, ensure_ascii=False)]
        return list(value) if len(self.suffixes) > 1 else [value]

    def sort_key(self, value: Any) -> float | str | None:
        """Return the value to sort by: a number, or text in lower case; None for a missing value."""
        first = self.plain(value)[0]
        return first if first is None else str(first).lower() if self.is_text else float(first)


def _interval(ends: Sequence[float]) -> str:
    return f"{fixed(ends[0])} to {fixed(ends[1])}"


def _signed_interval(ends: Sequence[float], digits: int = 3) -> str:
    return f"{signed(ends[0], digits)} to {signed(ends[1], digits)}"


TEXT = Format(str, is_text=True)
LONG_TEXT = Format(str, is_text=True, is_long=True)
COUNT = Format(formats.number)
TENTHS = Format(lambda value: fixed(value, 1))
SIGNED_HUNDREDTHS = Format(lambda value: signed(value, 2))
SCORE = Format(fixed)
RATE = Format(lambda value: f"{value:.3g}")
SIGNED_SCORE = Format(signed)
SCORES = Format(lambda values: " ".join(map(fixed, values)), is_text=True, is_json=True)
SHARE = Format(lambda value: f"{100 * value:.1f} %")
SMALL_SHARE = Format(lambda value: f"{100 * value:.3f} %")
FACTOR = Format(lambda value: f"{value:,.0f} x")
SECONDS = Format(formats.seconds)
BYTES = Format(formats.size)
OPERATIONS = Format(formats.operations)
MONEY = Format(formats.money)
GRAMS = Format(formats.grams)
ENERGY = Format(formats.energy)
P_VALUE = Format(formats.p_value)
# (low, high)
INTERVAL = Format(_interval, ("_low", "_high"))
SIGNED_INTERVAL = Format(_signed_interval, ("_low", "_high"))
SIGNED_HUNDREDTHS_INTERVAL = Format(lambda ends: _signed_interval(ends, digits=2), ("_low", "_high"))
# (value, low, high); low and high are None for a value without an interval
ESTIMATE = Format(lambda e: fixed(e[0]) + ("" if e[1] is None else f" ({_interval(e[1:])})"), ("", "_low", "_high"))
SIGNED_ESTIMATE = Format(
    lambda e: "–" if e[0] is None else f"{signed(e[0])} ({_signed_interval(e[1:])})", ("", "_low", "_high")
)
# (mean, standard deviation or None)
MEAN_SD = Format(lambda v: fixed(v[0]) + (f" ± {fixed(v[1])}" if v[1] is not None else ""), ("", "_sd"))


@dataclass(frozen=True)
class Column:
    """A column: its name in CSV files, which ends in the unit if there is one, its heading and its format."""

    key: str
    title: str
    format: Format
    missing_sort_key: float | None = None  # place of missing values when the page sorts; None: last in both directions

    def sort_key(self, value: Any) -> float | str | None:
        """Return the value to sort a cell by."""
        return self.missing_sort_key if value is None else self.format.sort_key(value)


@dataclass(frozen=True)
class Table:
    """Rows of values under typed columns."""

    name: str  # of its files
    columns: tuple[Column, ...]
    rows: Sequence[Sequence[Any]]
    total: Sequence[Any] | None = None  # a last row that is not sorted with the others
    marks: Sequence[str] = ()  # a CSS class for each row, on the page

    @property
    def text_width(self) -> int:
        """Characters of the widest line in a terminal, with two spaces between columns."""
        lines = [[column.title for column in self.columns], *self.text_rows()]
        widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
        return sum(widths) + 2 * (len(widths) - 1)

    def text_rows(self) -> list[list[str]]:
        """Return every row as readers see it, the total last."""
        every = [*self.rows, *([self.total] if self.total else [])]
        return [[column.format.text(v) for column, v in zip(self.columns, row, strict=True)] for row in every]


def markdown(table: Table) -> str:
    """Return a table as Markdown."""
    head = [column.title for column in table.columns]
    alignment = ["---" if column.format.is_text else "---:" for column in table.columns]
    lines = [[*map(markdown_text, head)], alignment, *[[*map(markdown_text, row)] for row in table.text_rows()]]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def write_csv(table: Table, path: Path) -> None:
    """Write a table as CSV: plain numbers in base units, and text that no spreadsheet takes for a formula."""
    head = [column.key + suffix for column in table.columns for suffix in column.format.suffixes]
    from tuneoff.files import write_text  # slow to import: the command line writes no table

    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow([without_formula(cell) for cell in head])
    for row in [*table.rows, *([table.total] if table.total else [])]:
        plain = [cell for c, value in zip(table.columns, row, strict=True) for cell in c.format.plain(value)]
        writer.writerow([without_formula(cell) if isinstance(cell, str) else cell for cell in plain])
    write_text(path, file.getvalue(), is_synced=False)


def without_formula(cell: str) -> str:
    """Put an apostrophe before text that a spreadsheet would evaluate."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


_LAST_LATIN = "\u024f"  # the last letter that pdfLaTeX sets without further packages
_LONG = 40  # characters of a cell from which its column is set as paragraphs
_WIDE = 8  # columns from which a table is scaled to the width of the text


def needs_unicode_engine(text: str) -> bool:
    """Return True for LaTeX that pdfLaTeX cannot set, but LuaLaTeX and XeLaTeX can."""
    return any(c > _LAST_LATIN for c in text)


def latex(table: Table, caption: str) -> str:
    """Return a table as a booktabs table: numbers to the right, names to the left, long texts as paragraphs."""
    head = [latex_text(column.title) for column in table.columns]
    rows = [" & ".join(map(latex_text, row)) + r" \\" for row in table.text_rows()]
    is_wide = len(head) >= _WIDE
    needs = "graphicx and booktabs" if is_wide else "booktabs"
    is_foreign = needs_unicode_engine("".join([latex_text(caption), *head, *rows]))
    return "\n".join(
        [
            f"% needs {needs}" + ("; LuaLaTeX or XeLaTeX, with a font that has its letters" if is_foreign else ""),
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_text(caption)}}}",
            *([r"\resizebox{\linewidth}{!}{%"] if is_wide else []),
            rf"\begin{{tabular}}{{{''.join(_latex_alignments(table))}}}",
            r"\toprule",
            " & ".join(head) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}" + ("}" if is_wide else ""),
            r"\end{table}",
            "",
        ]
    )


def _latex_alignments(table: Table) -> list[str]:
    rows, alignments = table.text_rows(), []
    for index, column in enumerate(table.columns):
        is_paragraph = any(len(row[index]) > _LONG for row in rows)
        alignments.append(r"p{0.4\linewidth}" if is_paragraph else "l" if column.format.is_text else "r")
    return alignments


def csv_key(name: str) -> str:
    """Return a name as part of a CSV column's: letters, digits and underscores.

    >>> csv_key("5 %"), csv_key("macro f1"), csv_key("probe classifier=svm")
    ('5_percent', 'macro_f1', 'probe_classifier_svm')
    """
    return re.sub(r"\W+", "_", name.replace("%", " percent ")).strip("_").lower()
