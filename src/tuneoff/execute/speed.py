"""Speed of training steps on this machine, measured for plans."""

import itertools

import torch

from tuneoff.data.batches import training_batches
from tuneoff.data.tokens import TokenTable
from tuneoff.encoder.anatomy import blocks
from tuneoff.encoder.load import load_model
from tuneoff.encoder.packed import reads_first_tokens
from tuneoff.engine.inputs import SplitInputs, batch_logits
from tuneoff.engine.loss import loss_of
from tuneoff.engine.precision import compute_dtype, deterministic, resolve
from tuneoff.engine.recipe import Recipe
from tuneoff.execute.estimate import LAST_BLOCK_SHARE
from tuneoff.execute.executor import Slots
from tuneoff.machine import busy_seconds, device

_STEPS = 8  # the first ones also set up kernels


def measure_job_speed(model_name: str, table: TokenTable, recipe: Recipe, num_labels: int, slots: Slots) -> float:
    """Operations per second of a job that trains this encoder, as if its threads and devices were no hindrance to each
    other: an upper bound.
    """
    at_once = slots.devices * (slots.threads if device().type == "cpu" else 1)
    return measure_speed(model_name, table, recipe, num_labels) * at_once


def measure_speed(model_name: str, table: TokenTable, recipe: Recipe, num_labels: int) -> float:
    """Operations per second of training steps of this encoder on the GPU, or one thread, of this machine.

    No weight is updated. By a clock that stands while other programs have the core: at the start of a study others
    import and read.
    """
    threads, where = torch.get_num_threads(), device()
    torch.set_num_threads(1)
    try:
        model = load_model(model_name, tuple(map(str, range(num_labels))), seed=0).train().to(where)
        sizes = [float(sum(parameter.numel() for parameter in block.parameters())) for block in blocks(model)]
        if reads_first_tokens(model):
            sizes[-1] *= LAST_BLOCK_SHARE
        per_token = 6.0 * sum(sizes)
        speeds = []
        with deterministic(where), compute_dtype(resolve(recipe.precision, where), model):
            loss = loss_of(recipe, table.labels, num_labels)
            batches = training_batches(table.lengths, recipe.batch_size, seed=0, epoch=0)
            for examples in itertools.islice(batches, _STEPS):
                started = busy_seconds()
                logits, batch = batch_logits(model, SplitInputs(table), examples)
                loss.summed(logits, batch.labels).backward()
                if where.type != "cpu":
                    torch.cuda.synchronize()
                speeds.append(per_token * batch.num_tokens / (busy_seconds() - started))
        return max(speeds)
    finally:
        torch.set_num_threads(threads)
