"""The runs of a study before they run: its data and tokens, its grid of runs and searches, and their estimates."""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa

from tuneoff.data.batches import largest_batch
from tuneoff.data.dataset import Dataset, labels_of
from tuneoff.data.doctor.drift import drift
from tuneoff.data.doctor.encoder_fit import EncoderFit, encoder_fit, fit_findings, truncation_findings
from tuneoff.data.doctor.finding import Finding, ranked
from tuneoff.data.load import load_dataset, store_dataset
from tuneoff.data.other_tests import OtherTest, store_other_test
from tuneoff.data.spec import Fold, TruncationPolicy
from tuneoff.data.splits import check_divisions, check_subset, parts_of
from tuneoff.data.tokens import TokenTable, tokenize, tokenize_split
from tuneoff.encoder.config import check_token_ids, load_config, load_tokenizer
from tuneoff.encoder.heads import replaced_head, start_fingerprint
from tuneoff.engine.recipe import Recipe
from tuneoff.errors import ConfigError
from tuneoff.execute.estimate import Estimate, estimate
from tuneoff.execute.job import is_finished
from tuneoff.runs import RunRecord, StudyStore
from tuneoff.scoring.custom import is_own, own_score
from tuneoff.scoring.metrics import as_rows
from tuneoff.seeds import SPLIT, cell_number, crossed
from tuneoff.spec.run import Final, Job, RunSpec
from tuneoff.spec.strategy import recipe_of
from tuneoff.spec.study import DEFAULT_SEEDS, StudySpec
from tuneoff.strategies import STRATEGIES, Strategy

# least number of steps of a run on a subset of train: in three epochs, a few examples would hardly be seen
MIN_SUBSET_STEPS = 60


@dataclass(frozen=True)
class Prepared:
    """A study before training: its dataset, its tokens, and the runs of its grid."""

    spec: StudySpec  # with the evaluation that the data decided
    dataset: Dataset
    tokens: dict[str, dict[str, TokenTable]]  # encoder -> split -> tokens, by the study's recipe
    tokenizers: dict[str, Any]  # encoder -> its tokenizer
    runs: tuple[RunSpec, ...]  # the whole grid, in the order of the spec
    heads: dict[str, str]  # encoder -> why its own head is not used; empty for an encoder without one
    # encoder and truncation of a strategy with a recipe of its own -> split -> tokens
    own_tokens: dict[tuple[str, TruncationPolicy], dict[str, TokenTable]] = field(default_factory=dict)
    tests: tuple[OtherTest, ...] = ()  # from elsewhere, which the runs also predict
    test_tokens: dict[str, dict[str, TokenTable]] = field(default_factory=dict)  # encoder -> name of the test set

    def with_tests(self, tests: Sequence[OtherTest]) -> "Prepared":
        """Return this with test sets from elsewhere, stored and tokenized, for every run on all of train."""
        for test in tests:
            store_other_test(test)
        policy = self.spec.recipe.truncation
        tokens = {
            model: {test.name: tokenize_split(test.table, load_tokenizer(model), policy) for test in tests}
            for model in self.tokens
        }
        for model, tables in tokens.items():
            _check_tokens(model, tables)
        named = {test.name: test.fingerprint for test in tests}
        runs = [run if run.subset else run.model_copy(update={"tests": named}) for run in self.runs]
        return replace(self, tests=tuple(tests), runs=tuple(runs), test_tokens=tokens)

    def tokens_of(self, run: RunSpec) -> dict[str, TokenTable] | None:
        """Return the tokens of every split that a run reads; None for a run without an encoder."""
        model = run.model or ""
        return self.own_tokens.get((model, run.recipe.truncation), self.tokens.get(model))


def prepare(spec: StudySpec) -> Prepared:
    """Load and store the data, tokenize it for every encoder, and list the runs."""
    dataset = load_dataset(spec.data, spec.evaluate, pools=SPLIT in spec.seed_grid)
    check_divisions(dataset, spec.seed_grid.get(SPLIT, ()))
    _check_metrics(spec, dataset)
    store_dataset(dataset)
    return prepared_from(spec, dataset)


