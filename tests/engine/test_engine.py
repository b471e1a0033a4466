"""Schedule, optimizer, precision and loop against what everybody uses."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import get_scheduler

from tests.strategies.test_contract import adapted_model, toy_model, toy_table, train_on_toy
from tests.tiny import padded
from tuneoff.data.batches import pack, training_order
from tuneoff.engine.feed import Feed, predict
from tuneoff.engine.loop import _train_mode, train
from tuneoff.engine.precision import has_native_bf16, resolve
from tuneoff.engine.recipe import Recipe
from tuneoff.engine.schedule import rate_share
from tuneoff.errors import ConfigError, DivergedError


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_schedule_is_transformers_own(schedule):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    name = {"constant": "constant_with_warmup"}.get(schedule, schedule)
    theirs = get_scheduler(name, optimizer, num_warmup_steps=4, num_training_steps=40)
    for step in range(40):
        assert rate_share(schedule, step, 40, 0.1) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_a_run_is_plain_pytorch_on_padded_batches():
    """Fifty steps of the loop beside a loop anybody would write: padded, torch's AdamW, transformers' schedule."""
    changes = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "num_labels": 2, "vocab_size": 24}
    ours, plain = (adapted_model("full", **changes) for _ in range(2))
    model, table = plain.model, toy_table()
    model.set_attn_implementation("eager")
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    schedule = get_scheduler("linear", optimizer, num_warmup_steps=5, num_training_steps=48)
    losses, norms = [], []
    for epoch in range(6):
        for examples in training_order(table.lengths, 8, 0, epoch):
            batch = pack(table, examples)
            loss = F.cross_entropy(model.train()(**padded(batch, 0)).logits, batch.labels)
            loss.backward()
            norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.2))
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert min(norms) < 0.2 < max(norms)  # some steps are clipped, some are not
    found = train_on_toy(ours, 1e-3, epochs=6, clip=0.2)
    np.testing.assert_allclose([step["loss"] for step in found.steps], losses, rtol=1e-4)


def test_the_best_epoch_is_kept():
    adapted, answers = toy_model("full"), []
    scores = iter([0.5, 0.9, 0.7])

    def validate():
        answers.append(predict(adapted.model, Feed(toy_table())))
        return {"accuracy": next(scores)}

    trained = train(adapted, Feed(toy_table()), Recipe(epochs=3), 1e-2, 0, torch.float32, validate, "accuracy")
    assert trained.best_epoch == 2
    assert np.abs(answers[1] - answers[2]).max() > 1e-3
    np.testing.assert_allclose(predict(adapted.model, Feed(toy_table())), answers[1], atol=1e-6)


def test_patience_stops_early():
    scores = iter([0.9, 0.5, 0.5, 0.5])
    recipe = Recipe(epochs=4, patience=2)
    trained = train(
        toy_model("head"),
        Feed(toy_table()),
        recipe,
        1e-2,
        0,
        torch.float32,
        lambda: {"accuracy": next(scores)},
        "accuracy",
    )
    assert [epoch["epoch"] for epoch in trained.epochs] == [1, 2, 3]


def test_lower_is_better_for_log_loss():
    scores = iter([0.9, 0.5, 0.7])
    trained = train(
        toy_model("head"),
        Feed(toy_table()),
        Recipe(epochs=3),
        1e-2,
        0,
        torch.float32,
        lambda: {"log_loss": next(scores)},
        "log_loss",
    )
    assert trained.best_epoch == 2


def test_divergence_is_named():
    adapted = toy_model("full")
    adapted.model.classifier.weight.data.fill_(torch.inf)
    with pytest.raises(DivergedError, match="at step 1; lower the learning rate"):
        train_on_toy(adapted, 1e-2)


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


def test_bf16_trains_too():
    adapted = toy_model("full")
    trained = train(
        adapted,
        Feed(toy_table()),
        Recipe(epochs=8, batch_size=8),
        1e-2,
        0,
        torch.bfloat16,
        lambda: {"accuracy": 0.0},
        "accuracy",
    )
    assert trained.epochs[-1]["train_loss"] < 0.85 * trained.epochs[0]["train_loss"]
    assert all(parameter.dtype == torch.float32 for parameter in adapted.model.parameters())


def test_auto_precision_follows_the_processor():
    cpu = torch.device("cpu")
    assert resolve("fp32", cpu) == torch.float32
    assert resolve("bf16", cpu) == torch.bfloat16
    assert resolve("auto", cpu) == (torch.bfloat16 if has_native_bf16(cpu) else torch.float32)


def test_a_recipe_out_of_range_is_named():
    from tuneoff.spec import study_from

    with pytest.raises(ConfigError, match=r"recipe.epochs: .*greater than or equal to 1.*, not 0"):
        study_from({"data": {"source": "x.csv"}, "recipe": {"epochs": 0}})
