"""Estimate the operations, memory and disk of a job before it runs: for plans, for the ETA, and to order jobs."""

import itertools
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tuneoff.data.batches import training_batches
from tuneoff.data.tokens import TokenTable
from tuneoff.encoder.anatomy import blocks, encoder_of
from tuneoff.encoder.load import empty_model, load_model
from tuneoff.encoder.packed import reads_first_tokens
from tuneoff.engine.inputs import SplitInputs, batch_logits
from tuneoff.engine.loss import loss_of
from tuneoff.engine.precision import compute_dtype, resolve
from tuneoff.engine.recipe import Recipe
from tuneoff.errors import ConfigError
from tuneoff.spec import Job, RunSpec
from tuneoff.strategies import (
    STRATEGIES,
    GradientConfig,
    ParameterCounts,
    StrategyConfig,
    count_parameters,
    operations_by_block,
)

# what is resident in a process that computes, in one that reads vectors from the cache, and in one that reads texts;
# measured, as the seconds that loading and storing take: docs/log.md
_BASE_BYTES, _CACHED_BYTES, _TEXT_BYTES = 650 * 2**20, 400 * 2**20, 390 * 2**20
_FIXED_SECONDS, _TEXT_SECONDS = 0.5, 0.1
_TEXT_OPERATIONS = 5e5  # a token, of TF-IDF with its classifier
# of the last block, where the head reads first tokens alone: keys and values of all, 2 of its 12 matrices of H x H
_OF_LAST_BLOCK = 1 / 6
_LINEAR_OPERATIONS = 9e4  # a number of an embedding and value of C, of a probe's classifier


@dataclass(frozen=True)
class Estimate:
    """Expected needs of a job."""

    job: Job
    parameters: ParameterCounts | None
    operations: float  # floating point operations, including those of frozen blocks, which run once
    memory_bytes: float
    disk_bytes: float
    frozen_blocks: int = 0  # number of first blocks whose outputs it reads from the cache, or computes into it
    shared_operations: float = 0.0  # of the frozen blocks, included above, if this job is the one that computes them
    shared_bytes: float = 0.0

    def to_json(self) -> dict[str, object]:
        """Return the estimate as plain data."""
        return {
            "run_id": self.job.job_id,
            "kind": "search" if self.job.search else "run",
            "label": self.job.run.strategy.label,
            "seed": self.job.run.seed,
            "parameters": vars(self.parameters) if self.parameters else None,
            "memory_bytes": self.memory_bytes,
            "disk_bytes": self.disk_bytes,
        }

    def of(self, job: Job) -> "Estimate":
        """Return the estimate for a run of another seed, or for the search before such a run."""
        if job.search is None:
            return replace(self, job=job)
        trials = float(job.search.trials or 1)
        if job.search.halving and isinstance(job.run.strategy, GradientConfig):
            trials = 1 + (trials - 1) * _share_with_halving(job.run.recipe.epochs)
        own = trials * (self.operations - self.shared_operations)
        return replace(self, job=job, operations=own + self.shared_operations, disk_bytes=0)

    def with_cached_states(self) -> "Estimate":
        """Return the estimate for the case that another job has computed the frozen blocks' outputs."""
        operations, memory = self.operations - self.shared_operations, self.memory_bytes - self.shared_bytes
        return replace(self, operations=operations, memory_bytes=memory, shared_operations=0.0, shared_bytes=0.0)

    def seconds(self, operations_per_second: float) -> float:
        """Return the time at a measured speed, including loading and storing; a time budget takes its time."""
        if self.job.search and self.job.search.budget:
            return self.job.search.budget
        fixed = _TEXT_SECONDS if self.job.run.model is None else _FIXED_SECONDS
        return fixed + self.operations / operations_per_second


def _share_with_halving(epochs: int) -> float:
    """Return the mean share of a run's epochs that a trial takes if half of the trials stop at 1, 2, 4, ... epochs.

    >>> _share_with_halving(2), _share_with_halving(4)
    (0.75, 0.5)
    """
    share_reaching = [0.5 ** epoch.bit_length() for epoch in range(epochs)]  # each epoch, counted from 0
    return sum(share_reaching) / epochs


def parameters_of(config: StrategyConfig, model_name: str, num_labels: int) -> ParameterCounts:
    """Count the parameters of a strategy on an encoder, from its config alone.

    Raises ConfigError for a strategy that uses no encoder.
    """
    row = STRATEGIES[config.name]
    if not row.uses_encoder:
        raise ConfigError(f"strategy {config.name} uses no encoder, and its size depends on the data; leave it out")
    return _count(config, empty_model(model_name, num_labels), num_labels)


def _count(config: StrategyConfig, model: Any, num_labels: int) -> ParameterCounts:
    row = STRATEGIES[config.name]
    if row.fits_on == "model":
        return count_parameters(row.apply(model, config))
    size = (1 if num_labels == 2 else num_labels) * (model.config.hidden_size + 1)  # two classes share one plane
    encoder_size = sum(parameter.numel() for parameter in encoder_of(model).parameters())
    return ParameterCounts(trainable=size, added=0, head=size, total=encoder_size + size)


