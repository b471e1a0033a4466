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

import pyarrow as pa

from tuneoff.cache import in_use, prune
from tuneoff.checksums import seal_problem
from tuneoff.claims import claimed
from tuneoff.damage import check
from tuneoff.data.dataset import COPY
from tuneoff.data.describe import DataDescription, describe
from tuneoff.data.doctor.checks import examine
from tuneoff.data.doctor.copies import Copies, copies_of, scored_codes
from tuneoff.data.doctor.finding import Finding, ranked
from tuneoff.encoder.config import why_padded
from tuneoff.errors import ConfigError, StoreError
from tuneoff.execute.ahead import ImportsAhead
from tuneoff.execute.energy import EnergyMeter
from tuneoff.execute.estimate import Estimate
from tuneoff.execute.executor import Event, Executor, Slots
from tuneoff.execute.job import is_finished
from tuneoff.execute.local import LocalExecutor
from tuneoff.execute.room import local_slots, memory_warnings
from tuneoff.execute.stored_speed import store_speed, stored_speed
from tuneoff.extension import Extension, extend, with_stored_slices
from tuneoff.files import check_new_name, naming_full_disk
from tuneoff.given import Given, store_tests
from tuneoff.grid import (
    Prepared,
    estimates,
    final_of,
    final_run,
    largest_final,
    largest_model,
    prepare,
    sampled_findings,
    search_jobs,
)
from tuneoff.missing import missing_estimates, missing_jobs, with_searched_options
from tuneoff.notices import notice
from tuneoff.plan import Plan
from tuneoff.race import Race, entrants_of
from tuneoff.race_size import Share, measured_speed, within_time
from tuneoff.race_time import Clock, Pace
from tuneoff.runs import Session, StudyStore, remedy
from tuneoff.scoring.metrics import without_own
from tuneoff.spare_models import SMALL_MODEL_BYTES
from tuneoff.spec.file import read_study, study_from, write_study
from tuneoff.spec.run import Job, RunSpec
from tuneoff.spec.stated import merged_imports, merged_predictions
from tuneoff.spec.study import StudySpec
from tuneoff.strategies import STRATEGIES
from tuneoff.track import check_installed

if TYPE_CHECKING:
    from tuneoff.comparison.detection import Detection
    from tuneoff.comparison.result import Comparison
    from tuneoff.trackers import Tracked

RESULTS = Path("results")
_HEAD_HARM = 0.05  # of a replaced head: of a score it changes as much as another seed may


