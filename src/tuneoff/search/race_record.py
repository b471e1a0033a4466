"""Records of a race of strategies: rounds with their decisions, and what the time left out. Everything is JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tuneoff.formats import join_names

# kinds of rounds: strategies without epochs | first trials | other trials | a seed or fold
CHEAP, TRIAL, SEARCH, REPEAT = "cheap", "trial", "search", "repeat"
# decisions about a strategy
GOES_ON, STOPPED, FINISHED = "goes on", "stopped", "complete"
# ends of a race: the pick is decided | every run that it asked for has ended | the time limit
DECIDED, COMPLETE, TIME = "decided", "complete", "time"


@dataclass(frozen=True)
class Standing:
    """One strategy at the end of a round, and the decision about it with its reason."""

    label: str
    model: str | None
    runs: int  # seeds or folds so far
    score: float  # on validation after rounds of trials, on test after seeds and folds
    state: str  # goes on | stopped | complete: it has all of its runs
    reason: str  # in words
    chance: float | None = None  # to be picked once every run has ended
    expected_loss: float | None = None  # against the truly best strategy


@dataclass(frozen=True)
class Round:
    """One round of a race."""

    name: str  # "first trial", "seed 0" or "fold 2"
    kind: str
    standings: tuple[Standing, ...]
    seconds: float  # spent on the study until its end


@dataclass(frozen=True)
class LeftOut:
    """Runs or trials of one strategy that did not fit into the time."""

    label: str
    model: str | None
    kind: str
    names: tuple[str, ...]  # "seed 1" or "trials"
    seconds: float  # expected


@dataclass(frozen=True)
class RaceRecord:
    """A race so far. Decisions of a stored round are not made again."""

    key: str  # fingerprint of the strategies and settings that the decisions depend on
    repeats: int  # seeds or folds of the whole grid
    earlier_looks: int = 0  # at the same test examples, by races with other settings in the same study
    trials: int | None = None  # of each strategy, if the time allowed fewer than the study asks for
    rounds: tuple[Round, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    time: float | None = None  # limit in seconds
    seconds: float = 0.0  # spent on the study, by earlier calls too
    needed: float | None = None  # time with which nothing is left out
    ended: str = ""  # why; empty while it goes on
    phases: dict[str, float] = field(default_factory=dict)  # kind of round -> seconds
    # where splits were limited to fit into the time: split -> examples that it takes, and that there are
    sampled_sizes: dict[str, int] = field(default_factory=dict)
    whole_sizes: dict[str, int] = field(default_factory=dict)
    seconds_for_whole: float | None = None  # time with which all of them would fit

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "RaceRecord":
        """Build a record from its stored fields."""
        rounds = [
            Round(**{**entry, "standings": tuple(Standing(**standing) for standing in entry["standings"])})
            for entry in stored["rounds"]
        ]
        left_out = [LeftOut(**{**entry, "names": tuple(entry["names"])}) for entry in stored["left_out"]]
        return cls(**{**stored, "rounds": tuple(rounds), "left_out": tuple(left_out)})

    @property
    def num_looks(self) -> int:
        """Looks at the test scores after which the race decides or has decided, those to come included."""
        looks = [entry.name for entry in self.rounds if entry.kind == REPEAT]
        return self.repeats + self.earlier_looks + len(looks) - len(set(looks))

    @property
    def stopped(self) -> dict[tuple[str, str | None], tuple[Round, Standing]]:
        """The strategies that have stopped, each with the round and the decision."""
        stops: dict[tuple[str, str | None], tuple[Round, Standing]] = {}
        for entry in self.rounds:
            for standing in entry.standings:
                if standing.state == STOPPED:
                    stops.setdefault((standing.label, standing.model), (entry, standing))
        return stops

    @property
    def sample_text(self) -> str:
        """The examples that a race takes where it does not take all, in words.

        >>> sizes = {"train": 5700, "test": 1500}
        >>> RaceRecord("", 3, sampled_sizes=sizes, whole_sizes={"train": 45615, "test": 12284}).sample_text
        '5,700 of 45,615 train and 1,500 of 12,284 test examples'
        """
        parts = [f"{size:,} of {self.whole_sizes[split]:,} {split}" for split, size in self.sampled_sizes.items()]
        return f"{join_names(parts)} examples" if parts else ""

    def for_limits(self, limits: Mapping[Any, int]) -> "RaceRecord":
        """Return the record without its sample, if the limits of the data are others."""
        if self.sampled_sizes == limits:
            return self
        return replace(self, sampled_sizes={}, whole_sizes={}, seconds_for_whole=None)

    def has(self, name: str) -> bool:
        """Return True if the decisions of a round are stored."""
        return any(entry.name == name for entry in self.rounds)

    def after(self, entry: Round) -> "RaceRecord":
        """Return the record with one more round."""
        return replace(self, rounds=(*self.rounds, entry))

    def with_left_out(self, label: str, model: str | None, kind: str, name: str, seconds: float) -> "RaceRecord":
        """Return the record with one more job that did not fit into the time."""
        same = [e for e in self.left_out if (e.label, e.model, e.kind) == (label, model, kind)]
        before, spent = (same[0].names, same[0].seconds) if same else ((), 0.0)
        if name in before:  # a search that was shortened, and then did not fit at all
            entry = LeftOut(label, model, kind, before, max(spent, seconds))
        else:
            entry = LeftOut(label, model, kind, (*before, name), spent + seconds)
        return replace(self, left_out=(*[e for e in self.left_out if e not in same], entry))


def last_standings(record: RaceRecord) -> Sequence[Standing]:
    """Return the decisions of the last round on test scores; empty before the first."""
    of_test = [entry for entry in record.rounds if entry.kind == REPEAT]
    return of_test[-1].standings if of_test else ()
