"""Published scores next to the measured ones."""

from tuneoff.comparison.notes import is_of_positive
from tuneoff.comparison.result import Comparison
from tuneoff.comparison.rows import Row
from tuneoff.report.section import Section, TableBlock, Text
from tuneoff.scoring.metrics import display_name
from tuneoff.spec.stated import Reported
from tuneoff.tables import LONG_TEXT, SCORE, SIGNED_SCORE, TEXT, Column, Table


def section(comparison: Comparison) -> Section | None:
    """Return the published scores; None if the study names none, or no run succeeded."""
    if not comparison.study.reported or not comparison.rows:
        return None
    text = (
        "Published scores that the study names, and the scores measured here. The published ones come from another "
        "encoder, split or recipe where the note says so; the difference is not a test."
    )
    return Section("reported", "Published scores", [Text(text), TableBlock(reported(comparison))], menu="Published")


def reported(comparison: Comparison) -> Table:
    """Published and measured scores of the same strategy and metric."""
    columns = (
        Column("strategy", "strategy", TEXT),
        Column("encoder", "encoder", TEXT),
        Column("metric", "metric", TEXT),
        Column("reported", "published", SCORE),
        Column("measured", "measured", SCORE),
        Column("difference", "difference", SIGNED_SCORE),
        Column("source", "source", LONG_TEXT),
        Column("note", "note", LONG_TEXT),
    )
    rows, options = [], comparison.options
    for entry in comparison.study.reported:
        row = _row_of(comparison, entry)
        measured = row.scores.get(entry.metric) if row else None
        difference = None if measured is None else measured - entry.score
        of_class = f" of {options.positive_name}" if is_of_positive(entry.metric, options) else ""
        names = [entry.strategy, entry.model, display_name(entry.metric) + of_class]
        rows.append([*names, entry.score, measured, difference, entry.source, entry.note])
    return Table("reported", columns, rows)


def _row_of(comparison: Comparison, entry: Reported) -> Row | None:
    """Return the row of a published score: by label, else by strategy; with its encoder if the study has it."""
    rows = [row for row in comparison.rows if row.label == entry.strategy]
    rows = rows or [row for row in comparison.rows if row.strategy == entry.strategy]
    rows = [row for row in rows if row.model == entry.model] or rows
    return rows[0] if len(rows) == 1 else None
