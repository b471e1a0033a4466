"""Training logs of others next to the rows of a comparison. They take no part in ranking, tests and verdict.

A log states scores without predictions, so that they have no interval, and their examples may be others.
"""

import math
from dataclasses import dataclass

import numpy as np

from tuneoff.comparison.epochs import Epoch
from tuneoff.runs import StudyStore
from tuneoff.scoring.metrics import METRICS, bounds, depends_on_positive
from tuneoff.spec.study import StudySpec
from tuneoff.trainer_logs import TrainerLog

# names of metrics in libraries that are written differently here, apart from the order of their words
_SYNONYMS = {"matthews_correlation": "mcc", "matthews_corrcoef": "mcc", "acc": "accuracy"}


@dataclass(frozen=True)
class Imported:
    """A training log of HF Trainer under a name."""

    name: str
    file: str
    log: TrainerLog

    @property
    def group(self) -> str:
        """Id among the groups of runs."""
        return f"imported-{self.name}"

    @property
    def title(self) -> str:
        """Name in tables and charts."""
        return f"{self.name} (imported)"

    def score(self, metric: str) -> tuple[float, str] | None:
        """Return the stated score of a metric of ours and its split, test if it is stated; None if neither is."""
        for split in ("test", "evaluation"):
            scores = _by_our_names(self.log.scores.get(split, {}))
            if metric in scores:
                return scores[metric], split
        return None

    @property
    def epochs(self) -> list[Epoch]:
        """Losses and validation scores by epoch: the mean of the losses logged in it, and its last evaluation."""
        entries = [*self.log.steps, *self.log.evaluations]
        last = max((_epoch_of(entry["epoch"]) for entry in entries), default=0)
        return [self._epoch(number) for number in range(1, last + 1)]

    def evaluations(self, metric: str) -> list[tuple[float, float]]:
        """Return (position in epochs, score) of each evaluation; for log_loss its loss."""
        scores = [(entry["epoch"], _scores_of(entry).get(metric)) for entry in self.log.evaluations]
        return [(position, score) for position, score in scores if score is not None]

    def _epoch(self, number: int) -> Epoch:
        losses = [step["loss"] for step in self.log.steps if _epoch_of(step["epoch"]) == number]
        evaluations = [entry for entry in self.log.evaluations if _epoch_of(entry["epoch"]) == number]
        scores = _scores_of(evaluations[-1]) if evaluations else {}
        train_loss = float(np.mean(losses)) if losses else None
        return Epoch(self.group, number, runs=1, kept=0, train_loss=train_loss, scores=scores)


def load_imported(study: StudySpec, store: StudyStore) -> tuple[Imported, ...]:
    """Read the stored training logs that a study names. Raises StoreError if they are not stored."""
    return tuple(Imported(entry.name, entry.file, store.read_imported(entry.name)) for entry in study.imported)


def _epoch_of(position: float) -> int:
    """Return the number of the epoch, from 1, that a position in epochs is in: 1.0 is the end of the first."""
    return max(1, math.ceil(position - 1e-6))


def _scores_of(evaluation: dict[str, float]) -> dict[str, float]:
    """Return the scores of an evaluation by the names of our metrics; its loss as log loss, which it mostly is."""
    loss = {"log_loss": evaluation["loss"]} if "loss" in evaluation else {}
    return {**_by_our_names(evaluation), **loss}


def _by_our_names(scores: dict[str, float]) -> dict[str, float]:
    """Return the scores whose name and value fit a metric of ours: f1_macro is macro_f1, 93.1 is no accuracy."""
    # a plain f1 may be of the positive class or a mean over classes
    ours = [metric for metric in METRICS if metric != "log_loss" and not depends_on_positive(metric)]
    known = {frozenset(metric.split("_")): metric for metric in ours}
    named = {}
    for name, value in scores.items():
        metric = _SYNONYMS.get(name) or known.get(frozenset(name.split("_")))
        if metric and bounds(metric)[0] <= value <= bounds(metric)[1]:
            named[metric] = value
    return named