def _warn_if_not_stored(tracked: "Tracked") -> None:
    if tracked.error:
        warnings.warn(tracked.text, stacklevel=3)


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
            return cls(_read_stored(path), path)
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
        on_comparison: "Callable[[Comparison], None]" = lambda comparison: None,
        clock: Clock | None = None,
    ) -> "Comparison":
        """Run what is missing, compare all runs, write the report, and store the study in its trackers.

        Runs that are stored in the folder and not asked for again are kept, if they are comparable (extension.py).
        on_plan: called before the first job with all that is missing, and before the runs with the options that the
        searches gave them. executor: by default this machine.
        replace: compare this study's runs only, whatever settings the stored runs have.
        on_tracked: called for each tracker; by default one that fails is a warning. on_comparison: called before the
        report is written, which takes longer than the scores and the verdict. clock: of a time limit, if it started
        before this call.
        """
        clock = clock or Clock()
        clock.limit = self.spec.time
        if executor is None:
            with LocalExecutor() as local:
                return self.run(on_event, on_plan, local, replace, on_tracked, on_comparison, clock)
        check_installed(self.spec.track)
        if not self.folder.exists():
            check_new_name(self.folder.name)
        stored = None if replace else self.store
        spec, share, speed = within_time(self.spec, stored, clock, self._slots(executor.slots))
        prepared = prepare(spec)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with naming_full_disk(self.folder), claimed(self.folder), in_use():
                check(self.store)
                extension = extend(prepared.spec, prepared.runs, prepared.dataset, self.store, replace)
                prepared = prepared.with_tests(Given(extension.spec, self.store).tests(prepared.dataset))
                study = Study(extension.spec, self.folder)
                threads = None if replace else self.store.threads()
                study._run_missing(prepared, extension, threads, on_event, on_plan, executor, clock, share, speed)
                comparison = study._without_spare_models(study.comparison(metric=study.spec.metric))
                on_comparison(comparison)
                study._write(comparison)
                study.store.runs.remove_checkpoints()
            prune()
            for tracked in study.track(comparison):
                on_tracked(tracked)
            return comparison
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise StoreError(f"{self.folder} cannot be written: {error.strerror}; choose another place") from error

    def _run_missing(
        self,
        prepared: Prepared,
        extension: Extension,
        threads: int | None,
        on_event: Callable[[Event], None],
        on_plan: Callable[[Plan], None],
        executor: Executor,
        clock: Clock,
        share: Share | None,
        speed: float | None,
    ) -> None:
        """Run what is missing. threads: of each stored run; None if there is none. clock: of a time limit.

        share: of the data that a race takes; None for all of it, or what the stored study has. speed: operations per
        second of a job, if they are known.
        """
        # both raise before anything is written: for a run that an encoder cannot do, for predictions that do not fit
        grid = estimates(prepared, [Job(run=run) for run in prepared.runs])
        scored = prepared.dataset.splits[prepared.dataset.scored_split]
        given = Given(self.spec, self.store)
        predictions = given.predictions(self.spec.predictions, scored, prepared.dataset.label_names)
        imported = given.logs(self.spec.imported)
        slots = self._slots(executor.slots)(len(grid), largest_model(grid))
        slots = slots if threads is None else self._with_stored_threads(slots, threads)
        for text in memory_warnings([e for e in grid if not is_finished(e.job, self.store)]):
            notice(text)
        searches = search_jobs(self.spec, prepared)
        speed = stored_speed(self.spec, slots) or speed
        if speed is None and self.spec.time:
            speed = measured_speed(prepared, slots)
        race = self._race(prepared, searches, slots, speed, clock, share) if self.spec.is_raced else None
        if race:
            race.check_time()
        self.store.runs.remove_unfinished()
        write_study(self.spec, self.folder / "study.yaml")
        self.store.write_predictions(predictions)
        self.store.write_imported(imported)
        store_tests(prepared.tests, prepared.dataset.num_labels, self.store)
        self.store.write_slots(slots.workers, threads or slots.threads)
        copies = copies_of(prepared.dataset.splits)
        description = _description(prepared, extension, copies)
        findings = _with_heads(description.findings, prepared)
        scored = with_stored_slices(scored, self.spec, self.store)
        scored = scored.append_column(COPY, pa.array(scored_codes(prepared.dataset, copies)))

        largest, fits = largest_final(prepared), race.preview() if race else ""

        def announce(missing: list[Estimate], then: Estimate | None = largest) -> list[Estimate]:
            plan = (self.spec, prepared.dataset, findings, extension.text, missing, slots, speed, then, fits)
            on_plan(Plan(*plan))
            return missing

        def announce_missing() -> list[Estimate]:
            return announce(missing_estimates(prepared, searches, self.spec.keep, self.store))

        with self._session(slots) as started:
            ahead = ImportsAhead(["tuneoff.comparison.assemble", "tuneoff.report.write"])

            def execute(missing: Sequence[Estimate]) -> None:
                if missing:
                    started.extend(missing)
                    watched = ahead.watched(on_event, len(missing), slots.workers)
                    executor.execute([e.job for e in missing], self.store, slots, watched)

            def list_runs() -> None:
                runs = with_searched_options(prepared.runs, searches, self.store)
                run_ids = [*extension.kept_runs, *[run.run_id for run in runs]]
                search_ids = [*extension.kept_searches, *[job.job_id for job in searches]]
                self.store.write_data(description, scored, run_ids, search_ids)

            if race:
                announce_missing()
                race.execute, race.list_runs = (lambda missing: execute(announce(missing))), list_runs
                race.run()
            else:
                execute([e for e in announce_missing() if e.job.is_search])
                list_runs()
                execute(announce_missing())
            final = self._final_runs(prepared) if self.spec.num_folds else []
            missing_final = estimates(
                prepared, missing_jobs([Job(run=run) for run in final], self.spec.keep, self.store)
            )
            execute(announce(missing_final, then=None) if missing_final else [])
            self.store.write_final([run.run_id for run in final])

    def _slots(self, slots: Callable[..., Slots]) -> Callable[[int, int], Slots]:
        """Return a function from the number of jobs and the parameters of the largest model. slots: of an executor."""
        # executors of earlier versions have no argument for devices, and train on one
        devices = {"devices": self.spec.devices} if self.spec.devices > 1 else {}
        return lambda num_jobs, largest: slots(num_jobs, largest, self.spec.workers, **devices)

    def _race(
        self,
        prepared: Prepared,
        searches: Sequence[Job],
        slots: Slots,
        speed: float | None,
        clock: Clock,
        share: Share | None,
    ) -> Race:
        """Return the race of this study's strategies, which has not started."""
        entrants = entrants_of(prepared, searches)
        race = Race(
            spec=self.spec,
            prepared=prepared,
            entrants=entrants,
            store=self.store,
            slots=slots,
            clock=clock,
            pace=Pace(speed),
            searched=lambda runs: with_searched_options(runs, searches, self.store),
            compare=lambda: self.comparison(metric=self.spec.metric),
            finals={entrant.key: final for entrant in entrants if (final := final_of(prepared, entrant.runs[0]))},
        )
        if share:
            race.record = dataclasses.replace(
                race.record,
                sampled_sizes={str(split): size for split, size in self.spec.data.limits.items()},
                whole_sizes=share.whole_sizes,
                seconds_for_whole=share.seconds_for_whole,
            )
        return race

    def _with_stored_threads(self, slots: Slots, threads: int) -> Slots:
        """Return slots in which a job has as many threads as those of the stored runs, if there are as many cores."""
        kept = slots.with_threads(threads, keeps_workers=self.spec.workers is not None)
        if kept.threads < threads:
            notice(
                f"the stored runs had {threads} threads each and this machine has {kept.threads} cores: new runs may "
                "differ from them in the last bit"
            )
        return kept

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

    def _final_runs(self, prepared: Prepared) -> list[RunSpec]:
        """Return the run of the picked strategy on all labelled examples; none where the verdict picks none."""
        comparison = self.comparison(metric=self.spec.metric)
        picked = comparison.verdict.recommended if comparison.verdict else None
        folds = [record for record in comparison.records if record.group == picked and record.spec]
        if not folds:
            return []
        run = final_run(RunSpec.model_validate(folds[0].spec), folds, self.spec)
        return [run.model_copy(update={"tests": {test.name: test.fingerprint for test in prepared.tests}})]

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
                self.store.add_session(
                    Session(finished, slots.workers, slots.threads, energy.joules, seconds, energy.gpu_joules)
                )
                store_speed(self.spec, slots, [e for e in started if e.is_trained], self.store.runs)

    def comparison(
        self, cost: str | None = None, margin: float | None = None, metric: str | None = None
    ) -> "Comparison":
        """Compare the stored runs; nothing is trained. cost, margin, metric: replace the study's own.

        A metric that is a Python function is imported only if it is named here (comparison/assemble.py).
        """
        from tuneoff.comparison.assemble import compare as compare_runs

        check(self.store)
        if not (self.folder / "data.json").is_file():
            raise StoreError(
                f"{self.folder} holds no run yet: searches come first; wait for the first run, or go on with tuneoff "
                f"run {self.folder}"
            )
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
        tables = Given(study.spec, self.store).predictions(entries, self.store.test_table(), label_names)
        write_study(study.spec, self.folder / "study.yaml")
        self.store.write_predictions(tables)
        return study

    def add_imported(self, given: Sequence[Any]) -> "Study":
        """Store training logs of HF Trainer, in place of those with the same names.

        given: fields of ImportedSpec each, or name=file. Raises DataError, before anything is written.
        """
        study = self.changed(imported=merged_imports(self.spec.imported, given))
        names = {entry["name"] for entry in merged_imports((), given)}
        logs = Given(study.spec, self.store).logs([entry for entry in study.spec.imported if entry.name in names])
        write_study(study.spec, self.folder / "study.yaml")
        self.store.write_imported(logs)
        return study

    def report(self, cost: str | None = None, margin: float | None = None, metric: str | None = None) -> "Comparison":
        """Write comparison.json and the report from the stored runs. cost, margin, metric: replace the study's own."""
        comparison = self.comparison(cost, margin, metric)
        self._write(comparison)
        return comparison

    def _write(self, comparison: "Comparison") -> None:
        from tuneoff.report.write import write_report

        self.store.write_comparison(comparison.to_json())
        write_report(comparison, self.folder)

    def track(self, comparison: "Comparison | None" = None) -> "Iterator[Tracked]":
        """Store this study, which has a report, in its trackers; nothing is trained. comparison: of its runs."""
        from tuneoff.trackers import track

        if self.spec.track:
            yield from track(comparison or self.comparison(), self.folder, self.spec.track)

    def plan(self) -> "Plan":
        """Estimate the missing searches and runs; nothing is trained but a few steps to measure the speed.

        Raises ConfigError where the stored study cannot be extended by this one.
        """
        from tuneoff.execute.speed import measure_job_speed

        clock = Clock(self.spec.time)
        spec, share, _ = within_time(self.spec, self.store, clock, self._slots(local_slots))
        prepared = prepare(spec)
        prepared = prepared.with_tests(Given(self.spec, self.store).tests(prepared.dataset))
        extension = extend(prepared.spec, prepared.runs, prepared.dataset, self.store, replace=False)
        searches = search_jobs(prepared.spec, prepared)
        runs = [Job(run=run) for run in with_searched_options(prepared.runs, searches, self.store)]
        grid = estimates(prepared, runs)
        slots = self._slots(local_slots)(len(grid), largest_model(grid))
        if (threads := self.store.threads()) is not None:
            slots = self._with_stored_threads(slots, threads)
        speed = 1e11
        for model, tables in list(prepared.tokens.items())[:1]:
            speed = measure_job_speed(model, tables["train"], spec.recipe, prepared.dataset.num_labels, slots)
        missing = {e.job.job_id: e for e in missing_estimates(prepared, searches, self.spec.keep, self.store)}
        in_order = [missing[job.job_id] for job in [*searches, *runs] if job.job_id in missing]
        sampled = sampled_findings(prepared.dataset, prepared.tokens, self.spec.recipe.truncation)
        findings = _with_heads([*examine(prepared.dataset), *sampled], prepared)
        final = largest_final(prepared)
        race = ""
        if prepared.spec.is_raced:
            race = Study(prepared.spec, self.folder)._race(prepared, searches, slots, speed, clock, share).preview()
        return Plan(prepared.spec, prepared.dataset, findings, extension.text, in_order, slots, speed, final, race)

    def detection(self, gap: float, plan: "Plan") -> "Detection":
        """Plan how many examples and seeds, or folds, detect a difference. plan: of this study."""
        from tuneoff.comparison.detection import detection
        from tuneoff.scoring.power import Repeats

        num_seeded = sum(STRATEGIES[strategy.name].is_seeded for strategy in plan.spec.strategies)
        repeats = Repeats(plan.spec.num_seeds, plan.dataset.folds, max(2, num_seeded))
        metric = without_own(self.spec.metric, plan.dataset.is_multilabel)  # its variances are those of accuracy anyway
        comparison = self.comparison(metric=metric) if (self.folder / "data.json").is_file() else None
        return detection(gap, plan.dataset.num_examples(plan.dataset.scored_split), repeats, comparison)


