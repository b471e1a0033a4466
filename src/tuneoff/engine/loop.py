"""The only training loop, the same for every strategy.

Algorithm: in each step the gradients of a packed batch are computed with bf16 (or fp32) weights, in one or several
parts; the fp32 master weights receive them, AdamW steps with clipping, and the model's copies follow. After each epoch
the validation split is scored, and the weights are kept if they are among the best so far. At the end the best epoch's
weights are written back. At one seed all strategies see the same examples in the same order with the same schedule; a
strategy shows only in the flags of its parameters (Adapted). The plain way is HF Trainer, whose losses
tests/engine/test_trainer.py compares over fifty steps; this loop exists for packed batches, cached frozen blocks and
master weights, none of which Trainer can express.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn.utils import get_total_norm
from torch.optim import AdamW

from tuneoff.data.batches import training_batches
from tuneoff.encoder.anatomy import blocks, encoder_of
from tuneoff.encoder.dropout import use_fast_dropout
from tuneoff.engine.checkpoint import checkpointing
from tuneoff.engine.inputs import SplitInputs, batch_logits
from tuneoff.engine.loss import Loss, example_weights, loss_of
from tuneoff.engine.master_weights import MasterWeights, Snapshot, mean_snapshot
from tuneoff.engine.optim import adamw, clip_at_step
from tuneoff.engine.precision import compute_dtype
from tuneoff.engine.recipe import Recipe
from tuneoff.engine.schedule import rate_share
from tuneoff.errors import DivergedError
from tuneoff.scoring.metrics import is_better
from tuneoff.strategies.base import Adapted


@dataclass(frozen=True)
class TrainingSettings:
    """The recipe, and the settings of one run under it."""

    recipe: Recipe
    learning_rate: float  # the peak, after warm-up
    seed: int  # of data order
    dtype: torch.dtype  # of the encoder; the head computes in fp32
    last_epoch: int | None = None  # counted from 1; training ends after it, with the recipe's schedule; None: the last
    dropout_seed: int | None = None  # None: the seed of data order


@dataclass(frozen=True)
class Validation:
    """Validation after each epoch, which selects the epoch whose weights are kept."""

    evaluate: Callable[[], dict[str, float]]  # scores of the current weights on the validation split, by metric
    metric: str  # selects the epoch
    should_stop: Callable[[dict[str, float]], bool] = lambda scores: False  # True ends training, as patience does


@dataclass
class Trained:
    """History and costs of a training. The weights themselves are in the model."""

    steps: list[dict[str, float]] = field(default_factory=list)  # step, epoch, loss, learning_rate
    epochs: list[dict[str, float]] = field(default_factory=list)  # epoch, train_loss, seconds, validation metrics
    best_epoch: int = 0  # counted from 1
    examples: int = 0  # summed over all steps
    tokens: int = 0  # summed over all steps
    train_seconds: float = 0.0  # of the steps, without validation


def train(
    adapted: Adapted,
    inputs: SplitInputs,
    settings: TrainingSettings,
    validation: Validation | None,
    on_progress: Callable[[float], None] = lambda share: None,
) -> Trained:
    """Train a model, and leave it with the weights of the epoch with the best validation metric.

    Without validation it keeps the weights of the last epoch. inputs: of the train split. on_progress: called after
    each step with the share of steps done.
    Raises DivergedError if the norm of a gradient is not finite.
    """
    model, recipe = adapted.model, settings.recipe
    use_fast_dropout(model)
    num_steps, passes = recipe.num_steps(len(inputs)), recipe.passes(len(inputs))
    trained, best_weights = Trained(), _BestWeights(validation, recipe.average) if validation else None
    loss = loss_of(recipe, inputs.labels, model.config.num_labels)
    sampling_weights = None
    if recipe.sampling == "balanced":
        sampling_weights = example_weights(inputs.labels, model.config.num_labels)
    # for dropout; training_batches has its own generator
    torch.manual_seed(settings.seed if settings.dropout_seed is None else settings.dropout_seed)
    with compute_dtype(settings.dtype, model) as fp32_weights, checkpointing(model, recipe.checkpointing):
        # the ids of the whole split, also for a subset of it: more rows than needed give the same weights
        master_weights = MasterWeights(model, fp32_weights, inputs.table.ids)
        optimizer = adamw(adapted, master_weights, settings.learning_rate, recipe.weight_decay)
        for epoch in range(recipe.epochs):
            _train_mode(model, adapted.first_trained_block)
            started, losses = time.perf_counter(), []
            # an epoch has several passes if the recipe's min_steps needs them; each has its own order
            batches = itertools.chain.from_iterable(
                training_batches(inputs.lengths, recipe.batch_size, settings.seed, number, sampling_weights)
                for number in range(epoch * passes, (epoch + 1) * passes)
            )
            # islice: the recipe's max_steps may end within an epoch
            for examples in itertools.islice(batches, num_steps - len(trained.steps)):
                share = rate_share(recipe.schedule, len(trained.steps), num_steps, recipe.warmup)
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * share
                mean_loss, num_tokens = _backward(model, inputs, examples, loss, recipe.accumulation)
                if not _step(master_weights, optimizer, recipe.clip):
                    step = len(trained.steps) + 1
                    raise DivergedError(f"loss {mean_loss:.3g} at step {step}; lower the learning rate")
                losses.append(mean_loss)
                trained.steps.append(
                    {
                        "step": len(trained.steps) + 1,
                        "epoch": epoch + 1,
                        "loss": mean_loss,
                        "learning_rate": settings.learning_rate * share,
                    }
                )
                trained.examples += len(examples)
                trained.tokens += num_tokens
                on_progress(len(trained.steps) / num_steps)
            seconds = time.perf_counter() - started
            trained.train_seconds += seconds
            scores = validation.evaluate() if validation else {}
            trained.epochs.append(
                {
                    "epoch": epoch + 1,
                    "train_loss": float(np.mean(losses)),
                    "seconds": seconds,
                    **{f"validation_{k}": v for k, v in scores.items()},
                }
            )
            is_done = epoch + 1 == settings.last_epoch or len(trained.steps) == num_steps
            trained.best_epoch = epoch + 1
            if validation and best_weights:
                best_weights.add(scores[validation.metric], epoch + 1, master_weights)
                trained.best_epoch = best_weights.epoch
                is_out_of_patience = recipe.patience is not None and epoch + 1 - best_weights.epoch >= recipe.patience
                is_done = validation.should_stop(scores) or is_out_of_patience or is_done
            if is_done:
                break
        if best_weights:
            best_weights.restore(master_weights)
        else:
            master_weights.write_back(master_weights.snapshot())
    model.eval()
    return trained


class _BestWeights:
    """Weights of the epochs with the best validation scores, at most `count` of them."""

    def __init__(self, validation: Validation, count: int) -> None:
        self._validation, self._count = validation, count
        self._epochs: list[tuple[float, int, Snapshot]] = []  # score, epoch, weights; best first, ties by epoch

    @property
    def epoch(self) -> int:
        """The best epoch, counted from 1."""
        return self._epochs[0][1]

    def add(self, score: float, epoch: int, master_weights: MasterWeights) -> None:
        """Copy the current weights if the epoch is among the best."""
        rank = sum(not is_better(self._validation.metric, score, earlier) for earlier, _, _ in self._epochs)
        if rank < self._count:
            self._epochs.insert(rank, (score, epoch, master_weights.snapshot()))
            del self._epochs[self._count :]

    def restore(self, master_weights: MasterWeights) -> None:
        """Write back the best epoch's weights, or the mean over the best epochs if its score is not lower."""
        (best_score, _, weights), *more = self._epochs
        if more:
            mean = mean_snapshot([snapshot for _, _, snapshot in self._epochs])
            master_weights.swap_in(mean)
            metric = self._validation.metric
            if not is_better(metric, best_score, self._validation.evaluate()[metric]):
                weights = mean
        master_weights.write_back(weights)


