"""Plans of studies that are not run, with invented estimates. For tests of what the command line prints."""

from tuneoff.data.doctor.checks import examine
from tuneoff.data.load import load_dataset
from tuneoff.execute.estimate import Estimate
from tuneoff.execute.executor import Slots
from tuneoff.plan import Plan
from tuneoff.search.space import SearchSpec
from tuneoff.spec.file import study_from
from tuneoff.spec.run import Job, RunSpec


def spec_of(source, seeds=3, **data):
    """A study of LoRA. data: of its DataSpec."""
    return study_from({"data": {"source": str(source), **data}, "strategies": ["lora"], "seeds": seeds})


def plan_of(spec, jobs, speed=1e10, workers=2, extension=""):
    """A plan of jobs of 1e12 operations each."""
    dataset = load_dataset(spec.data)
    estimates = [Estimate(job, None, 1e12, 0, 0) for job in jobs]
    return Plan(spec, dataset, tuple(examine(dataset)), extension, estimates, Slots(workers, threads=1), speed)


def jobs_of(spec, searches, runs, search=None):
    """Searches and runs of LoRA, each of another seed."""
    run = RunSpec(strategy=spec.strategies[-1], model="m", model_fingerprint="f", data_fingerprint="f",
        recipe=spec.recipe, metric="accuracy", seed=0)  # fmt: skip
    seeded = [run.model_copy(update={"seed": seed}) for seed in range(max(searches, runs))]
    search = search or SearchSpec(trials=1)
    return [Job(run=run, search=search) for run in seeded[:searches]] + [Job(run=run) for run in seeded[:runs]]
