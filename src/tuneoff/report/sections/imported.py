"""Training logs of others: the scores that they state, next to the measured ones."""

from collections.abc import Sequence

from tuneoff.comparison.imported import Imported
from tuneoff.comparison.result import Comparison
from tuneoff.report.section import Section, TableBlock, Text, table_if_any
from tuneoff.tables import COUNT, LONG_TEXT, RATE, SCORE, SECONDS, TEXT, Column, Table

_TEXT = (
    "Training logs of HF Trainer, as the study names them. Their curves are in the section Training. Scores are as "
    "stated: without predictions there is no interval and no test, and the examples may be others. They take no part "
    "in ranking, tests and verdict."
)


def section(comparison: Comparison) -> Section | None:
    """Return the imported logs; None if the study names none, or no run succeeded."""
    if not comparison.imported or not comparison.rows:
        return None
    blocks = [Text(_TEXT), *table_if_any(scores(comparison.imported)), TableBlock(settings(comparison.imported))]
    return Section("imported", "Imported training logs", blocks, menu="Imported")


def scores(logs: Sequence[Imported]) -> Table:
    """Every score that the logs state, under its own name."""
    columns = (
        Column("name", "log", TEXT),
        Column("split", "split", TEXT),
        Column("metric", "metric, as named there", TEXT),
        Column("score", "stated", SCORE),
        Column("weights", "weights", TEXT),
    )
    rows = [
        [imported.title, split, name, score, (imported.log.scored_at or None) if split == "evaluation" else None]
        for imported in logs
        for split, stated in imported.log.scores.items()
        for name, score in stated.items()
    ]
    return Table("imported", columns, rows)


def settings(logs: Sequence[Imported]) -> Table:
    """Length, batch size, peak learning rate and time of each imported training, as far as its log states them."""
    columns = (
        Column("name", "log", TEXT),
        Column("epochs", "epochs", COUNT),
        Column("steps", "steps", COUNT),
        Column("batch_size", "batch size", COUNT),
        Column("learning_rate", "highest logged rate", RATE),
        Column("train_seconds", "training", SECONDS),
        Column("file", "file", LONG_TEXT),
    )
    rows = []
    for imported in logs:
        facts = [imported.log.facts.get(name) for name in ("epochs", "steps", "batch_size")]
        rates = [step["learning_rate"] for step in imported.log.steps if "learning_rate" in step]
        seconds = imported.log.facts.get("train_seconds")
        rows.append([imported.title, *facts, max(rates, default=None), seconds, imported.file])
    return Table("imported-settings", columns, rows)
