"""Time of a race: what is left of its limit, and how long jobs are expected to take."""

import time
from dataclasses import dataclass, field

from tuneoff.execute.estimate import Estimate

REPORT_SECONDS = 8.0  # from the last run to the report, which the time has to hold too
_GUESSED_SPEED = 5e10  # operations per second, before any job was timed: of an old core
_FIXED_SECONDS = 1.5  # of a job, besides its operations: loading, predicting, storing
_LIKE_SHARE = 0.2  # of a job's operations, from which another job tells its speed
Key = tuple[str, str | None]  # label and encoder of a strategy


@dataclass
class Clock:
    """Time that a study has spent, earlier calls included, and what is left of its limit."""

    limit: float | None = None
    started: float = field(default_factory=time.monotonic)
    before: float = 0.0  # seconds that earlier calls took
    reserve: float = REPORT_SECONDS  # for what follows the race

    @property
    def spent(self) -> float:
        """Seconds so far."""
        return self.before + time.monotonic() - self.started

    @property
    def left(self) -> float:
        """Seconds left for jobs; infinite without a limit."""
        return float("inf") if self.limit is None else self.limit - self.spent - self.reserve


class Pace:
    """Expected seconds of jobs: estimates, refined by the jobs that have run. speed: of earlier studies."""

    def __init__(self, speed: float | None) -> None:
        self.speed, self._measured = speed, dict[Key, tuple[float, float]]()  # operations and their speed

    def measure(self, estimated: Estimate, seconds: float) -> None:
        """Take the speed of a job that has run."""
        if estimated.operations > 0 and seconds > 0:
            speed = estimated.operations / max(0.05, seconds - min(_FIXED_SECONDS, seconds / 2))
            self._measured[key_of(estimated)] = estimated.operations, speed

    def seconds(self, estimated: Estimate) -> float:
        """Return the seconds to expect of a job: at the speed of its strategy, else of the largest on its encoder."""
        job = estimated.job
        if job.search and job.search.budget:
            return job.search.budget
        fixed = 0.3 if job.run.model is None else _FIXED_SECONDS * (job.search.trials or 1 if job.search else 1)
        return fixed + estimated.operations / self._speed_of(estimated)

    def _speed_of(self, estimated: Estimate) -> float:
        key = key_of(estimated)
        if key in self._measured:
            return self._measured[key][1]
        alike = [measured for (_, model), measured in self._measured.items() if model == key[1]]
        operations, speed = max(alike, default=(0.0, 0.0))
        # a much smaller job takes its time for other things than the operations that are counted
        if self.speed and operations < _LIKE_SHARE * estimated.operations:
            return self.speed
        return speed or self.speed or _GUESSED_SPEED


def key_of(estimated: Estimate) -> Key:
    """Return label and encoder of the strategy of a job."""
    return estimated.job.run.strategy.label, estimated.job.run.model
