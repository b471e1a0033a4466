"""Two processes that train one model have the losses and the weights of one, with the same batches and no dropout."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import distributed as dist

from tests.engine.two_devices import CASES, train_case
from tests.pretended_gpu import pretended_gpu
from tests.training import NO_DROPOUT, adapted_model, toy_table
from tuneoff.engine.devices import DeviceGroup, token_parts
from tuneoff.engine.inputs import SplitInputs
from tuneoff.engine.loop import TrainingSettings, train
from tuneoff.engine.recipe import Recipe


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """What each of two processes got, by rank."""
    folder = tmp_path_factory.mktemp("devices")
    store = dist.TCPStore("127.0.0.1", 0, 2, is_master=True, wait_for_workers=False)
    command = [sys.executable, "-m", "tests.engine.two_devices"]
    processes = [subprocess.Popen([*command, str(rank), str(store.port), str(folder)]) for rank in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_two_devices_have_the_losses_and_weights_of_one(of_two, case):
    first, second = of_two[0][case], of_two[1][case]
    trained, weights = train_case(case, None)
    losses, expected = ([step["loss"] for step in steps] for steps in (first["steps"], trained.steps))
    assert len(losses) == len(expected)
    assert len(losses) == (30 if case == "patience" else 50)
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)
    assert (first["tokens"], first["examples"]) == (trained.tokens, trained.examples)
    assert first["best_step"] == trained.best_step
    for name, weight in weights.items():
        assert torch.equal(first["weights"][name], second["weights"][name]), name
        # the gradient of a bias of keys is 0, because softmax ignores what all keys share: AdamW scales its rounding up
        if not name.endswith("key.bias"):
            difference = (first["weights"][name] - weight).abs().max()
            assert difference < 1e-5, name


def test_a_training_of_two_devices_goes_on_from_a_checkpoint_with_the_same_bits(of_two):
    for of_rank in of_two:
        for name, weight in of_rank["whole"].items():
            assert torch.equal(weight, of_rank["resumed"][name]), name


def test_dropout_differs_between_devices_and_steps(of_two):
    draws = torch.stack([draw for of_rank in of_two for draw in of_rank["random"]])
    assert len(draws.unique(dim=0)) == 4


def test_an_error_of_the_first_device_is_raised_on_all(of_two):
    assert [of_rank["error"] for of_rank in of_two] == [
        "ValueError('no score')",
        "TuneoffError('the first device: no score')",
    ]


def test_summing_gradients_does_not_wait_for_a_gpu(monkeypatch):
    """One device of a group of one, on the pretended GPU, where sums over devices change nothing."""
    monkeypatch.setenv("TUNEOFF_CUDA_GRAPHS", "off")  # several devices have none; comparing one with its step waits
    for name, value in {"get_rank": 0, "get_world_size": 1, "all_reduce": None, "broadcast_object_list": None}.items():
        monkeypatch.setattr(dist, name, lambda *_, value=value: value)
    losses, waits = [], []
    for devices in (None, DeviceGroup()):
        adapted = adapted_model("full", **NO_DROPOUT)
        with pretended_gpu() as gpu:
            adapted.model.to("cuda")
            gpu.forget_counts()

            def count(_, gpu=gpu):
                waits.append(dict(gpu.waits))
                gpu.waits.clear()

            settings = TrainingSettings(Recipe(epochs=1, batch_size=8), 1e-3, 0, torch.float32)
            trained = train(adapted, SplitInputs(toy_table()), settings, None, count, devices=devices)
            assert not gpu.mistakes
        losses.append([step["loss"] for step in trained.steps])
    np.testing.assert_allclose(losses[1], losses[0], rtol=0, atol=1e-6)
    assert [bool(of_step) for of_step in waits] == 2 * [True, *[False] * 7]  # the first one prepares


def test_parts_have_about_as_many_tokens():
    rng = np.random.default_rng(0)
    for _ in range(200):
        count, lengths = int(rng.integers(1, 9)), rng.integers(1, 129, rng.integers(1, 65))
        parts = token_parts(lengths, count)
        assert sorted(np.concatenate(parts)) == list(range(len(lengths)))
        tokens = [int(lengths[part].sum()) for part in parts]
        assert max(tokens) - min(tokens) <= lengths.max()
        assert all((np.diff(lengths[part]) <= 0).all() for part in parts)  # the longest first, as in a batch
