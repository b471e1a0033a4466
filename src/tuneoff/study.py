"""The whole flow: spec -> dataset and tokens -> missing searches and runs -> records -> comparison -> report.

With folds, a last run trains the strategy that the comparison picks on all labelled examples.

Modules that jobs do not wait for (comparison, report) are imported when they are needed, so that jobs start sooner.
"""

import dataclasses
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import filelock
import pyarrow as pa

from tuneoff.cache import prune
from tuneoff.data.batches import largest_batch
from tuneoff.data.checks import check_data
from tuneoff.data.dataset import Dataset, is_multilabel
from tuneoff.data.describe import describe
from tuneoff.data.load import load_dataset, store_dataset
from tuneoff.data.predictions import match_predictions, read_predictions
from tuneoff.data.sources import from_memory, store_in_cache
from tuneoff.data.spec import DataSpec, Fold
from tuneoff.data.splits import check_subset, parts_of
from tuneoff.data.tokens import TokenTable, tokenize
from tuneoff.encoder.config import load_config, load_tokenizer, model_fingerprint
from tuneoff.errors import ConfigError, StoreError, unknown
from tuneoff.execute.energy import EnergyMeter
from tuneoff.execute.estimate import Estimate, by_priority, charge_shared_once, estimate, expected_seconds
from tuneoff.execute.executor import Event, Executor, Slots
from tuneoff.execute.job import is_finished
from tuneoff.execute.local import LocalExecutor, local_slots
from tuneoff.execute.stored_speed import store_speed, stored_speed
from tuneoff.extension import Extension, extend, with_stored_slices
from tuneoff.files import write_json
from tuneoff.runs import RunRecord, Session, StudyStore
from tuneoff.scoring.metrics import metric_for
from tuneoff.seeds import cell_number, crossed
from tuneoff.spec import (
    DEFAULT_SEEDS,
    STRATEGIES,
    Final,
    Job,
    PredictionsSpec,
    RunSpec,
    StudySpec,
    merged_predictions,
    read_study,
    study_from,
    write_study,
)

if TYPE_CHECKING:
    from tuneoff.comparison.detection import Detection
    from tuneoff.comparison.result import Comparison

RESULTS = Path("results")
# least number of steps of a run on a subset of train: in three epochs, a few examples would hardly be seen
MIN_SUBSET_STEPS = 60


@dataclass(frozen=True)
class Prepared:
    """A study before training: its dataset, its tokens, and the runs of its grid."""

    spec: StudySpec  # with the evaluation that the data decided
    dataset: Dataset
    tokens: dict[str, dict[str, TokenTable]]  # encoder -> split -> tokens
    runs: tuple[RunSpec, ...]  # the whole grid, in the order of the spec


@dataclass(frozen=True)
class Plan:
    """What a study is about to do: its data, and estimates of the missing searches and runs."""

    spec: StudySpec
    dataset: Dataset
    findings: tuple[str, ...]  # of the checks of the data
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
    ) -> "Comparison":
        """Run what is missing, compare all runs, and write the report.

        Runs that are stored in the folder and not asked for again are kept, if they are comparable (extension.py).
        on_plan: called before the first job with all that is missing, and before the runs with the options that the
        searches gave them. executor: by default this machine.
        replace: compare this study's runs only, whatever settings the stored runs have.
        """
        if executor is None:
            with LocalExecutor() as local:
                return self.run(on_event, on_plan, local, replace)
        prepared = prepare(self.spec)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(self.folder / ".lock", timeout=0):
                extension = extend(prepared.spec, prepared.runs, prepared.dataset, self.store, replace)
                study = Study(extension.spec, self.folder)
                study._run_missing(prepared, extension, on_event, on_plan, executor)
                comparison = study.report()
            prune()
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
        slots = executor.slots(len(grid), _largest_model(grid), self.spec.workers)
        searches = search_jobs(self.spec, prepared)
        description = describe(prepared.dataset, prepared.tokens)
        description = dataclasses.replace(description, lengths=extension.lengths | description.lengths)
        speed = stored_speed(self.spec, slots)

        def announce(missing: list[Estimate]) -> list[Estimate]:
            on_plan(Plan(self.spec, prepared.dataset, description.findings, extension.text, missing, slots, speed))
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
            if not Path(entry.file).expanduser().is_file() and self.store.has_predictions(entry.name):
                matched = match_predictions(entry.name, self.store.read_predictions(entry.name), *options)
            else:
                matched = read_predictions(entry.name, entry.file, *options)
            tables[entry.name] = matched.table(test, label_names)
        return tables

    def _unfinished(self, jobs: Sequence[Job]) -> list[Job]:
        return [job for job in jobs if not is_finished(job, self.store)]

    def _with_searched_options(self, runs: Sequence[RunSpec], searches: Sequence[Job]) -> list[RunSpec]:
        """Give every run the options of its search's best trial; where every trial failed, it keeps its own."""
        options: dict[str, dict[str, Any]] = {}
        for job in searches:
            assert job.search is not None
            best = self.store.searches.open(job.new_search).within(job.search).best
            if best:
                options[job.run.group] = best.options
        return [run.model_copy(update={"searched_options": options.get(run.group, {})}) for run in runs]

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
        from tuneoff.report.write import write_report

        comparison = self.comparison(cost, margin, metric)
        write_json(self.folder / "comparison.json", comparison.to_json())
        write_report(comparison, self.folder)
        return comparison

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
        slots = local_slots(len(grid), _largest_model(grid), self.spec.workers)
        in_order = [charged[job.job_id] for job in missing]
        return Plan(prepared.spec, prepared.dataset, tuple(check_data(prepared.dataset)), "", in_order, slots, speed)

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
    executor: Executor | None = None,
    replace: bool = False,
    **options: Any,
) -> "Comparison":
    """Compare strategies on your data: a file, a folder, packaged:NAME, hf:NAME, a DataFrame or a datasets.Dataset.

    options: fields of StudySpec (model, strategies, evaluate, seeds, metric, cost, search, fractions, per_class, name,
    ...) and of DataSpec (text, label, limits, ...). A strategy is a name ("lora"), a name with options ("lora:rank=16")
    or a config (LoRA(rank=16)). search is 4 trials of every strategy unless set; None turns it off. recipe: fields of
    Recipe. folder: by default results/NAME. Running again runs only what is missing, and keeps the stored runs of other
    strategies, encoders and seeds. replace: see Study.run.
    """
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
    return Study(spec, Path(folder) if folder else RESULTS / spec.name).run(
        on_event, executor=executor, replace=replace
    )


