"""One job from its specification to its stored record: the only place where runs and searches differ in how they run.

The modules that run jobs are imported inside functions: the process that schedules jobs needs none of them.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from tuneoff.runs import DIVERGED, RunRecord, StudyStore
from tuneoff.search.record import FAILED, SearchRecord, Trial
from tuneoff.spec.run import Job

if TYPE_CHECKING:
    from tuneoff.execute.devices import Devices
    from tuneoff.execute.inputs import JobInputs

Record = RunRecord | SearchRecord


def run_job(
    job: Job,
    inputs: "JobInputs",
    store: StudyStore,
    on_progress: Callable[[float], None] = lambda share: None,
    halvings: int = 0,
    devices: "Devices | None" = None,
) -> None:
    """Run a job and store its record. on_progress: called with the share that is done, 0 to 1.

    halvings: of a run's micro-batch, because an earlier process of it was killed. devices: that train it together.
    """
    from tuneoff.execute.run import predict_tests, run_one
    from tuneoff.execute.search import search_one

    if job.search:
        search_one(job, job.search, inputs, store, on_progress, devices)
    else:
        if only_predicts(job, store):
            predict_tests(job.run, missing_tests(job, store), inputs, store.runs)
        else:
            run_one(job.run, inputs, store.runs, on_progress, halvings, devices)


def is_finished(job: Job, store: StudyStore) -> bool:
    """Return True if there is nothing left to do for a job."""
    if job.search:
        return store.searches.open(job.new_search).is_spent(job.search)
    return store.runs.is_done(job.job_id) and not missing_tests(job, store)


def missing_tests(job: Job, store: StudyStore) -> list[str]:
    """Return the test sets from elsewhere that a stored run has not predicted; a run that diverged predicts none."""
    if job.is_search or not job.run.tests or store.runs.record(job.job_id).status == DIVERGED:
        return []
    return store.runs.missing_tests(job.job_id, job.run.tests)


def only_predicts(job: Job, store: StudyStore) -> bool:
    """Return True for a stored run of which nothing is missing but predictions that its stored model can make."""
    if job.is_search or not store.runs.is_done(job.job_id) or not store.runs.has_model(job.job_id):
        return False
    return bool(missing_tests(job, store))


def stored_record(job: Job, store: StudyStore) -> Record:
    """Read the record that a job has stored."""
    return store.searches.open(job.new_search) if job.is_search else store.runs.record(job.job_id)


def record_crash(job: Job, store: StudyStore, reason: str) -> Record:
    """Store that a job's process died, which the job could not do itself: a failed run, or a failed trial."""
    from tuneoff.execute.run import failed_record

    if not job.is_search:
        return store.runs.write(failed_record(job.run, reason))
    record = store.searches.open(job.new_search)
    record.trials.append(Trial({}, state=FAILED, error=reason))
    store.searches.write(record)
    return record