def prepared_from(spec: StudySpec, dataset: Dataset) -> Prepared:
    """Tokenize a dataset for every encoder, and list the runs."""
    spec = spec.resolved(dataset.folds)
    uses_encoder = any(STRATEGIES[strategy.name].uses_encoder for strategy in spec.strategies)
    models = spec.model if uses_encoder else ()
    own = _own_truncations(spec)
    for model in models:
        check_length(model, spec.recipe.max_length)
    for model, truncation in own:
        check_length(model, truncation.max_length)
    tokenizers = {model: load_tokenizer(model) for model in models}
    tokens = {model: tokenize(dataset, tokenizers[model], spec.recipe.truncation) for model in models}
    own_tokens = {(model, policy): tokenize(dataset, load_tokenizer(model), policy) for model, policy in own}
    for model, tables in itertools.chain(tokens.items(), ((model, of) for (model, _), of in own_tokens.items())):
        _check_tokens(model, tables)
    runs, heads = tuple(_grid(spec, dataset)), _replaced_heads(spec, dataset)
    return Prepared(spec, dataset, tokens, tokenizers, runs, heads, own_tokens)


def _check_tokens(model: str, tables: Mapping[str, TokenTable]) -> None:
    vocab_size = load_config(model).vocab_size
    for table in tables.values():
        check_token_ids(model, table.ids, vocab_size)


def _check_metrics(spec: StudySpec, dataset: Dataset) -> None:
    """Raise ConfigError, before anything is trained, for a metric that the data does not allow.

    A function of the user's own is called once: with the labels themselves as predictions.
    """
    options = spec.metric_options(dataset.label_names, dataset.is_multilabel)
    labels = labels_of(dataset.splits[dataset.scored_split])
    for metric in dict.fromkeys([spec.ranking_metric(options), spec.selection_metric(options)]):
        if is_own(metric):
            own_score(metric, labels, labels, as_rows(labels, dataset.num_labels).astype(np.float64))


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


def encoder_fits(dataset: Dataset, models: Iterable[str]) -> list[EncoderFit]:
    """Measure a sample of the texts under the tokenizer of each encoder."""
    return [encoder_fit(dataset, model, load_tokenizer(model)) for model in models]


def sampled_findings(
    dataset: Dataset,
    tokens: Mapping[str, Mapping[str, TokenTable]],
    policy: TruncationPolicy,
    fits: Sequence[EncoderFit] | None = None,
) -> list[Finding]:
    """Check a sample of the data: columns that tell the label, drift between splits, and each encoder's tokenizer.

    tokens: encoder -> split -> tokens, truncated by the policy. fits: of the encoders, if they are measured already.
    Takes seconds for data of any size.
    """
    findings = [*dataset.findings, *drift(dataset)]
    for fit in encoder_fits(dataset, tokens) if fits is None else fits:
        longest = longest_sequence(fit.encoder)
        findings += [*fit_findings(fit), *truncation_findings(fit, tokens[fit.encoder], policy, longest)]
    return ranked(findings)


def longest_sequence(model: str) -> int | None:
    """Return the number of tokens that an encoder reads; None without a limit."""
    config = load_config(model)
    positions = getattr(config, "max_position_embeddings", -1)
    if positions < 0:  # -1 is no limit: positions that are not learned need none
        return None
    # the RoBERTa family keeps two positions for padding
    return positions - (2 if config.pad_token_id == 1 else 0)


def check_length(model: str, max_length: int) -> None:
    """Raise ConfigError for sequences longer than the encoder reads."""
    longest = longest_sequence(model)
    if longest is not None and max_length > longest:
        raise ConfigError(f"max_length {max_length} is above the limit of {model}; use at most {longest}")


def _grid(spec: StudySpec, dataset: Dataset) -> list[RunSpec]:
    """List the runs of the grid, each once.

    A strategy without an encoder runs once for all encoders.
    """
    uses_encoder = any(STRATEGIES[strategy.name].uses_encoder for strategy in spec.strategies)
    labels = dataset.label_names
    options = spec.metric_options(labels, dataset.is_multilabel)
    metric = spec.selection_metric(options)
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
                    metric=metric,
                    positive=options.positive_name or None,
                    ordered=spec.ordered,
                    threshold=spec.threshold if row.learns else None,
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


