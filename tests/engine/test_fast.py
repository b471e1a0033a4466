"""The fast version of anything agrees with its plain twin."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.strategies.test_contract import toy_model, toy_table
from tests.tiny import random_batch, tiny_model
from tuneoff.data.batches import pack
from tuneoff.dropout import CheapDropout, dropout, keep_mask, use_cheap_dropout
from tuneoff.encoder.packed import forward
from tuneoff.engine.rows import RowGradient


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "modernbert", "albert", "deberta-v2"])
def test_the_kept_row_gradient_is_the_dense_one(model_type):
    fast = tiny_model(model_type)
    plain, rows = copy.deepcopy(fast), RowGradient(fast)
    for seed in range(3):
        batch = random_batch([4, 9, 2], seed=seed)
        for model in (fast, plain):
            model.zero_grad(set_to_none=True)
            F.cross_entropy(forward(model, batch), batch.labels).backward()
        rows.gather()
        expected = plain.get_input_embeddings().weight.grad
        torch.testing.assert_close(fast.get_input_embeddings().weight.grad, expected, atol=1e-7, rtol=1e-6)
        rows.clear()
        assert not rows._gradient.any()


def test_adamw_gives_the_same_embedding_after_many_steps():
    import numpy as np

    table, weights = toy_table(), []
    for is_fast in (True, False):
        model = toy_model("full").model.eval()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        rows = RowGradient(model) if is_fast else None
        for step in range(20):
            batch = pack(table, np.arange(step % 4, 64, 4))
            F.cross_entropy(forward(model, batch), batch.labels).backward()
            if rows:
                rows.gather()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if rows:
                rows.clear()
        weights.append(model.get_input_embeddings().weight.detach())
    torch.testing.assert_close(*weights, atol=1e-5, rtol=1e-4)


def test_a_frozen_embedding_is_left_alone():
    model = toy_model("lora").model
    RowGradient(model)
    assert not model.get_input_embeddings().sparse


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_cheap_dropout_drops_at_its_rate_and_keeps_the_mean(rate, dtype):
    torch.manual_seed(0)
    found = dropout(torch.ones(1_000_003, dtype=dtype), rate, training=True).float()
    assert (found == 0).float().mean().item() == pytest.approx(rate, abs=0.002)
    assert found.mean().item() == pytest.approx(1, abs=0.01)
    assert len(found.unique()) == 2


def test_cheap_bits_are_independent_of_their_neighbours():
    torch.manual_seed(0)
    kept = (keep_mask(torch.ones(1_000_000), 0.3) > 0).float() - 0.7
    for lag in (1, 2, 3, 4, 5, 8):
        assert (kept[lag:] * kept[:-lag]).mean().abs() < 5 * 0.21 / 1000  # five standard errors


def test_cheap_dropout_has_the_gradient_of_its_mask():
    torch.manual_seed(0)
    states = torch.randn(7, 5, requires_grad=True)
    dropped = dropout(states, 0.4, training=True)
    dropped.sum().backward()
    torch.testing.assert_close(states.grad, (dropped / states).detach())


def test_without_training_or_rate_nothing_changes():
    states = torch.randn(5)
    assert dropout(states, 0.5, training=False) is states
    assert dropout(states, 0.0, training=True) is states
    assert (dropout(states, 1.0, training=True) == 0).all()


def test_a_models_dropout_modules_become_cheap_in_place():
    model = tiny_model("bert").train()
    use_cheap_dropout(model)
    kinds = {type(module) for module in model.modules() if isinstance(module, nn.Dropout)}
    assert kinds == {CheapDropout}
    assert model.dropout.p == 0.1
    torch.manual_seed(0)
    one, two = model.dropout(torch.ones(99)), model.dropout(torch.ones(99))
    assert not torch.equal(one, two)
