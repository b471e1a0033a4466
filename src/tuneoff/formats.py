"""How numbers and tables are written: Markdown, CSV and LaTeX. What stands in a cell is data and never markup."""

import csv
import re
from pathlib import Path

Table = tuple[list[str], list[list[str]]]  # column names, rows of cells


def number(value: float | None) -> str:
    """A count with thousands separated."""
    return "–" if value is None else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """A duration in the unit that suits it."""
    if value is None:
        return "–"
    if value < 120:
        return f"{value:.1f} s" if value >= 0.05 or value == 0 else "< 0.1 s"
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
    rows = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(map(markdown_text, row)) + " |" for row in rows)


def markdown_text(text: str) -> str:
    """Text that Markdown and HTML leave as it is."""
    flat = " ".join(text.split())
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", flat) if not re.fullmatch(r"-+", flat) else flat


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
    "±": r"$\pm$",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def latex_text(text: str) -> str:
    """Text that LaTeX leaves as it is; what is neither letter nor mark is dropped."""
    return "".join(_LATEX.get(c, c) for c in text if c.isprintable())


def latex(table: Table, caption: str) -> str:
    """A booktabs table: words to the left, numbers to the right."""
    head, body = table
    rows = [" & ".join(map(latex_text, row)) + r" \\" for row in body]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_text(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
            r"\toprule",
            " & ".join(map(latex_text, head)) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )
