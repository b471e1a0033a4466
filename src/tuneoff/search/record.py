"""Trials of a hyperparameter search. Everything here is JSON; the search store in runs.py reads and writes it."""

import itertools
from dataclasses import dataclass, field, replace
from typing import Any

from tuneoff.scoring.metrics import direction
from tuneoff.search.space import SearchSpec

# done: all epochs | stopped: pruned by successive halving | cut: the time budget ended | failed: diverged or crashed
DONE, STOPPED, CUT, FAILED = "done", "stopped", "cut", "failed"
_EARLIER_PER_CLASS = " a class"  # end of a subset's label in searches that earlier versions stored
_MAX_EQUAL_FAILURES = 3
_MAX_TRIALS = 100  # of a time budget: cheap strategies need not fill ten minutes


@dataclass
class Trial:
    """One trial: hyperparameters and their validation scores."""

    options: dict[str, Any]
    scores: list[float] = field(default_factory=list)  # after each epoch
    score: float | None = None  # of the epoch whose weights were kept; None for a failed trial
    state: str = DONE
    seconds: float = 0.0
    error: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)  # Optuna's notes about the trial's pruning rungs


@dataclass
class SearchRecord:
    """One search: a strategy, its search space, and the trials so far."""

    search_id: str
    strategy: str
    label: str  # the strategy with its options
    model: str | None
    seed: int
    metric: str  # on validation, maximised (log loss: minimised)
    epochs: int  # of a trial that is not stopped
    space: dict[str, Any]  # option -> choices, or low, high and log
    part: str | None = None  # subset of train that trials see; None for all of it
    trials: list[Trial] = field(default_factory=list)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "SearchRecord":
        """Build a record from its stored fields, also from those of an earlier version."""
        record = cls(**{**stored, "trials": [Trial(**trial) for trial in stored["trials"]]})
        if record.part and record.part.endswith(_EARLIER_PER_CLASS):
            record.part = record.part.removesuffix(_EARLIER_PER_CLASS) + " per class"
        return record

    @property
    def best(self) -> Trial | None:
        """Return the trial with the best validation score, the earliest of equals; None if all failed."""
        scored = [trial for trial in self.trials if trial.score is not None]
        return max(scored, key=lambda trial: direction(self.metric) * (trial.score or 0.0), default=None)

    @property
    def is_hopeless(self) -> bool:
        """True if the first three trials, with the default options and others, failed with the same error."""
        first = self.trials[:_MAX_EQUAL_FAILURES]
        reasons = {((trial.error or "").strip().splitlines() or [""])[-1] for trial in first}
        return len(first) == _MAX_EQUAL_FAILURES and all(t.state == FAILED for t in first) and len(reasons) == 1

    @property
    def seconds(self) -> float:
        """Time of all trials."""
        return sum(trial.seconds for trial in self.trials)

    def is_spent(self, search: SearchSpec) -> bool:
        """Return True once the budget is used up, or if the first trials show that every trial fails."""
        if self.is_hopeless:
            return True
        if search.trials is not None:
            return sum(trial.state != CUT for trial in self.trials) >= search.trials
        return self.seconds >= (search.budget or 0) or len(self.trials) >= _MAX_TRIALS

    def within(self, search: SearchSpec) -> "SearchRecord":
        """Return the search as a budget allows it; stored trials may come from a larger earlier budget."""
        if search.trials is not None:
            return replace(self, trials=[trial for trial in self.trials if trial.state != CUT][: search.trials])
        before = itertools.accumulate((trial.seconds for trial in self.trials), initial=0.0)
        kept = [trial for trial, spent in zip(self.trials, before, strict=False) if spent < (search.budget or 0)]
        return replace(self, trials=kept)
