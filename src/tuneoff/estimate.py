"""How much work a run is, before it runs: for `plan` and for the ETA."""

import itertools
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from tuneoff.data.batches import training_order
from tuneoff.data.encode import TokenTable
from tuneoff.encoder.anatomy import blocks, encoder_of
from tuneoff.encoder.load import empty_model, load_model
from tuneoff.encoder.packed import reads_first_tokens
from tuneoff.engine.feed import Feed, logits
from tuneoff.engine.loss import loss_of
from tuneoff.engine.precision import computing_in, resolve
from tuneoff.engine.recipe import Recipe
from tuneoff.errors import ConfigError
from tuneoff.spec import Job, RunSpec, SearchJob
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
    """What a run or a search is expected to need."""

    run: Job
    parameters: ParameterCounts | None
    operations: float  # floating point operations, those of frozen blocks that run once included
    memory_bytes: float
    disk_bytes: float
    frozen_blocks: int = 0  # first blocks whose states it takes from the cache, or computes into it
    shared_operations: float = 0.0  # of them, if it is the one that computes them
    shared_bytes: float = 0.0

    @property
    def is_search(self) -> bool:
        """Whether it is of a search, not of a run."""
        return isinstance(self.run, SearchJob)

    @property
    def name(self) -> str:
        """The strategy, and the part of train that it sees."""
        return (self.run.run if isinstance(self.run, SearchJob) else self.run).name

    def to_json(self) -> dict[str, object]:
        """The estimate as plain data."""
        counts = vars(self.parameters) if self.parameters else None
        needs = {"memory_bytes": self.memory_bytes, "disk_bytes": self.disk_bytes}
        return {
            "run_id": self.run.run_id,
            "kind": "search" if self.is_search else "run",
            "label": self.run.strategy.label,
            "seed": self.run.seed,
            "parameters": counts,
            **needs,
        }

    def of(self, job: Job) -> "Estimate":
        """The same for a run of another seed, or for a search of it."""
        if isinstance(job, RunSpec):
            return replace(self, run=job)
        trials = float(job.search.trials or 1)
        if job.search.halving and isinstance(job.strategy, GradientConfig):
            trials = 1 + (trials - 1) * _share_of_halved(job.run.recipe.epochs)
        own = trials * (self.operations - self.shared_operations)
        return replace(self, run=job, operations=own + self.shared_operations, disk_bytes=0)

    def from_cache(self) -> "Estimate":
        """The same where another run has computed the states of frozen blocks."""
        operations, memory = self.operations - self.shared_operations, self.memory_bytes - self.shared_bytes
        return replace(self, operations=operations, memory_bytes=memory, shared_operations=0.0, shared_bytes=0.0)

    def seconds(self, operations_per_second: float) -> float:
        """Time at a measured speed, with loading and storing; a search by time takes that."""
        if isinstance(self.run, SearchJob) and self.run.search.budget:
            return self.run.search.budget
        is_text = self.run.model is None
        return (_TEXT_SECONDS if is_text else _FIXED_SECONDS) + self.operations / operations_per_second


def _share_of_halved(epochs: int) -> float:
    """What a trial takes of a run, on average, where every other one goes on at 1, 2, 4, ... epochs.

    >>> _share_of_halved(2), _share_of_halved(4)
    (0.75, 0.5)
    """
    goes_on = [0.5 ** epoch.bit_length() for epoch in range(epochs)]  # into each epoch, counted from 0
    return sum(goes_on) / epochs


def parameters_of(config: StrategyConfig, model_name: str, num_labels: int) -> ParameterCounts:
    """Parameters of a strategy on an encoder, from its config alone. Raises ConfigError for one that reads texts."""
    row, model = STRATEGIES[config.name], empty_model(model_name, num_labels)
    if row.kind == "text":
        raise ConfigError(
            f"strategy {config.name} uses no encoder, and what it learns depends on the data; leave it out"
        )
    if row.kind == "gradient":
        return count_parameters(row.apply(model, config))
    size = (1 if num_labels == 2 else num_labels) * (model.config.hidden_size + 1)  # two classes share one plane
    encoder_size = sum(parameter.numel() for parameter in encoder_of(model).parameters())
    return ParameterCounts(trainable=size, added=0, head=size, total=encoder_size + size)


