"""One of two processes that train together: python -m tests.engine.two_devices RANK PORT FOLDER. Writes what it got."""

import shutil
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from tests.training import NO_DROPOUT, adapted_model, toy_model, toy_table
from tuneoff.engine.devices import DeviceGroup
from tuneoff.engine.inputs import SplitInputs, cached_prefix_inputs, predict_logits
from tuneoff.engine.loop import Trained, TrainingSettings, Validation, train
from tuneoff.engine.recipe import Recipe
from tuneoff.engine.resume import Checkpoint
from tuneoff.errors import TuneoffError
from tuneoff.scoring.metrics import evaluate

# 64 examples in batches of 7: the last batch of each epoch has one example, and so none for the second device
CASES: dict[str, tuple[str, float, dict[str, Any]]] = {
    "full": ("full", 1e-3, {}),
    "lora": ("lora", 5e-3, {}),
    "head": ("head", 1e-2, {}),
    "partial": ("partial:layers=1", 1e-3, {}),
    "class weights, accumulation": ("full", 1e-3, {"class_weights": "balanced", "accumulation": 3}),
    "best of three, within epochs": ("full", 1e-3, {"average": 3, "evaluate_every": 4}),
    "patience": ("full", 1e-6, {"patience": 2}),
}


def train_case(name: str, devices: DeviceGroup | None) -> tuple[Trained, dict[str, torch.Tensor]]:
    """Train the model of a case for fifty steps without dropout. Returns the history and the weights."""
    strategy, learning_rate, changes = CASES[name]
    adapted = adapted_model(strategy, **NO_DROPOUT, initializer_range=0.3)
    table = toy_table()
    inputs = cached_prefix_inputs(adapted.model, table, adapted.first_trained_block, "toy", torch.float32)

    def validate() -> dict[str, float]:
        assert devices is None or devices.is_first
        probabilities = torch.from_numpy(predict_logits(adapted.model, SplitInputs(table))).softmax(-1).numpy()
        return evaluate(table.labels, probabilities.argmax(1), probabilities)

    settings = TrainingSettings(Recipe(epochs=5, batch_size=7, **changes), learning_rate, 0, torch.float32)
    metric = "accuracy" if "patience" in changes else "log_loss"
    trained = train(adapted, inputs, settings, Validation(validate, metric), devices=devices)
    weights = {name: parameter.detach().clone() for name, parameter in adapted.model.named_parameters()}
    return trained, weights


def train_with_dropout(
    devices: DeviceGroup, checkpoint: Checkpoint | None, copy: Path | None = None
) -> dict[str, torch.Tensor]:
    """Train with dropout and return the weights. copy: of the checkpoint in the middle of the training."""
    adapted = toy_model("full")

    def keep(share: float) -> None:
        if copy and checkpoint and share == 0.5:
            shutil.copy(checkpoint.path, copy)

    settings = TrainingSettings(Recipe(epochs=5, batch_size=8), 1e-3, 0, torch.float32)
    trained = train(adapted, SplitInputs(toy_table()), settings, None, keep, checkpoint, devices=devices)
    assert trained.resumed_step == (None if copy else 19)
    return {name: parameter.detach().clone() for name, parameter in adapted.model.named_parameters()}


def fail() -> None:
    """Fail, as a validation may."""
    raise ValueError("no score")


def main(rank: int, port: int, folder: Path) -> None:
    """Train every case together with the other process."""
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, 2, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    devices = DeviceGroup()
    results: dict[str, Any] = {}
    for name in CASES:
        trained, weights = train_case(name, devices)
        results[name] = {"steps": trained.steps, "epochs": trained.epochs, "best_step": trained.best_step}
        results[name] |= {"tokens": trained.tokens, "examples": trained.examples, "weights": weights}
    stored, copy = (Checkpoint(folder / name, seconds=0.0) if rank == 0 else None for name in ("whole", "half"))
    results["whole"] = train_with_dropout(devices, stored, folder / "half")
    results["resumed"] = train_with_dropout(devices, copy)
    try:
        devices.from_first(fail)
    except (TuneoffError, ValueError) as error:
        results["error"] = repr(error)
    results["random"] = []
    for step in range(2):
        devices.seed_step(0, step)
        results["random"].append(torch.rand(3))
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
