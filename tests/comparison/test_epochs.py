"""Epochs of each strategy: means over runs, and strategies that still improve at the end of training."""

import numpy as np
import pandas as pd
import pytest

from tuneoff.comparison.epochs import epoch_scores, late_gains
from tuneoff.runs import OK, RunRecord


def run(group="lora-1", seed=0, best_epoch=3, examples=400, **spec):
    """The record of a run with a confusion matrix of so many validation examples."""
    confusion = {"validation": [[examples // 2, 0], [0, examples - examples // 2]]}
    return RunRecord(
        f"{group}-s{seed}", group, "lora", "lora", "m", seed, OK, confusion=confusion, best_epoch=best_epoch, spec=spec
    )


def history(scores, metric="accuracy", losses=None):
    """A history of two steps and one row per epoch, as stored: missing values are NaN."""
    steps = pd.DataFrame({"step": [1, 2], "epoch": [1, 1], "loss": [0.7, 0.6]}).assign(kind="step")
    epochs = pd.DataFrame({"epoch": range(1, len(scores) + 1), f"validation_{metric}": scores}).assign(kind="epoch")
    epochs["train_loss"] = losses if losses is not None else np.linspace(0.7, 0.3, len(scores))
    return pd.concat([steps, epochs], ignore_index=True)


def gains(*scores, metric="accuracy", **fields):
    records = [run(seed=seed, **fields) for seed in range(len(scores))]
    histories = {r.run_id: history(s, metric) for r, s in zip(records, scores, strict=True)}
    return late_gains(records, histories, metric)


def test_scores_by_epoch_are_means_over_runs():
    records = [run(seed=0, best_epoch=2), run(seed=1, best_epoch=1)]
    histories = {"lora-1-s0": history([0.5, 0.7], losses=[0.6, 0.4]), "lora-1-s1": history([0.6], losses=[0.8])}
    first, second = epoch_scores(records, histories)
    assert (first.epoch, first.runs, first.kept) == (1, 2, 1)
    assert first.train_loss == pytest.approx(0.7)
    assert first.scores == {"accuracy": pytest.approx(0.55)}
    assert (second.epoch, second.runs, second.kept, second.scores) == (2, 1, 1, {"accuracy": 0.7})


def test_runs_without_epochs_have_none():
    assert epoch_scores([run()], {"lora-1-s0": pd.DataFrame()}) == []
    assert epoch_scores([run()], {}) == []
    assert late_gains([run()], {}, "accuracy") == ()


def test_evaluations_within_epochs_are_no_epochs():
    rows = pd.DataFrame({"kind": "evaluation", "step": [1, 2], "epoch": [1, 1], "validation_accuracy": [0.2, 0.3]})
    table = pd.concat([history([0.5, 0.7]), rows], ignore_index=True)
    assert [epoch.epoch for epoch in epoch_scores([run()], {"lora-1-s0": table})] == [1, 2]


def test_a_last_epoch_that_gains_more_than_noise_is_late():
    (late,) = gains([0.60, 0.70, 0.76], [0.62, 0.72, 0.75])
    assert (late.group, late.epochs, late.best_last, late.runs) == ("lora-1", 3, 2, 2)
    assert late.gain == pytest.approx(0.045)
    mean = (0.76 + 0.75) / 2
    assert late.noise == pytest.approx(np.sqrt(mean * (1 - mean) / 400))


@pytest.mark.parametrize(
    "scores",
    [
        ([0.60, 0.70, 0.71], [0.62, 0.72, 0.73]),  # within noise
        ([0.60, 0.76, 0.70], [0.62, 0.75, 0.70]),  # the second is the best
        ([0.60, 0.70, 0.90], [0.62, 0.72, 0.72]),  # in one run of two only
        ([0.9],),  # one epoch shows no change
    ],
)
def test_other_ends_are_not_late(scores):
    assert gains(*scores) == ()


def test_few_validation_examples_show_less():
    assert gains([0.6, 0.7, 0.74], examples=4000)
    assert not gains([0.6, 0.7, 0.74], examples=40)


def test_folds_count_their_own_examples():
    assert not gains([0.6, 0.7, 0.72], [0.6, 0.7, 0.72], examples=400)
    (late,) = gains([0.6, 0.7, 0.72], [0.6, 0.7, 0.72], examples=400, fold={"index": 0})
    assert late.noise == pytest.approx(np.sqrt(0.72 * 0.28 / 800))


def test_log_loss_improves_downwards_and_is_compared_between_runs():
    (late,) = gains([0.7, 0.6, 0.5], [0.7, 0.6, 0.48], metric="log_loss")
    assert late.gain == pytest.approx(0.11)
    assert late.noise == pytest.approx(0.01)
    assert not gains([0.5, 0.6, 0.7], [0.5, 0.6, 0.7], metric="log_loss")
    assert not gains([0.7, 0.6, 0.5], metric="log_loss")  # one run shows no noise
