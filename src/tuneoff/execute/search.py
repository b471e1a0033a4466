"""One hyperparameter search, trial by trial, scored on validation alone.

With folds there is one search for all of them, on the training and validation examples of the first. What it finds is
used by every fold, whose test examples include those validation examples: a small leak, accepted because a search in
each fold would take as many times as long as there are folds.
"""

import time
import traceback
from collections.abc import Callable, Sequence

from tuneoff.data.splits import parts_of
from tuneoff.engine.training_state import State
from tuneoff.errors import TuneoffError
from tuneoff.execute.checkpoints import keep_best_trial
from tuneoff.execute.devices import Devices
from tuneoff.execute.fit import fit
from tuneoff.execute.inputs import JobInputs
from tuneoff.runs import StudyStore
from tuneoff.search.record import CUT, DONE, FAILED, STOPPED, SearchRecord, Trial
from tuneoff.search.sampler import Sampler
from tuneoff.search.space import SearchSpec, recipe_values
from tuneoff.spec.run import Job, RunSpec
from tuneoff.strategies import GradientConfig

Progress = Callable[[float], None]


def search_one(
    job: Job,
    search: SearchSpec,
    inputs: JobInputs,
    store: StudyStore,
    on_progress: Progress,
    devices: Devices | None = None,
) -> SearchRecord:
    """Run the trials that are missing from the budget of a job's search until its deadline; store each that ends.

    The state at the end of the best trial is stored as the checkpoint of the run with its options. devices: that train
    together; None for one.
    """
    run, record = job.run, store.searches.open(job.new_search)
    num_devices = devices.count if devices and isinstance(run.strategy, GradientConfig) else 1
    while not record.is_spent(search) and not _is_over(job, record.trials):
        space = search.space_of(run.strategy)
        sampler = Sampler(run.strategy, space, search, run.metric, record.trials, recipe_values(run.recipe, space))
        best, ends = record.best, list[State]()
        trial = _run_trial(job, search, sampler, record, inputs, on_progress, ends.append, devices)
        if trial.state == CUT and search.budget is None:
            break  # its score after fewer epochs would stand beside those of whole trials
        record.trials.append(trial)
        if ends and record.best is trial:
            earlier = run.searched(best.options) if best else None
            keep_best_trial(run.searched(trial.options), ends[0], earlier, store.runs, num_devices)
        store.searches.write(record)
    return record


def _is_over(job: Job, trials: Sequence[Trial]) -> bool:
    """Return True if one more epoch would end after the deadline of a job. trials: of the same search, until now."""
    epoch = max((trial.seconds / max(1, len(trial.scores)) for trial in trials), default=0.0)
    return job.deadline is not None and time.time() + epoch > job.deadline


def _run_trial(
    job: Job,
    search: SearchSpec,
    sampler: Sampler,
    record: SearchRecord,
    inputs: JobInputs,
    on_progress: Progress,
    on_end: Callable[[State], None],
    devices: Devices | None,
) -> Trial:
    trial, started, seconds_before = sampler.ask(), time.perf_counter(), record.seconds
    state = DONE
    trial_run = job.run.searched(trial.options).model_copy(update={"save_model": False})

    def seconds() -> float:
        return seconds_before + time.perf_counter() - started

    def should_stop(score: float) -> bool:
        nonlocal state
        trial.scores.append(score)
        is_late = _is_over(job, record.trials) or (search.budget is not None and seconds() >= search.budget)
        is_weak = sampler.should_stop(trial.scores)
        if len(trial.scores) < trial_run.recipe.epochs:
            state = STOPPED if is_weak else CUT if is_late else DONE
        return state != DONE

    def progress(share: float) -> None:
        if search.trials is not None:
            on_progress((len(record.trials) + share) / search.trials)
        else:
            on_progress(min(1.0, seconds() / (search.budget or 1)))

    try:
        trial.score = _validation_score(trial_run, inputs, progress, should_stop, on_end, devices)
        trial.state = state
    except Exception as error:  # a failed trial is stored as one, and the search goes on
        trial.state = FAILED
        trial.error = str(error) if isinstance(error, TuneoffError) else traceback.format_exc()
    trial.attributes = sampler.attributes()
    trial.seconds = time.perf_counter() - started
    return trial


def _validation_score(
    run: RunSpec,
    inputs: JobInputs,
    on_progress: Progress,
    should_stop: Callable[[float], bool],
    on_end: Callable[[State], None],
    devices: Devices | None,
) -> float:
    dataset = inputs.dataset(run)
    fitted = fit(run, dataset, inputs, ("validation",), on_progress, should_stop, on_end=on_end, devices=devices)
    labels = parts_of(dataset, run.fold, run.subset, run.seed, run.division)["validation"].labels(dataset)
    selection = run.selection(dataset.label_names, dataset.is_multilabel)
    return selection.score(labels, fitted.probabilities["validation"])
