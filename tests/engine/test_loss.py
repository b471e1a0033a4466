"""Losses compared with torch and scikit-learn, and the options of a recipe that change training."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from tests.training import NO_DROPOUT, adapted_model, toy_model, toy_table, train_on_toy
from tuneoff.data.batches import training_batches
from tuneoff.encoder.load import load_model
from tuneoff.engine.checkpoint import checkpointing
from tuneoff.engine.inputs import SplitInputs, batch_logits, predict_logits
from tuneoff.engine.loop import TrainingSettings, Validation, train
from tuneoff.engine.loss import Loss, balanced_weights, loss_of
from tuneoff.engine.recipe import Recipe
from tuneoff.errors import ConfigError
from tuneoff.spec.file import study_from

LABELS = np.array([0] * 6 + [1] * 3 + [2])
LOGITS = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_cross_entropy_equals_torchs(smoothing, class_weights):
    loss = loss_of(Recipe(label_smoothing=smoothing, class_weights=class_weights), LABELS, 3)
    weights = torch.tensor(compute_class_weight("balanced", classes=np.arange(3), y=LABELS)).float()
    expected = F.cross_entropy(
        LOGITS, torch.from_numpy(LABELS), weights if class_weights == "balanced" else None, label_smoothing=smoothing
    )
    torch.testing.assert_close(loss.summed(LOGITS, torch.from_numpy(LABELS)) / loss.weight(LABELS), expected)


def test_focal_loss_equals_its_formula_and_is_cross_entropy_at_gamma_0():
    loss, labels = loss_of(Recipe(loss="focal", focal_gamma=2.0), LABELS, 3), torch.from_numpy(LABELS)
    p = LOGITS.softmax(1)[torch.arange(10), labels]  # of the true classes
    torch.testing.assert_close(loss.summed(LOGITS, labels), -((1 - p) ** 2 * p.log()).sum())
    torch.testing.assert_close(Loss(focal_gamma=1e-7).summed(LOGITS, labels), Loss().summed(LOGITS, labels))


def test_a_class_without_examples_has_weight_0():
    assert balanced_weights(np.array([0, 0, 2]), 3).tolist() == [0.5, 0.0, 1.0]


def test_label_smoothing_with_focal_loss_is_an_error():
    with pytest.raises(ConfigError, match="label_smoothing does not go with loss focal"):
        study_from({"data": {"source": "x"}, "recipe": {"loss": "focal", "label_smoothing": 0.1}})


@pytest.mark.parametrize(
    ("strategy", "architecture"),
    [
        ("full", "bert"),
        ("lora", "albert"),
        ("partial", "mpnet"),
        ("full", "mpnet"),
        ("full", "modernbert"),
        ("adapter", "deberta-v2"),
        ("full", "deberta-v2"),
    ],
)
def test_checkpointing_does_not_change_losses(strategy, architecture):
    kept, recomputed = (
        train_on_toy(adapted_model(strategy, architecture), 1e-3, epochs=2, checkpointing=is_on)
        for is_on in (False, True)
    )
    assert [step["loss"] for step in kept.steps] == pytest.approx([step["loss"] for step in recomputed.steps], abs=1e-6)


def test_checkpointing_keeps_no_tensors_from_inside_blocks():
    kept = []

    def pack(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        counts = []
        for is_on in (False, True):
            model = adapted_model("full", num_hidden_layers=4).model.train()
            kept.clear()
            with checkpointing(model, is_on):
                batch_logits(model, SplitInputs(toy_table()), np.arange(32))
            # attention weights, (b A, L, L), have rows that sum to 1
            weights = [t for t in kept if t.dim() == 3 and torch.allclose(t.sum(-1), torch.ones(()), atol=1e-4)]
            counts.append((len(weights), sum(t.numel() for t in kept)))
    (num_weights, num_elements), (num_weights_left, num_elements_left) = counts
    assert num_weights > 0  # kept by autograd, and not by attributes of ctx, which checkpointing could not drop
    assert num_weights_left == 0
    assert num_elements_left < num_elements / 3


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_gradient_accumulation_does_not_change_losses(class_weights):
    whole, parts = (
        train_on_toy(
            adapted_model("full", **NO_DROPOUT), 1e-3, epochs=2, accumulation=count, class_weights=class_weights
        )
        for count in (1, 3)
    )
    np.testing.assert_allclose([s["loss"] for s in whole.steps], [s["loss"] for s in parts.steps], rtol=1e-4)
    assert whole.tokens == parts.tokens


def test_training_and_its_schedule_end_after_max_steps():
    trained = train_on_toy(toy_model("head"), 1e-3, epochs=3, max_steps=10)
    assert len(trained.steps) == 10
    assert [epoch["epoch"] for epoch in trained.epochs] == [1, 2]
    assert trained.steps[-1]["learning_rate"] < 0.3 * trained.steps[3]["learning_rate"]


def test_balanced_sampling_draws_all_classes_equally_often():
    labels = np.array([0] * 900 + [1] * 100)
    weights = balanced_weights(labels, 2)[labels]
    drawn = np.concatenate(list(training_batches(np.full(1000, 5), 16, 0, 0, weights)))
    assert len(drawn) == 1000
    assert np.mean(labels[drawn]) == pytest.approx(0.5, abs=0.05)
    again = np.concatenate(list(training_batches(np.full(1000, 5), 16, 0, 0, weights)))
    assert (drawn == again).all()


def test_dropout_of_the_recipe_replaces_every_rate(encoder):
    rates = {
        dropout: {m.p for m in load_model(encoder, ("a", "b"), 0, dropout).modules() if isinstance(m, torch.nn.Dropout)}
        for dropout in (None, 0.0, 0.4)
    }
    assert rates == {None: {0.1}, 0.0: {0.0}, 0.4: {0.4}}


@pytest.mark.parametrize(("averaged", "is_kept"), [(0.95, True), (0.9, True), (0.85, False)])
def test_the_average_of_the_best_epochs_is_kept_unless_its_validation_score_is_lower(averaged, is_kept):
    adapted, logits = toy_model("full"), []
    scores = iter([0.5, 0.9, 0.8, averaged])

    def validate():
        logits.append(predict_logits(adapted.model, SplitInputs(toy_table())))
        return {"accuracy": next(scores)}

    settings = TrainingSettings(Recipe(epochs=3, average=2), 1e-2, 0, torch.float32)
    trained = train(adapted, SplitInputs(toy_table()), settings, Validation(validate, "accuracy"))
    assert trained.best_epoch == 2
    final_logits = predict_logits(adapted.model, SplitInputs(toy_table()))
    np.testing.assert_allclose(final_logits, logits[3] if is_kept else logits[1], atol=1e-5)
    assert np.abs(logits[3] - logits[1]).max() > 1e-4
