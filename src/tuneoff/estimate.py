"""How much work a run is, before it runs: for `plan` and for the ETA."""

import itertools
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

from tuneoff.data.batches import training_order
from tuneoff.data.encode import TokenTable
from tuneoff.encoder.anatomy import blocks, encoder_of
from tuneoff.encoder.load import empty_model, load_model
from tuneoff.engine.feed import Feed, logits
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
    operations_per_token,
)

# bytes resident in a process with torch and transformers imported, measured: docs/log.md
_BASE_BYTES = 650 * 2**20
# what a trial takes of a run where half go on at 1, 2, 4, ... epochs: docs/log.md
_SHARE_OF_HALVED = 0.6


@dataclass(frozen=True)
class Estimate:
    """What a run or a search is expected to need."""

    run: Job
    parameters: ParameterCounts | None
    operations: float  # floating point operations, those of frozen blocks that run once included
    memory_bytes: float
    disk_bytes: float
    frozen_blocks: int = 0  # first blocks whose states it takes from the cache, or computes into it

    def to_json(self) -> dict[str, object]:
        """The estimate as plain data."""
        counts = vars(self.parameters) if self.parameters else None
        needs = {"memory_bytes": self.memory_bytes, "disk_bytes": self.disk_bytes}
        return {
            "run_id": self.run.run_id,
            "kind": "search" if isinstance(self.run, SearchJob) else "run",
            "label": self.run.strategy.label,
            "seed": self.run.seed,
            "parameters": counts,
            **needs,
        }

    def of(self, job: Job) -> "Estimate":
        """The same for a run of another seed, or for a search of it."""
        if isinstance(job, RunSpec):
            return replace(self, run=job)
        trials = (job.search.trials or 1) * (_SHARE_OF_HALVED if job.search.halving else 1.0)
        return replace(self, run=job, operations=self.operations * trials, disk_bytes=0)

    def seconds(self, operations_per_second: float) -> float:
        """Time at a measured speed, with two seconds for loading and storing; a search by time takes that."""
        if isinstance(self.run, SearchJob) and self.run.search.budget:
            return self.run.search.budget
        return 2 + self.operations / operations_per_second


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


def estimate(run: RunSpec, tokens: dict[str, int], num_train: int, num_labels: int) -> Estimate:
    """Operations, memory and disk of a run on so many training examples. tokens: per split, in all."""
    judged = tokens["validation"] + tokens["test"]
    if run.model is None:
        return Estimate(
            run, None, 1e5 * sum(tokens.values()), _BASE_BYTES + 200 * tokens["train"], 20 * tokens["train"]
        )
    model = empty_model(run.model, num_labels)
    weights = [sum(p.numel() for p in block.parameters()) for block in blocks(model)]
    encoder_bytes = 4 * sum(p.numel() for p in model.parameters())
    if run.kind.kind == "features":
        counts = parameters_of(run.config, run.model, num_labels)
        once = 2.0 * sum(weights) * sum(tokens.values())
        return Estimate(run, counts, once, _BASE_BYTES + encoder_bytes, 8 * counts.trainable, len(weights))
    adapted = run.kind.apply(model, run.config)
    counts, first = count_parameters(adapted), adapted.first_trained_block
    behind = float(sum(weights[first:]))
    epochs = 0.0
    if isinstance(run.config, GradientConfig):
        epochs = run.recipe.num_steps(num_train) / math.ceil(num_train / run.recipe.batch_size)
    step = operations_per_token(adapted)
    operations = (
        2.0 * sum(weights[:first]) * sum(tokens.values())  # frozen blocks, once
        + epochs * (step * tokens["train"] + 2 * behind * tokens["validation"])
        + 2 * 2 * sum(weights) * judged * (first < len(weights))  # the last predictions, in fp32: half the speed
    )
    longest_batch = math.ceil(run.recipe.batch_size / run.recipe.accumulation) * run.recipe.max_length
    activations = 40 * 4 * model.config.hidden_size * (len(weights) - first) * longest_batch
    memory = _BASE_BYTES + encoder_bytes + 16 * counts.trainable + activations
    whole = adapted.saves is None
    disk = (4 * counts.total if whole else 4 * counts.trainable) + 700_000  # the tokenizer
    return Estimate(run, counts, operations, memory, disk if run.save_model else 0, first)


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
        per_token = 6.0 * sum(parameter.numel() for block in blocks(model) for parameter in block.parameters())
        speeds = []
        with computing_in(resolve(recipe.precision, cpu), model):
            for examples in itertools.islice(training_order(table.lengths, recipe.batch_size, seed=0, epoch=0), 4):
                started = time.perf_counter()
                answers, batch = logits(model, Feed(table), examples)
                functional.cross_entropy(answers, batch.labels).backward()
                speeds.append(per_token * batch.num_tokens / (time.perf_counter() - started))
        return max(speeds)
    finally:
        torch.set_num_threads(threads)
