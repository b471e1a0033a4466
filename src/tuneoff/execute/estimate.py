"""Estimate the operations, memory and disk of a job before it runs: for plans, for the ETA, and to order jobs."""

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tuneoff.errors import ConfigError
from tuneoff.execute.profile import profile
from tuneoff.spec.run import Job, RunSpec
from tuneoff.strategies import STRATEGIES, GradientConfig, ParameterCounts, StrategyConfig

# measured (docs/log.md): resident memory of a process that computes, that reads cached vectors, that reads texts only;
# and the seconds that loading and storing take
_BASE_BYTES, _CACHED_BYTES, _TEXT_BYTES = 650 * 2**20, 400 * 2**20, 390 * 2**20
_FIXED_SECONDS, _TEXT_SECONDS = 0.5, 0.1
_TEXT_OPERATIONS = 5e5  # per token, of TF-IDF and its classifier
_TEXT_FACTOR = 40  # bytes of memory for each byte of its training texts; 14 to 42 on four datasets
_LINEAR_OPERATIONS = 9e4  # per number of an embedding and value of C, of a probe's classifier
_TOKENIZER_BYTES = 700_000  # on disk
# of the last block, if the head reads first tokens only: keys and values of all tokens, 2 of its 12 H x H matrices
LAST_BLOCK_SHARE = 1 / 6


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
    training_operations: float = 0.0  # of steps and validations, included above
    saved_operations: float = 0.0  # not included: of the training that the best trial of its search has done
    checkpoint_bytes: float = 0.0  # on disk, while it runs
    is_trained: bool = True  # False for a stored run whose model only predicts more test sets

    def to_json(self) -> dict[str, object]:
        """Return the estimate as plain data."""
        return {
            "run_id": self.job.job_id,
            "kind": "search" if self.job.is_search else "run",
            "label": self.job.run.strategy.label,
            "seed": self.job.run.seed,
            "sources": self.job.run.sources,
            "parameters": vars(self.parameters) if self.parameters else None,
            "memory_bytes": self.memory_bytes,
            "disk_bytes": self.disk_bytes,
            "checkpoint_bytes": self.checkpoint_bytes,
        }

    def of(self, job: Job) -> "Estimate":
        """Return the estimate for a run of another seed or fold, or for the search before such a run."""
        if job.search is None:
            return replace(self, job=job)
        trials = float(job.search.trials or 1)
        if job.search.halving and isinstance(job.run.strategy, GradientConfig):
            trials = 1 + (trials - 1) * _share_with_halving(job.run.recipe.epochs)
        # a trial that trains by gradient predicts no test set
        own = self.training_operations or self.operations - self.shared_operations
        operations = trials * own + self.shared_operations
        return replace(self, job=job, operations=operations, disk_bytes=0, checkpoint_bytes=0)

    def with_cached_states(self) -> "Estimate":
        """Return the estimate for the case that another job has computed the frozen blocks' outputs."""
        operations, memory = self.operations - self.shared_operations, self.memory_bytes - self.shared_bytes
        return replace(self, operations=operations, memory_bytes=memory, shared_operations=0.0, shared_bytes=0.0)

    def after_trial(self) -> "Estimate":
        """Return the estimate of a run that goes on from the end of the best trial of its search."""
        left, saved = self.operations - self.training_operations, self.training_operations
        return replace(self, operations=left, training_operations=0.0, saved_operations=saved)

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
    return profile(config, model_name, num_labels).counts


