"""Share of the data that a race takes, so that every strategy can be trained within its time.

A pick among strategies that were all trained on a sample is worth more than one among the few cheap ones that the time
allows on all of train. The share is the largest with which a first trial and a run of each strategy take a part of the
time, as far as that leaves enough examples; splits are limited to it, stratified by label, as a user would limit them
(DataSpec.limits). The tokens of a text are estimated from a sample, the speed is that of earlier studies, or of a few
steps. A study that is stored goes on with the data that it has.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import floor, log10

import numpy as np
import pyarrow as pa

from tuneoff.data.dataset import Dataset, label_counts, labels_of
from tuneoff.data.load import load_dataset
from tuneoff.errors import TuneoffError
from tuneoff.execute.estimate import Estimate, by_priority, charge_shared_once
from tuneoff.execute.executor import Slots
from tuneoff.execute.stored_speed import stored_speed
from tuneoff.grid import Prepared, estimates, largest_model, prepared_from, search_jobs
from tuneoff.notices import notice
from tuneoff.race import Entrant, entrants_of
from tuneoff.race_time import Clock, Pace
from tuneoff.runs import StudyStore
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
    """Facts about data that is limited because of the time. The limits are in the spec."""

    whole_sizes: dict[str, int]  # each split that is limited -> examples that there are
    seconds_for_whole: float  # of a time limit within which all of them would fit


def within_time(
    spec: StudySpec, stored: StudyStore | None, clock: Clock, slots: Callable[[int, int], Slots]
) -> tuple[StudySpec, Share | None, float | None]:
    """Return a spec whose data fits into its time, facts about its share, and the speed of a job.

    The share is None for all of the data; the speed, in operations per second, where it was not needed.

    stored: where the study may be stored; None for one that is replaced. slots: from the number of runs and the
    parameters of the largest model. Data that the user limits stays as it is, and data that is scored on folds, which
    is small. Test stays whole where predictions from files name its rows by number.
    """
    if spec.time is None or spec.data.limits:
        return spec, None, None
    if stored and (stored.folder / "data.json").is_file():
        return _as_stored(spec, stored), None, None
    dataset = load_dataset(spec.data, spec.evaluate)
    sizes, least = {split: dataset.num_examples(split) for split in dataset.splits}, _least(dataset)
    if spec.predictions:
        least["test"] = sizes.get("test", 0)
    if dataset.folds or all(size <= least[split] for split, size in sizes.items()):
        return spec, None, None
    sample = prepared_from(spec, _sampled(dataset))
    entrants = entrants_of(sample, search_jobs(sample.spec, sample))
    grid = estimates(sample, [Job(run=run) for run in sample.runs])
    places = slots(len(grid), largest_model(grid))
    # as much time as until now passes until the first job, and a race reserves as much again for its end
    allowed = _FIRST_SHARE * ((clock.limit or 0.0) - 2 * clock.spent - max(clock.reserve, 2 * clock.spent))
    speed = stored_speed(spec, places) or measured_speed(sample, places)

    def first_seconds(examples: Mapping[str, int]) -> float:
        return _first_seconds(sample, entrants, examples, Pace(speed), places)

    if first_seconds(sizes) <= allowed:
        return spec, None, speed
    # times of searches, starts and ends, which no sample makes shorter
    fixed = first_seconds(dict.fromkeys(sizes, 1))
    limited = _largest(sizes, least, lambda examples: first_seconds(examples) <= allowed)
    if limited == sizes or fixed >= allowed:
        return spec, None, speed
    # a split that is held out from train would else be a share of all that there is
    limits = {split: limited[split] for split in sizes if limited[split] < sizes[split] or split in dataset.held_out}
    data = spec.data.model_copy(update={"limits": limits})
    enough = first_seconds(sizes) / _FIRST_SHARE + 2 * clock.spent + max(clock.reserve, 2 * clock.spent)
    return spec.model_copy(update={"data": data}), Share({split: sizes[split] for split in limits}, enough), speed


def _least(dataset: Dataset) -> dict[str, int]:
    """Return the fewest examples of each split with which scores tell something, and train has every class."""
    counts = label_counts(labels_of(dataset.splits["train"]), dataset.num_labels)
    of_rarest = -(-dataset.num_examples("train") // max(1, int(counts[counts > 0].min())))
    least = {split: max(_LEAST[split], dataset.num_labels) for split in dataset.splits}
    return {**least, "train": max(least["train"], of_rarest)}


def _largest(sizes: dict[str, int], least: dict[str, int], fits: Callable[[dict[str, int]], bool]) -> dict[str, int]:
    """Return the largest sizes of splits that fit, all by one share; no split has less than its least."""
    share, limited = 1.0, sizes
    while not fits(limited) and any(limited[split] > least[split] for split in limited):
        share *= _STEP
        limited = {split: min(size, max(least[split], _rounded(share * size))) for split, size in sizes.items()}
    return limited


def _as_stored(spec: StudySpec, store: StudyStore) -> StudySpec:
    """Return a spec with the limits of the stored study, if a race has set them and the data is the same."""
    with suppress(TuneoffError):  # a damaged file is named where it is needed
        stored, race = read_study(str(store.folder / "study.yaml")).data, store.race()
        same = stored.model_copy(update={"limits": {}, "slices": spec.data.slices}) == spec.data
        if race and race.for_limits(stored.limits).sampled_sizes and same:
            notice(
                f"{store.folder} goes on with its sample, {race.sample_text}; another name (--name) starts a study "
                "with as many as fit now"
            )
            return spec.model_copy(update={"data": spec.data.model_copy(update={"limits": stored.limits})})
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


def measured_speed(prepared: Prepared, slots: Slots) -> float | None:
    """Measure some steps of the first encoder: operations per second of a job. None without one, and on a cluster."""
    if not prepared.tokens or slots.machines > 1:
        return None
    from tuneoff.execute.speed import measure_job_speed  # imports torch

    model, tables = next(iter(prepared.tokens.items()))
    return measure_job_speed(model, tables["train"], prepared.spec.recipe, prepared.dataset.num_labels, slots)


def _rounded(size: float) -> int:
    """Round down to two digits.

    >>> _rounded(5738.2), _rounded(99.9), _rounded(0.4)
    (5700, 99, 0)
    """
    step = 10 ** max(0, floor(log10(max(size, 1))) - 1)
    return int(size // step * step)
