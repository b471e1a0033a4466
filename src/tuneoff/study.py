"""The whole flow: spec -> dataset and tokens -> missing searches and runs -> records -> comparison -> report.

With folds, a last run trains the strategy that the comparison picks on all labelled examples.

Modules that jobs do not wait for (comparison, report) are imported when they are needed, so that jobs start sooner.
"""

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import pyarrow as pa

from tuneoff.cache import in_use, prune
from tuneoff.data.checks import check_data
from tuneoff.data.dataset import Dataset, is_multilabel
from tuneoff.data.describe import describe
from tuneoff.data.predictions import match_predictions, read_predictions
from tuneoff.data.sources import from_memory, store_in_cache
from tuneoff.data.spec import DataSpec
from tuneoff.errors import ConfigError, StoreError, unknown
from tuneoff.execute.energy import EnergyMeter
from tuneoff.execute.estimate import Estimate, by_priority, charge_shared_once, expected_seconds
from tuneoff.execute.executor import Event, Executor, Slots
from tuneoff.execute.job import is_finished
from tuneoff.execute.local import LocalExecutor, local_slots
from tuneoff.execute.stored_speed import store_speed, stored_speed
from tuneoff.extension import Extension, extend, with_stored_slices
from tuneoff.files import check_new_name, write_json
from tuneoff.grid import Prepared, estimates, final_run, largest_model, prepare, search_jobs
from tuneoff.runs import OK, Session, StudyStore
from tuneoff.scoring.metrics import metric_for
from tuneoff.spare_models import SMALL_MODEL_BYTES
from tuneoff.spec import (
    STRATEGIES,
    Job,
    PredictionsSpec,
    RunSpec,
    StudySpec,
    merged_predictions,
    read_study,
    study_from,
    write_study,
)
from tuneoff.track import check_installed

if TYPE_CHECKING:
    from tuneoff.comparison.detection import Detection
    from tuneoff.comparison.result import Comparison
    from tuneoff.trackers import Tracked

RESULTS = Path("results")


def _warn_if_not_stored(tracked: "Tracked") -> None:
    if tracked.error:
        warnings.warn(tracked.text, stacklevel=3)


@dataclass(frozen=True)
class Plan:
    """What a study is about to do: its data, and estimates of the missing searches and runs."""

    spec: StudySpec
    dataset: Dataset
    findings: tuple[str, ...]  # of the checks of the data and the encoders
    extension: str  # what is stored already and what is new; empty for a new study
    estimates: list[Estimate]
    slots: Slots
    speed: float | None  # operations per second of one job; None if it was never measured

    @property
    def seconds(self) -> float | None:
        """Time until all of them are done; None without a speed."""
        if self.speed is None:
            return None
        return expected_seconds([(e, e.seconds(self.speed)) for e in self.estimates], self.slots.workers)


