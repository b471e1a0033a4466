"""The only training loop. Which strategy trains shows nowhere in it."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import get_total_norm
from torch.optim import AdamW

from tuneoff.data.batches import training_order
from tuneoff.dropout import use_cheap_dropout
from tuneoff.encoder.anatomy import blocks, encoder_of
from tuneoff.engine.feed import Feed, logits
from tuneoff.engine.masters import Masters
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
) -> Trained:
    """Train until the recipe ends or patience does; leave the weights of the epoch with the best validation metric.

    validate: every metric of the model as it stands, on the validation split.
    Raises DivergedError when the loss or a gradient is no longer finite.
    """
    model = adapted.model
    use_cheap_dropout(model)
    num_steps = math.ceil(len(feed.table) / recipe.batch_size) * recipe.epochs
    trained, best, best_weights = Trained(), math.nan, None
    torch.manual_seed(seed)  # dropout; data order has a generator of its own
    with computing_in(dtype, model) as full:
        masters = Masters(model, full, feed.table.ids)
        optimizer = adamw(adapted, masters, learning_rate, recipe.weight_decay)
        for epoch in range(recipe.epochs):
            _train_mode(model, adapted.first_trained_block)
            started, losses = time.perf_counter(), []
            for examples in training_order(feed.table.lengths, recipe.batch_size, seed, epoch):
                share = rate_share(recipe.schedule, len(trained.steps), num_steps, recipe.warmup)
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * share
                answers, batch = logits(model, feed, examples)
                loss, is_finite = _step(F.cross_entropy(answers, batch.labels), masters, optimizer, recipe.clip)
                if not is_finite:
                    step = len(trained.steps) + 1
                    raise DivergedError(f"loss {loss:.3g} at step {step}; lower the learning rate")
                losses.append(loss)
                trained.steps.append(
                    {
                        "step": len(trained.steps) + 1,
                        "epoch": epoch + 1,
                        "loss": loss,
                        "learning_rate": learning_rate * share,
                    }
                )
                trained.examples += len(examples)
                trained.tokens += batch.num_tokens
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
            if best_weights is None or is_better(metric, scores[metric], best):
                best, trained.best_epoch, best_weights = scores[metric], epoch + 1, masters.snapshot()
            if recipe.patience is not None and epoch + 1 - trained.best_epoch >= recipe.patience:
                break
        assert best_weights is not None
        masters.restore(best_weights)
    model.eval()
    return trained


def _step(loss: Tensor, masters: Masters, optimizer: AdamW, clip: float) -> tuple[float, bool]:
    """One step down a batch's loss: the loss, and whether its gradient was finite; if not, nothing moves."""
    loss.backward()
    norm = get_total_norm(masters.take_gradients())
    is_finite = bool(torch.isfinite(norm))
    if is_finite:
        clip_by(norm / clip, optimizer)
        optimizer.step()
        masters.give_weights(optimizer)
    return loss.item(), is_finite


def _train_mode(model: Any, first_trained_block: int) -> None:
    """Dropout on, but not in frozen blocks: what they say of an example never changes."""
    model.train()
    if first_trained_block > 0:
        encoder_of(model).eval()
        for block in blocks(model)[first_trained_block:]:
            block.train()
