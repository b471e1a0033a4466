"""Findings about the data on top of the report, and the scores on the clean part of the scored examples."""

from tuneoff.comparison.result import Comparison
from tuneoff.data.doctor.finding import short_findings
from tuneoff.report.section import Block, Bullets, Details, TableBlock, Text
from tuneoff.scoring.metrics import display_name
from tuneoff.tables import COUNT, ESTIMATE, SIGNED_SCORE, TEXT, Column, Table


def finding_blocks(comparison: Comparison) -> list[Block]:
    """Return what the checks of the data found, for the top of the report, and what it does to the verdict."""
    blocks: list[Block] = []
    if comparison.data.findings:
        blocks += [
            Text("About the data, most harmful first:"),
            Bullets(short_findings(comparison.data.findings, "see the section Data")),
        ]
    clean = comparison.clean
    if comparison.data.folds and (clean is None or not clean.leaked):
        blocks += [Text(_FOLDS_TEXT)]
    if clean is None:
        return blocks
    places = "other fold" if comparison.data.folds else "training or validation example"
    text = (
        f"The stored predictions, scored again on the {clean.examples:,} clean examples: those whose text, also "
        f"nearly, no {places} has, and that repeat no earlier example. Ranks are by each score."
    )
    table = TableBlock(clean_table(comparison))
    return [*blocks, Text(clean.summary), Details("Scores on the clean part", [Text(text), table])]


_FOLDS_TEXT = (
    "Repeated and nearly repeated texts are in one fold each: no text is scored by a model that was trained on it."
)


def clean_table(comparison: Comparison) -> Table:
    """Scores on all scored examples and on the clean ones, with the rank of each."""
    clean, metric = comparison.clean, display_name(comparison.metric)
    columns = (
        Column("strategy", "strategy", TEXT),
        Column("clean", f"{metric}, clean part (95 %)", ESTIMATE),
        Column("all", f"{metric}, all (95 %)", ESTIMATE),
        Column("difference", "difference", SIGNED_SCORE),
        Column("rank_clean", "rank, clean part", COUNT),
        Column("rank_all", "rank, all", COUNT),
    )
    rows = []
    for number, row in enumerate(comparison.rows, 1):
        if clean is None:
            break
        estimate = clean.estimates[row.group]
        cells = [comparison.names[row.group], estimate, (row.score, *row.interval), estimate[0] - row.score]
        rows.append([*cells, clean.order.index(row.group) + 1, number])
    return Table("clean", columns, rows)
