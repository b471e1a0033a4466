"""Histories of runs, and of imported logs, as data frames for charts: losses, learning rates and validation scores.

Every frame has the columns strategy, seed and position, which counts epochs: 1.5 is the middle of the second one.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from tuneoff.comparison.result import Comparison
from tuneoff.report.chart import charted_rows

_MAX_POINTS = 12_000  # of all loss curves together
_MAX_RATES = 80  # points of one curve of the learning rate
IMPORTED = "imported"  # in place of a seed


def training_losses(comparison: Comparison) -> pd.DataFrame:
    """Average training losses over pieces of each run, so that the page stays small however many runs there are.

    Columns step, position and loss.
    """
    num_bins = max(10, min(24, _MAX_POINTS // max(1, len(comparison.records))))
    parts = [_binned(steps, num_bins) for steps in _steps(comparison)]
    return _joined(parts, ["step", "position", "loss"])


def learning_rates(comparison: Comparison) -> pd.DataFrame:
    """Learning rates by step of one run of each strategy: those of its other seeds are the same.

    Columns step and learning_rate. A rate of 0 is left out, which a log scale cannot show.
    """
    first: dict[str, pd.DataFrame] = {}
    for steps in _steps(comparison):
        if "learning_rate" in steps and len(steps):
            first.setdefault(steps["strategy"].iloc[0], steps[steps["learning_rate"] > 0])
    return _joined([_thinned(steps) for steps in first.values()], ["step", "position", "learning_rate"])


def _thinned(steps: pd.DataFrame) -> pd.DataFrame:
    """Keep points at equal distances, the first, the last and the peak."""
    if len(steps) <= _MAX_RATES:
        return steps
    rows = np.linspace(0, len(steps) - 1, _MAX_RATES).astype(int)
    return steps.iloc[np.union1d(rows, [int(steps["learning_rate"].to_numpy().argmax())])]


def validation_scores(comparison: Comparison, metric: str) -> pd.DataFrame:
    """Scores on validation after each epoch, and within epochs where they were evaluated. Columns position and score.

    metric: "log_loss" is the validation loss, which imported logs have too.
    """
    names, column, parts = _names(comparison), f"validation_{metric}", []
    for record in comparison.records:
        history = comparison.histories.get(record.run_id)
        if history is None or record.group not in names or column not in history:
            continue
        rows = history.dropna(subset=[column])
        rows = rows.assign(position=_positions(history).loc[rows.index], score=rows[column].astype(float))
        parts.append(rows.assign(strategy=names[record.group], seed=str(record.seed)))
    for imported in comparison.imported:
        rows = pd.DataFrame(imported.evaluations(metric), columns=["position", "score"])
        parts.append(rows.assign(strategy=imported.title, seed=IMPORTED))
    return _joined(parts, ["position", "score"]).drop_duplicates(ignore_index=True)


def _names(comparison: Comparison) -> dict[str, str]:
    return {row.group: comparison.names[row.group] for row in charted_rows(comparison)}


def _steps(comparison: Comparison) -> Iterator[pd.DataFrame]:
    """Yield the training steps of each run and of each imported log."""
    names = _names(comparison)
    for record in comparison.records:
        history = comparison.histories.get(record.run_id)
        if history is not None and len(history) and record.group in names:
            steps = history[history["kind"] == "step"]
            steps = steps.assign(position=_positions(history).loc[steps.index])
            yield steps.assign(strategy=names[record.group], seed=str(record.seed))
    for imported in comparison.imported:
        if imported.log.steps:
            steps = pd.DataFrame(imported.log.steps).rename(columns={"epoch": "position"})
            yield steps.assign(strategy=imported.title, seed=IMPORTED)


def _positions(history: pd.DataFrame) -> pd.Series:
    """Return the position of each row in epochs. Rows of whole epochs have no step; max_steps may end within one."""
    steps = history[history["kind"] == "step"]
    if not len(steps) or "step" not in history:
        return history["epoch"].astype(float)
    per_epoch = steps.loc[steps["epoch"] == steps["epoch"].min(), "step"].max()
    of_epochs = np.minimum(history["epoch"].astype(float), steps["step"].max() / per_epoch)
    return (history["step"].astype(float) / per_epoch).fillna(of_epochs)


def _binned(steps: pd.DataFrame, num_bins: int) -> pd.DataFrame:
    bins = ((steps["step"] - 1) * num_bins // steps["step"].max()).astype(int)
    means = steps.groupby(bins)[["step", "position", "loss"]].mean()
    return means.assign(strategy=steps["strategy"].iloc[0], seed=steps["seed"].iloc[0])


def _joined(parts: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    names = ["strategy", "seed", *columns]
    parts = [part[names] for part in parts if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)