def default_name(source: str) -> str:
    """Return a study's name from its data: reviews.csv -> reviews, hf:stanfordnlp/imdb -> stanfordnlp-imdb."""
    kind, _, rest = source.rpartition(":")
    stem = rest.replace("/", "-") if kind in ("hf", "packaged", "memory") else Path(source).stem
    kept = "".join(c if c.isalnum() or c in "-_." else "-" for c in stem).strip("-.")
    return kept or "study"


def prepare(spec: StudySpec) -> Prepared:
    """Load and store the data, tokenize it for every encoder, and list the runs."""
    dataset = load_dataset(spec.data, spec.evaluate)
    store_dataset(dataset)
    spec = spec.resolved(dataset.folds)
    uses_encoder = any(STRATEGIES[strategy.name].uses_encoder for strategy in spec.strategies)
    tokens = {}
    for model in spec.model if uses_encoder else ():
        _check_length(model, spec.recipe.max_length)
        tokens[model] = tokenize(dataset, load_tokenizer(model), spec.recipe.truncation)
    return Prepared(spec, dataset, tokens, tuple(_grid(spec, dataset)))


def _check_length(model: str, max_length: int) -> None:
    config = load_config(model)
    # the RoBERTa family keeps two positions for padding
    longest = config.max_position_embeddings - (2 if config.pad_token_id == 1 else 0)
    if max_length > longest:
        raise ConfigError(f"max_length {max_length} is above the limit of {model}; use at most {longest}")


def _grid(spec: StudySpec, dataset: Dataset) -> list[RunSpec]:
    """List the runs of the grid, each once.

    A strategy without an encoder runs once for all encoders.
    """
    uses_encoder = any(STRATEGIES[strategy.name].uses_encoder for strategy in spec.strategies)
    fingerprints = {model: model_fingerprint(model) for model in spec.model} if uses_encoder else {}
    folds = folds_of(spec)
    for part in spec.subsets:
        check_subset(dataset, part, _plain_seeds(spec), folds)
    # at most the steps of all of train, so that a subset never trains longer
    num_train = parts_of(dataset, folds[0] if folds else None)["train"].num_examples(dataset)
    min_steps = min(MIN_SUBSET_STEPS, spec.recipe.num_steps(num_train))
    subset_recipe = spec.recipe.model_copy(update={"min_steps": max(spec.recipe.min_steps, min_steps)})
    runs = {}
    for subset, strategy in itertools.product((None, *spec.subsets), spec.strategies):
        row = STRATEGIES[strategy.name]
        if subset and not row.learns:
            continue  # its learning curve is flat
        for model in spec.model if row.uses_encoder else (None,):
            for repeat in _repeats(spec, row.seed_sources, folds, draws_subset=subset is not None):
                run = RunSpec(
                    **repeat,
                    strategy=strategy,
                    model=model,
                    model_fingerprint=fingerprints[model] if model else None,
                    data_fingerprint=dataset.fingerprint,
                    subset=subset,
                    recipe=subset_recipe if subset else spec.recipe,
                    metric=metric_for(spec.metric, dataset.is_multilabel),
                    # of the runs of folds, the first shows the size of the model
                    save_model=spec.save_models and subset is None and (not folds or repeat["seed"] == 0),
                )
                runs[run.run_id] = run
    return list(runs.values())


