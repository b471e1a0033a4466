"""The runs of a study before they run: its data and tokens, its grid of runs and searches, and their estimates."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from tuneoff.data.batches import largest_batch
from tuneoff.data.dataset import Dataset
from tuneoff.data.load import load_dataset, store_dataset
from tuneoff.data.spec import Fold, TruncationPolicy
from tuneoff.data.splits import check_divisions, check_subset, parts_of
from tuneoff.data.tokens import TokenTable, tokenize
from tuneoff.encoder.config import load_config, load_tokenizer
from tuneoff.encoder.heads import replaced_head, start_fingerprint
from tuneoff.engine.recipe import Recipe
from tuneoff.errors import ConfigError
from tuneoff.execute.estimate import Estimate, estimate
from tuneoff.runs import RunRecord
from tuneoff.scoring.metrics import metric_for
from tuneoff.seeds import SPLIT, cell_number, crossed
from tuneoff.spec import DEFAULT_SEEDS, STRATEGIES, Final, Job, RunSpec, StudySpec, recipe_of
from tuneoff.strategies import Strategy

# least number of steps of a run on a subset of train: in three epochs, a few examples would hardly be seen
MIN_SUBSET_STEPS = 60


@dataclass(frozen=True)
class Prepared:
    """A study before training: its dataset, its tokens, and the runs of its grid."""

    spec: StudySpec  # with the evaluation that the data decided
    dataset: Dataset
    tokens: dict[str, dict[str, TokenTable]]  # encoder -> split -> tokens, by the study's recipe
    runs: tuple[RunSpec, ...]  # the whole grid, in the order of the spec
    heads: dict[str, str]  # encoder -> why its own head is not used; empty for an encoder without one
    # encoder and truncation of a strategy with a recipe of its own -> split -> tokens
    own_tokens: dict[tuple[str, TruncationPolicy], dict[str, TokenTable]] = field(default_factory=dict)

    def tokens_of(self, run: RunSpec) -> dict[str, TokenTable] | None:
        """Return the tokens of every split that a run reads; None for a run without an encoder."""
        model = run.model or ""
        return self.own_tokens.get((model, run.recipe.truncation), self.tokens.get(model))


def prepare(spec: StudySpec) -> Prepared:
    """Load and store the data, tokenize it for every encoder, and list the runs."""
    dataset = load_dataset(spec.data, spec.evaluate, pools=SPLIT in spec.seed_grid)
    check_divisions(dataset, spec.seed_grid.get(SPLIT, ()))
    store_dataset(dataset)
    spec = spec.resolved(dataset.folds)
    uses_encoder = any(STRATEGIES[strategy.name].uses_encoder for strategy in spec.strategies)
    models, tokens = spec.model if uses_encoder else (), {}
    own = _own_truncations(spec)
    for model in models:
        check_length(model, spec.recipe.max_length)
    for model, truncation in own:
        check_length(model, truncation.max_length)
    for model in models:
        tokens[model] = tokenize(dataset, load_tokenizer(model), spec.recipe.truncation)
    own_tokens = {(model, policy): tokenize(dataset, load_tokenizer(model), policy) for model, policy in own}
    return Prepared(spec, dataset, tokens, tuple(_grid(spec, dataset)), _replaced_heads(spec, dataset), own_tokens)


def _own_truncations(spec: StudySpec) -> dict[tuple[str, TruncationPolicy], None]:
    """List the encoders and truncations of strategies that do not truncate as the study does."""
    policies = [(strategy, recipe_of(strategy, spec.recipe).truncation) for strategy in spec.strategies]
    return {
        (model, policy): None
        for strategy, policy in policies
        if policy != spec.recipe.truncation
        for model in spec.encoders_of(strategy)
    }


def _replaced_heads(spec: StudySpec, dataset: Dataset) -> dict[str, str]:
    """Return the finding for each encoder with a head for other labels, if a strategy uses heads."""
    rows = [STRATEGIES[strategy.name] for strategy in spec.strategies]
    if not any(row.uses_encoder and row.fits_on != "embeddings" for row in rows):
        return {}
    findings = {model: replaced_head(model, dataset.label_names) for model in spec.model}
    return {model: finding for model, finding in findings.items() if finding}


def check_length(model: str, max_length: int) -> None:
    """Raise ConfigError for sequences longer than the encoder reads."""
    config = load_config(model)
    positions = getattr(config, "max_position_embeddings", -1)
    if positions < 0:  # -1 is no limit: positions that are not learned need none
        return
    # the RoBERTa family keeps two positions for padding
    longest = positions - (2 if config.pad_token_id == 1 else 0)
    if max_length > longest:
        raise ConfigError(f"max_length {max_length} is above the limit of {model}; use at most {longest}")


def _grid(spec: StudySpec, dataset: Dataset) -> list[RunSpec]:
    """List the runs of the grid, each once.

    A strategy without an encoder runs once for all encoders.
    """
    uses_encoder = any(STRATEGIES[strategy.name].uses_encoder for strategy in spec.strategies)
    labels = dataset.label_names
    fingerprints = {model: start_fingerprint(model, labels) for model in spec.model} if uses_encoder else {}
    folds = folds_of(spec)
    for part in spec.subsets:
        check_subset(dataset, part, _plain_seeds(spec), folds)
    num_train = parts_of(dataset, folds[0] if folds else None)["train"].num_examples(dataset)
    runs = {}
    for subset, strategy in itertools.product((None, *spec.subsets), spec.strategies):
        row = STRATEGIES[strategy.name]
        if subset and not row.learns:
            continue  # its learning curve is flat
        recipe = recipe_of(strategy, spec.recipe)
        if subset:
            recipe = _subset_recipe(recipe, num_train)
        for model in spec.encoders_of(strategy) if row.uses_encoder else (None,):
            for repeat in _repeats(spec, row, folds, draws_subset=subset is not None):
                run = RunSpec(
                    **repeat,
                    strategy=strategy.model_copy(update={"encoders": ()}),  # the run has its own
                    model=model,
                    model_fingerprint=fingerprints[model] if model else None,
                    data_fingerprint=dataset.fingerprint,
                    subset=subset,
                    recipe=recipe,
                    metric=metric_for(spec.metric, dataset.is_multilabel),
                    # of the runs of folds, the first shows the size of the model
                    save_model=spec.keep != "none" and subset is None and (not folds or repeat["seed"] == 0),
                )
                runs[run.run_id] = run
    return list(runs.values())


def _subset_recipe(recipe: Recipe, num_train: int) -> Recipe:
    """Return a recipe for a subset of train. num_train: examples in all of it."""
    # at most the steps of all of train, so that a subset never trains longer
    min_steps = min(MIN_SUBSET_STEPS, recipe.num_steps(num_train))
    return recipe.model_copy(update={"min_steps": max(recipe.min_steps, min_steps)})


def _repeats(spec: StudySpec, strategy: Strategy, folds: Sequence[Fold], draws_subset: bool) -> list[dict[str, Any]]:
    """Return the fields of RunSpec in which the runs of one strategy differ.

    With folds, a strategy runs on every fold, with the fold's index as its seed. Otherwise one that ignores seeds runs
    once; but each seed draws its own subset of train, so that on subsets every strategy runs with every seed. Where
    sources vary apart, it runs with every combination of the seeds of those that change it.
    """
    if folds:
        return [{"seed": fold.index, "fold": fold} for fold in folds]
    if spec.seed_grid:
        return [{"seed": cell_number(cell), "sources": cell} for cell in crossed(spec.seed_grid, strategy.seed_sources)]
    return [{"seed": seed} for seed in (_plain_seeds(spec) if strategy.is_seeded or draws_subset else (0,))]


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
    changes = {"fold": None, "seed": 0, "final": final, "save_model": study.keep != "none"}
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
            tables, dataset = prepared.tokens_of(run), prepared.dataset
            parts = parts_of(dataset, run.fold, run.subset, run.seed, run.division)
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


def largest_model(grid: Sequence[Estimate]) -> int:
    """Return the number of parameters of the largest model of a grid."""
    return max((e.parameters.total if e.parameters else 0 for e in grid), default=0)
