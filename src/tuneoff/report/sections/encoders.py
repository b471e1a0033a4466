"""Encoders: which is better with its best strategy, by how much, and the score of every strategy on each."""

from tuneoff.comparison.result import Comparison
from tuneoff.comparison.rows import Row, has_several_encoders
from tuneoff.formats import fixed
from tuneoff.report.section import Section, TableBlock, Text
from tuneoff.scoring.metrics import display_name, has_points, points
from tuneoff.tables import ESTIMATE, TEXT, Column, Table, csv_key


def section(comparison: Comparison) -> Section | None:
    """Return the scores by strategy and encoder; None for one encoder."""
    if not has_several_encoders(comparison.rows):
        return None
    text = (
        f"Test {display_name(comparison.metric)} of every strategy on each encoder, with 95 % confidence intervals. An "
        "encoder's best strategy was picked for its score, so that small differences between encoders may be chance."
    )
    blocks = [Text(sentence, is_key=True) for sentence in [encoders_text(comparison)] if sentence]
    return Section("encoders", "Encoders", [*blocks, Text(text), TableBlock(scores(comparison))])


def encoders_text(comparison: Comparison) -> str:
    """Return a sentence for each encoder on how far its best strategy is behind that of the best encoder."""
    best: dict[str, Row] = {}  # rows are in order of score
    for row in comparison.rows:
        if row.model and row.learns:
            best.setdefault(row.model, row)
    if len(best) < 2:
        return ""
    (first, top), *others = best.items()
    names, metric = comparison.encoders, comparison.metric
    factor, digits = (100, 1) if has_points(metric) else (1, 3)  # as points() writes differences
    text = f"The best encoder is {names[first]}, with {top.label} ({display_name(metric)} {fixed(top.score)})."
    for model, row in others:
        pair = next(pair for pair in comparison.pairs if {pair.better, pair.worse} == {top.group, row.group})
        low, high = (fixed(factor * end, digits) for end in pair.interval)
        interval = f"95 % interval {low} to {high}"
        kind = "significant" if pair.is_significant else "not significant"
        gap = points(pair.difference, metric)
        text += f" {names[model]} is {gap} behind, with {row.label} ({interval}; {kind} after Holm's correction)."
    return text


def scores(comparison: Comparison) -> Table:
    """The score of each strategy (rows) on each encoder (columns)."""
    encoders = comparison.encoders
    columns = [Column(f"score_{csv_key(name)}", name, ESTIMATE) for name in encoders.values()]
    by_cell = {(row.label, row.model): (row.score, *row.interval) for row in comparison.rows}
    labels = dict.fromkeys(row.label for row in comparison.rows if row.model)
    rows = [[label, *[by_cell.get((label, model)) for model in encoders]] for label in labels]
    return Table("encoders", (Column("strategy", "strategy", TEXT), *columns), rows)