@dataclass(frozen=True)
class Study:
    """A spec and the folder of its results."""

    spec: StudySpec
    folder: Path

    @classmethod
    def open(cls, name: str | Path) -> "Study":
        """Open a study from its results folder, a YAML file, or studies:NAME."""
        path = Path(name)
        if path.is_dir():
            if not (path / "study.yaml").is_file():
                raise StoreError(
                    f"folder {str(path)!r} holds no study.yaml; give a study's folder, e.g. results/quickstart"
                )
            return cls(read_study(str(path / "study.yaml")), path)
        spec = read_study(str(name))
        return cls(spec, RESULTS / spec.name)

    @property
    def store(self) -> StudyStore:
        """The stored runs and searches."""
        return StudyStore(self.folder)

    def run(
        self,
        on_event: Callable[[Event], None] = lambda event: None,
        on_plan: Callable[[Plan], None] = lambda plan: None,
        executor: Executor | None = None,
        replace: bool = False,
        on_tracked: "Callable[[Tracked], None]" = _warn_if_not_stored,
    ) -> "Comparison":
        """Run what is missing, compare all runs, write the report, and store the study in its trackers.

        Runs that are stored in the folder and not asked for again are kept, if they are comparable (extension.py).
        on_plan: called before the first job with all that is missing, and before the runs with the options that the
        searches gave them. executor: by default this machine.
        replace: compare this study's runs only, whatever settings the stored runs have.
        on_tracked: called for each tracker; by default one that fails is a warning.
        """
        if executor is None:
            with LocalExecutor() as local:
                return self.run(on_event, on_plan, local, replace, on_tracked)
        check_installed(self.spec.track)
        if not self.folder.exists():
            check_new_name(self.folder.name)
        prepared = prepare(self.spec)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(self.folder / ".lock", timeout=0), in_use():
                extension = extend(prepared.spec, prepared.runs, prepared.dataset, self.store, replace)
                study = Study(extension.spec, self.folder)
                study._run_missing(prepared, extension, on_event, on_plan, executor)
                comparison = study._without_spare_models(study.comparison())
                study._write(comparison)
            prune()
            for tracked in study.track(comparison):
                on_tracked(tracked)
            return comparison
        except filelock.Timeout:
            raise StoreError(f"another process is running the study in {self.folder}; wait for it or stop it") from None
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise StoreError(f"{self.folder} cannot be written: {error.strerror}; choose another place") from error

    def _run_missing(
        self,
        prepared: Prepared,
        extension: Extension,
        on_event: Callable[[Event], None],
        on_plan: Callable[[Plan], None],
        executor: Executor,
    ) -> None:
        # both raise before anything is written: for a run that an encoder cannot do, for predictions that do not fit
        grid = estimates(prepared, [Job(run=run) for run in prepared.runs])
        scored = prepared.dataset.splits[prepared.dataset.scored_split]
        predictions = self._read_predictions(self.spec.predictions, scored, prepared.dataset.label_names)
        self.store.runs.remove_unfinished()
        write_study(self.spec, self.folder / "study.yaml")
        self.store.write_predictions(predictions)
        slots = executor.slots(len(grid), largest_model(grid), self.spec.workers)
        searches = search_jobs(self.spec, prepared)
        description = describe(prepared.dataset, prepared.tokens)
        description = dataclasses.replace(
            description, lengths=extension.lengths | description.lengths, heads=extension.heads | prepared.heads
        )
        findings = (*description.findings, *prepared.heads.values())
        speed = stored_speed(self.spec, slots)

        def announce(missing: list[Estimate]) -> list[Estimate]:
            on_plan(Plan(self.spec, prepared.dataset, findings, extension.text, missing, slots, speed))
            return missing

        with self._session(slots) as started:

            def execute(missing: Sequence[Estimate]) -> None:
                if missing:
                    started.extend(missing)
                    executor.execute([e.job for e in missing], self.store, slots, on_event)

            execute([e for e in announce(self._missing(prepared, searches)) if e.job.is_search])
            runs = self._with_searched_options(prepared.runs, searches)
            scored = with_stored_slices(scored, self.spec, self.store)
            run_ids = [*extension.kept_runs, *[run.run_id for run in runs]]
            search_ids = [*extension.kept_searches, *[job.job_id for job in searches]]
            self.store.write_data(description, scored, run_ids, search_ids)
            execute(announce(self._missing(prepared, searches)))
            final = self._final_runs() if self.spec.num_folds else []
            missing_final = estimates(prepared, self._unfinished([Job(run=run) for run in final]))
            execute(announce(missing_final) if missing_final else [])
            self.store.write_final([run.run_id for run in final])

    def _missing(self, prepared: Prepared, searches: Sequence[Job]) -> list[Estimate]:
        """Estimate the missing searches and runs, in the order of execution."""
        runs = [Job(run=run) for run in self._with_searched_options(prepared.runs, searches)]
        grid = estimates(prepared, runs)
        cached = {(e.job.run.model, e.frozen_blocks) for e in grid if is_finished(e.job, self.store)}
        in_order = [
            *by_priority(estimates(prepared, self._unfinished(searches))),
            *by_priority(estimates(prepared, self._unfinished(runs))),
        ]
        return charge_shared_once(in_order, cached)

    def _read_predictions(
        self, entries: Sequence[PredictionsSpec], test: pa.Table, label_names: tuple[str, ...]
    ) -> dict[str, pa.Table]:
        """Read and check predictions from files, by name; for a file that is gone, its stored copy."""
        needs_probabilities = metric_for(self.spec.metric, is_multilabel(test)) == "log_loss"
        options, tables = (test, label_names, self.spec.data, needs_probabilities), {}
        for entry in entries:
            if not self.store.has_predictions(entry.name):
                check_new_name(f"{entry.name}.parquet")
            if not Path(entry.file).expanduser().is_file() and self.store.has_predictions(entry.name):
                matched = match_predictions(entry.name, self.store.read_predictions(entry.name), *options)
            else:
                matched = read_predictions(entry.name, entry.file, *options)
            tables[entry.name] = matched.table(test, label_names)
        return tables

    def _unfinished(self, jobs: Sequence[Job]) -> list[Job]:
        return [job for job in jobs if not is_finished(job, self.store) or self._lacks_model(job)]

    def _lacks_model(self, job: Job) -> bool:
        """Return True for a stored run whose model is gone, in a study that keeps all models."""
        if self.spec.keep != "all" or job.is_search or not job.run.save_model or job.run.fold:
            return False
        return self.store.runs.record(job.job_id).status == OK and not self.store.runs.has_model(job.job_id)

    def _without_spare_models(self, comparison: "Comparison") -> "Comparison":
        """Remove the large models of strategies that the verdict does not pick, if the study keeps the pick's only.

        Nothing is removed without a pick. At the end of a study, because any run may change the pick until then.
        """
        picked = comparison.verdict.recommended if comparison.verdict else None
        if self.spec.keep != "recommended" or picked is None:
            return comparison
        spare = [
            record.run_id
            for record in comparison.records
            if record.group != picked and record.costs.get("model_bytes", 0.0) > SMALL_MODEL_BYTES
        ]
        for run_id in spare:
            self.store.runs.remove_model(run_id)
        return dataclasses.replace(comparison, stored_models=comparison.stored_models - set(spare))

    def _with_searched_options(self, runs: Sequence[RunSpec], searches: Sequence[Job]) -> list[RunSpec]:
        """Give every run the options of its search's best trial; where every trial failed, it keeps its own."""
        options: dict[str, dict[str, Any]] = {}
        for job in searches:
            assert job.search is not None
            best = self.store.searches.open(job.new_search).within(job.search).best
            if best:
                options[job.run.group] = best.options
        return [run.searched(options.get(run.group, {})) for run in runs]

    def _final_runs(self) -> list[RunSpec]:
        """Return the run of the picked strategy on all labelled examples; none where the verdict picks none."""
        comparison = self.comparison()
        picked = comparison.verdict.recommended if comparison.verdict else None
        folds = [record for record in comparison.records if record.group == picked and record.spec]
        return [final_run(RunSpec.model_validate(folds[0].spec), folds, self.spec)] if folds else []

    @contextmanager
    def _session(self, slots: Slots) -> Iterator[list[Estimate]]:
        """Store what this session took, interrupted or not. Yields a list for the jobs that it starts."""
        self.store.sessions()  # raises for a damaged file now, not after the jobs
        before, energy = time.perf_counter(), EnergyMeter()
        started: list[Estimate] = []
        try:
            with energy:
                yield started
        finally:
            if started:
                finished = sum(self.store.runs.is_done(e.job.job_id) for e in started)
                seconds = time.perf_counter() - before
                self.store.add_session(Session(finished, slots.workers, slots.threads, energy.joules, seconds))
                store_speed(self.spec, slots, started, self.store.runs)

    def comparison(
        self, cost: str | None = None, margin: float | None = None, metric: str | None = None
    ) -> "Comparison":
        """Compare the stored runs; nothing is trained. cost, margin, metric: replace the study's own."""
        from tuneoff.comparison.assemble import compare as compare_runs

        changes = {name: value for name, value in (("cost", cost), ("margin", margin)) if value is not None}
        return compare_runs(self.changed(**changes).spec, self.store, metric)

    def changed(self, **changes: Any) -> "Study":
        """Return this study with other options, in the same folder; nothing is written."""
        return Study(study_from({**self.spec.model_dump(mode="json"), **changes}), self.folder)

    def add_predictions(self, given: Sequence[Any]) -> "Study":
        """Store predictions from files as rows of the comparison, in place of those with the same names.

        given: fields of PredictionsSpec each, or name=file. Raises DataError, before anything is written.
        """
        study = self.changed(predictions=merged_predictions(self.spec.predictions, given))
        names = {entry["name"] for entry in merged_predictions((), given)}
        entries = [entry for entry in study.spec.predictions if entry.name in names]
        label_names = self.store.read_data()[0].label_names
        tables = study._read_predictions(entries, self.store.test_table(), label_names)
        write_study(study.spec, self.folder / "study.yaml")
        self.store.write_predictions(tables)
        return study

    def report(self, cost: str | None = None, margin: float | None = None, metric: str | None = None) -> "Comparison":
        """Write comparison.json and the report from the stored runs. cost, margin, metric: replace the study's own."""
        comparison = self.comparison(cost, margin, metric)
        self._write(comparison)
        return comparison

    def _write(self, comparison: "Comparison") -> None:
        from tuneoff.report.write import write_report

        write_json(self.folder / "comparison.json", comparison.to_json())
        write_report(comparison, self.folder)

    def track(self, comparison: "Comparison | None" = None) -> "Iterator[Tracked]":
        """Store this study, which has a report, in its trackers; nothing is trained. comparison: of its runs."""
        from tuneoff.trackers import track

        if self.spec.track:
            yield from track(comparison or self.comparison(), self.folder, self.spec.track)

    def plan(self) -> "Plan":
        """Estimate the missing searches and runs; nothing is trained but a few steps to measure the speed."""
        from tuneoff.execute.speed import measure_speed

        prepared = prepare(self.spec)
        searches = search_jobs(prepared.spec, prepared)
        runs = [Job(run=run) for run in self._with_searched_options(prepared.runs, searches)]
        missing = self._unfinished(searches) + self._unfinished(runs)
        models = list(prepared.tokens)
        speed = 1e11
        if models:
            table = prepared.tokens[models[0]]["train"]
            speed = measure_speed(models[0], table, self.spec.recipe, prepared.dataset.num_labels)
        grid = estimates(prepared, runs)
        charged = {e.job.job_id: e for e in self._missing(prepared, searches)}
        slots = local_slots(len(grid), largest_model(grid), self.spec.workers)
        in_order = [charged[job.job_id] for job in missing]
        findings = (*check_data(prepared.dataset), *prepared.heads.values())
        return Plan(prepared.spec, prepared.dataset, findings, "", in_order, slots, speed)

    def detection(self, gap: float, plan: "Plan") -> "Detection":
        """Plan how many examples and seeds, or folds, detect a difference. plan: of this study."""
        from tuneoff.comparison.detection import detection
        from tuneoff.scoring.power import Repeats

        num_seeded = sum(STRATEGIES[strategy.name].is_seeded for strategy in plan.spec.strategies)
        repeats = Repeats(plan.spec.num_seeds, plan.dataset.folds, max(2, num_seeded))
        comparison = self.comparison() if (self.folder / "data.json").is_file() else None
        return detection(gap, plan.dataset.num_examples(plan.dataset.scored_split), repeats, comparison)