def estimates(prepared: Prepared, jobs: Sequence[Job], examples: Mapping[str, int] | None = None) -> list[Estimate]:
    """Estimate what each job needs, in their order. examples: of each split, in place of those that there are."""
    scales = {split: count / prepared.dataset.num_examples(split) for split, count in (examples or {}).items()}
    by_group: dict[str, Estimate] = {}
    for job in jobs:
        run = job.run
        if run.group not in by_group:
            tables, dataset = prepared.tokens_of(run), prepared.dataset
            parts = parts_of(dataset, run.fold, run.subset, run.seed, run.division)
            sizes = {
                purpose: round(scales.get(part.split, 1) * part.num_examples(dataset))
                for purpose, part in parts.items()
            }
            tokens = {
                purpose: _num_tokens(tables[parts[purpose].split]) * size // dataset.num_examples(parts[purpose].split)
                if tables
                else 10 * size
                for purpose, size in sizes.items()
            }
            for test in prepared.tests if run.tests else ():
                of_test = prepared.test_tokens.get(run.model or "", {}).get(test.name)
                tokens[test.split] = _num_tokens(of_test) if of_test else 10 * test.table.num_rows
            largest = largest_batch(tables["train"], run.recipe.batch_size) if tables else None
            text_bytes = _text_bytes(dataset.splits[parts["train"].split]) * sizes["train"]
            by_group[run.group] = estimate(run, tokens, sizes["train"], dataset.num_labels, largest, text_bytes)
    return [by_group[job.run.group].of(job) for job in jobs]


def _text_bytes(table: pa.Table) -> float:
    """Return the mean bytes of an example's texts."""
    return sum(table[name].nbytes for name in ("text", "text_pair") if name in table.column_names) / table.num_rows


def after_trials(plan: Sequence[Estimate], searches: Sequence[Job], store: StudyStore) -> list[Estimate]:
    """Estimate runs without the training that the best trial of their search does, or has done, for them."""
    trained = set()
    for job in searches:
        best = store.searches.open(job.new_search).best
        run = job.run.searched(best.options) if best else job.run
        if not is_finished(job, store) or store.runs.is_trained(run.run_id):
            trained.add(run.run_id)
    return [e.after_trial() if e.job.job_id in trained else e for e in plan]


def largest_final(prepared: Prepared) -> Estimate | None:
    """Estimate the run on all labelled examples after folds, of the strategy that takes longest: the pick is unknown.

    None without folds.
    """
    first = {run.group: run for run in prepared.runs}
    finals = [final for run in first.values() if (final := final_of(prepared, run))]
    return max(finals, key=lambda e: e.operations, default=None)


def final_of(prepared: Prepared, run: RunSpec) -> Estimate | None:
    """Estimate the run on all labelled examples of the strategy of a run on a fold; None without folds."""
    if not run.fold:
        return None
    return estimates(prepared, [Job(run=run.model_copy(update={"fold": None, "seed": 0, "final": Final()}))])[0]


def only_predicting(estimated: Estimate, prepared: Prepared) -> Estimate:
    """Return the estimate of a stored run whose model only predicts test sets from elsewhere."""
    num_tokens = sum(map(_num_tokens, prepared.test_tokens.get(estimated.job.run.model or "", {}).values()))
    size = estimated.parameters.total if estimated.parameters else 0
    operations = 2.0 * 2 * size * num_tokens  # in fp32, at half the speed
    return replace(estimated, operations=operations, shared_operations=0.0, frozen_blocks=0, is_trained=False)


def _num_tokens(table: TokenTable) -> int:
    return int(table.offsets[-1])


def largest_model(grid: Sequence[Estimate]) -> int:
    """Return the number of parameters of the largest model of a grid."""
    return max((e.parameters.total if e.parameters else 0 for e in grid), default=0)
