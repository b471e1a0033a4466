"""Validation within epochs, and the seconds of the parts of a step."""

import numpy as np
import pytest
import torch

from tests.training import toy_model, toy_table, train_on_toy
from tuneoff.engine.inputs import SplitInputs, predict_logits
from tuneoff.engine.loop import TrainingSettings, Validation, train
from tuneoff.engine.recipe import Recipe
from tuneoff.spec.run import RunSpec
from tuneoff.spec.strategy import parse_strategy


def with_scores(adapted, scores, **changes):
    """Train two epochs of eight steps with invented scores. Returns the training and the logits at each validation."""
    left, logits = iter(scores), []

    def validate():
        logits.append(predict_logits(adapted.model, SplitInputs(toy_table())))
        return {"accuracy": next(left)}

    recipe = Recipe(epochs=2, batch_size=8, **changes)
    settings = TrainingSettings(recipe, 1e-2, 0, torch.float32)
    return train(adapted, SplitInputs(toy_table()), settings, Validation(validate, "accuracy")), logits


def test_weights_are_validated_every_so_many_steps_and_at_the_end_of_each_epoch():
    adapted = toy_model("full")
    trained, _ = with_scores(adapted, [0.5, 0.6, 0.9, 0.7, 0.8, 0.6, 0.5], evaluate_every=3)
    assert [(row["step"], row["epoch"]) for row in trained.evaluations] == [
        (3, 0.375), (6, 0.75), (8, 1.0), (9, 1.125), (12, 1.5), (15, 1.875), (16, 2.0),
    ]  # fmt: skip


def test_the_best_weights_may_be_those_of_a_step_within_an_epoch():
    adapted = toy_model("full")
    trained, logits = with_scores(adapted, [0.5, 0.9, 0.7, 0.6], evaluate_every=4)  # steps 4, 8, 12, 16
    assert [row["step"] for row in trained.evaluations] == [4, 8, 12, 16]
    assert (trained.best_epoch, trained.best_step) == (1, 8)
    adapted = toy_model("full")
    trained, logits = with_scores(adapted, [0.5, 0.6, 0.9, 0.6], evaluate_every=4)
    assert (trained.best_epoch, trained.best_step) == (2, 12)
    np.testing.assert_allclose(predict_logits(adapted.model, SplitInputs(toy_table())), logits[2], atol=1e-6)
    assert [row["epoch"] for row in trained.epochs] == [1, 2]
    assert [row["validation_accuracy"] for row in trained.epochs] == [0.6, 0.6]


def test_validation_within_epochs_changes_no_step():
    plain, often = (train_on_toy(toy_model("full"), 1e-2, epochs=2, **c) for c in ({}, {"evaluate_every": 2}))
    assert [step["loss"] for step in plain.steps] == [step["loss"] for step in often.steps]
    assert plain.evaluations == []
    assert len(often.evaluations) == 8


def test_the_parts_of_the_steps_add_up_to_less_than_all_of_them():
    trained = train_on_toy(toy_model("full"), 1e-2, epochs=2, evaluate_every=3)
    parts = vars(trained.phases)
    assert set(parts) == {"data", "forward", "backward", "optimizer"}
    assert all(seconds > 0 for seconds in parts.values())
    assert sum(parts.values()) < trained.train_seconds


@pytest.mark.parametrize(
    ("strategy", "run_id"),
    [
        ("tfidf", "tfidf-d32f2133-s0"),
        ("probe", "probe-428be3c5-s0"),
        ("lora", "lora-5f9f7055-s0"),
        ("full", "full-a6bf7996-s0"),
    ],
)
def test_new_options_change_no_run_id_unless_they_are_set(strategy, run_id):
    run = RunSpec(
        strategy=parse_strategy(strategy), model="m", model_fingerprint="f", data_fingerprint="d", recipe=Recipe(),
        metric="accuracy", seed=0,
    )  # fmt: skip
    assert run.run_id == run_id
    changed = run.model_copy(update={"recipe": Recipe(head_dropout=0.5, evaluate_every=10)})
    assert (changed.run_id == run_id) == (strategy in ("tfidf", "probe"))
