"""Training and predicting on a pretended GPU: nothing waits, nothing mixes devices, and the losses are the CPU's."""

import contextlib
import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.pretended_gpu import pretended_gpu
from tests.strategies.rows import ROWS
from tests.training import adapted_model, toy_table
from tuneoff.engine import inputs as engine_inputs
from tuneoff.engine import loop, precision
from tuneoff.engine.inputs import SplitInputs, cached_prefix_inputs, predict_logits
from tuneoff.engine.loop import TrainingSettings, Validation, train
from tuneoff.engine.loss import Loss
from tuneoff.engine.precision import LossScale, resolve
from tuneoff.engine.recipe import Recipe
from tuneoff.engine.resume import Checkpoint
from tuneoff.errors import DivergedError
from tuneoff.execute.speed import measure_speed

MODELS = ["bert", "distilbert", "modernbert", "mpnet"]
STRATEGY_NAMES = [
    *("head", "partial:layers=1", "bitfit", "lora:targets=query+value", "lora:dropout=0.1:layers=[1]"),
    *("lora:init=pissa:rank=4", "adapter:reduction=2", "adapter:reduction=2:placement=parallel"),
    *("full", "full:layer_decay=0.8"),
]
PEFT_NAMES = [strategy for strategy, *_ in ROWS if strategy.startswith("peft")]


@pytest.fixture(autouse=True)
def _without_graphs(monkeypatch):
    monkeypatch.setenv("TUNEOFF_CUDA_GRAPHS", "off")  # test_graphs.py compares steps by graphs with these


def without_dropout(model):
    """Dropout draws other numbers on a GPU."""
    for module in model.modules():
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def small_model(strategy, model_type, **changes):
    adapted = adapted_model(strategy, model_type, num_labels=2, vocab_size=24, **changes)
    without_dropout(adapted.model)
    return adapted


def steps_of(strategy, model_type, gpu=None, dtype=torch.float32, config=None, inputs=None, **recipe):
    """Train some steps. Returns the losses, the model and the waits of each step after the first."""
    adapted, waits = small_model(strategy, model_type, **(config or {})), []
    if gpu is not None:
        adapted.model.to("cuda")
        gpu.forget_counts()

    def on_progress(_):
        if gpu is not None:
            waits.append(dict(gpu.waits))
            gpu.waits.clear()

    settings = TrainingSettings(Recipe(**{"epochs": 1, "batch_size": 8, **recipe}), 1e-3, 0, dtype)
    trained = train(adapted, inputs or SplitInputs(toy_table()), settings, None, on_progress)
    return [step["loss"] for step in trained.steps], adapted.model, waits[1:]


def check(strategy, model_type, capability=(8, 0), tolerance=2e-5, **options):
    """Compare some steps on the pretended GPU with those on the CPU, and check that none waits."""
    expected, cpu_model, _ = steps_of(strategy, model_type, **options)
    with pretended_gpu(capability) as gpu:
        losses, model, waits = steps_of(strategy, model_type, gpu, **options)
        operators = set(gpu.operators)
        assert not gpu.mistakes
        assert waits == [{}] * (len(losses) - 1)
        assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"cuda"}
    assert losses == pytest.approx(expected, abs=tolerance)
    for ours, theirs in zip(model.parameters(), cpu_model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=10 * tolerance, rtol=1e-3)
    return operators


@pytest.mark.slow
@pytest.mark.parametrize("model_type", MODELS)
@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_a_step_does_not_wait_and_gives_the_losses_of_the_cpu(strategy, model_type):
    if (strategy, model_type) == ("bitfit", "modernbert"):
        pytest.skip("has no biases")
    check(strategy, model_type)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", PEFT_NAMES)
def test_a_step_of_a_method_of_peft_does_not_wait(strategy):
    if any(kind in strategy for kind in ("fourierft", "waveft")):
        pytest.skip("peft itself copies indices to the GPU in each step")
    check(strategy, "bert")


@pytest.mark.slow
@pytest.mark.parametrize("model_type", MODELS)
@pytest.mark.parametrize("recipe", [{"accumulation": 2}, {"checkpointing": True}, {"class_weights": "balanced"}])
def test_a_step_in_parts_or_with_recomputed_blocks_does_not_wait(model_type, recipe):
    for strategy in ("full", "lora:targets=query+value"):
        check(strategy, model_type, **recipe)


@pytest.mark.parametrize("recipe", [{"label_smoothing": 0.1}, {"loss": "focal"}, {"sampling": "balanced"}])
def test_a_step_with_another_loss_does_not_wait(recipe):
    check("full", "bert", **recipe)


@pytest.mark.parametrize(("model_type", "uses_flash"), [("bert", True), ("modernbert", True), ("mpnet", False)])
def test_bf16_attends_by_flash_attention_where_no_positions_are_added(model_type, uses_flash):
    operators = check("full", model_type, dtype=torch.bfloat16, tolerance=3e-3)
    assert ("_flash_attention_forward" in operators) == uses_flash
    assert ("_flash_attention_backward" in operators) == uses_flash


