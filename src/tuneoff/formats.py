"""How numbers and tables are written: Markdown, CSV and LaTeX. What stands in a cell is data and never markup."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

Table = tuple[list[str], list[list[str]]]  # column names, rows of cells


def legible(text: str) -> str:
    """Text with characters that do not show, or that turn the order of letters around, made visible.

    >>> legible("a\\x00b\\u202ec")
    'a␀b⟨U+202E⟩c'
    """
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]", _visible, text)


def _visible(found: re.Match[str]) -> str:
    code = ord(found.group())
    return chr(0x2400 + code) if code < 0x20 else f"⟨U+{code:04X}⟩"


def cut(text: str, length: int) -> str:
    """At most so many characters, with a sign where some are left out."""
    return text if len(text) <= length else text[: length - 1] + "…"


def short_names(names: Sequence[str], length: int = 32) -> list[str]:
    """Names short enough for a chart, still different from each other.

    >>> short_names(["a long name", "a long nose", "short"], 8)
    ['a lon… 1', 'a lon… 2', 'short']
    """
    short = [cut(legible(name), length) for name in names]
    if len(set(short)) == len(short):
        return short
    twice = {name for name in short if short.count(name) > 1}
    numbered = enumerate(zip(names, short, strict=True), start=1)
    return [f"{cut(legible(n), length - 1 - len(str(i)))} {i}" if s in twice else s for i, (n, s) in numbered]


def number(value: float | None) -> str:
    """A count with thousands separated."""
    return "–" if value is None else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """A duration in the unit that suits it."""
    if value is None:
        return "–"
    if 0 < value < 0.05:
        return f"{1000 * value:.1f} ms" if value >= 0.00005 else "< 0.1 ms"
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def size(value: float | None) -> str:
    """Bytes in the unit that suits them (1 MB is 10^6 bytes)."""
    if value is None:
        return "–"
    for unit, bytes_ in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= bytes_:
            return f"{value / bytes_:.1f} {unit}"
    return f"{value:.0f} B"


def markdown(table: Table) -> str:
    """A table for a code host."""
    head, body = table
    sides = ["---:" if _alignment(cells) == "r" else "---" for cells in _columns(table)]
    rows = [head, sides, *body]
    return "\n".join("| " + " | ".join(map(markdown_text, row)) + " |" for row in rows)


def markdown_text(text: str) -> str:
    """Text that Markdown and HTML leave as it is."""
    flat = " ".join(text.split())
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", flat) if not re.fullmatch(r"-+:?", flat) else flat


def write_csv(table: Table, path: Path) -> None:
    """Write CSV in which a cell that a spreadsheet would take for a formula starts with an apostrophe."""
    head, body = table
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([[_no_formula(cell) for cell in row] for row in [head, *body]])


def _no_formula(cell: str) -> str:
    is_number = re.fullmatch(r"[-+]?[0-9.,%() to+-]*(tied)?", cell)
    return f"'{cell}" if cell[:1] in "=+-@\t\r" and not is_number else cell


_LATEX = {
    "\\": r"\textbackslash{}",
    "–": "--",
    "…": r"\dots{}",
    "±": r"$\pm$",
    "¶": r"\P{}",
    "✓": "yes",
    "|": r"\textbar{}",
    "[": "{[}",  # after the end of a line these would be its arguments
    "*": "{*}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
_LAST_LATIN = "\u024f"  # what pdfLaTeX sets without further packages
_LONG = 40  # characters of a cell that is set as a paragraph
_WIDE = 8  # columns from which a table is scaled to the line


def latex_text(text: str) -> str:
    """Text that LaTeX leaves as it is; what is neither letter nor mark is dropped."""
    return "".join(_LATEX.get(c, c) for c in text if c.isprintable())


def latex(table: Table, caption: str) -> str:
    """A booktabs table: numbers to the right, words to the left, long texts as paragraphs."""
    head, body = table
    rows = [" & ".join(map(latex_text, row)) + r" \\" for row in body]
    cells = "".join(map(latex_text, [caption, *head])) + "".join(rows)
    is_wide = len(head) >= _WIDE
    needs = "graphicx and booktabs" if is_wide else "booktabs"
    is_foreign = any(c > _LAST_LATIN for c in cells)
    return "\n".join(
        [
            f"% needs {needs}" + ("; LuaLaTeX or XeLaTeX, with a font that has its letters" if is_foreign else ""),
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_text(caption)}}}",
            *([r"\resizebox{\linewidth}{!}{%"] if is_wide else []),
            rf"\begin{{tabular}}{{{''.join(map(_alignment, _columns(table)))}}}",
            r"\toprule",
            " & ".join(map(latex_text, head)) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}" + ("}" if is_wide else ""),
            r"\end{table}",
            "",
        ]
    )


def _columns(table: Table) -> list[tuple[str, ...]]:
    head, body = table
    return list(zip(*body, strict=True)) or [()] * len(head)


def _alignment(cells: Sequence[str]) -> str:
    if any(len(cell) > _LONG for cell in cells):
        return r"p{0.4\linewidth}"
    return "r" if all(re.match(r"[-+<]?\s?[0-9]|–|best|$", cell) for cell in cells) else "l"
