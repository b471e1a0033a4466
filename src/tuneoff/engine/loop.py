"""The only training loop, the same for every strategy.

Algorithm: in each step the gradients of a packed batch are computed with bf16 (or fp32) weights, in one or several
parts; the fp32 master weights receive them, AdamW steps with clipping, and the model's copies follow. After each epoch
(and where the recipe asks for it, after every so many steps) the validation split is scored, and the weights are kept
if they are among the best so far. At the end the best weights are written back. At one seed all strategies see the same
examples in the same order with the same schedule; a strategy shows only in the flags of its parameters (Adapted). The
plain way is HF Trainer, whose losses tests/engine/test_trainer.py compares over fifty steps; this loop exists for
packed batches, cached frozen blocks and master weights, none of which Trainer can express.

On a GPU no step waits for it: the losses and the check for finite gradients stay there, and are read together after
some steps (_Readings). A step whose gradients are not finite changes nothing, so that reading later ends the same.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.utils import get_total_norm
from torch.optim import AdamW

from tuneoff.data.batches import PackedBatch, training_batches
from tuneoff.encoder.anatomy import blocks, encoder_of
from tuneoff.encoder.dropout import use_fast_dropout
from tuneoff.engine.checkpoint import checkpointing
from tuneoff.engine.devices import DeviceGroup
from tuneoff.engine.graphs import StepGraphs
from tuneoff.engine.inputs import SplitInputs, logits_of
from tuneoff.engine.loss import Loss, example_weights, loss_of
from tuneoff.engine.master_weights import MasterWeights, mean_snapshot
from tuneoff.engine.memory import is_out_of_memory, release_memory
from tuneoff.engine.optim import adamw, clip_at_step
from tuneoff.engine.precision import LossScale, allow_any_order, compute_dtype, deterministic, lacks_determinism
from tuneoff.engine.recipe import Recipe
from tuneoff.engine.resume import Checkpoint
from tuneoff.engine.schedule import rate_share
from tuneoff.engine.training_state import Kept, Position, State, capture, restore
from tuneoff.errors import DivergedError, NoMemoryError
from tuneoff.machine import busy_seconds, peak_bytes
from tuneoff.scoring.metrics import is_better
from tuneoff.strategies.base import Adapted

READ_EVERY = 50  # steps after which the losses of a GPU are read


@dataclass(frozen=True)
class TrainingSettings:
    """The recipe, and the settings of one run under it."""

    recipe: Recipe
    learning_rate: float  # the peak, after warm-up
    seed: int  # of data order
    dtype: torch.dtype  # of the encoder; the head computes in fp32
    last_epoch: int | None = None  # counted from 1; training ends after it, with the recipe's schedule; None: the last
    dropout_seed: int | None = None  # None: the seed of data order
    halvings: int = 0  # of the micro-batch, because of lack of memory before this training

    @property
    def seed_of_dropout(self) -> int:
        """The seed of dropout."""
        return self.seed if self.dropout_seed is None else self.dropout_seed


@dataclass(frozen=True)
class Validation:
    """Validation after each epoch, and perhaps within epochs, which selects the weights that are kept."""

    evaluate: Callable[[], dict[str, float]]  # scores of the current weights on the validation split, by metric
    metric: str  # selects the epoch
    # called after each epoch; True ends training, as patience does
    should_stop: Callable[[dict[str, float]], bool] = lambda scores: False


@dataclass
class PhaseSeconds:
    """Seconds of the steps of a training by phase; the rest of train_seconds is the loop itself.

    Read from machine.busy_seconds around the calls of each phase, which takes 30 microseconds a step. A GPU computes
    while the processor goes on and is not waited for: there they are the seconds in which work is queued, and the rest
    of the time, also that of steps by a graph, is the loop's. Events of CUDA would tell them apart.
    """

    data: float = 0.0  # drawing and packing batches
    forward: float = 0.0  # with the loss
    backward: float = 0.0
    optimizer: float = 0.0  # with clipping and the copies of the weights


@dataclass
class Trained:
    """History and costs of a training. The weights themselves are in the model."""

    steps: list[dict[str, float]] = field(default_factory=list)  # step, epoch, loss, learning_rate
    epochs: list[dict[str, float]] = field(default_factory=list)  # epoch, train_loss, seconds, validation metrics
    # step, epoch (with decimals) and validation metrics of each validation, if the recipe asks for more than epochs
    evaluations: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0  # counted from 1; of a step within an epoch, that epoch
    best_step: int | None = None  # whose weights are kept; None without validation
    examples: int = 0  # summed over all steps
    tokens: int = 0  # summed over all steps
    train_seconds: float = 0.0  # of the steps, without validation
    phases: PhaseSeconds = field(default_factory=PhaseSeconds)
    halvings: int = 0  # of the micro-batch, because of lack of memory
    memory_steps: list[int] = field(default_factory=list)  # at which memory was lacking
    graph_error: str = ""  # that ended the use of CUDA graphs
    adds_in_any_order: bool = False  # on a GPU, by an operation that can do nothing else: other bits in each run
    resumed_step: int | None = None  # after which this process went on from a checkpoint
    earlier_seconds: float = 0.0  # of this training in processes before this one
    earlier_peak_bytes: int = 0  # the largest of their peaks of memory


def train(
    adapted: Adapted,
    inputs: SplitInputs,
    settings: TrainingSettings,
    validation: Validation | None,
    on_progress: Callable[[float], None] = lambda share: None,
    checkpoint: Checkpoint | None = None,
    on_end: Callable[[State], None] | None = None,
    devices: DeviceGroup | None = None,
) -> Trained:
    """Train a model, and leave it with the weights of the best validation: after an epoch, or a step within one.

    Without validation it keeps the weights of the last epoch. inputs: of the train split. on_progress: called after
    each step with the share of steps done. checkpoint: from which the training goes on if it is stored, and into which
    it writes its state from time to time. on_end: called with the state at the end, from which a training goes on that
    the validation's should_stop does not end. devices: this one among several that train the model together; all call
    this function with the same arguments, but the first alone validates, and has a checkpoint.
    Raises DivergedError if the norm of a gradient is not finite, NoMemoryError if a step does not fit in memory, and
    StopRequested, with the checkpoint written, after a signal to stop.
    """
    model = adapted.model
    device = next(model.parameters()).device
    model.to(device)  # what a strategy has added: some methods of peft leave buffers on the CPU
    use_fast_dropout(model)
    if devices:
        devices.start()
        validation = validation and _on_first(validation, devices)
    torch.manual_seed(settings.seed_of_dropout)  # training_batches has its own generator
    with (
        deterministic(device),
        compute_dtype(settings.dtype, model) as fp32_weights,
        checkpointing(model, settings.recipe.checkpointing),
        checkpoint.training() if checkpoint else nullcontext(),
    ):
        training = _Training(adapted, inputs.on_device(device), settings, validation, fp32_weights, checkpoint, devices)
        training.run(on_progress, on_end)
    model.eval()
    return training.trained


class _Training:
    """A training under way: the weights and their optimizer, what it has recorded, and how far it is."""

    def __init__(
        self,
        adapted: Adapted,
        inputs: SplitInputs,
        settings: TrainingSettings,
        validation: Validation | None,
        fp32_weights: dict[Any, torch.Tensor],
        checkpoint: Checkpoint | None,
        devices: DeviceGroup | None,
    ) -> None:
        """fp32_weights: of the model, by the parameters that compute in settings.dtype."""
        self.model, self.first_trained_block = adapted.model, adapted.first_trained_block
        self.inputs, self.labels = inputs, inputs.labels
        self.settings, self.recipe = settings, settings.recipe
        self.validation, self.checkpoint, self.devices = validation, checkpoint, devices
        self.began, self.trained = busy_seconds(), Trained(halvings=settings.halvings)
        self.num_steps, self.passes = self.recipe.num_steps(len(inputs)), self.recipe.passes(len(inputs))
        self.steps_per_epoch = math.ceil(len(inputs) / self.recipe.batch_size) * self.passes
        self.lengths = inputs.lengths if devices else np.empty(0)
        num_labels = self.model.config.num_labels
        self.loss = loss_of(self.recipe, self.labels, num_labels)
        is_balanced = self.recipe.sampling == "balanced"
        self.sampling_weights = example_weights(self.labels, num_labels) if is_balanced else None
        self.fp32_weights = fp32_weights
        # the ids of the whole split, also for a subset of it: more rows than needed give the same weights
        self.master_weights = MasterWeights(self.model, fp32_weights, inputs.table.ids)
        self.optimizer = adamw(adapted, self.master_weights, settings.learning_rate, self.recipe.weight_decay)
        self.best_weights = _BestWeights(validation, self.recipe.average) if validation else None
        device = next(self.model.parameters()).device
        self.scale = LossScale(device) if settings.dtype == torch.float16 else None
        self.readings = _Readings(self.trained, 1 if device.type == "cpu" else READ_EVERY)
        self.graphs: StepGraphs | None = None
        if device.type == "cuda" and devices is None and not self.recipe.checkpointing:
            compute = partial(_compute, self.model, inputs, self.loss, self.scale, self.trained)
            self.graphs = StepGraphs(self.model.parameters(), compute, settings.dtype)

    def run(self, on_progress: Callable[[float], None], on_end: Callable[[State], None] | None) -> None:
        """Train to the end, from the checkpoint if there is one, and leave the model with the weights to keep."""
        at = self._stored_position()
        for epoch in range(self.recipe.epochs if at.is_done else at.epoch, self.recipe.epochs):
            scores = self._train_epoch(epoch, at, on_progress)
            is_stopped = self.validation is not None and self.validation.should_stop(scores)
            at = Position(epoch + 1, is_done=self._is_last(epoch))
            if self.checkpoint and self.checkpoint.is_due():
                self.checkpoint.write(partial(self._state, at))
            if at.is_done or is_stopped:
                if on_end:
                    on_end(self._state(at).with_own_weights())
                break
        if self.best_weights:
            self.best_weights.restore(self.master_weights)
        else:
            self.master_weights.write_back(self.master_weights.snapshot())

    def _stored_position(self) -> Position:
        """Go back to the state of the checkpoint, and return its place; without one, the start."""
        stored = self.checkpoint.read() if self.checkpoint else None
        if self.devices:
            stored = self.devices.from_first(lambda: stored)
        if not stored:
            return Position()
        kept = self.best_weights.kept if self.best_weights else []
        at = restore(stored, self.master_weights, self.optimizer, kept, self.trained)
        if self.scale and "scale" in stored.tensors:
            self.scale.restore(stored.tensors["scale"], stored.tensors["scale_steps"])
        self.trained.halvings = max(self.trained.halvings, self.settings.halvings)
        return at

    def _train_epoch(self, epoch: int, at: Position, on_progress: Callable[[float], None]) -> dict[str, float]:
        """Train an epoch, or what is left of it, and validate. Returns the scores. epoch: counted from 0."""
        trained, recipe, checkpoint = self.trained, self.recipe, self.checkpoint
        _train_mode(self.model, self.first_trained_block)
        clock, scores, scored_step = _Clock(at.seconds), at.scores, at.scored_step
        for examples in self._batches(epoch, at.steps):
            self._step(epoch, examples)
            if self.readings.are_due():
                self._read()
            on_progress(len(trained.steps) / self.num_steps)
            if self.validation and recipe.evaluate_every and len(trained.steps) % recipe.evaluate_every == 0:
                self._read()
                with clock.stopped():
                    scores, scored_step = self._validate(epoch), len(trained.steps)
                    _train_mode(self.model, self.first_trained_block)
            if checkpoint and checkpoint.is_due():
                self._read()
                with clock.stopped():
                    steps = sum(step["epoch"] == epoch + 1 for step in trained.steps)
                    here = Position(epoch, steps, clock.seconds, scores, scored_step)
                    checkpoint.write(partial(self._state, here))
        self._read()  # a GPU's steps have then been made
        seconds = clock.seconds
        trained.train_seconds += seconds
        if self.validation and scored_step != len(trained.steps):
            scores = self._validate(epoch)
        trained.epochs.append(_epoch(trained, epoch, seconds, scores))
        trained.best_epoch = epoch + 1
        if self.best_weights:
            trained.best_epoch, trained.best_step = self.best_weights.epoch, self.best_weights.step
        return scores

    def _batches(self, epoch: int, num_done: int) -> Iterator[np.ndarray]:
        """Yield the examples of each step of an epoch but the first ones. epoch: counted from 0.

        There are several passes if the recipe's min_steps needs them; each has an order of its own.
        """
        orders = (
            training_batches(
                self.inputs.lengths, self.recipe.batch_size, self.settings.seed, number, self.sampling_weights
            )
            for number in range(epoch * self.passes, (epoch + 1) * self.passes)
        )
        batches = itertools.chain.from_iterable(orders)
        # the recipe's max_steps may end within an epoch
        left = itertools.islice(batches, num_done, num_done + self.num_steps - len(self.trained.steps))
        return _timed(left, self.trained.phases)

    def _step(self, epoch: int, examples: np.ndarray) -> None:
        """Make a step with the examples of a batch. epoch: counted from 0."""
        trained, recipe, devices = self.trained, self.recipe, self.devices
        share = rate_share(recipe.schedule, len(trained.steps), self.num_steps, recipe.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * share
        part = examples
        if devices:
            part = devices.part(examples, self.lengths[examples])
            devices.seed_step(self.settings.seed_of_dropout, len(trained.steps))
        losses, num_tokens = self._gradient(part, self.loss.weight(self.labels[examples]))
        stepping = busy_seconds()
        gradients = self.master_weights.pull_gradients()
        if devices:
            losses = [devices.sum_gradients(self.master_weights.masters, losses)]
            gradients = [master.grad for master in self.master_weights.masters if master.grad is not None]
            num_tokens = int(self.lengths[examples].sum())
        has_diverged = _update(gradients, self.master_weights, self.optimizer, recipe.clip, self.scale)
        trained.phases.optimizer += busy_seconds() - stepping
        rate = self.settings.learning_rate * share
        step = {"step": len(trained.steps) + 1, "epoch": epoch + 1, "loss": math.nan, "learning_rate": rate}
        self.readings.add(step, losses, has_diverged)
        trained.graph_error = self.graphs.error if self.graphs else ""
        trained.examples += len(examples)
        trained.tokens += num_tokens

    def _gradient(self, examples: np.ndarray, weight: float) -> tuple[list[torch.Tensor], int]:
        """Compute the gradient of a batch in parts that fit in memory. Returns the parts' losses and the tokens.

        examples: of the batch, or those of this device, which may be none. weight: of the whole batch.
        Where memory is lacking, the step is computed again in twice as many parts, with the same random state; so are
        all steps after it. Where an operation has no deterministic form on a GPU, it is allowed from then on.
        Raises NoMemoryError if a single example does not fit.
        """
        if len(examples) == 0:
            return [], 0
        trained, num_parts = self.trained, _num_parts(self.recipe, self.devices)
        while True:
            parts, random_state = num_parts * 2**trained.halvings, _random_states(self.model)
            try:
                return _backward(
                    self.model, self.inputs, examples, self.loss, parts, weight, trained, self.scale, self.graphs
                )
            except (MemoryError, RuntimeError, OSError) as error:
                is_ordered = not lacks_determinism(error)
                if is_ordered and not is_out_of_memory(error):
                    raise
            # outside the handler, whose traceback keeps the tensors of the step
            self.master_weights.drop_gradients()
            if not is_ordered:
                allow_any_order()
                trained.adds_in_any_order = True
                _set_random_states(random_state)
                continue
            if self.graphs and self.graphs.hold_memory:  # once more, with the memory of the graphs
                self.graphs.end("out of memory with graphs")
                release_memory()
                _set_random_states(random_state)
                continue
            release_memory()
            step = len(trained.steps) + 1
            if parts >= len(examples):
                raise NoMemoryError(
                    f"out of memory at step {step} with one example at a time; use a shorter max_length, a smaller "
                    "encoder or fewer workers"
                )
            _set_random_states(random_state)
            trained.halvings += 1
            trained.memory_steps.append(step)

    def _read(self) -> None:
        """Read what the last steps left on the device. Raises DivergedError."""
        if (diverged := self.readings.read()) is not None:  # a loss of 0.0 may have such a gradient too
            raise DivergedError(_divergence(self.trained, diverged, self.fp32_weights), self.trained)

    def _validate(self, epoch: int) -> dict[str, float]:
        """Score the current weights, and keep them if they are among the best. epoch: counted from 0."""
        assert self.validation
        assert self.best_weights
        scores, step = self.validation.evaluate(), len(self.trained.steps)
        self.best_weights.add(scores[self.validation.metric], epoch + 1, step, self.master_weights)
        if self.recipe.evaluate_every is not None:
            named = {f"validation_{name}": score for name, score in scores.items()}
            place = {"step": step, "epoch": round(step / self.steps_per_epoch, 4)}
            self.trained.evaluations.append({**place, **named})
        return scores

    def _is_last(self, epoch: int) -> bool:
        """Return True if training ends after an epoch. epoch: counted from 0."""
        patience = self.recipe.patience
        is_out_of_patience = (
            self.best_weights is not None and patience is not None and epoch + 1 - self.best_weights.epoch >= patience
        )
        is_at_end = epoch + 1 == self.settings.last_epoch or len(self.trained.steps) == self.num_steps
        return is_out_of_patience or is_at_end

    def _state(self, at: Position) -> State:
        """Return the state at a place."""
        until_now = replace(
            self.trained,
            earlier_seconds=self.trained.earlier_seconds + busy_seconds() - self.began,
            earlier_peak_bytes=max(self.trained.earlier_peak_bytes, peak_bytes()),
        )
        kept = self.best_weights.kept if self.best_weights else []
        state = capture(self.master_weights, self.optimizer, kept, until_now, at)
        if self.scale is None:
            return state
        return replace(
            state, tensors={**state.tensors, "scale": self.scale.scale, "scale_steps": self.scale.finite_steps}
        )


class _Clock:
    """Seconds of the steps of an epoch, without those of what is done between them."""

    def __init__(self, seconds: float) -> None:
        """seconds: of the steps before."""
        self._before, self._started = seconds, busy_seconds()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self._before + busy_seconds() - self._started

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """A context whose seconds do not count."""
        stopped_at = busy_seconds()
        yield
        self._started += busy_seconds() - stopped_at


class _Readings:
    """The loss of each step, and whether training has diverged, as the device has computed them.

    They are read after every so many steps: reading makes the processor wait for all that a GPU has still to do. On a
    CPU that is every step, before the next one starts.
    """

    def __init__(self, trained: Trained, every: int) -> None:
        self._trained, self._every = trained, every
        self._pending: list[tuple[list[torch.Tensor], torch.Tensor | bool]] = []  # the last of the steps

    def add(self, step: dict[str, float], losses: list[torch.Tensor], has_diverged: torch.Tensor | bool) -> None:
        """Add a step, and the loss of each part of its batch, (). has_diverged: (), of 1.0 or 0.0 on a GPU."""
        self._trained.steps.append(step)
        self._pending.append((losses, has_diverged))

    def are_due(self) -> bool:
        """Return True if it is time to read."""
        return len(self._pending) >= self._every

    def read(self) -> float | None:
        """Fill in the losses of the last steps. If one has diverged, forget it and those after it; return its loss."""
        pending, self._pending = self._pending, []
        if not pending:
            return None
        flat = [value for losses, has_diverged in pending for value in (*losses, has_diverged)]
        if isinstance(pending[0][1], bool):
            numbers = iter([value if isinstance(value, bool) else value.item() for value in flat])
        else:
            numbers = iter(torch.stack([torch.as_tensor(value) for value in flat]).tolist())  # one copy
        steps = self._trained.steps
        for index, (losses, _) in enumerate(pending, start=len(steps) - len(pending)):
            loss = 0.0
            for _ in losses:
                loss += next(numbers)
            steps[index]["loss"] = loss
            if next(numbers):
                del steps[index:]
                return loss
        return None


class _BestWeights:
    """Weights with the best validation scores, at most `count` of them."""

    def __init__(self, validation: Validation, count: int) -> None:
        self._validation, self._count = validation, count
        self.kept: list[Kept] = []  # best first, ties by step

    @property
    def epoch(self) -> int:
        """The epoch of the best weights, counted from 1."""
        return self.kept[0][1]

    @property
    def step(self) -> int:
        """The step of the best weights, counted from 1."""
        return self.kept[0][2]

    def add(self, score: float, epoch: int, step: int, master_weights: MasterWeights) -> None:
        """Copy the current weights if they are among the best."""
        rank = sum(not is_better(self._validation.metric, score, earlier) for earlier, *_ in self.kept)
        if rank < self._count:
            self.kept.insert(rank, (score, epoch, step, master_weights.snapshot()))
            del self.kept[self._count :]

    def restore(self, master_weights: MasterWeights) -> None:
        """Write back the best weights, or the mean over the best ones if its score is not lower."""
        (best_score, _, _, weights), *more = self.kept
        if more:
            mean = mean_snapshot([snapshot for *_, snapshot in self.kept])
            master_weights.swap_in(mean)
            metric = self._validation.metric
            if not is_better(metric, best_score, self._validation.evaluate()[metric]):
                weights = mean
        master_weights.write_back(weights)


def _on_first(validation: Validation, devices: DeviceGroup) -> Validation:
    """Return a validation that the first device makes and decides, for all of them."""
    return replace(
        validation,
        evaluate=lambda: devices.from_first(validation.evaluate),
        should_stop=lambda scores: devices.from_first(lambda: validation.should_stop(scores)),
    )


def _num_parts(recipe: Recipe, devices: DeviceGroup | None) -> int:
    """Return the parts in which a device computes its share of a step: together as many as the recipe has, or more."""
    return math.ceil(recipe.accumulation / devices.count) if devices else recipe.accumulation


def _epoch(trained: Trained, epoch: int, seconds: float, scores: dict[str, float]) -> dict[str, float]:
    """Describe an epoch. epoch: counted from 0. seconds: of its steps. scores: on validation, at its end."""
    losses = [step["loss"] for step in trained.steps if step["epoch"] == epoch + 1]
    validation = {f"validation_{name}": score for name, score in scores.items()}
    return {"epoch": epoch + 1, "train_loss": float(np.mean(losses)), "seconds": seconds, **validation}


def _timed(batches: Iterable[np.ndarray], phases: PhaseSeconds) -> Iterator[np.ndarray]:
    """Yield batches, and count the time that drawing them takes."""
    drawn, end = iter(batches), np.empty(0)
    while True:
        started = busy_seconds()
        examples = next(drawn, end)
        phases.data += busy_seconds() - started
        if examples is end:
            return
        yield examples


def _random_states(model: Any) -> list[torch.Tensor]:
    """Return the states of the generators that a step draws from; those of a GPU are on the host too."""
    on_gpu = next(model.parameters()).device.type == "cuda"
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if on_gpu else [])]


def _set_random_states(states: list[torch.Tensor]) -> None:
    of_cpu, *of_gpu = states
    torch.set_rng_state(of_cpu)
    for state in of_gpu:
        torch.cuda.set_rng_state(state)


def _divergence(trained: Trained, loss: float, fp32_weights: dict[Any, torch.Tensor]) -> str:
    """Describe where a training diverged, and its last finite values."""
    step = len(trained.steps) + 1
    if not trained.steps and not all(bool(torch.isfinite(weights).all()) for weights in fp32_weights.values()):
        return f"loss {loss:.3g} at step {step}: the encoder's weights hold values that are not finite; check its files"
    text = f"loss {loss:.3g} at step {step}; lower the learning rate"
    if not trained.steps:
        return text
    last = trained.steps[-1]
    return f"{text} (last finite loss {last['loss']:.3g}, at learning rate {last['learning_rate']:.2g})"


def _backward(
    model: Any,
    inputs: SplitInputs,
    examples: np.ndarray,
    loss: Loss,
    parts: int,
    weight: float,
    trained: Trained,
    scale: LossScale | None,
    graphs: StepGraphs | None = None,
) -> tuple[list[torch.Tensor], int]:
    """Compute the gradient of a batch's mean loss. Adds to the phases of `trained`.

    parts: the batch is computed in as many parts, whose gradients add up (gradient accumulation). weight: by which the
    summed loss is divided. graphs: of the steps of a GPU. Returns the loss of each part, (), the sum of which is that
    of the batch, and the number of tokens.
    """
    losses, num_tokens = [], 0
    device = next(model.parameters()).device
    # on a GPU a tensor, because a graph would keep a number
    divisor = weight if device.type == "cpu" else torch.full((), weight, device=device)
    for part in np.array_split(examples, min(parts, len(examples))):
        started = busy_seconds()
        batch, states = inputs.batch(part, device)
        trained.phases.data += busy_seconds() - started
        if graphs is not None and parts == 1 and isinstance(divisor, torch.Tensor):
            losses.append(graphs.compute(batch, states, divisor))
        else:
            losses.append(_compute(model, inputs, loss, scale, trained, batch, states, divisor))
        num_tokens += batch.num_tokens
    return losses, num_tokens


def _compute(
    model: Any,
    inputs: SplitInputs,
    loss: Loss,
    scale: LossScale | None,
    trained: Trained,
    batch: PackedBatch,
    states: torch.Tensor | None,
    divisor: float | torch.Tensor,
) -> torch.Tensor:
    """Compute the gradient of a part of a batch. Adds to the phases of `trained`. Returns the part's loss, ()."""
    started = busy_seconds()
    share = loss.summed(logits_of(model, inputs, batch, states), batch.labels) / divisor
    computed = busy_seconds()
    (share if scale is None else share * scale.scale).backward()
    trained.phases.forward += computed - started
    trained.phases.backward += busy_seconds() - computed
    return share.detach()