def _backward(model: Any, inputs: SplitInputs, examples: np.ndarray, loss: Loss, parts: int) -> tuple[float, int]:
    """Compute the gradient of a batch's mean loss. Returns the loss and the number of tokens.

    parts: the batch is computed in as many parts, whose gradients add up (gradient accumulation).
    """
    mean_loss, num_tokens, weight = 0.0, 0, loss.weight(inputs.labels[examples])
    for part in np.array_split(examples, min(parts, len(examples))):
        logits, batch = batch_logits(model, inputs, part)
        share = loss.summed(logits, batch.labels) / weight
        share.backward()
        mean_loss += share.item()
        num_tokens += batch.num_tokens
    return mean_loss, num_tokens


def _step(master_weights: MasterWeights, optimizer: AdamW, max_norm: float) -> bool:
    """Update the weights with clipped gradients. Returns False, without an update, if the gradients are not finite."""
    norm = get_total_norm(master_weights.pull_gradients())
    is_finite = bool(torch.isfinite(norm))
    if is_finite:
        clip_at_step(norm, max_norm, optimizer)
        optimizer.step()
        master_weights.push_weights(optimizer)
    return is_finite


def _train_mode(model: Any, first_trained_block: int) -> None:
    """Turn dropout on, except in frozen blocks, whose outputs for an example never change."""
    model.train()
    if first_trained_block > 0:
        encoder_of(model).eval()
        for block in blocks(model)[first_trained_block:]:
            block.train()