def _repeats(
    spec: StudySpec, sources: Sequence[str], folds: Sequence[Fold], draws_subset: bool
) -> list[dict[str, Any]]:
    """Return the fields of RunSpec in which the runs of one strategy differ. sources: those that change its runs.

    With folds, a strategy runs on every fold, with the fold's index as its seed. Otherwise one that ignores seeds runs
    once; but each seed draws its own subset of train, so that on subsets every strategy runs with every seed. Where
    sources vary apart, it runs with every combination of the seeds of those that change it.
    """
    if folds:
        return [{"seed": fold.index, "fold": fold} for fold in folds]
    if spec.seed_grid:
        return [{"seed": cell_number(cell), "sources": cell} for cell in crossed(spec.seed_grid, sources)]
    return [{"seed": seed} for seed in (_plain_seeds(spec) if sources or draws_subset else (0,))]


def _plain_seeds(spec: StudySpec) -> tuple[int, ...]:
    """Return the seeds of a study whose sources of randomness vary together."""
    return spec.seeds if isinstance(spec.seeds, tuple) else DEFAULT_SEEDS


def folds_of(spec: StudySpec) -> list[Fold]:
    """List the folds of a study; none for one split."""
    fraction, seed, num_folds = spec.data.validation_fraction, spec.data.split_seed, spec.num_folds or 0
    return [Fold(index=i, of=num_folds, validation_fraction=fraction, split_seed=seed) for i in range(num_folds)]


def final_run(run: RunSpec, folds: Sequence[RunRecord], study: StudySpec) -> RunSpec:
    """Return the run of a strategy on all labelled examples, with the settings that the runs of its folds chose.

    run: on one of the folds. Without validation examples it trains for the median number of epochs, uses the median
    thresholds, and the option that most folds chose, of equals the smallest.
    """
    epochs = [record.best_epoch for record in folds if record.best_epoch is not None]
    thresholds = [record.thresholds for record in folds if record.thresholds is not None]
    options = {
        name: Counter(sorted(record.selected_options[name] for record in folds)).most_common(1)[0][0]
        for name in folds[0].selected_options
    }
    final = Final(
        epochs=round(median(epochs)) if epochs else None,
        thresholds=tuple(map(median, zip(*thresholds, strict=True))) if thresholds else None,
        options=options,
    )
    changes = {"fold": None, "seed": 0, "final": final, "save_model": study.save_models}
    return run.model_copy(update=changes)


def search_jobs(spec: StudySpec, prepared: Prepared) -> list[Job]:
    """List the searches of a study: one per strategy and encoder with something to search, with its first run.

    The first seed of a study that extends a stored one is the stored study's, which prepared.runs need not have.
    """
    if spec.search is None:
        return []
    first_runs = {run.group: run for run in reversed(prepared.runs)}
    first = {"seed": spec.seeds[0]} if isinstance(spec.seeds, tuple) else {}
    runs = [run.model_copy(update=first) if run.is_seeded else run for run in reversed(first_runs.values())]
    jobs = [Job(run=run, search=spec.search) for run in runs]
    return [job for job in jobs if job.space]


def estimates(prepared: Prepared, jobs: Sequence[Job]) -> list[Estimate]:
    """Estimate what each job needs, in their order."""
    by_group: dict[str, Estimate] = {}
    for job in jobs:
        run = job.run
        if run.group not in by_group:
            tables, dataset = prepared.tokens.get(run.model or ""), prepared.dataset
            parts = parts_of(dataset, run.fold, run.subset, run.seed)
            sizes = {purpose: part.num_examples(dataset) for purpose, part in parts.items()}
            tokens = {
                purpose: _num_tokens(tables[parts[purpose].split]) * size // dataset.num_examples(parts[purpose].split)
                if tables
                else 10 * size
                for purpose, size in sizes.items()
            }
            largest = largest_batch(tables["train"], run.recipe.batch_size) if tables else None
            by_group[run.group] = estimate(run, tokens, sizes["train"], dataset.num_labels, largest)
    return [by_group[job.run.group].of(job) for job in jobs]


def _num_tokens(table: TokenTable) -> int:
    return int(table.offsets[-1])


def _largest_model(grid: Sequence[Estimate]) -> int:
    """Return the number of parameters of the largest model of a grid."""
    return max((e.parameters.total if e.parameters else 0 for e in grid), default=0)