def _update(
    gradients: list[torch.Tensor],
    master_weights: MasterWeights,
    optimizer: AdamW,
    max_norm: float,
    scale: LossScale | None,
) -> torch.Tensor | bool:
    """Update the weights with clipped gradients, unless these are not finite. Returns True if training has diverged.

    gradients: of the master weights.
    On a GPU that is a tensor, (), of 1.0 or 0.0, and the optimizer itself leaves the step out.
    """
    norm = get_total_norm(gradients)
    if norm.device.type == "cpu":
        if not torch.isfinite(norm):
            return True
        clip_at_step(norm, max_norm, optimizer)
        optimizer.step()
        master_weights.push_weights(optimizer)
        return False
    is_left_out = 1.0 - torch.isfinite(norm).float()
    clip_at_step(
        norm if scale is None else norm / scale.scale,
        max_norm,
        optimizer,
        scale=None if scale is None else scale.scale,
        is_left_out=is_left_out,
    )
    optimizer.step()
    master_weights.push_weights(optimizer)
    if scale is None:
        return is_left_out
    scale.update(is_left_out)
    return scale.is_exhausted()


def _train_mode(model: Any, first_trained_block: int) -> None:
    """Turn dropout on, except in frozen blocks, whose outputs for an example never change."""
    model.train()
    if first_trained_block > 0:
        encoder_of(model).eval()
        for block in blocks(model)[first_trained_block:]:
            block.train()
