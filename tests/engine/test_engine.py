"""Schedule, optimizer, precision and loop, compared with transformers and with plain PyTorch."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import get_scheduler

from tests.tiny import padded
from tests.training import NO_DROPOUT, adapted_model, toy_model, toy_table, train_on_toy, train_with_scores
from tuneoff.data.batches import pack, training_batches
from tuneoff.encoder import packed
from tuneoff.engine.inputs import SplitInputs, pooled_vectors, predict_logits
from tuneoff.engine.loop import TrainingSettings, Validation, _train_mode, train
from tuneoff.engine.loss import Loss
from tuneoff.engine.precision import resolve
from tuneoff.engine.recipe import Recipe
from tuneoff.engine.schedule import rate_share
from tuneoff.errors import ConfigError, DivergedError
from tuneoff.spec.file import study_from


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_schedules_equal_those_of_transformers(schedule):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    name = {"constant": "constant_with_warmup"}.get(schedule, schedule)
    theirs = get_scheduler(name, optimizer, num_warmup_steps=4, num_training_steps=40)
    for step in range(40):
        assert rate_share(schedule, step, 40, 0.1) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_training_equals_a_plain_pytorch_loop_on_padded_batches():
    """The losses of 48 steps, compared with a loop on padded batches, torch's AdamW and transformers' schedule."""
    ours, plain = (adapted_model("full", **NO_DROPOUT) for _ in range(2))
    model, table = plain.model, toy_table()
    model.set_attn_implementation("eager")
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    schedule = get_scheduler("linear", optimizer, num_warmup_steps=5, num_training_steps=48)
    losses, norms = [], []
    for epoch in range(6):
        for examples in training_batches(table.lengths, 8, 0, epoch):
            batch = pack(table, examples)
            loss = F.cross_entropy(model.train()(**padded(batch, 0)).logits, batch.labels)
            loss.backward()
            norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.2))
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert min(norms) < 0.2 < max(norms)  # some steps are clipped, some are not
    trained = train_on_toy(ours, 1e-3, epochs=6, clip=0.2)
    np.testing.assert_allclose([step["loss"] for step in trained.steps], losses, rtol=1e-4)


def test_the_weights_of_the_best_epoch_are_kept():
    adapted, logits = toy_model("full"), []
    scores = iter([0.5, 0.9, 0.7])

    def validate():
        logits.append(predict_logits(adapted.model, SplitInputs(toy_table())))
        return {"accuracy": next(scores)}

    settings = TrainingSettings(Recipe(epochs=3), 1e-2, 0, torch.float32)
    trained = train(adapted, SplitInputs(toy_table()), settings, Validation(validate, "accuracy"))
    assert trained.best_epoch == 2
    assert np.abs(logits[1] - logits[2]).max() > 1e-3
    np.testing.assert_allclose(predict_logits(adapted.model, SplitInputs(toy_table())), logits[1], atol=1e-6)


def test_patience_stops_early():
    trained = train_with_scores(toy_model("head"), [0.9, 0.5, 0.5, 0.5], patience=2)
    assert [epoch["epoch"] for epoch in trained.epochs] == [1, 2, 3]


def test_lower_is_better_for_log_loss():
    assert train_with_scores(toy_model("head"), [0.9, 0.5, 0.7], "log_loss").best_epoch == 2
    assert train_with_scores(toy_model("head"), [0.9, 0.5, 0.7], "accuracy").best_epoch == 1


def test_divergence_is_an_error_with_the_step():
    adapted = toy_model("full")
    adapted.model.classifier.weight.data.fill_(3e38)
    with pytest.raises(DivergedError, match="at step 1; lower the learning rate"):
        train_on_toy(adapted, 1e-2)


def test_weights_that_are_not_finite_before_training_are_named():
    adapted = toy_model("full")
    adapted.model.classifier.weight.data.fill_(torch.nan)
    with pytest.raises(
        DivergedError, match="loss nan at step 1: the encoder's weights hold values that are not finite"
    ):
        train_on_toy(adapted, 1e-2)


def test_divergence_later_names_the_last_finite_loss_and_keeps_the_history():
    adapted = toy_model("full")

    def break_weights(share):
        if share >= 0.25:
            adapted.model.classifier.weight.data.fill_(torch.nan)

    with pytest.raises(DivergedError, match=r"at step 9; lower the learning rate \(last finite loss 0\.\d+") as raised:
        train_on_toy(adapted, 1e-2, on_progress=break_weights)
    assert len(raised.value.trained.steps) == 8
    assert np.isfinite([step["loss"] for step in raised.value.trained.steps]).all()


def test_a_gradient_that_is_not_finite_is_divergence_whatever_the_loss(monkeypatch):
    summed = Loss.summed

    def zero(self, logits, labels):
        loss = summed(self, logits, labels)
        return (loss - loss.detach()).sqrt()  # 0, with an infinite gradient

    monkeypatch.setattr(Loss, "summed", zero)
    with pytest.raises(DivergedError, match="loss 0 at step 1") as raised:
        train_on_toy(toy_model("full"), 1e-2)
    assert raised.value.trained.steps == []


def test_frozen_blocks_run_without_dropout():
    adapted = toy_model("partial:layers=1")
    _train_mode(adapted.model, adapted.first_trained_block)
    modes = {
        name: module.training for name, module in adapted.model.named_modules() if isinstance(module, torch.nn.Dropout)
    }
    assert not modes["bert.embeddings.dropout"]
    assert not modes["bert.encoder.layer.0.output.dropout"]
    assert modes["bert.encoder.layer.1.output.dropout"]
    assert modes["dropout"]


def test_loss_falls_in_bf16_and_weights_are_fp32_afterwards():
    adapted, recipe = toy_model("full"), Recipe(epochs=8, batch_size=8)
    settings = TrainingSettings(recipe, 1e-2, 0, torch.bfloat16)
    validation = Validation(lambda: {"accuracy": 0.0}, "accuracy")
    trained = train(adapted, SplitInputs(toy_table()), settings, validation)
    assert trained.epochs[-1]["train_loss"] < 0.85 * trained.epochs[0]["train_loss"]
    assert all(parameter.dtype == torch.float32 for parameter in adapted.model.parameters())


@pytest.mark.parametrize(
    ("precision", "is_native", "dtype"),
    [
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
        ("fp32", True, torch.float32),
        ("bf16", False, torch.bfloat16),
    ],
)
def test_auto_precision_is_bf16_only_on_processors_that_have_it(precision, is_native, dtype, monkeypatch):
    for check in ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported"):  # torch's own
        monkeypatch.setattr(torch.cpu, check, lambda: is_native, raising=False)
    assert resolve(precision, torch.device("cpu")) == dtype


def test_a_recipe_out_of_range_is_an_error_with_the_allowed_range():
    with pytest.raises(ConfigError, match=r"recipe: epochs: .*greater than or equal to 1.*, not 0"):
        study_from({"data": {"source": "x.csv"}, "recipe": {"epochs": 0}})


def test_without_validation_training_ends_with_the_weights_of_the_last_epoch_asked_for():
    settings = TrainingSettings(Recipe(epochs=4, batch_size=8), 1e-2, 0, torch.float32)
    weights = []
    for last_epoch in (2, None):
        adapted = toy_model("head")
        inputs = SplitInputs(toy_table())
        trained = train(adapted, inputs, replace(settings, last_epoch=last_epoch), None)
        assert trained.best_epoch == len(trained.epochs) == (last_epoch or 4)
        weights.append(adapted.model.classifier.weight.detach().clone())
    stopped = toy_model("head")

    def stop_after_two(scores):
        return len(seen) == 2

    seen: list[float] = []

    def rising():
        seen.append(float(len(seen)))
        return {"accuracy": seen[-1]}

    train(stopped, SplitInputs(toy_table()), settings, Validation(rising, "accuracy", stop_after_two))
    assert torch.equal(stopped.model.classifier.weight, weights[0])  # with the schedule of all four epochs
    assert not torch.equal(weights[0], weights[1])


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_what_does_not_fit_in_memory_is_predicted_in_smaller_batches(error, monkeypatch):
    """A batch of all 64 texts does not fit, nor do two of 32; four of 16 do."""
    model, table, tried = toy_model("full").model, toy_table(), []
    logits, vectors = predict_logits(model, SplitInputs(table)), pooled_vectors(model, table, "mean")
    embed = packed.embed

    def limited(model, batch):
        tried.append(len(batch.lengths))
        if len(batch.lengths) > 16:
            raise error
        return embed(model, batch)

    monkeypatch.setattr(packed, "embed", limited)
    np.testing.assert_allclose(predict_logits(model, SplitInputs(table)), logits, atol=1e-5)
    np.testing.assert_allclose(pooled_vectors(model, table, "mean"), vectors, atol=1e-5)
    assert tried == 2 * [64, 32, 16, 16, 16, 16]


def test_an_example_that_does_not_fit_in_memory_is_not_tried_again(monkeypatch):
    def lacking(*_):
        raise MemoryError

    monkeypatch.setattr(packed, "embed", lacking)
    with pytest.raises(MemoryError):
        predict_logits(toy_model("full").model, SplitInputs(toy_table(1)))