def estimate(
    run: RunSpec,
    tokens: dict[str, int],
    num_train: int,
    num_labels: int,
    largest_batch: int | None = None,
    text_bytes: float = 0.0,
) -> Estimate:
    """Estimate one run.

    tokens: total of the examples of each purpose, train, validation and test, as far as the run has them. num_train:
    training examples. largest_batch: tokens of the largest batch; by default the largest that the recipe allows.
    text_bytes: of the training texts.
    """
    job, definition = Job(run=run), run.definition
    eval_tokens = sum(tokens.values()) - tokens["train"]
    if run.model is None:
        operations = _TEXT_OPERATIONS * sum(tokens.values()) if definition.learns else 0.0
        disk = 100 * tokens["train"] if definition.learns else 1e4
        memory = _TEXT_BYTES + _TEXT_FACTOR * text_bytes * definition.learns
        return Estimate(job, None, operations, memory, disk)
    size = profile(run.config, run.model, num_labels)
    counts, weights, first = size.counts, size.block_parameters, size.first_trained_block
    once = 2.0 * sum(weights[:first]) * sum(tokens.values())  # frozen blocks
    model_bytes = 4 * size.model_parameters
    if definition.fits_on == "embeddings":
        num_classifiers = run.config.num_fits * (1 if num_labels == 2 else num_labels)
        linear = _LINEAR_OPERATIONS * num_train * size.hidden_size * num_classifiers
        return Estimate(
            job,
            counts,
            operations=once + linear,
            memory_bytes=_BASE_BYTES + model_bytes,
            disk_bytes=16 * counts.trainable,
            frozen_blocks=len(weights),
            shared_operations=once,
            shared_bytes=_BASE_BYTES - _CACHED_BYTES,
        )
    steps, forward = list(size.operations_per_token), [float(count) for count in weights[first:]]
    if forward and size.reads_first_tokens:
        steps[-1], forward[-1] = steps[-1] * LAST_BLOCK_SHARE, forward[-1] * LAST_BLOCK_SHARE
    epochs = 0.0
    if isinstance(run.config, GradientConfig):
        epochs = run.recipe.num_steps(num_train) / math.ceil(num_train / run.recipe.batch_size)
    training = epochs * sum(steps) * tokens["train"]
    training += _num_validations(run, num_train) * 2 * sum(forward) * tokens.get("validation", 0) * (epochs > 0)
    # final predictions in fp32, at half the speed; outputs of frozen blocks are computed once for them too
    once += 2 * 2.0 * sum(weights[:first]) * eval_tokens * (first < len(weights))
    operations = once + training + 2 * 2 * sum(weights[first:]) * eval_tokens
    largest_batch = largest_batch or run.recipe.batch_size * run.recipe.max_length
    num_kept = len(weights) - first if not run.recipe.checkpointing else 1  # blocks whose activations are kept
    activations = 40 * 4 * size.hidden_size * num_kept * largest_batch / run.recipe.accumulation
    # rows of the word embedding that training never reads have no moments
    moments = 16 * (counts.trainable - size.embedding_parameters) + 8 * size.embedding_parameters
    memory = _BASE_BYTES + model_bytes + moments + activations
    disk = 4 * (counts.total if size.saves_whole_model else counts.trainable) + _TOKENIZER_BYTES
    shared_bytes = _BASE_BYTES - _CACHED_BYTES if first == len(weights) else 0
    # weights, two moments and the weights of the best epoch
    checkpoint = (20 if run.recipe.average > 1 else 16) * counts.trainable * (epochs > 0)
    return Estimate(
        job,
        counts,
        operations,
        memory,
        disk_bytes=disk if run.save_model and not run.fold else 0,
        frozen_blocks=first,
        shared_operations=once,
        shared_bytes=shared_bytes,
        training_operations=training,
        checkpoint_bytes=checkpoint,
    )


def _num_validations(run: RunSpec, num_train: int) -> int:
    """Return how often a run is validated: after each epoch, and where the recipe says so within epochs."""
    every = run.recipe.evaluate_every
    return run.recipe.epochs + (run.recipe.num_steps(num_train) // every if every else 0)


def expected_seconds(jobs: Sequence[tuple[Estimate, float]], workers: int) -> float:
    """Return the time of searches, then of runs, with some jobs at once. jobs: each with the seconds that it takes."""
    kinds = [[seconds for e, seconds in jobs if e.job.is_search == is_search] for is_search in (True, False)]
    return sum(makespan(times, workers) for times in kinds)


def makespan(seconds: Iterable[float], places: int) -> float:
    """Return the time that jobs take together, the longest first, each at the place that is free first.

    >>> makespan([10.0, 40.0, 30.0], 2), makespan([10.0], 2), makespan([], 2)
    (40.0, 10.0, 0.0)
    """
    ends = [0.0] * places
    for duration in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + duration)
    return max(ends)


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