def test_fp32_attends_by_the_memory_efficient_kernel_except_within_windows():
    assert "_efficient_attention_forward" in check("full", "bert")
    operators = check("full", "modernbert")  # local blocks by grids, global ones without
    assert {"_efficient_attention_forward", "_softmax_backward_data"} <= operators


def test_head_sizes_that_no_kernel_takes_attend_by_grids():
    operators = check("full", "bert", config={"hidden_size": 24})
    assert "_efficient_attention_forward" not in operators


@pytest.mark.parametrize(("strategy", "first"), [("head", 2), ("partial:layers=1", 1)])
@pytest.mark.parametrize("fits", [True, False])
def test_cached_states_are_on_the_gpu_or_copied_without_waiting(strategy, first, fits, monkeypatch):
    if not fits:
        monkeypatch.setattr(engine_inputs, "_GPU_SHARE_FOR_STATES", 0.0)
    frozen = small_model(strategy, "bert").model
    inputs = cached_prefix_inputs(frozen, toy_table(), first, f"{strategy}-of-a-test", torch.float32)
    assert inputs.states is not None
    check(strategy, "bert", inputs=inputs)


def test_predictions_wait_once_and_equal_those_of_the_cpu():
    model, inputs = small_model("full", "bert").model, SplitInputs(toy_table(300))
    expected = predict_logits(model, inputs)
    with pretended_gpu() as gpu:
        model.to("cuda")
        gpu.forget_counts()
        logits = predict_logits(model, inputs)
        assert sum(gpu.waits.values()) == 1
        assert not gpu.mistakes
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_losses_are_read_together(monkeypatch):
    monkeypatch.setattr(loop, "READ_EVERY", 5)
    with pretended_gpu() as gpu:
        losses, _, waits = steps_of("full", "bert", gpu)
    assert [sum(counts.values()) for counts in waits] == [0, 0, 0, 1, 0, 0, 0]
    assert all(np.isfinite(losses))


