"""Checkpoints within a training: a stopped training goes on with the same bits, whatever trains and wherever it stopped."""

import json
import os
import random
import signal
import time

import numpy as np
import pytest
import torch
from safetensors import safe_open

from tests.training import toy_model, toy_table, train_on_toy
from tuneoff.engine import loop
from tuneoff.engine.inputs import cached_prefix_inputs
from tuneoff.engine.resume import Checkpoint, checkpoint_seconds
from tuneoff.engine.training_state import State
from tuneoff.errors import ConfigError, NoMemoryError, StopRequested

STRATEGIES = [
    "full",
    "full:layer_decay=0.9",
    "partial:layers=1",
    "lora",
    "lora:init=pissa",
    "lora:lora_plus=16",
    "bitfit",
    "adapter:reduction=2",
    "head",
    "peft:type=ia3",
    "peft:type=vera",
]


class Killed(Exception):
    """Stands for the end of the process."""


def weights(adapted):
    return {name: value.clone() for name, value in adapted.model.state_dict().items()}


def same_bits(some, others):
    assert some.keys() == others.keys()
    return all(torch.equal(some[name], others[name]) for name in some)


def without_seconds(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def history(trained):
    return trained.steps, without_seconds(trained.epochs), trained.evaluations, trained.best_epoch, trained.best_step


def inputs_of(adapted):
    """Cached outputs of the frozen blocks, where there are any."""
    return cached_prefix_inputs(adapted.model, toy_table(), adapted.first_trained_block, "toy", torch.float32)


def train_in_parts(strategy, path, stops, seconds=0.0, **changes):
    """Train in a fresh model again and again, each killed at another share; return the last model and its training."""
    for stop in (*stops, 2.0):
        random.seed(stop)  # another process has other random states
        np.random.seed(int(10 * stop))  # noqa: NPY002
        torch.manual_seed(int(100 * stop))
        adapted = toy_model(strategy)

        def kill(share, stop=stop):
            if share >= stop:
                raise Killed

        try:
            return adapted, train_on_toy(
                adapted, 1e-2, on_progress=kill, checkpoint=Checkpoint(path, seconds=seconds), inputs=inputs_of(adapted),
                **changes,
            )  # fmt: skip
        except Killed:
            pass
    raise AssertionError


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_killed_training_ends_with_the_same_bits(strategy, tmp_path):
    whole = toy_model(strategy)
    expected = train_on_toy(whole, 1e-2, inputs=inputs_of(whole))
    path = tmp_path / "run.safetensors"
    parts, trained = train_in_parts(strategy, path, [0.1, 0.26, 0.6, 1.0])
    assert trained.resumed_step == 31
    assert history(trained) == history(expected)
    assert same_bits(weights(parts), weights(whole))
    assert trained.train_seconds > 0
    assert trained.earlier_seconds > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"dtype": torch.bfloat16},
        {"average": 2, "patience": 2},
        {"evaluate_every": 3},
        {"max_steps": 19},
        {"min_steps": 50, "epochs": 2},
        {"sampling": "balanced", "class_weights": "balanced"},
        {"accumulation": 2, "checkpointing": True, "schedule": "cosine"},
    ],
    ids=str,
)
def test_every_recipe_goes_on_with_the_same_bits(changes, tmp_path):
    whole = toy_model("full")
    expected = train_on_toy(whole, 1e-2, inputs=inputs_of(whole), **changes)
    parts, trained = train_in_parts("full", tmp_path / "run.safetensors", [0.2, 0.5, 0.9], **changes)
    assert history(trained) == history(expected)
    assert same_bits(weights(parts), weights(whole))


def test_a_training_that_was_done_takes_no_step_again(tmp_path):
    path = tmp_path / "run.safetensors"
    first, expected = train_in_parts("full", path, [])
    again, trained = train_in_parts("full", path, [])
    assert trained.resumed_step == len(expected.steps)
    assert same_bits(weights(first), weights(again))


@pytest.mark.parametrize("stop_after", [1, 3, None])
@pytest.mark.parametrize("strategy", ["full", "lora", "partial:layers=1"])
def test_a_run_goes_on_from_the_end_of_a_trial_with_the_same_bits(strategy, stop_after, tmp_path):
    whole = toy_model(strategy)
    expected = train_on_toy(whole, 1e-2, inputs=inputs_of(whole), average=2)
    ends: list[State] = []
    trial, epochs = toy_model(strategy), []

    def should_stop(scores):
        epochs.append(scores)
        return len(epochs) == stop_after

    train_on_toy(trial, 1e-2, inputs=inputs_of(trial), average=2, should_stop=should_stop, on_end=ends.append)
    checkpoint = Checkpoint(tmp_path / "run.safetensors")
    checkpoint.write_state(ends[0])
    steps: list[float] = []
    run = toy_model(strategy)
    trained = train_on_toy(run, 1e-2, inputs=inputs_of(run), average=2, checkpoint=checkpoint, on_progress=steps.append)
    assert len(steps) == (0 if stop_after is None else 8 * (4 - stop_after))
    assert history(trained) == history(expected)
    assert same_bits(weights(run), weights(whole))
    assert trained.earlier_peak_bytes > 0


def test_the_state_after_the_last_step_holds_the_best_weights_alone():
    ends: list[State] = []
    train_on_toy(toy_model("full"), 1e-2, on_end=ends.append)
    assert {name.split(".")[0] for name in ends[0].tensors} == {"best", "steps", "random"}


def test_checkpoints_change_nothing(tmp_path):
    plain, written = toy_model("full"), toy_model("full")
    expected = train_on_toy(plain, 1e-2)
    trained = train_on_toy(written, 1e-2, checkpoint=Checkpoint(tmp_path / "run.safetensors", seconds=0.0))
    assert history(trained) == history(expected)
    assert same_bits(weights(plain), weights(written))