def _read_stored(folder: Path) -> StudySpec:
    """Read the spec of a stored study. Raises StoreError for a damaged one, ConfigError for one that was edited."""
    path = folder / "study.yaml"
    try:
        return read_study(str(path))
    except ConfigError as error:
        if problem := seal_problem(path):
            raise StoreError(f"{path} {problem} ({error}); {remedy(folder)}") from error
        raise


def _description(prepared: Prepared, extension: Extension, copies: Copies) -> DataDescription:
    """Describe the data and the encoders, with what is stored of those that this part of the study does not have."""
    truncation = prepared.spec.recipe.truncation
    description = describe(prepared.dataset, prepared.tokens, prepared.tokenizers, truncation, copies=copies)
    sampled = sampled_findings(prepared.dataset, prepared.tokens, truncation)
    return dataclasses.replace(
        description,
        findings=tuple(ranked([*description.findings, *sampled])),
        lengths=extension.lengths | description.lengths,
        heads=extension.heads | prepared.heads,
        token_examples=description.token_examples or extension.token_examples,
    )


def _with_heads(findings: Sequence[Finding], prepared: Prepared) -> tuple[Finding, ...]:
    """Add the findings about encoders: own heads, which change what training starts from, and padded batches."""
    parts = [text.partition(": ") for text in prepared.heads.values()]
    padded = [Finding("padded batches", text) for model in prepared.tokens if (text := why_padded(model))]
    return tuple(ranked([*findings, *[Finding(kind, text, harm=_HEAD_HARM) for kind, _, text in parts], *padded]))
