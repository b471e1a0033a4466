"""Calibration: do probabilities match the share of right predictions."""

import altair as alt
import pandas as pd

from tuneoff.comparison.result import Comparison
from tuneoff.formats import join_names
from tuneoff.report.chart import INK, WIDTH, charted_rows, strategy_colour
from tuneoff.report.section import Chart, Section, Text, figures_if_any
from tuneoff.tables import SCORE, TEXT, Column, Table

_MIN_PREDICTIONS = 10  # in a bin of the reliability chart


def section(comparison: Comparison) -> Section | None:
    """Return the reliability diagram and calibration errors; None without a successful run."""
    if not comparison.rows:
        return None
    text = (
        "Reliability diagram: of the predictions with a confidence, the share that is right. Above the dashed line a "
        "strategy is under-confident, below it over-confident. ECE is the expected calibration error in 15 bins of "
        "equal width; the Brier score is the mean squared error of the probabilities, summed over classes (0 to 2); "
        "the temperature that scales the logits best was fitted on validation."
    )
    without = [comparison.names[row.group] for row in comparison.rows if row.group not in comparison.calibration]
    if without:
        text += f" Without probabilities: {join_names(without)}."
    figures = figures_if_any({"reliability": reliability_chart(comparison)}, calibration(comparison))
    return Section("calibration", "Calibration", [Text(text), *figures])


def calibration(comparison: Comparison) -> Table:
    """Calibration errors of each strategy that uses the text."""
    columns = (
        Column("strategy", "strategy", TEXT),
        Column("ece", "ECE", SCORE),
        Column("brier_score", "Brier score", SCORE),
        Column("temperature", "temperature", SCORE),
        Column("ece_with_temperature", "ECE with temperature", SCORE),
    )
    rows = [
        [comparison.names[row.group], c.error, c.brier, c.temperature, c.scaled_error]
        for row in comparison.rows
        if comparison.errors and row.group in comparison.errors.learners and row.group in comparison.calibration
        for c in (comparison.calibration[row.group],)
    ]
    return Table("calibration", columns, rows)


def reliability_chart(comparison: Comparison) -> Chart | None:
    """Share of right predictions by confidence, one line per strategy; None if no bin holds enough predictions."""
    rows = pd.DataFrame(
        {
            "strategy": comparison.names[row.group],
            "confidence": round(float(confidence), 4),
            "accuracy": round(float(accuracy), 4),
            "predictions": int(count),
        }
        for row in charted_rows(comparison)
        if row.group in comparison.calibration
        for bins in (comparison.calibration[row.group].reliability,)
        for confidence, accuracy, count in zip(bins.confidence, bins.accuracy, bins.examples, strict=True)
        if count >= _MIN_PREDICTIONS
    )
    if not len(rows):
        return None
    ends = pd.DataFrame({"confidence": [0, 1], "accuracy": [0, 1]})
    ideal = alt.Chart(ends).mark_line(strokeDash=[4, 3], color=INK).encode(x="confidence:Q", y="accuracy:Q")
    numbers = [alt.Tooltip(name, format=".2f") for name in ("confidence", "accuracy")]
    base = alt.Chart(rows).encode(
        x=alt.X("confidence:Q", title="confidence", scale=alt.Scale(domain=[0, 1])),
        y=alt.Y("accuracy:Q", title="share of right predictions", scale=alt.Scale(domain=[0, 1])),
        color=strategy_colour(comparison),
        tooltip=["strategy", *numbers, "predictions"],
    )
    sizes = alt.Size("predictions:Q", legend=None, scale=alt.Scale(range=[8, 160]))
    dots = base.mark_circle(opacity=0.9).encode(size=sizes)
    return (ideal + base.mark_line(strokeWidth=1.2, opacity=0.7) + dots).properties(width=WIDTH, height=300)
