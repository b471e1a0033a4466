"""What a study is about to do, for its first screen and for tuneoff plan."""

from dataclasses import dataclass

from tuneoff.data.dataset import Dataset
from tuneoff.data.doctor.finding import Finding
from tuneoff.execute.estimate import Estimate, expected_seconds
from tuneoff.execute.executor import Slots
from tuneoff.spec.study import StudySpec


@dataclass(frozen=True)
class Plan:
    """What a study is about to do: its data, and estimates of the missing searches and runs."""

    spec: StudySpec
    dataset: Dataset
    findings: tuple[Finding, ...]  # of the checks of the data and the encoders, most harmful first
    extension: str  # what is stored already and what is new; empty for a new study
    estimates: list[Estimate]
    slots: Slots
    speed: float | None  # operations per second of one job; None if it was never measured
    # with folds: the run on all labelled examples that follows, of the strategy that takes longest
    final: Estimate | None = None
    race: str = ""  # what a race does, and what fits into its time; empty without one

    @property
    def seconds(self) -> float | None:
        """Time until all of them are done; None without a speed."""
        if self.speed is None:
            return None
        jobs = expected_seconds([(e, e.seconds(self.speed)) for e in self.estimates], self.slots.workers)
        return jobs + self.final_seconds(self.speed)

    def final_seconds(self, speed: float) -> float:
        """Return the time of the run on all labelled examples, at most; 0 if none follows."""
        return self.final.seconds(speed) if self.final and self.estimates else 0.0