def estimate(
    run: RunSpec, tokens: dict[str, int], num_train: int, num_labels: int, largest_batch: int | None = None
) -> Estimate:
    """Estimate one run.

    tokens: total of each split. num_train: training examples. largest_batch: tokens of the largest batch; by default
    the largest that the recipe allows.
    """
    job, definition = Job(run=run), run.definition
    eval_tokens = tokens["validation"] + tokens["test"]
    if run.model is None:
        operations = _TEXT_OPERATIONS * sum(tokens.values()) if definition.learns else 0.0
        disk = 100 * tokens["train"] if definition.learns else 1e4
        return Estimate(job, None, operations, _TEXT_BYTES + 200 * tokens["train"], disk)
    model = empty_model(run.model, num_labels)
    weights = [sum(p.numel() for p in block.parameters()) for block in blocks(model)]
    encoder_bytes = 4 * sum(p.numel() for p in model.parameters())
    if definition.fits_on == "embeddings":
        counts = _count(run.config, model, num_labels)
        once = 2.0 * sum(weights) * sum(tokens.values())
        tried = len(getattr(run.config, "C", (1,))) * (1 if num_labels == 2 else num_labels)
        linear = _LINEAR_OPERATIONS * num_train * model.config.hidden_size * tried
        shared = _BASE_BYTES - _CACHED_BYTES
        memory = _BASE_BYTES + encoder_bytes
        return Estimate(job, counts, once + linear, memory, 16 * counts.trainable, len(weights), once, shared)
    adapted = definition.apply(model, run.config)
    counts, first = count_parameters(adapted), adapted.first_trained_block
    steps, behind = operations_by_block(adapted), [float(count) for count in weights[first:]]
    if behind and reads_first_tokens(model):
        steps[-1], behind[-1] = steps[-1] * _OF_LAST_BLOCK, behind[-1] * _OF_LAST_BLOCK
    epochs = 0.0
    if isinstance(run.config, GradientConfig):
        epochs = run.recipe.num_steps(num_train) / math.ceil(num_train / run.recipe.batch_size)
    once = 2.0 * sum(weights[:first]) * sum(tokens.values())  # frozen blocks
    operations = (
        once
        + epochs * sum(steps) * tokens["train"]
        + run.recipe.epochs * 2 * sum(behind) * tokens["validation"] * (epochs > 0)
        + 2 * 2 * sum(weights) * eval_tokens * (first < len(weights))  # the last predictions, in fp32: half the speed
    )
    largest_batch = largest_batch or run.recipe.batch_size * run.recipe.max_length
    kept = len(weights) - first if not run.recipe.checkpointing else 1
    activations = 40 * 4 * model.config.hidden_size * kept * largest_batch / run.recipe.accumulation
    embedding = model.get_input_embeddings().weight  # of its rows, those that train holds have moments
    rare = embedding.numel() if embedding.requires_grad else 0
    memory = _BASE_BYTES + encoder_bytes + 16 * (counts.trainable - rare) + 8 * rare + activations
    saves_whole_model = adapted.save is None
    disk = (4 * counts.total if saves_whole_model else 4 * counts.trainable) + 700_000  # the tokenizer
    pooled = _BASE_BYTES - _CACHED_BYTES if first == len(weights) else 0
    return Estimate(job, counts, operations, memory, disk if run.save_model else 0, first, once, pooled)


def charge_shared_once(plan: Sequence[Estimate], cached: set[tuple[str | None, int]]) -> list[Estimate]:
    """Charge the outputs of frozen blocks to the first job that needs them, and to no other.

    plan: in the order of execution. cached: encoder and number of frozen blocks of outputs that are stored already;
    those that the plan adds are added to it.
    """
    charged = []
    for estimated in plan:
        key = (estimated.job.run.model, estimated.frozen_blocks)
        charged.append(estimated.with_cached_states() if key in cached else estimated)
        if estimated.frozen_blocks:
            cached.add(key)
    return charged


def by_priority(plan: Sequence[Estimate]) -> list[Estimate]:
    """Order jobs for execution: longest first, so that all cores end at about the same time.

    Before them comes one job of each set that shares frozen blocks. It computes their outputs, for which the others
    would otherwise wait.
    """
    longest_first = sorted(plan, key=lambda e: -e.operations)
    sharing: dict[tuple[str | None, int], list[Estimate]] = defaultdict(list)
    for estimated in longest_first:
        if estimated.frozen_blocks:
            sharing[estimated.job.run.model, estimated.frozen_blocks].append(estimated)
    first = [group[0] for group in sharing.values() if len(group) > 1]
    return first + [estimated for estimated in longest_first if estimated not in first]


def measure_speed(model_name: str, table: TokenTable, recipe: Recipe, num_labels: int) -> float:
    """Operations per second of training steps of this encoder on one thread of this machine; no weight is updated."""
    threads, cpu = torch.get_num_threads(), torch.device("cpu")
    torch.set_num_threads(1)
    try:
        model = load_model(model_name, tuple(map(str, range(num_labels))), seed=0).train()
        sizes = [float(sum(parameter.numel() for parameter in block.parameters())) for block in blocks(model)]
        if reads_first_tokens(model):
            sizes[-1] *= _OF_LAST_BLOCK
        per_token = 6.0 * sum(sizes)
        speeds = []
        with compute_dtype(resolve(recipe.precision, cpu), model):
            loss = loss_of(recipe, table.labels, num_labels)
            for examples in itertools.islice(training_batches(table.lengths, recipe.batch_size, seed=0, epoch=0), 4):
                started = time.perf_counter()
                logits, batch = batch_logits(model, SplitInputs(table), examples)
                loss.summed(logits, batch.labels).backward()
                speeds.append(per_token * batch.num_tokens / (time.perf_counter() - started))
        return max(speeds)
    finally:
        torch.set_num_threads(threads)
