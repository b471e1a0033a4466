"""Comparison, rows and verdict at a Python prompt and in notebooks: short text, and HTML without colours of its own."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from tuneoff.costs import COSTS
from tuneoff.formats import encoder_names, fixed, show_control_characters, signed
from tuneoff.scoring.metrics import display_name

if TYPE_CHECKING:
    from tuneoff.comparison.result import Comparison
    from tuneoff.comparison.rows import Row, Verdict

_MAX_ROWS = 12  # of the text


def comparison_text(comparison: "Comparison") -> str:
    """Write a heading, the leaderboard and the summary of the verdict."""
    lines = [_title(comparison)]
    cells = [[name, score, standing] for name, score, _, standing, _ in _cells(comparison)]
    width = max((len(name) for name, *_ in cells), default=0)
    lines += [f"  {name:<{width}}  {score}  {standing}" for name, score, standing in cells[:_MAX_ROWS]]
    lines += [f"  and {len(cells) - _MAX_ROWS} more: .leaderboard"] if len(cells) > _MAX_ROWS else []
    lines += list(comparison.verdict.summary) if comparison.verdict else []
    return show_control_characters("\n".join(lines))


def row_text(row: "Row") -> str:
    """Write the name, score and standing of a row."""
    name = f"{row.label} on {encoder_names([row.model])[row.model]}" if row.model else row.label
    return f"<Row {name}: {_score(row)}, {row.standing}, {row.repeats}>"


def verdict_text(verdict: "Verdict") -> str:
    """Write the summary of a verdict."""
    return f"<Verdict: {' '.join(verdict.summary)}>"


def comparison_html(comparison: "Comparison") -> str:
    """Write the same as HTML, with differences and training times."""
    heads = ["strategy", f"{display_name(comparison.metric)} (95 %)", "difference to best", "standing"]
    heads.append(COSTS["fit_seconds"].column)
    picked = comparison.verdict.recommended if comparison.verdict else None
    rows = [
        _html_row(cells, is_picked=row.group == picked)
        for row, cells in zip(comparison.rows, _cells(comparison), strict=True)
    ]
    table = f"<table><thead>{_html_row(heads, tag='th')}</thead><tbody>{''.join(rows)}</tbody></table>"
    verdict = verdict_html(comparison.verdict) if comparison.verdict else "<p>No run succeeded.</p>"
    return f"<div><p>{_html(_title(comparison))}</p>{table if rows else ''}{verdict}</div>"


def verdict_html(verdict: "Verdict") -> str:
    """Write a verdict as paragraphs: what to pick in bold, then everything else."""
    first, *rest = verdict.summary or ("",)
    details = " ".join([*rest, *verdict.details])
    return f"<p><b>{_html(first)}</b></p>" + (f"<p>{_html(details)}</p>" if details else "")


def _title(comparison: "Comparison") -> str:
    scored = comparison.data.splits[comparison.data.scored_split].examples
    where = f"{comparison.data.folds} folds of {scored:,} examples" if comparison.data.folds else f"{scored:,} examples"
    failed = f", {len(comparison.failures)} failed" if comparison.failures else ""
    count = len(comparison.rows)
    strategies = "1 strategy" if count == 1 else f"{count} strategies"
    return f"{comparison.name}: {strategies}{failed}, {display_name(comparison.metric)} on {where}"


def _cells(comparison: "Comparison") -> list[list[str]]:
    """Return the texts of each row: name, score with its interval, difference, standing, training time."""
    cost, names = COSTS["fit_seconds"], comparison.names
    return [
        [
            names[row.group],
            _score(row),
            signed(row.difference) if index else "",
            row.standing,
            cost.format.text(row.costs.get("fit_seconds")),
        ]
        for index, row in enumerate(comparison.rows)
    ]


def _score(row: "Row") -> str:
    low, high = row.interval
    return f"{fixed(row.score)} ({fixed(low)} to {fixed(high)})"


def _html_row(cells: Sequence[str], tag: str = "td", is_picked: bool = False) -> str:
    """Write a row; the first cell is text, the others are numbers. The picked row is bold."""
    weight = ";font-weight:bold" if is_picked or tag == "th" else ""
    styles = [f"padding:.2em .6em;text-align:{'right' if index else 'left'}{weight}" for index in range(len(cells))]
    inner = "".join(f'<{tag} style="{s}">{_html(cell)}</{tag}>' for s, cell in zip(styles, cells, strict=True))
    return f"<tr>{inner}</tr>"


def _html(text: str) -> str:
    return escape(show_control_characters(text))
