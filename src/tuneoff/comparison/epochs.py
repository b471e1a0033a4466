"""Training of each strategy epoch by epoch: losses and validation scores, and strategies that still improve at the end.

Histories of earlier versions lack columns, and a history may hold evaluations within epochs: only rows of kind "epoch"
are read, and a score that they lack is missing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tuneoff.runs import RunRecord
from tuneoff.scoring.metrics import bounds, direction

_VALIDATION = "validation_"


@dataclass(frozen=True)
class Epoch:
    """One epoch of one strategy: means over the runs that trained so long."""

    group: str
    epoch: int  # counted from 1
    runs: int
    kept: int  # runs whose weights are those of this epoch
    train_loss: float | None
    scores: dict[str, float]  # on validation, by metric


@dataclass(frozen=True)
class LateGain:
    """A strategy whose last epoch is its best one by more than noise: it might gain from more epochs."""

    group: str
    epochs: int
    gain: float  # of the last epoch over the best earlier one, mean over runs; above 0 is better, for log loss too
    noise: float  # standard error that the gain exceeds
    best_last: int  # runs whose last epoch is their best
    runs: int


def epoch_scores(records: Sequence[RunRecord], histories: Mapping[str, pd.DataFrame]) -> list[Epoch]:
    """Average losses and validation scores over the runs of each strategy, for each epoch. In the order of records."""
    by_cell: dict[tuple[str, int], list[tuple[dict[str, float], bool]]] = {}
    for record in records:
        for row in epoch_rows(histories.get(record.run_id)):
            epoch = int(row["epoch"])
            by_cell.setdefault((record.group, epoch), []).append((row, record.best_epoch == epoch))
    return [_mean(*cell, rows) for cell, rows in by_cell.items()]


def epoch_rows(history: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Return the rows of a history that describe whole epochs, without missing values."""
    if history is None or "kind" not in history:
        return []
    rows = history[history["kind"] == "epoch"].to_dict("records")
    return [{str(key): value for key, value in row.items() if not pd.isna(value)} for row in rows]


def _mean(group: str, epoch: int, rows: Sequence[tuple[dict[str, float], bool]]) -> Epoch:
    names = dict.fromkeys(key for row, _ in rows for key in row if key.startswith(_VALIDATION))
    losses = [row["train_loss"] for row, _ in rows if "train_loss" in row]
    return Epoch(
        group=group,
        epoch=epoch,
        runs=len(rows),
        kept=sum(is_kept for _, is_kept in rows),
        train_loss=float(np.mean(losses)) if losses else None,
        scores={
            name.removeprefix(_VALIDATION): float(np.mean([row[name] for row, _ in rows if name in row]))
            for name in names
        },
    )


def late_gains(
    records: Sequence[RunRecord], histories: Mapping[str, pd.DataFrame], metric: str
) -> tuple[LateGain, ...]:
    """Return the strategies that still improve in their last epoch, by the metric that selects epochs.

    The last epoch must be the best one in more than half of the runs, and its gain over the best earlier epoch (mean
    over runs) larger than the standard error of a score on so many validation examples. Neighbouring epochs are scored
    on the same examples, so that their difference varies less than one score does. If nothing changed between three
    epochs, the last would be the best in a third of the runs, and its mean gain below 0: in simulations without any
    change, at most 4 % of trainings were named (docs/log.md).
    A score without bounds has no such error: the standard error over runs is used, which needs two runs.
    """
    by_group: dict[str, list[tuple[RunRecord, list[float]]]] = {}
    for record in records:
        rows = epoch_rows(histories.get(record.run_id))
        scores = [row[_VALIDATION + metric] for row in rows if _VALIDATION + metric in row]
        if len(scores) > 1 and len(scores) == len(rows):
            by_group.setdefault(record.group, []).append((record, scores))
    candidates = [_late_gain(group, runs, metric) for group, runs in by_group.items()]
    return tuple(late for late in candidates if late is not None)


def _late_gain(group: str, runs: Sequence[tuple[RunRecord, list[float]]], metric: str) -> LateGain | None:
    sign = direction(metric)
    gains = np.array([sign * scores[-1] - max(sign * score for score in scores[:-1]) for _, scores in runs])
    noise = _noise(gains, runs, metric)
    best_last = int((gains > 0).sum())
    if noise is None or 2 * best_last <= len(runs) or gains.mean() <= noise:
        return None
    epochs = max(len(scores) for _, scores in runs)
    return LateGain(group, epochs, float(gains.mean()), noise, best_last, len(runs))


def _noise(gains: np.ndarray, runs: Sequence[tuple[RunRecord, list[float]]], metric: str) -> float | None:
    """Standard error of a validation score; None if it is unknown."""
    low, high = bounds(metric)
    counts = [_validation_examples(record) for record, _ in runs]
    # runs of folds have validation examples of their own, runs of seeds share them
    num_examples = sum(counts) if runs[0][0].spec.get("fold") else counts[0]
    if math.isfinite(high - low) and num_examples:
        mean = float(np.mean([scores[-1] for _, scores in runs]))
        # of a mean of values within the bounds: largest for values at the bounds, as those of accuracy are
        return math.sqrt(max(0.0, (mean - low) * (high - mean)) / num_examples)
    return float(gains.std(ddof=1) / math.sqrt(len(gains))) if len(gains) > 1 else None


def _validation_examples(record: RunRecord) -> int:
    """Return how many validation examples a run has, from its confusion matrix; 0 if it is not stored."""
    counts = np.array(record.confusion.get("validation", []))
    if counts.ndim == 3:  # multi-label: (C, 2, 2), each label counts every example
        return int(counts[0].sum())
    return int(counts.sum())
