"""Tables of a comparison as Markdown, CSV and LaTeX. What stands in a cell is data and never markup."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from tuneoff.comparison.result import Comparison, Row

Table = tuple[list[str], list[list[str]]]  # column names, rows of cells


def leaderboard(comparison: Comparison) -> Table:
    """Strategies, best first, with intervals, differences to the best, and costs."""
    several = len({row.model for row in comparison.rows if row.model}) > 1
    head = [
        "strategy",
        *(["encoder"] if several else []),
        comparison.metric.replace("_", " "),
        "95 % interval",
        "difference to best",
        "seeds",
        "trainable",
        "training",
        "memory",
        "model",
    ]
    body = []
    for row in comparison.rows:
        body.append(
            [
                row.label,
                *([row.model or "–"] if several else []),
                score(row),
                f"{row.interval[0]:.3f} to {row.interval[1]:.3f}",
                difference(row, is_best=row is comparison.rows[0]),
                str(len(row.seeds)),
                number(row.parameters.get("trainable")),
                seconds(row.costs.get("train_seconds")),
                size(row.costs.get("peak_bytes")),
                size(row.costs.get("model_bytes")),
            ]
        )
    return head, body


def short_leaderboard(comparison: Comparison) -> Table:
    """The leaderboard in the width of a plain terminal."""
    several = len({row.model for row in comparison.rows if row.model}) > 1
    body = []
    for index, row in enumerate(comparison.rows):
        name = f"{row.label} {Path(row.model).name}" if several and row.model else row.label
        least, most = -row.difference_interval[1], -row.difference_interval[0]
        gap = "tied" if row.is_tied else f"{-row.difference:.3f}"
        gap = "best" if index == 0 else f"{gap} ({least:.3f}..{most:.3f})"
        low, high = row.interval
        body.append([name, f"{row.score:.3f} ({low:.3f}..{high:.3f})", gap, seconds(row.costs.get("train_seconds"))])
    return ["strategy", comparison.metric.replace("_", " "), "behind the best", "training"], body


def metrics(comparison: Comparison) -> Table:
    """Every metric on test, mean over seeds."""
    names = list(comparison.rows[0].scores) if comparison.rows else []
    body = [[comparison.names[row.group], *[f"{row.scores[name]:.3f}" for name in names]] for row in comparison.rows]
    return ["strategy", *[name.replace("_", " ") for name in names]], body


def parameters(comparison: Comparison) -> Table:
    """What each strategy trains and adds."""
    body = []
    for row in comparison.rows:
        if row.parameters:
            counts = [row.parameters[name] for name in ("trainable", "added", "head", "total")]
            body.append(
                [comparison.names[row.group], *map(number, counts), f"{100 * counts[0] / max(1, counts[3]):.3f} %"]
            )
    return ["strategy", "trainable", "added", "head", "total", "trainable share"], body


def costs(comparison: Comparison) -> Table:
    """Seconds by phase, memory, size and speed, mean over seeds."""
    phases = ("encode_seconds", "prefix_seconds", "train_seconds", "evaluate_seconds", "run_seconds")
    body = []
    for row in comparison.rows:
        found = row.costs
        alone = found["train_seconds"] - found.get("prefix_seconds", 0.0)
        body.append(
            [
                comparison.names[row.group],
                *[seconds(alone if name == "train_seconds" else found.get(name)) for name in phases],
                size(found.get("peak_bytes")),
                size(found.get("model_bytes")),
                number(found.get("examples_per_second")),
                number(found.get("tokens_per_second")),
            ]
        )
    head = [
        "encode",
        "frozen blocks",
        "train",
        "evaluate",
        "whole run",
        "peak memory",
        "model",
        "examples/s",
        "tokens/s",
    ]
    return ["strategy", *head], body


def per_class(comparison: Comparison, group: str) -> Table:
    """Precision, recall and F1 of each class."""
    body = [
        [str(c["label"]), *[f"{c[name]:.3f}" for name in ("precision", "recall", "f1")], number(c["examples"])]
        for c in comparison.classes[group]
    ]
    return ["label", "precision", "recall", "F1", "examples"], body


def score(row: Row) -> str:
    """Mean, and standard deviation over seeds where there are several."""
    return f"{row.score:.3f}" + (f" ± {row.spread:.3f}" if row.spread is not None else "")


def difference(row: Row, is_best: bool) -> str:
    """The difference to the best with its interval, and whether they can be told apart."""
    if is_best:
        return "best"
    low, high = row.difference_interval
    return f"{row.difference:+.3f} ({low:+.3f} to {high:+.3f})" + (" tied" if row.is_tied else "")


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


def text_columns(table: Table) -> Sequence[int]:
    """Columns that hold words rather than numbers, for alignment."""
    return [i for i, name in enumerate(table[0]) if name in ("strategy", "encoder", "label")]
