"""What a comparison holds: a row a strategy, a verdict, and what a report shows beside them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from tuneoff import stats
from tuneoff.calibration import Calibration
from tuneoff.comparison.curve import Point
from tuneoff.comparison.errors import Answers, Errors
from tuneoff.runs import RunRecord
from tuneoff.search import SearchRecord

NO_LEARNERS = ("majority", "untrained")  # strategies that say nothing of a text


@dataclass(frozen=True)
class Row:
    """One strategy with one encoder, over its seeds."""

    group: str
    label: str
    strategy: str
    model: str | None
    seeds: tuple[int, ...]
    score: float  # mean over seeds of the study's metric on test
    spread: float | None  # standard deviation over seeds; None for one run
    interval: tuple[float, float]  # 95 %, over examples and seeds
    from_examples: float  # standard deviation of the score over draws of test examples
    from_seeds: float | None  # and over draws of seeds; None where a single run cannot tell
    validation: float
    scores: dict[str, float]  # every metric on test, mean over seeds
    difference: float  # to the best row, in the metric's own direction: never positive for a score
    difference_interval: tuple[float, float]
    p_value: float  # of no difference to the best, after Holm's correction over all pairs
    is_tied: bool  # cannot be told from the best
    costs: dict[str, float]  # mean over seeds
    parameters: dict[str, int]


@dataclass(frozen=True)
class Pair:
    """Two strategies on the same test examples, the better one first. Intervals are of the pair alone."""

    better: str  # group
    worse: str
    difference: float  # in the metric's own direction: never negative
    interval: tuple[float, float]  # 95 %, over examples and seeds
    p_value: float  # of no difference (Student's t)
    p_corrected: float  # after Holm's correction over all pairs
    mcnemar: float  # mid-p value of being right equally often: the median over seeds
    effect: float  # Cohen's g: mean over seeds
    needed_examples: int | None  # to tell a difference of this size, with as many seeds; None: no number would do
    needed_seeds: int | None  # with as many test examples

    @property
    def is_told(self) -> bool:
        """Whether the difference is more than chance."""
        return self.p_corrected < 1 - stats.LEVEL


def texts_of(examples: pd.DataFrame | None) -> list[str]:
    """The texts of examples, pairs as one; empty where examples are not known."""
    if examples is None:
        return []
    pairs = examples.get("text_pair")
    return list(examples["text"] if pairs is None else examples["text"] + " ¶ " + pairs)


def row_names(rows: Sequence[Row]) -> dict[str, str]:
    """What the group of each row is called: its label, with the encoder where there are several."""
    several = has_encoders(rows)
    return {row.group: f"{row.label} on {row.model}" if several and row.model else row.label for row in rows}


def has_encoders(rows: Sequence[Row]) -> bool:
    """Whether there are several."""
    return len({row.model for row in rows if row.model}) > 1


@dataclass(frozen=True)
class Verdict:
    """What the comparison lets one conclude."""

    best: str  # group of the best score
    tied: tuple[str, ...]  # groups that cannot be told from it, itself included
    recommended: str  # the cheapest of them
    cost: str
    text: str


@dataclass(frozen=True)
class Comparison:
    """Everything that a report shows. Rows stand best first."""

    name: str
    metric: str
    label_names: tuple[str, ...]
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]  # every two rows, in their order
    verdict: Verdict | None  # None if no run succeeded
    failures: tuple[RunRecord, ...]
    records: tuple[RunRecord, ...]  # the successful ones
    histories: dict[str, pd.DataFrame]  # run id -> steps and epochs
    confusion: dict[str, np.ndarray]  # group -> (C, C) on test, summed over seeds
    classes: dict[str, list[dict[str, Any]]]  # group -> precision, recall, F1 of each class, over all seeds
    answers: dict[str, Answers]  # group -> what its runs say of the test examples
    errors: Errors | None
    calibration: dict[str, Calibration]
    slices: pd.DataFrame  # scores on parts of test: what by_slice() gives
    examples: pd.DataFrame | None  # the test split: text, perhaps text_pair, label; None where it was not stored
    data: dict[str, Any]  # name, notes, examples and labels of each split, and the sessions in which runs were made
    study: dict[str, Any]  # the resolved spec
    parts: tuple[RunRecord, ...] = ()  # the successful ones on parts of train
    curve: tuple[Point, ...] = ()  # what strategies score with less of train, and with all of it
    advice: str = ""  # whether more labels would help more than another strategy
    searches: tuple[SearchRecord, ...] = ()  # what was tried before the runs
    folder: str = ""

    @property
    def names(self) -> dict[str, str]:
        """What each group is called: its label, with the encoder where there are several."""
        return row_names(self.rows)

    @property
    def texts(self) -> list[str]:
        """The test texts, pairs as one; empty where they were not stored."""
        return texts_of(self.examples)

    @property
    def leaderboard(self) -> pd.DataFrame:
        """A row a strategy, best first."""
        return pd.DataFrame(
            {
                "strategy": row.label,
                "model": row.model,
                self.metric: row.score,
                "low": row.interval[0],
                "high": row.interval[1],
                "seed_sd": row.spread,
                "difference": row.difference,
                "difference_low": row.difference_interval[0],
                "difference_high": row.difference_interval[1],
                "p_value": row.p_value,
                "tied": row.is_tied,
                "seeds": len(row.seeds),
                "trainable": row.parameters.get("trainable"),
                "train_seconds": row.costs.get("train_seconds"),
                "peak_bytes": row.costs.get("peak_bytes"),
                "model_bytes": row.costs.get("model_bytes"),
                "latency_seconds": row.costs.get("latency_seconds"),
                "calibration_error": self.calibration[row.group].error,
            }
            for row in self.rows
        )

    def to_json(self) -> dict[str, Any]:
        """Leaderboard, differences and verdict as plain data."""
        return {
            "name": self.name,
            "metric": self.metric,
            "level": stats.LEVEL,
            "resamples": stats.RESAMPLES,
            "verdict": asdict(self.verdict) if self.verdict else None,
            "leaderboard": [asdict(row) for row in self.rows],
            "pairs": [asdict(pair) for pair in self.pairs],
            "calibration": {group: _without_bins(found) for group, found in self.calibration.items()},
            "failures": [{"run_id": r.run_id, "status": r.status, "error": r.error} for r in self.failures],
            "slices": self.slices.to_dict("records"),
            "curve": [asdict(point) for point in self.curve],
            "advice": self.advice,
            "searches": [asdict(found) for found in self.searches],
            "data": self.data,
        }


def _without_bins(found: Calibration) -> dict[str, float]:
    return {name: value for name, value in vars(found).items() if name != "reliability"}
