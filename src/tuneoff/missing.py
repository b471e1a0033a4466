"""What of a study's grid is not stored yet, with the options that its searches chose, and what it takes."""

from collections.abc import Sequence
from typing import Any

from tuneoff.execute.estimate import Estimate, by_priority, charge_shared_once
from tuneoff.execute.job import is_finished, only_predicts
from tuneoff.grid import Prepared, after_trials, estimates, only_predicting
from tuneoff.runs import OK, StudyStore
from tuneoff.spec.run import Job, RunSpec


def with_searched_options(runs: Sequence[RunSpec], searches: Sequence[Job], store: StudyStore) -> list[RunSpec]:
    """Give every run the options of its search's best trial; where every trial failed, it keeps its own."""
    options: dict[str, dict[str, Any]] = {}
    for job in searches:
        assert job.search is not None
        best = store.searches.open(job.new_search).within(job.search).best
        if best:
            options[job.run.group] = best.options
    return [run.searched(options.get(run.group, {})) for run in runs]


def missing_jobs(jobs: Sequence[Job], keep: str, store: StudyStore) -> list[Job]:
    """Return the jobs that are not stored. keep: of the study; with "all", a run without its model is missing too."""
    return [job for job in jobs if not is_finished(job, store) or (keep == "all" and _lacks_model(job, store))]


def _lacks_model(job: Job, store: StudyStore) -> bool:
    if job.is_search or not job.run.save_model or job.run.fold:
        return False
    return store.runs.record(job.job_id).status == OK and not store.runs.has_model(job.job_id)


def missing_estimates(prepared: Prepared, searches: Sequence[Job], keep: str, store: StudyStore) -> list[Estimate]:
    """Estimate the missing searches and runs, in the order of execution. keep: as of missing_jobs()."""
    runs = [Job(run=run) for run in with_searched_options(prepared.runs, searches, store)]
    cached = {(e.job.run.model, e.frozen_blocks) for e in estimates(prepared, runs) if is_finished(e.job, store)}
    missing_runs = [
        only_predicting(e, prepared) if only_predicts(e.job, store) else e
        for e in after_trials(estimates(prepared, missing_jobs(runs, keep, store)), searches, store)
    ]
    missing_searches = estimates(prepared, missing_jobs(searches, keep, store))
    return charge_shared_once([*by_priority(missing_searches), *by_priority(missing_runs)], cached)