def test_validation_reads_ids_that_training_does_not():
    """Rows of the word embedding that have no master, decayed as those of AdamW."""
    table = toy_table()
    unread = replace(table, ids=np.where(table.ids == table.ids.max(), 4, table.ids).astype(table.ids.dtype))
    assert set(unread.ids) - set(table.ids)

    def run(gpu):
        adapted, scores = small_model("full", "bert"), []
        if gpu:
            adapted.model.to("cuda")

        def evaluate():
            scores.append(predict_logits(adapted.model, SplitInputs(unread)))
            return {"accuracy": 0.5}

        settings = TrainingSettings(Recipe(epochs=2, batch_size=8, weight_decay=0.5), 1e-2, 0, torch.float32)
        train(adapted, SplitInputs(table), settings, Validation(evaluate, "accuracy"))
        return [*scores, predict_logits(adapted.model, SplitInputs(unread))]

    expected = run(None)
    with pretended_gpu() as gpu:
        for ours, theirs in zip(run(gpu), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_diverged_step_ends_training_at_that_step_although_it_is_read_later(monkeypatch):
    """The third step has a loss that is not finite; the optimizer leaves it out by itself."""

    def run():
        adapted, summed, calls = small_model("full", "bert"), Loss.summed, []

        def broken(self, logits, labels):
            calls.append(1)
            return summed(self, logits, labels) * (float("nan") if len(calls) == 3 else 1.0)

        monkeypatch.setattr(Loss, "summed", broken)
        settings = TrainingSettings(Recipe(epochs=1, batch_size=8), 1e-3, 0, torch.float32)
        if torch.cuda.is_available():
            adapted.model.to("cuda")
        with pytest.raises(DivergedError) as error:
            train(adapted, SplitInputs(toy_table()), settings, None)
        monkeypatch.setattr(Loss, "summed", summed)
        return str(error.value), [step["step"] for step in error.value.trained.steps], len(calls)

    reason, steps, calls = run()
    assert (steps, calls) == ([1, 2], 3)
    with pretended_gpu():
        assert run() == (reason, [1, 2], 8)


def test_a_gpu_without_bf16_trains_in_fp16_with_a_scale():
    expected, _, _ = steps_of("full", "bert", epochs=2)
    with pretended_gpu((7, 5)) as gpu:
        assert resolve("auto", torch.device("cuda", 0)) == torch.float16
        losses, model, waits = steps_of("full", "bert", gpu, torch.float16, epochs=2)
        assert sum(sum(counts.values()) for counts in waits) == 1  # at the end of the first epoch
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert "_efficient_attention_forward" in gpu.operators
    assert losses == pytest.approx(expected, abs=5e-3)


def test_a_training_in_fp16_goes_on_with_its_scale(tmp_path, monkeypatch):
    """At the first scale gradients overflow for some steps, which a training that goes on must not leave out again."""
    monkeypatch.setattr(precision, "_FIRST_SCALE", 2.0**24)
    settings = TrainingSettings(Recipe(epochs=2, batch_size=8), 1e-3, 0, torch.float16)

    def weights_of(checkpoint=None, until=2.0):
        adapted = small_model("full", "bert")
        adapted.model.to("cuda")

        def kill(share):
            if share >= until:
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            train(adapted, SplitInputs(toy_table()), settings, None, kill, checkpoint)
        return list(adapted.model.parameters())

    with pretended_gpu((7, 5)):
        whole = weights_of()
        killed = weights_of(Checkpoint(tmp_path / "run.safetensors", seconds=0.0), until=0.7)
        resumed = weights_of(Checkpoint(tmp_path / "run.safetensors", seconds=0.0))
        assert not all(map(torch.equal, killed, whole))
        assert all(map(torch.equal, resumed, whole))


def test_old_gpus_train_in_fp32():
    with pretended_gpu((6, 1)):
        assert resolve("auto", torch.device("cuda", 0)) == torch.float32


def test_the_scale_halves_with_each_overflow_and_doubles_after_many_steps():
    scale, no, yes = LossScale(torch.device("cpu")), torch.tensor(0.0), torch.tensor(1.0)
    scale.update(yes)
    assert scale.scale == 2**15
    for _ in range(1999):
        scale.update(no)
    assert scale.scale == 2**15
    scale.update(no)
    assert scale.scale == 2**16
    for _ in range(16):
        scale.update(yes)
    assert not scale.is_exhausted()
    scale.update(yes)
    assert scale.is_exhausted()


def test_algorithms_are_deterministic_on_a_gpu_alone_and_afterwards_as_before():
    seen = []

    def look(_):
        seen.append(torch.are_deterministic_algorithms_enabled())

    def run():
        adapted = small_model("head", "bert")
        if torch.cuda.is_available():
            adapted.model.to("cuda")
        settings = TrainingSettings(Recipe(epochs=1), 1e-3, 0, torch.float32)
        train(adapted, SplitInputs(toy_table()), settings, None, look)

    run()
    assert not any(seen)
    seen.clear()
    with pretended_gpu():
        run()
        assert all(seen)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
    assert not torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    assert memory.fill_uninitialized_memory


def test_an_operation_without_a_deterministic_form_is_allowed_and_noted(monkeypatch):
    def run(fails):
        adapted, summed, calls = small_model("lora:targets=query+value", "bert"), Loss.summed, []

        def strict(self, logits, labels):
            calls.append(torch.is_deterministic_algorithms_warn_only_enabled())
            if fails and not calls[-1]:
                raise RuntimeError("put_cuda does not have a deterministic implementation, but you set ...")
            return summed(self, logits, labels)

        monkeypatch.setattr(Loss, "summed", strict)
        adapted.model.to("cuda")
        trained = train(
            adapted,
            SplitInputs(toy_table()),
            TrainingSettings(Recipe(epochs=1, batch_size=8), 1e-3, 0, torch.float32),
            None,
        )
        monkeypatch.setattr(Loss, "summed", summed)
        return trained, calls

    with pretended_gpu():
        expected, _ = run(fails=False)
        trained, calls = run(fails=True)
    assert calls == [False] + [True] * 8
    assert (expected.adds_in_any_order, trained.adds_in_any_order) == (False, True)
    assert trained.steps == expected.steps
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_gpu_that_lacks_memory_trains_in_smaller_parts(monkeypatch):
    backward = loop._backward

    def limited(model, inputs, examples, loss, num_parts, *rest):
        computed = backward(model, inputs, examples, loss, num_parts, *rest)
        if len(examples) > 3 * num_parts:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return computed

    with pretended_gpu() as gpu:
        expected, _, _ = steps_of("full", "bert", gpu, accumulation=4)
        monkeypatch.setattr(loop, "_backward", limited)
        losses, _, _ = steps_of("full", "bert", gpu)
    assert losses == expected


def test_the_same_seed_gives_the_same_bits_with_dropout():
    def run():
        adapted = adapted_model("full", "bert", num_labels=2, vocab_size=24)
        adapted.model.to("cuda")
        settings = TrainingSettings(Recipe(epochs=1, batch_size=8), 1e-3, 0, torch.bfloat16)
        return train(adapted, SplitInputs(toy_table()), settings, None).steps

    with pretended_gpu():
        assert run() == run()


def test_the_pretended_gpu_finds_waits_and_mixed_devices():
    with pretended_gpu() as gpu:
        states, other = torch.ones(3, device="cuda"), torch.ones(3)
        (
            states[states > 0],
            float(states.sum()),
            states.repeat_interleave(torch.ones(3, dtype=torch.long, device="cuda")),
        )
        states + other, states * torch.tensor(2.0)
        other.to("cuda"), other.pin_memory().to("cuda", non_blocking=True)
        assert sum(gpu.waits.values()) == 4
        assert sum(gpu.mistakes.values()) == 1
        assert gpu.copies_to == 1


def test_the_speed_for_plans_is_measured_on_the_gpu(encoder):
    with pretended_gpu() as gpu:
        assert measure_speed(encoder, toy_table(), Recipe(batch_size=8), 2) > 0
        assert not gpu.mistakes
        assert "_flash_attention_forward" in gpu.operators
