"""One search, trial by trial, each judged on validation alone."""

import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from tuneoff import metrics
from tuneoff.data.dataset import Dataset, labels_of
from tuneoff.data.load import open_dataset
from tuneoff.errors import TuneoffError
from tuneoff.execute.fit import fit
from tuneoff.search import CUT, DONE, FAILED, STOPPED, Range, Sampler, SearchRecord, SearchSpec, Trial
from tuneoff.spec import RunSpec, SearchJob

_MOST_TRIALS = 100  # within a budget of time: what is tried in a moment need not be tried for ten minutes


def search_path(folder: Path, job: SearchJob) -> Path:
    """Where a search is stored, of those in a folder."""
    return folder / f"{job.run_id}.json"


def open_search(folder: Path, job: SearchJob) -> SearchRecord:
    """A search as far as it went; without trials if it never began."""
    path = search_path(folder, job)
    if path.is_file():
        return SearchRecord.read(path)
    space = {name: v.model_dump() if isinstance(v, Range) else list(v) for name, v in job.space.items()}
    return SearchRecord(
        search_id=job.run_id,
        strategy=job.strategy.name,
        label=job.strategy.label,
        model=job.model,
        seed=job.seed,
        metric=job.run.metric,
        epochs=job.run.recipe.epochs,
        space=space,
        part=job.run.subset.label if job.run.subset else None,
    )


def is_spent(search: SearchSpec, trials: Sequence[Trial]) -> bool:
    """Whether a strategy has had its budget."""
    if search.trials is not None:
        return sum(trial.state != CUT for trial in trials) >= search.trials
    return sum(trial.seconds for trial in trials) >= (search.budget or 0) or len(trials) >= _MOST_TRIALS


def search_one(job: SearchJob, folder: Path, on_progress: Callable[[float], None] = lambda share: None) -> SearchRecord:
    """Make the trials that are missing, and store the search after each."""
    record, dataset = open_search(folder, job), open_dataset(job.run.data_fingerprint)
    while not is_spent(job.search, record.trials):
        sampler = Sampler(job.run.strategy, job.space, job.search, job.run.metric, record.trials)
        record.trials.append(_try(job, dataset, sampler, record, on_progress))
        record.write(search_path(folder, job))
    return record


def _try(
    job: SearchJob, dataset: Dataset, sampler: Sampler, record: SearchRecord, on_progress: Callable[[float], None]
) -> Trial:
    trial, started = sampler.ask(), time.perf_counter()
    spent = sum(earlier.seconds for earlier in record.trials)
    state = DONE

    def is_over(score: float) -> bool:
        nonlocal state
        trial.scores.append(score)
        is_late = job.search.budget is not None and spent + time.perf_counter() - started >= job.search.budget
        is_weak = sampler.is_weak(trial.scores)
        if len(trial.scores) < job.run.recipe.epochs:
            state = STOPPED if is_weak else CUT if is_late else DONE
        return state != DONE

    def progress(share: float) -> None:
        if job.search.trials is not None:
            on_progress((len(record.trials) + share) / job.search.trials)
        else:
            on_progress(min(1.0, (spent + time.perf_counter() - started) / (job.search.budget or 1)))

    run = job.run.model_copy(update={"found": trial.options, "save_model": False})
    try:
        trial.score = _validated(run, dataset, progress, is_over)
        trial.state = state
    except Exception as error:  # whatever a trial does, the others go on
        trial.state = FAILED
        trial.error = str(error) if isinstance(error, TuneoffError) else traceback.format_exc()
    trial.attributes = sampler.attributes()
    trial.seconds = time.perf_counter() - started
    return trial


def _validated(
    run: RunSpec, dataset: Dataset, on_progress: Callable[[float], None], is_over: Callable[[float], bool]
) -> float:
    fitted = fit(run, dataset, ("validation",), on_progress, is_over)
    labels = labels_of(dataset.splits["validation"])
    return metrics.evaluate(labels, fitted.predicted("validation"), fitted.probabilities["validation"])[run.metric]
