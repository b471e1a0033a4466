"""The whole flow: spec -> dataset and tokens -> missing searches and runs -> records -> comparison -> report.

With folds, a last run trains the strategy that the comparison picks on all labelled examples.

Modules that jobs do not wait for (comparison, report) are imported when they are needed, so that jobs start sooner.
"""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import filelock

from tuneoff.cache import prune
from tuneoff.data.batches import largest_batch
from tuneoff.data.dataset import Dataset
from tuneoff.data.describe import describe
from tuneoff.data.load import load_dataset, store_dataset
from tuneoff.data.sources import from_memory, store_in_cache
from tuneoff.data.spec import DataSpec, Fold
from tuneoff.data.splits import check_subset, parts_of
from tuneoff.data.tokens import TokenTable, tokenize
from tuneoff.encoder.config import load_config, load_tokenizer, model_fingerprint
from tuneoff.errors import ConfigError, StoreError, unknown
from tuneoff.execute.energy import EnergyMeter
from tuneoff.execute.estimate import Estimate, by_priority, charge_shared_once, estimate
from tuneoff.execute.executor import Event, Executor, Slots
from tuneoff.execute.job import is_finished
from tuneoff.execute.local import LocalExecutor, local_slots
from tuneoff.files import write_json
from tuneoff.runs import RunRecord, Session, StudyStore
from tuneoff.scoring.metrics import metric_for
from tuneoff.seeds import cell_number, crossed
from tuneoff.spec import DEFAULT_SEEDS, STRATEGIES, Final, Job, RunSpec, StudySpec, read_study, study_from, write_study

if TYPE_CHECKING:
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
        on_plan: Callable[[list[Estimate]], None] = lambda plan: None,
        executor: Executor | None = None,
    ) -> "Comparison":
        """Run what is missing, compare all runs, and write the report.

        on_plan: called with the missing searches, then with the missing runs. executor: by default this machine.
        """
        if executor is None:
            with LocalExecutor() as local:
                return self.run(on_event, on_plan, local)
        prepared = prepare(self.spec)
        study = replace(self, spec=prepared.spec)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(self.folder / ".lock", timeout=0):
                study._run_missing(prepared, on_event, on_plan, executor)
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
        on_event: Callable[[Event], None],
        on_plan: Callable[[list[Estimate]], None],
        executor: Executor,
    ) -> None:
        self._check_same_data()
        # raises for a run that an encoder cannot do, before anything is written
        grid = estimates(prepared, [Job(run=run) for run in prepared.runs])
        self.store.runs.remove_unfinished()
        write_study(self.spec, self.folder / "study.yaml")
        slots = executor.slots(len(grid), _largest_model(grid), self.spec.workers)
        with self._session(slots) as started:

            def execute_missing(jobs: Sequence[Job]) -> None:
                missing = by_priority(estimates(prepared, self._unfinished(jobs)))
                if missing:
                    started.extend(missing)
                    on_plan(missing)
                    executor.execute([e.job for e in missing], self.store, slots, on_event)

            searches = search_jobs(self.spec, prepared)
            execute_missing(searches)
            runs = self._with_searched_options(prepared.runs, searches)
            description = describe(prepared.dataset, prepared.tokens)
            scored, run_ids = prepared.dataset.splits[prepared.dataset.scored_split], [run.run_id for run in runs]
            self.store.write_data(description, scored, run_ids, [job.job_id for job in searches])
            execute_missing([Job(run=run) for run in runs])
            if self.spec.num_folds:
                final = self._final_runs(runs)
                execute_missing([Job(run=run) for run in final])
                self.store.write_final([run.run_id for run in final])

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

    def _final_runs(self, runs: Sequence[RunSpec]) -> list[RunSpec]:
        """Return the run of the picked strategy on all labelled examples; none where the verdict picks none."""
        verdict = self.comparison().verdict
        return [
            final_run(run, [self.store.runs.record(fold.run_id) for fold in runs if fold.group == run.group], self.spec)
            for run in runs
            if verdict and run.group == verdict.recommended and run.seed == 0
        ]

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

    def _check_same_data(self) -> None:
        """Raise StoreError if the folder holds a study of other data."""
        if (self.folder / "study.yaml").is_file():
            stored, ours = read_study(str(self.folder / "study.yaml")).data, self.spec.data
            if (stored.source, stored.splits) != (ours.source, ours.splits):
                source = stored.source or stored.splits.get("train")
                raise StoreError(
                    f"{self.folder} holds a study of other data ({source}); give this one another name (--name)"
                )

    def comparison(self, cost: str | None = None, margin: float | None = None) -> "Comparison":
        """Compare the stored runs; nothing is trained. cost, margin: replace the study's own."""
        from tuneoff.comparison.assemble import compare as compare_runs

        return compare_runs(self.spec, self.store, cost, margin)

    def report(self, cost: str | None = None, margin: float | None = None) -> "Comparison":
        """Write comparison.json and the report from the stored runs. cost, margin: replace the study's own."""
        from tuneoff.report.write import write_report

        comparison = self.comparison(cost, margin)
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
        cached = {(e.job.run.model, e.frozen_blocks) for e in grid if is_finished(e.job, self.store)}
        in_order = [
            *by_priority(estimates(prepared, self._unfinished(searches))),
            *by_priority(estimates(prepared, self._unfinished(runs))),
        ]
        charged = {e.job.job_id: e for e in charge_shared_once(in_order, cached)}
        slots = local_slots(len(grid), _largest_model(grid), self.spec.workers)
        return Plan([charged[job.job_id] for job in missing], speed, slots, prepared.dataset.folds)


@dataclass(frozen=True)
class Plan:
    """Estimates of the missing searches and runs of a study."""

    estimates: list[Estimate]
    speed: float  # measured operations per second of one thread
    slots: Slots
    folds: int | None = None  # with folds, one more run follows: the picked strategy on all labelled examples

    @property
    def seconds(self) -> float:
        """Time until all of them are done."""
        return sum(e.seconds(self.speed) for e in self.estimates) / max(1, min(self.slots.workers, len(self.estimates)))


def compare(
    data: Any,
    *,
    folder: str | Path | None = None,
    recipe: dict[str, Any] | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    executor: Executor | None = None,
    **options: Any,
) -> "Comparison":
    """Compare strategies on your data: a file, a folder, packaged:NAME, hf:NAME, a DataFrame or a datasets.Dataset.

    options: fields of StudySpec (model, strategies, evaluate, seeds, metric, cost, search, fractions, per_class, name,
    ...) and of DataSpec (text, label, limits, ...). A strategy is a name ("lora"), a name with options ("lora:rank=16")
    or a config (LoRA(rank=16)). search is 4 trials of every strategy unless set; None turns it off. recipe: fields of
    Recipe. folder: by default results/NAME. Running again runs only what is missing.
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
    return Study(spec, Path(folder) if folder else RESULTS / spec.name).run(on_event, executor=executor)


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
    """List the searches of a study: one per strategy and encoder with something to search, with its first run."""
    if spec.search is None:
        return []
    first_runs = {run.group: run for run in reversed(prepared.runs)}
    jobs = [Job(run=run, search=spec.search) for run in reversed(first_runs.values())]
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
