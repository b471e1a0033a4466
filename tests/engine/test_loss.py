"""Losses against torch's and scikit-learn's, and what a recipe may ask of the loop."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from tests.strategies.test_contract import adapted_model, toy_model, toy_table, train_on_toy
from tuneoff.data.batches import training_order
from tuneoff.encoder.load import load_model
from tuneoff.engine.checkpointing import checkpointing
from tuneoff.engine.feed import Feed, logits, predict
from tuneoff.engine.loop import train
from tuneoff.engine.loss import Loss, balanced_weights, loss_of
from tuneoff.engine.recipe import Recipe
from tuneoff.errors import ConfigError
from tuneoff.spec import study_from

LABELS = np.array([0] * 6 + [1] * 3 + [2])
ANSWERS = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_cross_entropy_is_torchs(smoothing, class_weights):
    loss = loss_of(Recipe(label_smoothing=smoothing, class_weights=class_weights), LABELS, 3)
    weights = torch.tensor(compute_class_weight("balanced", classes=np.arange(3), y=LABELS)).float()
    expected = F.cross_entropy(
        ANSWERS, torch.from_numpy(LABELS), weights if class_weights == "balanced" else None, label_smoothing=smoothing
    )
    found = loss.total(ANSWERS, torch.from_numpy(LABELS)) / loss.weight(LABELS)
    torch.testing.assert_close(found, expected)


def test_focal_loss_by_hand():
    loss, labels = loss_of(Recipe(loss="focal", focal_gamma=2.0), LABELS, 3), torch.from_numpy(LABELS)
    right = ANSWERS.softmax(1)[torch.arange(10), labels]
    torch.testing.assert_close(loss.total(ANSWERS, labels), -((1 - right) ** 2 * right.log()).sum())
    torch.testing.assert_close(Loss(focus=1e-7).total(ANSWERS, labels), Loss().total(ANSWERS, labels))


def test_a_class_without_examples_weighs_nothing():
    assert balanced_weights(np.array([0, 0, 2]), 3).tolist() == [0.5, 0.0, 1.0]


def test_smoothing_and_focus_exclude_each_other():
    with pytest.raises(ConfigError, match="label_smoothing does not go with loss focal"):
        study_from({"data": {"source": "x"}, "recipe": {"loss": "focal", "label_smoothing": 0.1}})


NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "num_labels": 2, "vocab_size": 24}


@pytest.mark.parametrize(
    ("strategy", "architecture"),
    [("full", "bert"), ("lora", "albert"), ("partial", "mpnet"), ("full", "modernbert"), ("adapter", "deberta-v2")],
)
def test_checkpointing_changes_memory_and_nothing_else(strategy, architecture):
    kept, again = (
        train_on_toy(adapted_model(strategy, architecture), 1e-3, epochs=2, checkpointing=is_on)
        for is_on in (False, True)
    )
    assert [step["loss"] for step in kept.steps] == pytest.approx([step["loss"] for step in again.steps], abs=1e-6)


def test_checkpointing_keeps_nothing_of_inside_blocks():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        found = []
        for is_on in (False, True):
            model = adapted_model("full", num_hidden_layers=4).model.train()
            kept.clear()
            with checkpointing(model, is_on):
                logits(model, Feed(toy_table()), np.arange(32))
            # (b A, L, L), whose rows are shares
            attention = [t for t in kept if t.dim() == 3 and torch.allclose(t.sum(-1), torch.ones(()), atol=1e-4)]
            found.append((len(attention), sum(t.numel() for t in kept)))
    (with_attention, all_of_it), (without, rest) = found
    assert with_attention > 0  # in autograd's own store, from which checkpointing can drop them
    assert without == 0
    assert rest < all_of_it / 3


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_a_step_in_parts_is_the_same_step(class_weights):
    whole, parts = (
        train_on_toy(
            adapted_model("full", **NO_DROPOUT), 1e-3, epochs=2, accumulation=count, class_weights=class_weights
        )
        for count in (1, 3)
    )
    np.testing.assert_allclose([s["loss"] for s in whole.steps], [s["loss"] for s in parts.steps], rtol=1e-4)
    assert whole.tokens == parts.tokens


def test_training_ends_after_so_many_steps():
    found = train_on_toy(toy_model("head"), 1e-3, epochs=3, max_steps=10)
    assert len(found.steps) == 10
    assert [epoch["epoch"] for epoch in found.epochs] == [1, 2]
    assert found.steps[-1]["learning_rate"] < 0.3 * found.steps[3]["learning_rate"]  # the schedule ends there


def test_balanced_sampling_draws_rare_classes_as_often():
    labels = np.array([0] * 900 + [1] * 100)
    weights = balanced_weights(labels, 2)[labels]
    drawn = np.concatenate(list(training_order(np.full(1000, 5), 16, 0, 0, weights)))
    assert len(drawn) == 1000
    assert np.mean(labels[drawn]) == pytest.approx(0.5, abs=0.05)
    again = np.concatenate(list(training_order(np.full(1000, 5), 16, 0, 0, weights)))
    assert (drawn == again).all()


def test_dropout_is_what_the_recipe_says(encoder):
    rates = {
        dropout: {m.p for m in load_model(encoder, ("a", "b"), 0, dropout).modules() if isinstance(m, torch.nn.Dropout)}
        for dropout in (None, 0.0, 0.4)
    }
    assert rates == {None: {0.1}, 0.0: {0.0}, 0.4: {0.4}}


@pytest.mark.parametrize(("averaged", "is_kept"), [(0.95, True), (0.9, True), (0.85, False)])
def test_the_best_epochs_are_averaged_where_validation_agrees(averaged, is_kept):
    adapted, seen = toy_model("full"), []
    scores = iter([0.5, 0.9, 0.8, averaged])

    def validate():
        seen.append(predict(adapted.model, Feed(toy_table())))
        return {"accuracy": next(scores)}

    trained = train(
        adapted, Feed(toy_table()), Recipe(epochs=3, average=2), 1e-2, 0, torch.float32, validate, "accuracy"
    )
    assert trained.best_epoch == 2
    left = predict(adapted.model, Feed(toy_table()))
    np.testing.assert_allclose(left, seen[3] if is_kept else seen[1], atol=1e-5)
    assert np.abs(seen[3] - seen[1]).max() > 1e-4
