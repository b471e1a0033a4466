"""The only training loop. Which strategy trains shows nowhere in it."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.nn.utils import get_total_norm
from torch.optim import AdamW

from tuneoff.data.batches import training_order
from tuneoff.dropout import use_cheap_dropout
from tuneoff.encoder.anatomy import blocks, encoder_of
from tuneoff.engine.checkpointing import checkpointing
from tuneoff.engine.feed import Feed, logits
from tuneoff.engine.loss import Loss, example_weights, loss_of
from tuneoff.engine.masters import Masters, Snapshot, mean_of
from tuneoff.engine.optim import adamw, clip_by
from tuneoff.engine.precision import computing_in
from tuneoff.engine.recipe import Recipe
from tuneoff.engine.schedule import rate_share
from tuneoff.errors import DivergedError
from tuneoff.metrics import is_better
from tuneoff.strategies.base import Adapted


@dataclass
class Trained:
    """What training leaves beside the weights, which are those of the best epoch."""

    steps: list[dict[str, float]] = field(default_factory=list)  # step, epoch, loss, learning_rate
    epochs: list[dict[str, float]] = field(default_factory=list)  # epoch, train_loss, seconds, validation metrics
    best_epoch: int = 0  # counted from 1
    examples: int = 0  # seen in all
    tokens: int = 0
    train_seconds: float = 0.0  # steps alone, validation not counted


def train(
    adapted: Adapted,
    feed: Feed,
    recipe: Recipe,
    learning_rate: float,
    seed: int,
    dtype: torch.dtype,
    validate: Callable[[], dict[str, float]],
    metric: str,
    on_progress: Callable[[float], None] = lambda share: None,
    is_over: Callable[[dict[str, float]], bool] = lambda scores: False,
) -> Trained:
    """Train until the recipe ends or patience does; leave the weights of the epoch with the best validation metric.

    validate: every metric of the model as it stands, on the validation split. is_over: asked with them after each
    epoch whether to stop.
    Raises DivergedError when the loss or a gradient is no longer finite.
    """
    model = adapted.model
    use_cheap_dropout(model)
    num_steps, trained, kept = recipe.num_steps(len(feed)), Trained(), _Best(metric, recipe.average)
    passes = recipe.passes(len(feed))
    loss = loss_of(recipe, feed.labels, model.config.num_labels)
    weights = example_weights(feed.labels, model.config.num_labels)
    torch.manual_seed(seed)  # dropout; data order has a generator of its own
    with computing_in(dtype, model) as full, checkpointing(model, recipe.checkpointing):
        masters = Masters(model, full, feed.table.ids)
        optimizer = adamw(adapted, masters, learning_rate, recipe.weight_decay)
        for epoch in range(recipe.epochs):
            _train_mode(model, adapted.first_trained_block)
            started, losses = time.perf_counter(), []
            drawn = weights if recipe.sampling == "balanced" else None
            numbers = range(epoch * passes, (epoch + 1) * passes)
            batches = itertools.chain.from_iterable(
                training_order(feed.lengths, recipe.batch_size, seed, number, drawn) for number in numbers
            )
            for examples in itertools.islice(batches, num_steps - len(trained.steps)):
                share = rate_share(recipe.schedule, len(trained.steps), num_steps, recipe.warmup)
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * share
                value, num_tokens = _backward(model, feed, examples, loss, recipe.accumulation)
                if not _step(masters, optimizer, recipe.clip):
                    step = len(trained.steps) + 1
                    raise DivergedError(f"loss {value:.3g} at step {step}; lower the learning rate")
                losses.append(value)
                trained.steps.append(
                    {
                        "step": len(trained.steps) + 1,
                        "epoch": epoch + 1,
                        "loss": value,
                        "learning_rate": learning_rate * share,
                    }
                )
                trained.examples += len(examples)
                trained.tokens += num_tokens
                on_progress(len(trained.steps) / num_steps)
            seconds = time.perf_counter() - started
            trained.train_seconds += seconds
            scores = validate()
            trained.epochs.append(
                {
                    "epoch": epoch + 1,
                    "train_loss": float(np.mean(losses)),
                    "seconds": seconds,
                    **{f"validation_{k}": v for k, v in scores.items()},
                }
            )
            kept.offer(scores[metric], epoch + 1, masters)
            waited = epoch + 1 - kept.epoch
            is_enough = recipe.patience is not None and waited >= recipe.patience
            if is_over(scores) or is_enough or len(trained.steps) == num_steps:
                break
        trained.best_epoch = kept.epoch
        kept.restore(masters, validate)
    model.eval()
    return trained


class _Best:
    """The weights of the epochs that validation likes best."""

    def __init__(self, metric: str, count: int) -> None:
        self._metric, self._count = metric, count
        self._kept: list[tuple[float, int, Snapshot]] = []  # score, epoch, weights; best first, the earlier of equals

    @property
    def epoch(self) -> int:
        """The best one, counted from 1."""
        return self._kept[0][1]

    def offer(self, score: float, epoch: int, masters: Masters) -> None:
        """Keep an epoch if it is among the best."""
        place = sum(not is_better(self._metric, score, kept) for kept, _, _ in self._kept)
        if place < self._count:
            self._kept.insert(place, (score, epoch, masters.snapshot()))
            del self._kept[self._count :]

    def restore(self, masters: Masters, validate: Callable[[], dict[str, float]]) -> None:
        """Leave the best epoch's weights, or the mean of several where validation likes it at least as much."""
        (best, _, weights), *others = self._kept
        if others:
            mean = mean_of([snapshot for _, _, snapshot in self._kept])
            masters.show(mean)
            if not is_better(self._metric, best, validate()[self._metric]):
                weights = mean
        masters.restore(weights)


def _backward(model: Any, feed: Feed, examples: np.ndarray, loss: Loss, parts: int) -> tuple[float, int]:
    """The gradient of a batch's mean loss, computed in parts; the loss, and how many tokens it took."""
    value, num_tokens, weight = 0.0, 0, loss.weight(feed.labels[examples])
    for part in np.array_split(examples, min(parts, len(examples))):
        answers, batch = logits(model, feed, part)
        share = loss.total(answers, batch.labels) / weight
        share.backward()
        value += share.item()
        num_tokens += batch.num_tokens
    return value, num_tokens


def _step(masters: Masters, optimizer: AdamW, clip: float) -> bool:
    """One step down a batch's gradient: whether it was finite; if not, nothing moves."""
    norm = get_total_norm(masters.take_gradients())
    is_finite = bool(torch.isfinite(norm))
    if is_finite:
        clip_by(norm / clip, optimizer)
        optimizer.step()
        masters.give_weights(optimizer)
    return is_finite


def _train_mode(model: Any, first_trained_block: int) -> None:
    """Dropout on, but not in frozen blocks: what they say of an example never changes."""
    model.train()
    if first_trained_block > 0:
        encoder_of(model).eval()
        for block in blocks(model)[first_trained_block:]:
            block.train()