def test_by_default_a_short_training_writes_nothing(tmp_path):
    train_on_toy(toy_model("head"), 1e-2, checkpoint=Checkpoint(tmp_path / "run.safetensors"))
    assert not list(tmp_path.iterdir())


def test_a_signal_ends_the_training_with_its_step_and_a_checkpoint(tmp_path):
    path = tmp_path / "run.safetensors"
    before = signal.getsignal(signal.SIGTERM)

    def stop_at(share):
        if share >= 0.5:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StopRequested) as raised:
        train_on_toy(toy_model("full"), 1e-2, on_progress=stop_at, checkpoint=Checkpoint(path))
    assert raised.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    whole = toy_model("full")
    train_on_toy(whole, 1e-2)
    parts, trained = train_in_parts("full", path, [])
    assert trained.resumed_step == 16
    assert same_bits(weights(parts), weights(whole))


def test_a_checkpoint_of_other_settings_is_ignored_with_its_reason(tmp_path):
    path = tmp_path / "run.safetensors"
    train_on_toy(toy_model("full"), 1e-2, checkpoint=Checkpoint(path, {"threads": 2, "torch": "2"}, seconds=0.0))
    checkpoint = Checkpoint(path, {"threads": 1, "torch": "2"})
    assert checkpoint.read() is None
    assert checkpoint.ignored == "the checkpoint of other settings was ignored (threads 2, now 1)"
    assert Checkpoint(path, {"threads": 2, "torch": "2"}).read() is not None


@pytest.mark.parametrize("place", [3, 200, -1000, -1])
def test_a_damaged_checkpoint_is_ignored(place, tmp_path):
    path = tmp_path / "run.safetensors"
    train_on_toy(toy_model("lora"), 1e-2, checkpoint=Checkpoint(path, seconds=0.0))
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)
    checkpoint = Checkpoint(path)
    assert checkpoint.read() is None
    assert checkpoint.ignored.startswith("the checkpoint is damaged")
    path.write_bytes(content[: len(content) // 2])
    assert Checkpoint(path).read() is None


def test_a_folder_that_cannot_be_written_stops_no_training(tmp_path):
    (tmp_path / "file").write_text("")
    checkpoint = Checkpoint(tmp_path / "file" / "run.safetensors", seconds=0.0)
    trained = train_on_toy(toy_model("head"), 1e-2, checkpoint=checkpoint)
    assert len(trained.steps) == 32
    assert checkpoint.failure.startswith("no checkpoint could be written: ")


def test_writing_takes_less_than_a_hundredth_of_the_time(tmp_path):
    checkpoint = Checkpoint(tmp_path / "run.safetensors")
    checkpoint._last, checkpoint._is_first = time.perf_counter() - 61, False
    assert checkpoint.is_due()
    trained = train_on_toy(toy_model("head"), 1e-2, checkpoint=checkpoint)
    assert len(trained.steps) == 32
    assert checkpoint._interval >= 60
    assert not checkpoint.is_due()


def test_a_checkpoint_holds_tensors_and_json_alone(tmp_path):
    path = tmp_path / "run.safetensors"

    def kill(share):
        if share > 0.6:
            raise Killed

    with pytest.raises(Killed):
        train_on_toy(toy_model("full"), 1e-2, checkpoint=Checkpoint(path, seconds=0.0), on_progress=kill)
    with safe_open(path, "pt") as file:
        numbers = json.loads(file.metadata()["numbers"])
        kinds = {name.split(".")[0] for name in file.keys()}  # noqa: SIM118
    assert kinds == {"weights", "optimizer", "best", "steps", "random"}
    assert not numbers["position"]["is_done"]


@pytest.mark.parametrize(("text", "seconds"), [("", None), ("0", 0.0), ("90", 90.0), ("none", float("inf"))])
def test_the_interval_is_an_option_of_the_machine(text, seconds, monkeypatch):
    monkeypatch.setenv("TUNEOFF_CHECKPOINT_SECONDS", text)
    assert checkpoint_seconds() == seconds


@pytest.mark.parametrize("text", ["-1", "soon", "nan"])
def test_another_interval_is_refused(text, monkeypatch):
    monkeypatch.setenv("TUNEOFF_CHECKPOINT_SECONDS", text)
    with pytest.raises(ConfigError, match="is not a number of seconds"):
        checkpoint_seconds()


def test_a_step_that_does_not_fit_in_memory_is_computed_in_smaller_parts(monkeypatch):
    """It has the bits of a training in as many parts from the start: the failed attempt leaves nothing behind."""
    whole, parts = toy_model("full"), toy_model("full")
    expected = train_on_toy(whole, 1e-2, accumulation=4)
    backward = loop._backward

    def limited(model, inputs, examples, loss, num_parts, *rest):
        computed = backward(model, inputs, examples, loss, num_parts, *rest)
        if len(examples) > 3 * num_parts:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")
        return computed

    monkeypatch.setattr(loop, "_backward", limited)
    trained = train_on_toy(parts, 1e-2)
    assert trained.halvings == 2  # 8 examples in parts of 4, then of 2
    assert trained.memory_steps == [1, 1]
    assert trained.steps == expected.steps
    assert same_bits(weights(parts), weights(whole))


def test_an_example_that_does_not_fit_in_memory_is_an_error(monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(loop, "_backward", fail)
    with pytest.raises(
        NoMemoryError, match="out of memory at step 1 with one example at a time; use a shorter max_length"
    ):
        train_on_toy(toy_model("head"), 1e-2)