def compare(
    data: Any,
    *,
    folder: str | Path | None = None,
    recipe: dict[str, Any] | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    on_plan: Callable[[Plan], None] = lambda plan: None,
    executor: Executor | None = None,
    replace: bool = False,
    **options: Any,
) -> "Comparison":
    """Run the study that the options describe: fields of StudySpec and DataSpec. tuneoff.compare (api.py) calls it."""
    source = data if isinstance(data, (str, Path)) else store_in_cache(from_memory(data))
    fields = [name for name in (*StudySpec.model_fields, *DataSpec.model_fields) if name not in ("data", "source")]
    for key in options:
        if key not in fields:
            raise ConfigError(unknown("option of compare", key, fields))
    study = {key: options.pop(key) for key in list(options) if key in StudySpec.model_fields}
    given = {
        "data": {"source": str(source), **options},
        "name": default_name(str(source)),
        "search": 4,
        "recipe": recipe or {},
        **{key: value for key, value in study.items() if value is not None or key == "search"},
    }
    spec = study_from(given)
    return Study(spec, Path(folder) if folder else RESULTS / spec.name).run(on_event, on_plan, executor, replace)


def default_name(source: str) -> str:
    """Return a study's name from its data: reviews.csv -> reviews, hf:stanfordnlp/imdb -> stanfordnlp-imdb."""
    kind, _, rest = source.rpartition(":")
    stem = rest.replace("/", "-") if kind in ("hf", "packaged", "memory") else Path(source).stem
    kept = "".join(c if c.isalnum() or c in "-_." else "-" for c in stem).strip("-.")
    return kept or "study"
