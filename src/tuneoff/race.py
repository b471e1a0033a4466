"""A race of a study's strategies: rounds of searches, seeds or folds, decisions after each, and what fits into a time.

The rounds: strategies without epochs, the first trial of each other strategy, the other trials, and the runs seed by
seed or fold by fold. After trials a strategy stops that can hardly come near the best on validation, after runs one
with a negligible chance to be picked (comparison/race.py). Decisions are stored before the next round starts, so that
an interrupted race goes on with the same ones. Within a time limit a job starts only if its expected time is left,
and trials end in time for runs; what does not fit is recorded.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tuneoff.cache import fingerprint
from tuneoff.errors import ConfigError
from tuneoff.execute.estimate import Estimate, by_priority, charge_shared_once, makespan
from tuneoff.execute.executor import Slots
from tuneoff.execute.job import is_finished
from tuneoff.formats import counted, encoder_names, join_names, rough_seconds, written_time
from tuneoff.grid import Prepared, after_trials, estimates
from tuneoff.notices import notice
from tuneoff.race_time import REPORT_SECONDS, Clock, Key, Pace, key_of
from tuneoff.runs import OK, StudyStore
from tuneoff.search.race_record import (
    CHEAP,
    COMPLETE,
    DECIDED,
    REPEAT,
    SEARCH,
    TIME,
    TRIAL,
    RaceRecord,
    Round,
    Standing,
)
from tuneoff.spec.run import Job, RunSpec
from tuneoff.spec.study import StudySpec
from tuneoff.strategies import GradientConfig

if TYPE_CHECKING:
    from tuneoff.comparison.race import TrialScore
    from tuneoff.comparison.result import Comparison

_TRIALS_SHARE = 0.6  # of the time that is left, which a first trial and a run of each strategy may take
_CHEAP_SHARE = 0.5  # of the time that is left, for searches of strategies without epochs
_SLACK = 1.3  # how many times longer than expected jobs may take: for runs after trials, and where many start at once


@dataclass(frozen=True)
class Entrant:
    """A strategy in a race: its runs, in the order of its seeds or folds, and its search."""

    runs: tuple[RunSpec, ...]
    search: Job | None

    @property
    def key(self) -> Key:
        """Label and encoder."""
        return self.runs[0].strategy.label, self.runs[0].model

    @property
    def learns(self) -> bool:
        """True if predictions depend on the text."""
        return self.runs[0].definition.learns

    @property
    def has_epochs(self) -> bool:
        """True if it trains by gradient, which takes long."""
        return isinstance(self.runs[0].strategy, GradientConfig)

    def trials(self, count: int | None) -> list[Job]:
        """Return the search with a smaller budget; nothing for a strategy without a search. None: its own budget."""
        if self.search is None or self.search.search is None:
            return []
        if count is None:
            return [self.search]
        own = self.search.search.trials
        trials = min(own, count) if own else count
        fewer = self.search.search.model_copy(update={"trials": trials, "budget": None})
        return [self.search.model_copy(update={"search": fewer})]


def entrants_of(prepared: Prepared, searches: Sequence[Job]) -> list[Entrant]:
    """List the strategies of a race, in the order of the study. Baselines run with one seed only."""
    by_key: dict[Key, list[RunSpec]] = {}
    for run in prepared.runs:
        by_key.setdefault((run.strategy.label, run.model), []).append(run)
    by_group = {job.run.group: job for job in searches}
    return [
        Entrant(tuple(runs if runs[0].fold or runs[0].definition.learns else runs[:1]), by_group.get(runs[0].group))
        for runs in by_key.values()
    ]


@dataclass
class Race:
    """A race that runs. Functions of the study that it calls: execute, list_runs, compare and tell."""

    spec: StudySpec
    prepared: Prepared
    entrants: list[Entrant]
    store: StudyStore
    slots: Slots
    clock: Clock
    pace: Pace
    searched: Callable[[Sequence[RunSpec]], list[RunSpec]]  # runs with the options of their searches so far
    compare: "Callable[[], Comparison]"
    execute: Callable[[list[Estimate]], None] = lambda missing: None
    list_runs: Callable[[], None] = lambda: None  # writes data.json with the runs as the searches so far make them
    tell: Callable[[str], None] = notice
    finals: dict[Key, Estimate] = field(default_factory=dict)  # with folds: of the run on all labelled examples
    record: RaceRecord = field(init=False)
    _has_run: bool = False  # a job of the present round ran in this call

    def __post_init__(self) -> None:
        self.record = _opened(self.store.race(), self.spec, self.entrants).for_limits(self.spec.data.limits)
        # a start that took long tells that the report will, too
        self.clock.reserve = max(REPORT_SECONDS, self.clock.spent)
        stored = sum(session.seconds for session in self.store.sessions())
        self.clock.before = max(self.record.seconds, stored)
        self.record = dataclasses.replace(self.record, left_out=(), needed=None, ended="", time=self.clock.limit)
        for entrant in self.entrants:
            self._measure(entrant)

    def run(self) -> RaceRecord:
        """Run the rounds that are missing and return the race. Raises ConfigError for a time that nothing fits into."""
        self._store()  # what it takes of the data is known before there are runs on it
        self.list_runs()
        for name, kind, jobs in self._rounds():
            before, self._has_run = self.clock.spent, False
            self._run_jobs(kind, jobs)
            if kind == CHEAP:
                self.list_runs()  # a report has their scores from now on
            elif self._has_run or not self.record.has(name):
                self._decide(name, kind)
            phases = {**self.record.phases, kind: self.record.phases.get(kind, 0.0) + self.clock.spent - before}
            self._store(phases=phases)
        self._end()
        return self.record

    def preview(self) -> str:
        """Describe what fits into the time if no strategy stops; without a limit, what a race does."""
        rule = "strategies race: one with a negligible chance to be picked stops"
        if self.clock.limit is None:
            return rule
        noun, left = "fold" if self.spec.num_folds else "seed", self.clock.left
        left -= max((self.pace.seconds(final) for e in self.entrants if (final := self._final_that_fits(e))), default=0)
        counts = {entrant.key: 0 for entrant in self.entrants}
        for index in range(max(len(entrant.runs) for entrant in self.entrants)):
            jobs = [job for e in self.entrants if counts[e.key] == index for job in self._runs(e, index)]
            for estimated in sorted(estimates(self.prepared, jobs), key=self.pace.seconds):
                own = next(e for e in self.entrants if e.key == key_of(estimated))
                search = sum(map(self._seconds, self._missing([] if own.has_epochs or index else own.trials(None))))
                seconds = self._seconds(estimated) + search if not is_finished(estimated.job, self.store) else 0.0
                if seconds <= left:
                    left -= seconds / self.slots.workers
                    counts[own.key] += 1
        by_count: dict[int, list[str]] = {}
        names = encoder_names(self.spec.model)
        for entrant in self.entrants:
            label, model = entrant.key
            name = f"{label} on {names[model]}" if model and len(names) > 1 else label
            by_count.setdefault(counts[label, model], []).append(name)
        fits = [f"{counted(n, noun)} of {join_names(by_count[n])}" for n in sorted(by_count, reverse=True) if n]
        none = f"; no run of {join_names(by_count[0])}" if 0 in by_count else ""
        sample = f" and a sample is taken, {self.record.sample_text}" if self.record.sampled_sizes else ""
        return f"{rule}{sample}; in {written_time(self.clock.limit)} fit about {'; '.join(fits) or 'no runs'}{none}"

    def _final_that_fits(self, entrant: Entrant) -> Estimate | None:
        """Return the run on all labelled examples of a strategy, if it and a run on a fold may fit."""
        final = self.finals.get(entrant.key)
        return final if final and 2 * self.pace.seconds(final) <= self.clock.left else None

    def _rounds(self) -> Iterator[tuple[str, str, list[Job]]]:
        """Yield the name, the kind and the jobs of each round, from the decisions until then."""
        quick = [e for e in self.entrants if not e.has_epochs]
        jobs = [job for e in quick for job in (*e.trials(None), *self._runs(e, 0))]
        # a run has the options of its search: searches first
        yield "cheap strategies", CHEAP, [job for job in jobs if job.is_search]
        yield "cheap strategies", CHEAP, [job for e in quick for job in self._runs(e, 0)]
        slow = [e for e in self.entrants if e.has_epochs and e.trials(None)]
        if slow and self._affords_trials(slow):
            yield "first trial", TRIAL, [job for e in self._active(slow) for job in e.trials(1)]
            trials = self._affordable_trials(self._active(slow))
            if trials != 1:
                yield "other trials", SEARCH, [job for e in self._active(slow) for job in e.trials(trials)]
        elif slow:
            self.record = dataclasses.replace(self.record, trials=0)
            for estimated in self._missing([job for e in self._active(slow) for job in e.trials(None)]):
                self._leave_out(estimated, SEARCH)
        noun = "fold" if self.spec.num_folds else "seed"
        for index in range(max(len(e.runs) for e in self.entrants)):
            active = [e for e in self._active(self.entrants) if index < len(e.runs)]
            if not any(e.learns for e in active):
                return
            name = f"{noun} {max(active, key=lambda e: len(e.runs)).runs[index].seed}"
            yield name, REPEAT, [job for e in active for job in self._runs(e, index)]

    def _runs(self, entrant: Entrant, index: int) -> list[Job]:
        return [Job(run=run) for run in self.searched(entrant.runs[index : index + 1])]

    def _active(self, entrants: Sequence[Entrant]) -> list[Entrant]:
        """Leave out the strategies that have stopped, and those that did not get an earlier run for lack of time."""
        gone = {*self.record.stopped, *[(e.label, e.model) for e in self.record.left_out if e.kind == REPEAT]}
        return [e for e in entrants if e.key not in gone]

    def _missing(self, jobs: Sequence[Job]) -> list[Estimate]:
        """Estimate the jobs that are not finished, in the order of execution."""
        missing = estimates(self.prepared, [job for job in jobs if not is_finished(job, self.store)])
        # the state of the best trial is kept for its run; before the first trial, that one's will be, if there is one
        to_come = 0 if self.record.trials == 0 else 1
        searches = [job for e in self.entrants for job in e.trials(self._num_trials(e) or to_come)]
        missing = by_priority(after_trials(missing, searches, self.store))
        started = [Job(run=e.runs[0]) for e in self.entrants if self._has_started(e)]
        return charge_shared_once(
            missing, {(e.job.run.model, e.frozen_blocks) for e in estimates(self.prepared, started)}
        )

    def _has_started(self, entrant: Entrant) -> bool:
        """Return True if a run or a trial is stored, so that the outputs of frozen blocks are cached."""
        return self._has_run_of(entrant.key) or self._num_trials(entrant) > 0

    def _num_trials(self, entrant: Entrant) -> int:
        """Return the number of stored trials of a strategy."""
        return sum(len(self.store.searches.open(job.new_search).trials) for job in entrant.trials(None))

    def _run_jobs(self, kind: str, jobs: Sequence[Job]) -> None:
        """Run the jobs of a round; with a time limit the cheap ones first, each only if it fits."""
        missing = self._missing(jobs)
        if self.clock.limit is None:
            self._execute(missing)
        elif kind == SEARCH:  # until a run of each strategy has just the time that it takes
            self._search_until(self.clock.left - self._seconds_for_runs(), missing, kind)
        elif kind == CHEAP and any(e.job.is_search for e in missing):
            fitting = [e for e in missing if self._seconds(e) <= self._left(e)]
            for e in missing:
                if e not in fitting:
                    self._leave_out(e, kind)
            self._search_until(_CHEAP_SHARE * self.clock.left, fitting, kind)
        else:
            waiting = sorted(missing, key=self._seconds)
            while waiting:
                batch = waiting[: self._num_together(waiting)]
                del waiting[: len(batch)]
                fitting = [e for e in batch if self._seconds(e) <= self._left(e)]
                self._execute(fitting[::-1])  # the longest first
                for e in batch:
                    if e not in fitting:
                        self._leave_out(e, kind)

    def _search_until(self, seconds: float, searches: Sequence[Estimate], kind: str) -> None:
        """Run the trials of all strategies together, as many as end in some seconds."""
        deadline = time.time() + seconds
        self._execute([dataclasses.replace(e, job=e.job.model_copy(update={"deadline": deadline})) for e in searches])
        for e in searches:
            if not is_finished(e.job, self.store):
                self._leave_out(e, kind)

    def _num_together(self, waiting: Sequence[Estimate]) -> int:
        """Return how many of the cheapest jobs start together: those that surely fit, and one for each place at least.

        A few at a time would tell more of their speed, and leave places idle until the longest of them ends.
        """
        count = self.slots.workers
        while count < len(waiting):
            together = waiting[: count + 1]
            expected = makespan(map(self._seconds, together), self.slots.workers)
            if _SLACK * expected > min(map(self._left, together)):
                break
            count += 1
        return count

    def _seconds_for_runs(self) -> float:
        """Return the time to keep for a run of each strategy with trials that goes on, and with folds a final run."""
        entrants = self._active([e for e in self.entrants if e.has_epochs])
        runs = self._missing([job for e in entrants for job in self._runs(e, 0)])
        final = max((self.pace.seconds(self.finals[e.key]) for e in entrants if e.key in self.finals), default=0.0)
        return _SLACK * makespan(map(self._seconds, runs), self.slots.workers) + final

    def _left(self, estimated: Estimate) -> float:
        """Return the seconds left for a job, without those of the run on all labelled examples that follows folds."""
        candidates = {key for key, final in self.finals.items() if key == key_of(estimated) or self._has_run_of(key)}
        return self.clock.left - max((self.pace.seconds(self.finals[key]) for key in candidates), default=0.0)

    def _has_run_of(self, key: Key) -> bool:
        entrant = next(e for e in self.entrants if e.key == key)
        return run_is_done(self.store, self.searched(entrant.runs[:1])[0])

    def _leave_out(self, estimated: Estimate, kind: str) -> None:
        """Record a job that does not fit, and with a run the later ones of its strategy."""
        seconds = self._seconds(estimated)
        if estimated.job.is_search:
            self.record = self.record.with_left_out(*key_of(estimated), kind, "trials", seconds)
            return
        entrant = next(e for e in self.entrants if e.key == key_of(estimated))
        seeds = [run.seed for run in entrant.runs]
        for run in entrant.runs[seeds.index(estimated.job.run.seed) :]:
            self.record = self.record.with_left_out(*entrant.key, REPEAT, run.repeat, seconds)

    def _seconds(self, estimated: Estimate) -> float:
        """Return the expected seconds of a job; of a search only those of the trials that are missing."""
        job = estimated.job
        if job.search and job.search.trials:
            num_stored = len(self.store.searches.open(job.new_search).trials)
            if num_stored:
                fewer = job.search.model_copy(update={"trials": num_stored})
                done = estimates(self.prepared, [job.model_copy(update={"search": fewer})])[0].with_cached_states()
                return max(0.1, self.pace.seconds(estimated.with_cached_states()) - self.pace.seconds(done))
        return self.pace.seconds(estimated)

    def _execute(self, jobs: list[Estimate]) -> None:
        if not jobs:
            return
        self._has_run = True
        self.execute(jobs)
        for key in {key_of(e) for e in jobs}:
            self._measure(next(e for e in self.entrants if e.key == key))
        self._store()

    def _measure(self, entrant: Entrant) -> None:
        """Refine the expected seconds by the stored runs and trials of a strategy."""
        for job in (Job(run=run) for run in self.searched(entrant.runs)):
            if self.store.runs.is_done(job.job_id) and (record := self.store.runs.record(job.job_id)).status == OK:
                self.pace.measure(estimates(self.prepared, [job])[0].with_cached_states(), record.costs["run_seconds"])
        for job in entrant.trials(None):
            search = self.store.searches.open(job.new_search)
            if search.trials and not self._has_run_of(entrant.key):
                done = estimates(self.prepared, entrant.trials(len(search.trials)))[0]
                self.pace.measure(done.with_cached_states(), search.seconds)

    def _affords_trials(self, slow: Sequence[Entrant]) -> bool:
        """Return True if there is time for a first trial and a run of each strategy, and for more."""
        jobs = [job for e in self._active(slow) for job in (*e.trials(1), *self._runs(e, 0))]
        expected = sum(map(self._seconds, self._missing(jobs))) / self.slots.workers
        return expected <= _TRIALS_SHARE * self.clock.left

    def _affordable_trials(self, active: Sequence[Entrant]) -> int | None:
        """Return the trials of each strategy for which there is time, a run of each included; None for all of them."""
        if self.clock.limit is None or not active:
            return None
        left = self.clock.left - self._seconds_for_runs()
        own = self.spec.search.trials if self.spec.search else None
        for count in range(own or 8, 0, -1):
            searches = self._missing([job for e in active for job in e.trials(count)])
            if makespan(map(self._seconds, searches), self.slots.workers) <= left or count == 1:
                break
        is_whole = count == own
        self.record = dataclasses.replace(self.record, trials=None if is_whole else count)
        if own and not is_whole:
            for estimated in self._missing([job for e in active for job in e.trials(None)]):
                self._leave_out(estimated, SEARCH)
        return None if is_whole else count

    def _decide(self, name: str, kind: str) -> None:
        """Decide who goes on, store it, and tell the user."""
        from tuneoff.comparison.race import standings_on_test, standings_on_validation

        self.list_runs()
        when = f"after {'' if kind == REPEAT else 'the '}{name}"
        if kind in (TRIAL, SEARCH):
            scores, num_examples = list(self._trial_scores(more_come=kind == TRIAL)), self._num_validation()
            metric = self.prepared.runs[0].metric
            standings = standings_on_validation(scores, metric, self.spec.margin, num_examples, when)
        elif kind == REPEAT:
            repeats = {e.key: len(e.runs) for e in self.entrants}
            standings = standings_on_test(self.compare(), repeats, when)
            gone = self.record.stopped
            standings = [s if (s.label, s.model) not in gone else gone[s.label, s.model][1] for s in standings]
        else:
            standings = []
        before = {*self.record.stopped}
        self.record = self.record.after(Round(name, kind, tuple(standings), self.clock.spent))
        self._store()
        self._tell(name, [s for s in standings if (s.label, s.model) in {*self.record.stopped} - before])

    def _tell(self, name: str, stops: Sequence[Standing]) -> None:
        names = encoder_names({model: None for _, model in (e.key for e in self.entrants) if model})
        for standing in stops:
            of_encoder = f" on {names[standing.model]}" if standing.model and len(names) > 1 else ""
            self.tell(f"{standing.label}{of_encoder} stops: {standing.reason}")

    def _trial_scores(self, more_come: bool) -> "Iterator[TrialScore]":
        from tuneoff.comparison.race import TrialScore

        active = self._active(self.entrants)
        for entrant in active:
            (run, *_), metric = self.searched(entrant.runs[:1]), entrant.runs[0].metric
            if entrant.has_epochs:
                best = [self.store.searches.open(job.new_search).best for job in entrant.trials(None)]
                if best and best[0] and best[0].score is not None:
                    yield TrialScore(*entrant.key, best[0].score, is_searched=more_come, is_decided=True)
            elif entrant.learns and self.store.runs.is_done(run.run_id):
                record = self.store.runs.record(run.run_id)
                if (score := record.metrics.get("validation", {}).get(metric)) is not None:
                    yield TrialScore(*entrant.key, score, is_searched=False, is_decided=False)

    def _num_validation(self) -> int:
        from tuneoff.data.splits import parts_of

        run = self.prepared.runs[0]
        part = parts_of(self.prepared.dataset, run.fold, run.subset, run.seed, run.division)["validation"]
        return part.num_examples(self.prepared.dataset)

    def check_time(self) -> None:
        """Raise ConfigError, before anything is written, if not even one strategy fits and nothing is stored."""
        least = least_seconds(self)
        if self.clock.limit is not None and least is not None and self.clock.limit < least:
            raise ConfigError(
                f"time {self.clock.limit:g} s is too short for anything: the cheapest strategy takes about "
                f"{rough_seconds(least)} on this data, start and report included; write --time "
                f"{written_time(least)} or more"
            )

    def _store(self, **changes: object) -> None:
        self.record = dataclasses.replace(self.record, seconds=self.clock.spent, **changes)  # type: ignore[arg-type]
        self.store.write_race(self.record)

    def _end(self) -> None:
        """Store why the race ended, and with which time nothing would have been left out."""
        left = sum(entry.seconds for entry in self.record.left_out)
        if left:
            # what is left out may go on for the rest of the grid
            needed = self.clock.spent + self.clock.reserve + 1.2 * left / self.slots.workers
            self._store(ended=TIME, needed=needed)
        else:
            rounds = {entry.name for entry in self.record.rounds if entry.kind == REPEAT}
            self._store(ended=DECIDED if len(rounds) < self.record.repeats else COMPLETE)


def run_is_done(store: StudyStore, run: RunSpec) -> bool:
    """Return True if a run is stored."""
    return store.runs.is_done(run.run_id)


def least_seconds(race: Race) -> float | None:
    """Return the least time with which a race trains a strategy that learns; None if one is stored already."""
    cheapest = []
    for entrant in race.entrants:
        if not entrant.learns:
            continue
        runs = race.searched(entrant.runs[:1])
        if any(run_is_done(race.store, run) for run in runs):
            return None
        jobs = [Job(run=run) for run in runs] + ([] if entrant.has_epochs else entrant.trials(None))
        cheapest.append(sum(map(race._seconds, race._missing(jobs))))
    return race.clock.spent + race.clock.reserve + min(cheapest) if cheapest else None


def racekey_of(spec: StudySpec, entrants: Sequence[Entrant]) -> str:
    """Return a fingerprint of everything but stored records that the decisions of a race depend on."""
    groups = sorted(entrant.runs[0].group for entrant in entrants)
    repeats = [sorted(run.seed for run in entrant.runs) for entrant in entrants]
    return fingerprint(groups, repeats, spec.metric, spec.cost, spec.margin)


def _opened(stored: RaceRecord | None, spec: StudySpec, entrants: Sequence[Entrant]) -> RaceRecord:
    """Return the stored race, or a new one if strategies or settings differ, which counts the looks of the old one."""
    key, repeats = racekey_of(spec, entrants), max(len(entrant.runs) for entrant in entrants)
    if stored is None:
        return RaceRecord(key, repeats)
    if stored.key == key:
        return stored
    made = sum(entry.kind == REPEAT for entry in stored.rounds)
    return dataclasses.replace(
        RaceRecord(key, repeats),
        earlier_looks=stored.earlier_looks + made,
        seconds=stored.seconds,
        phases=stored.phases,
        **{name: getattr(stored, name) for name in ("sampled_sizes", "whole_sizes", "seconds_for_whole")},
    )
