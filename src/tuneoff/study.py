"""The whole flow: a spec -> its dataset -> the runs that are missing -> records -> a comparison -> a report."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from tuneoff.cache import prune
from tuneoff.comparison.assemble import compare as compare_records
from tuneoff.comparison.result import NO_LEARNERS, Comparison
from tuneoff.data.batches import largest_batch
from tuneoff.data.carve import check_subset, num_chosen
from tuneoff.data.checks import describe
from tuneoff.data.dataset import Dataset
from tuneoff.data.encode import TokenTable, encode
from tuneoff.data.load import load_dataset, store_dataset
from tuneoff.data.sources import from_memory, keep_in_cache
from tuneoff.encoder.load import load_config, load_tokenizer, model_fingerprint
from tuneoff.engine.meter import EnergyMeter
from tuneoff.errors import ConfigError, StoreError
from tuneoff.estimate import Estimate, estimate, good_order, measure_speed, shared_once
from tuneoff.execute.local import Event, execute, num_workers
from tuneoff.execute.pool import Pool
from tuneoff.execute.search import is_spent, open_search
from tuneoff.machine import cores
from tuneoff.metrics import metric_for
from tuneoff.report.write import write_report
from tuneoff.runs import RunStore, read_json, read_table, write_json, write_table
from tuneoff.search import SearchRecord
from tuneoff.spec import STRATEGIES, Job, RunSpec, SearchJob, StudySpec, read_study, study_from, write_study

RESULTS = Path("results")
# steps that a run on a part of train makes at least: with three epochs, a few examples would be seen a few times only
FEW_STEPS = 60


@dataclass(frozen=True)
class Prepared:
    """A study's data, tokens and runs, before anything is trained."""

    dataset: Dataset
    tokens: dict[str, dict[str, TokenTable]]  # model -> split -> tokens
    runs: tuple[RunSpec, ...]  # all of the grid, in the order of the spec