def estimate(
    run: RunSpec, tokens: dict[str, int], num_train: int, num_labels: int, largest_batch: int | None = None
) -> Estimate:
    """Operations, memory and disk of a run on so many training examples.

    tokens: per split, in all. largest_batch: tokens of the largest; as large as can be if not given.
    """
    judged = tokens["validation"] + tokens["test"]
    if run.model is None:
        is_idle = run.strategy.name == "majority"
        operations = 0.0 if is_idle else _TEXT_OPERATIONS * sum(tokens.values())
        disk = 1e4 if is_idle else 100 * tokens["train"]
        return Estimate(run, None, operations, _TEXT_BYTES + 200 * tokens["train"], disk)
    model = empty_model(run.model, num_labels)
    weights = [sum(p.numel() for p in block.parameters()) for block in blocks(model)]
    encoder_bytes = 4 * sum(p.numel() for p in model.parameters())
    if run.kind.kind == "features":
        counts = parameters_of(run.config, run.model, num_labels)
        once = 2.0 * sum(weights) * sum(tokens.values())
        tried = len(getattr(run.config, "C", (1,))) * (1 if num_labels == 2 else num_labels)
        linear = _LINEAR_OPERATIONS * num_train * model.config.hidden_size * tried
        shared = _BASE_BYTES - _CACHED_BYTES
        memory = _BASE_BYTES + encoder_bytes
        return Estimate(run, counts, once + linear, memory, 16 * counts.trainable, len(weights), once, shared)
    adapted = run.kind.apply(model, run.config)
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
        + 2 * 2 * sum(weights) * judged * (first < len(weights))  # the last predictions, in fp32: half the speed
    )
    largest_batch = largest_batch or run.recipe.batch_size * run.recipe.max_length
    kept = len(weights) - first if not run.recipe.checkpointing else 1
    activations = 40 * 4 * model.config.hidden_size * kept * largest_batch / run.recipe.accumulation
    embedding = model.get_input_embeddings().weight  # of its rows, those that train holds have moments
    rare = embedding.numel() if embedding.requires_grad else 0
    memory = _BASE_BYTES + encoder_bytes + 16 * (counts.trainable - rare) + 8 * rare + activations
    whole = adapted.saves is None
    disk = (4 * counts.total if whole else 4 * counts.trainable) + 700_000  # the tokenizer
    pooled = _BASE_BYTES - _CACHED_BYTES if first == len(weights) else 0
    return Estimate(run, counts, operations, memory, disk if run.save_model else 0, first, once, pooled)


def shared_once(plan: Sequence[Estimate], made: set[tuple[str | None, int]]) -> list[Estimate]:
    """A plan in its order where states of frozen blocks are computed by the first that needs them.

    made: encoder and number of frozen blocks of what the cache holds; filled with what is added.
    """
    found = []
    for estimated in plan:
        key = (estimated.run.model, estimated.frozen_blocks)
        found.append(estimated.from_cache() if key in made else estimated)
        if estimated.frozen_blocks:
            made.add(key)
    return found


def good_order(plan: Sequence[Estimate]) -> list[Estimate]:
    """The longest first, so that cores end together; but before them one of those that share frozen blocks.

    Whoever comes first computes the states of frozen blocks; the others would wait for them.
    """
    longest = sorted(plan, key=lambda e: -e.operations)
    sharing: dict[tuple[str | None, int], list[Estimate]] = defaultdict(list)
    for estimated in longest:
        if estimated.frozen_blocks:
            sharing[estimated.run.model, estimated.frozen_blocks].append(estimated)
    first = [group[0] for group in sharing.values() if len(group) > 1]
    return first + [estimated for estimated in longest if estimated not in first]


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
        with computing_in(resolve(recipe.precision, cpu), model):
            loss = loss_of(recipe, table.labels, num_labels)
            for examples in itertools.islice(training_order(table.lengths, recipe.batch_size, seed=0, epoch=0), 4):
                started = time.perf_counter()
                answers, batch = logits(model, Feed(table), examples)
                loss.total(answers, batch.labels).backward()
                speeds.append(per_token * batch.num_tokens / (time.perf_counter() - started))
        return max(speeds)
    finally:
        torch.set_num_threads(threads)
