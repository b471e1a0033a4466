"""Share of the data that a race takes, so that every strategy can be trained within its time.

A pick among strategies that were all trained on a sample is worth more than one among the few cheap ones that the time
allows on all of train. The share is the largest with which a first trial and a run of each strategy take a part of the
time; splits are limited to it, stratified by label, as a user would limit them (DataSpec.limits). The tokens of a text
are estimated from a sample, the speed is that of earlier studies, or of a few steps. A study that is stored goes on
with the data that it has.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import floor, log10

import numpy as np
import pyarrow as pa

from tuneoff.data.dataset import Dataset
from tuneoff.data.load import load_dataset
from tuneoff.errors import TuneoffError
from tuneoff.execute.estimate import Estimate, by_priority, charge_shared_once
from tuneoff.execute.executor import Slots
from tuneoff.execute.stored_speed import stored_speed
from tuneoff.grid import Prepared, estimates, largest_model, prepared_from, search_jobs
from tuneoff.notices import notice
from tuneoff.race import Clock, Entrant, Pace, entrants_of
from tuneoff.runs import StudyStore
from tuneoff.search.race_record import share_text
from tuneoff.seeds import SPLIT
from tuneoff.spec.file import read_study
from tuneoff.spec.run import Job
from tuneoff.spec.study import StudySpec

_SAMPLE = 1000  # examples of each split whose tokens are counted
# of the time, which a first trial and a run of each strategy may take; the rest is for deciding. A larger one would
# leave out the trials (race.py)
_FIRST_SHARE = 0.55
_LEAST = {"train": 500, "validation": 200, "test": 500}  # examples; scores of fewer tell little
_STEP = 0.9  # between two shares that are tried


@dataclass(frozen=True)
class Share:
    """What a race takes a part of, because of its time. The limits are in the spec."""

    whole: dict[str, int]  # each split that was limited -> examples that there are
    needed: float  # seconds of a time limit within which all of them would fit
    speed: float | None  # operations per second of one job, as it was measured now; None without an encoder


def within_time(
    spec: StudySpec, stored: StudyStore | None, clock: Clock, slots: Callable[[int, int], Slots]
) -> tuple[StudySpec, Share | None]:
    """Return a spec whose data fits into its time, and what it takes; None for all of the data.

    stored: where the study may be stored; None for one that is replaced. slots: from the number of runs and the
    parameters of the largest model. Data that the user limits stays as it is.
    """
    if spec.time is None or spec.data.limits:
        return spec, None
    if stored and (stored.folder / "study.yaml").is_file():
        return _as_stored(spec, stored), None
    dataset = load_dataset(spec.data, spec.evaluate, pools=SPLIT in spec.seed_grid)
    sizes = {split: dataset.num_examples(split) for split in dataset.splits}
    if all(size <= _LEAST[split] for split, size in sizes.items()):
        return spec, None
    sample = prepared_from(spec, _sampled(dataset))
    searches = search_jobs(sample.spec, sample)
    entrants = entrants_of(sample, searches)
    grid = estimates(sample, [Job(run=run) for run in sample.runs])
    places = slots(len(grid), largest_model(grid))
    speed, time = stored_speed(spec, places), max(1.0, clock.left)
    if _first_seconds(sample, entrants, sizes, Pace(speed), places) <= _FIRST_SHARE * time:
        return spec, None
    pace = Pace(speed or _measured_speed(sample))

    def first_seconds(limited: dict[str, int]) -> float:
        return _first_seconds(sample, entrants, limited, pace, places)

    limited = _largest(sizes, lambda limited: first_seconds(limited) <= _FIRST_SHARE * time)
    if limited == sizes:
        return spec, None
    # a split that is held out from train would else be a share of all that there is
    limits = {split: limited[split] for split in sizes if limited[split] < sizes[split] or split in dataset.held_out}
    data = spec.data.model_copy(update={"limits": limits})
    needed = first_seconds(sizes) / _FIRST_SHARE + clock.spent + clock.reserve
    whole = {split: sizes[split] for split in limits}
    return spec.model_copy(update={"data": data}), Share(whole, needed, pace.speed)


def _largest(sizes: dict[str, int], fits: Callable[[dict[str, int]], bool]) -> dict[str, int]:
    """Return the largest sizes of splits that fit, all by one share as far as it leaves enough; at least those."""
    share, limited = 1.0, sizes
    while not fits(limited) and any(limited[split] > _LEAST[split] for split in limited):
        share *= _STEP
        limited = {split: min(size, max(_LEAST[split], _rounded(share * size))) for split, size in sizes.items()}
    return limited


def _as_stored(spec: StudySpec, store: StudyStore) -> StudySpec:
    """Return a spec with the limits of the stored study, if a race has set them and the data is the same."""
    with suppress(TuneoffError):  # a damaged file is named where it is needed
        stored, race = read_study(str(store.folder / "study.yaml")), store.race()
        if race and race.whole and stored.data.model_copy(update={"limits": {}}) == spec.data:
            notice(
                f"{store.folder} goes on with {share_text(stored.data.limits, race.whole)}, as it was started; another "
                "name (--name) starts one with as many as fit"
            )
            return spec.model_copy(update={"data": stored.data})
    return spec


def _sampled(dataset: Dataset) -> Dataset:
    """Return a dataset of some examples of each split, which is not stored."""
    rng = np.random.default_rng(0)
    splits = {
        split: table.take(pa.array(np.sort(rng.permutation(table.num_rows)[:_SAMPLE])))
        for split, table in dataset.splits.items()
    }
    return replace(dataset, splits=splits, fingerprint=f"a sample of {dataset.fingerprint}")


def _first_seconds(
    prepared: Prepared, entrants: Sequence[Entrant], sizes: Mapping[str, int], pace: Pace, slots: Slots
) -> float:
    """Return the expected seconds of a first trial and a run of each strategy on splits of some sizes."""
    jobs = [job for e in entrants for job in (*e.trials(1 if e.has_epochs else None), Job(run=e.runs[0]))]
    searched = {e.runs[0].run_id for e in entrants if e.has_epochs and e.trials(1)}

    def charged(estimated: Estimate) -> Estimate:
        # a run goes on from the end of the trial
        return estimated.after_trial() if estimated.job.job_id in searched else estimated

    plan = charge_shared_once(by_priority(estimates(prepared, jobs, sizes)), set())
    return sum(pace.seconds(charged(estimated)) for estimated in plan) / slots.workers


def _measured_speed(prepared: Prepared) -> float | None:
    """Measure some steps of the first encoder; None without one."""
    if not prepared.tokens:
        return None
    from tuneoff.execute.speed import measure_speed  # imports torch

    model, tables = next(iter(prepared.tokens.items()))
    return measure_speed(model, tables["train"], prepared.spec.recipe, prepared.dataset.num_labels)


def _rounded(size: float) -> int:
    """Round down to two digits.

    >>> _rounded(5738.2), _rounded(99.9), _rounded(0.4)
    (5700, 99, 0)
    """
    step = 10 ** max(0, floor(log10(max(size, 1))) - 1)
    return int(size // step * step)