@dataclass(frozen=True)
class Study:
    """A spec and the folder of its results."""

    spec: StudySpec
    folder: Path

    @classmethod
    def open(cls, name: str | Path) -> "Study":
        """A study from a results folder, a YAML file, or studies:NAME."""
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
    def store(self) -> RunStore:
        """Where the runs are."""
        return RunStore(self.folder / "runs")

    def run(
        self,
        on_event: Callable[[Event], None] = lambda event: None,
        on_plan: Callable[[list[Estimate]], None] = lambda plan: None,
        pool: Pool | None = None,
    ) -> Comparison:
        """Run what is missing, compare everything, and write the report.

        pool: a worker process that was started before, to which this method then puts an end.
        """
        with pool or Pool() as pool:
            prepared = prepare(self.spec)
            return self._run(prepared, on_event, on_plan, pool)

    def _run(
        self,
        prepared: Prepared,
        on_event: Callable[[Event], None],
        on_plan: Callable[[list[Estimate]], None],
        pool: Pool,
    ) -> Comparison:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(self.folder / ".lock", timeout=0):
                self._run_missing(prepared, on_event, on_plan, pool)
                comparison = self.report()
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
        pool: Pool,
    ) -> None:
        self._check_same_data()
        # raises for what an encoder cannot take, before anything is written
        everything = estimates(prepared, prepared.runs)
        self.store.remove_unfinished()
        write_study(self.spec, self.folder / "study.yaml")
        largest = max(e.parameters.total if e.parameters else 0 for e in everything)
        workers = num_workers(len(everything), largest, self.spec.workers)
        # the same for all runs of the grid, whenever they run: times can be compared, and bits repeat
        threads = max(1, cores() // workers)

        def make(jobs: Sequence[Job]) -> None:
            execute(jobs, self.store, workers, threads, on_event, self.folder / "workers.log", pool)

        with self._session(workers, threads) as jobs:
            searches = search_jobs(self.spec, prepared)
            unfinished = [job for job in searches if not self._is_searched(job)]
            waiting = good_order(estimates(prepared, unfinished))
            if waiting:
                jobs += waiting
                on_plan(waiting)
                make([e.run for e in waiting])
            runs = self._with_found(prepared.runs, searches)
            listed = {"runs": [run.run_id for run in runs], "searches": [job.run_id for job in searches]}
            write_json(self.folder / "data.json", {**describe(prepared.dataset, prepared.tokens), **listed})
            write_table(prepared.dataset.splits["test"], self.folder / "test.parquet")
            missing = good_order(estimates(prepared, [run for run in runs if not self.store.is_done(run.run_id)]))
            if missing:
                jobs += missing
                on_plan(missing)
                make([e.run for e in missing])

    def _is_searched(self, job: SearchJob) -> bool:
        return is_spent(job.search, open_search(self.store.searches, job).trials)

    def _with_found(self, runs: Sequence[RunSpec], searches: Sequence[SearchJob]) -> list[RunSpec]:
        """The runs with what the searches chose for them; where every trial failed, with the strategy's own."""
        found = {job.run.group: open_search(self.store.searches, job).within(job.search) for job in searches}
        best = {group: record.best for group, record in found.items()}
        chosen = {group: trial.options for group, trial in best.items() if trial}
        return [run.model_copy(update={"found": chosen.get(run.group, {})}) for run in runs]

    @contextmanager
    def _session(self, workers: int, threads: int) -> Iterator[list[Estimate]]:
        """Remember what it took, each time that something is made, stopped or not. Gives a list for what is made."""
        path, started, energy = self.folder / "sessions.json", time.perf_counter(), EnergyMeter()
        jobs: list[Estimate] = []
        try:
            with energy:
                yield jobs
        finally:
            if jobs:
                made = sum(self.store.is_done(e.run.run_id) for e in jobs)
                session = {"runs": made, "workers": workers, "threads": threads, "joules": energy.joules}
                session["seconds"] = time.perf_counter() - started
                write_json(path, [*(read_json(path) if path.is_file() else []), session])

    def _check_same_data(self) -> None:
        """Another study of the same name keeps its place."""
        if (self.folder / "study.yaml").is_file():
            stored, ours = read_study(str(self.folder / "study.yaml")).data, self.spec.data
            if (stored.source, stored.splits) != (ours.source, ours.splits):
                came = stored.source or stored.splits.get("train")
                raise StoreError(
                    f"{self.folder} holds a study of other data ({came}); give this one another name (--name)"
                )

    def comparison(self, cost: str | None = None) -> Comparison:
        """Compare the stored runs, as they are; nothing is trained. cost: instead of the study's own."""
        data = read_json(self.folder / "data.json")
        present = [run_id for run_id in data.pop("runs") if self.store.path(run_id).is_dir()]
        sessions, texts = self.folder / "sessions.json", self.folder / "test.parquet"
        data["sessions"] = read_json(sessions) if sessions.is_file() else []
        found = self._searches(data.pop("searches", ()))
        study = self.spec.model_dump(mode="json")
        examples = read_table(texts) if texts.is_file() else None
        cost = cost or self.spec.cost
        metric = metric_for(self.spec.metric, data.get("is_multilabel", False))
        return compare_records(present, self.store, metric, cost, data, study, examples, found)

    def _searches(self, ids: Sequence[str]) -> list[SearchRecord]:
        paths = [self.store.searches / f"{search_id}.json" for search_id in ids]
        found = [SearchRecord.read(path) for path in paths if path.is_file()]
        return [record.within(self.spec.search) if self.spec.search else record for record in found]

    def report(self, cost: str | None = None) -> Comparison:
        """Write comparison.json and the report from the stored runs."""
        comparison = self.comparison(cost)
        write_json(self.folder / "comparison.json", comparison.to_json())
        write_report(comparison, self.folder)
        return comparison

    def plan(self) -> tuple[list[Estimate], float]:
        """What each missing search and run would need, and the measured speed of one core in operations a second."""
        prepared = prepare(self.spec)
        searches = search_jobs(self.spec, prepared)
        waiting = [job for job in searches if not self._is_searched(job)]
        runs = self._with_found(prepared.runs, searches)
        missing = [run for run in runs if not self.store.is_done(run.run_id)]
        models = list(prepared.tokens)
        speed = 1e11
        if models:
            table = prepared.tokens[models[0]]["train"]
            speed = measure_speed(models[0], table, self.spec.recipe, prepared.dataset.num_labels)
        made = {
            (run.model, e.frozen_blocks)
            for run, e in zip(runs, estimates(prepared, runs), strict=True)
            if self.store.is_done(run.run_id)
        }
        in_order = good_order(estimates(prepared, waiting)) + good_order(estimates(prepared, missing))
        found = {e.run.run_id: e for e in shared_once(in_order, made)}
        jobs: list[Job] = [*waiting, *missing]
        return [found[job.run_id] for job in jobs], speed


def compare(
    data: Any,
    *,
    model: str | Sequence[str] = "packaged:minilm",
    strategies: Sequence[Any] | None = None,
    seeds: int | Sequence[int] = 3,
    metric: str | None = None,
    cost: str = "train_seconds",
    baselines: bool = True,
    search: Any = 4,
    fractions: float | Sequence[float] = (),
    per_class: int | Sequence[int] = (),
    name: str | None = None,
    recipe: dict[str, Any] | None = None,
    folder: str | Path | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    **data_options: Any,
) -> Comparison:
    """Compare strategies on your data: a file, a folder, packaged:NAME, hf:NAME, a DataFrame or a datasets.Dataset.

    strategies: names ("lora"), names with options ("lora:rank=16") or configs (LoRA(rank=16)). cost: what decides among
    strategies that cannot be told apart. baselines: whether majority and tfidf stand beside them.
    fractions, per_class: parts of train for learning curves.
    search: trials of every strategy before the runs, a time such as "10m" instead, SearchSpec's fields, or None.
    data_options: fields of DataSpec, such as text, label, limits. Running again runs only what is missing.
    """
    source = data if isinstance(data, (str, Path)) else keep_in_cache(from_memory(data))
    given: dict[str, Any] = {
        "data": {"source": str(source), **data_options},
        "model": model,
        "seeds": seeds,
        "metric": metric,
        "cost": cost,
        "baselines": baselines,
        "search": search,
        "fractions": fractions,
        "per_class": per_class,
        "recipe": recipe or {},
        "name": name or default_name(str(source)),
    }
    if strategies is not None:
        given["strategies"] = tuple(strategies)
    spec = study_from(given)
    return Study(spec, Path(folder) if folder else RESULTS / spec.name).run(on_event)


def default_name(source: str) -> str:
    """A study's name from its data: reviews.csv -> reviews, hf:stanfordnlp/imdb -> stanfordnlp-imdb."""
    kind, _, rest = source.rpartition(":")
    stem = rest.replace("/", "-") if kind in ("hf", "packaged", "memory") else Path(source).stem
    kept = "".join(c if c.isalnum() or c in "-_." else "-" for c in stem).strip("-.")
    return kept or "study"


def prepare(spec: StudySpec) -> Prepared:
    """Load and store the data, tokenise it for every encoder, and list the runs."""
    dataset = load_dataset(spec.data)
    store_dataset(dataset)
    needs_encoder = any(STRATEGIES[s.name].kind != "text" for s in spec.strategies)
    tokens = {}
    for model in spec.model if needs_encoder else ():
        _check_length(model, spec.recipe.max_length)
        tokens[model] = encode(dataset, load_tokenizer(model), spec.recipe.reading)
    return Prepared(dataset, tokens, tuple(_runs(spec, dataset)))


def _check_length(model: str, max_length: int) -> None:
    config = load_config(model)
    # the RoBERTa family keeps two positions for padding
    longest = config.max_position_embeddings - (2 if config.pad_token_id == 1 else 0)
    if max_length > longest:
        raise ConfigError(f"max_length {max_length} is above what {model} takes; use at most {longest}")


def _runs(spec: StudySpec, dataset: Dataset) -> list[RunSpec]:
    """The grid, each run once: what reads texts alone runs once for all encoders, what ignores seeds once for all.

    Subsets of train are drawn anew for each seed, so that there everything depends on it.
    """
    needed = any(STRATEGIES[strategy.name].kind != "text" for strategy in spec.strategies)
    prints = {model: model_fingerprint(model) for model in spec.model} if needed else {}
    for part in spec.subsets:
        check_subset(dataset, part, spec.seeds)
    # no more than all of train makes, lest a part train longer
    least = min(FEW_STEPS, spec.recipe.num_steps(dataset.num_examples("train")))
    few = spec.recipe.model_copy(update={"min_steps": max(spec.recipe.min_steps, least)})
    runs = {}
    for subset, strategy in itertools.product((None, *spec.subsets), spec.strategies):
        row = STRATEGIES[strategy.name]
        if subset and strategy.name in NO_LEARNERS:
            continue  # their curve is flat
        for model in spec.model if row.kind != "text" else (None,):
            for seed in spec.seeds if row.is_seeded or subset else (0,):
                run = RunSpec(
                    strategy=strategy,
                    model=model,
                    model_fingerprint=prints[model] if model else None,
                    data_fingerprint=dataset.fingerprint,
                    subset=subset,
                    recipe=few if subset else spec.recipe,
                    metric=metric_for(spec.metric, dataset.is_multilabel),
                    seed=seed,
                    save_model=spec.save_models and subset is None,
                )
                runs[run.run_id] = run
    return list(runs.values())


def search_jobs(spec: StudySpec, prepared: Prepared) -> list[SearchJob]:
    """The searches of a study: one for every strategy and encoder that has something to search, with its first seed."""
    if spec.search is None:
        return []
    firsts = {run.group: run for run in reversed(prepared.runs)}
    jobs = [SearchJob(run=run, search=spec.search) for run in reversed(firsts.values())]
    return [job for job in jobs if job.space]


def estimates(prepared: Prepared, jobs: Sequence[Job]) -> list[Estimate]:
    """What each run or search is expected to need."""
    found, known = [], {}
    for job in jobs:
        run = job.run if isinstance(job, SearchJob) else job
        if run.group not in known:
            tables = prepared.tokens.get(run.model or "")
            tokens = (
                {split: int(table.offsets[-1]) for split, table in tables.items()}
                if tables
                else {split: 10 * prepared.dataset.num_examples(split) for split in prepared.dataset.splits}
            )
            num_train = num_chosen(prepared.dataset, run.subset, run.seed)
            share = num_train / prepared.dataset.num_examples("train")
            tokens = {**tokens, "train": int(share * tokens["train"])}
            largest = largest_batch(tables["train"], run.recipe.batch_size) if tables else None
            known[run.group] = estimate(run, tokens, num_train, prepared.dataset.num_labels, largest)
        found.append(known[run.group].of(job))
    return found
