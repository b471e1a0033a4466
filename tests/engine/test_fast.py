"""The fast version of anything agrees with its plain twin."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.strategies.test_contract import toy_model, toy_table
from tests.tiny import random_batch, tiny_model
from tuneoff.data.batches import pack
from tuneoff.dropout import CheapDropout, dropout, keep_mask, use_cheap_dropout
from tuneoff.encoder.packed import forward
from tuneoff.engine.masters import Masters
from tuneoff.engine.precision import computing_in, inference


def _steps(model, optimizer, table, after_backward, after_step, count=20):
    for step in range(count):
        batch = pack(table, np.arange(step % 4, 32, 4))
        F.cross_entropy(forward(model, batch), batch.labels).backward()
        after_backward()
        optimizer.step()
        after_step(optimizer)


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "modernbert", "albert", "deberta-v2", "mpnet"])
def test_an_embedding_by_rows_ends_as_adamw_leaves_a_dense_one(model_type):
    """Rows that training reads, rows that it reads at times, and rows that it never reads but that decay."""
    fast = tiny_model(model_type, num_labels=2, vocab_size=60)
    plain, table = copy.deepcopy(fast), toy_table()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-2, weight_decay=0.1)
    _steps(plain, optimizer, table, lambda: None, lambda optimizer: optimizer.zero_grad())
    with computing_in(torch.float32, fast) as full:
        masters = Masters(fast, full, table.ids)
        optimizer = torch.optim.AdamW([masters[p] for p in fast.parameters()], lr=1e-2, weight_decay=0.1)
        _steps(fast, optimizer, table, masters.take_gradients, masters.give_weights)
        masters.restore(masters.snapshot())
    assert len(masters[fast.get_input_embeddings().weight]) < 30
    for (name, found), expected in zip(fast.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_what_is_read_between_steps_is_up_to_date():
    """Validation reads rows that training does not: they have decayed like the others."""
    fast = tiny_model("bert", vocab_size=60).eval()
    plain, table = copy.deepcopy(fast), toy_table()
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-2, weight_decay=0.5)
    _steps(plain, optimizer, table, lambda: None, lambda optimizer: optimizer.zero_grad(), count=4)
    with computing_in(torch.float32, fast) as full, torch.no_grad():
        masters = Masters(fast, full, table.ids)
        optimizer = torch.optim.AdamW([masters[p] for p in fast.parameters()], lr=1e-2, weight_decay=0.5)
        with torch.enable_grad():
            _steps(fast, optimizer, table, masters.take_gradients, masters.give_weights, count=4)
        batch = random_batch([9, 5], seed=3)
        batch.ids.remainder_(60)
        torch.testing.assert_close(forward(fast, batch), forward(plain, batch), atol=1e-5, rtol=1e-4)


def test_a_snapshot_brings_back_its_moment():
    model = toy_model("full").model
    table = toy_table()
    with computing_in(torch.bfloat16, model) as full:
        masters = Masters(model, full, table.ids)
        optimizer = torch.optim.AdamW([masters[p] for p in model.parameters()], lr=1e-2)
        _steps(model, optimizer, table, masters.take_gradients, masters.give_weights, count=3)
        then = masters.snapshot()
        _steps(model, optimizer, table, masters.take_gradients, masters.give_weights, count=3)
        masters.restore(then)
    for found, expected in zip(model.parameters(), then.weights, strict=True):
        if found.shape == expected.shape:
            assert torch.equal(found, expected)


def test_a_frozen_embedding_is_left_alone():
    model = toy_model("lora").model
    before = model.get_input_embeddings().weight
    with computing_in(torch.bfloat16, model) as full:
        Masters(model, full, toy_table().ids)
    assert not model.get_input_embeddings().sparse
    assert torch.equal(model.get_input_embeddings().weight, before)


def test_masters_move_where_bf16_would_stand_still():
    """Steps of a thousandth of a weight are lost in bf16, which has eight bits, but not in its master."""
    model = toy_model("full").model
    weight = model.bert.encoder.layer[0].output.dense.weight
    with computing_in(torch.bfloat16, model) as full:
        masters = Masters(model, full, toy_table().ids)
        master = masters[weight]
        start = master.clone()
        assert weight.dtype == torch.bfloat16
        for _ in range(20):
            with torch.no_grad():
                master.mul_(1.001)
            masters.give_weights(torch.optim.AdamW([master]))
    torch.testing.assert_close(weight.detach(), start * 1.001**20)


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


@pytest.mark.parametrize("bias", [True, False])
def test_products_of_inference_are_torchs(bias):
    layer, states = nn.Linear(48, 20, bias=bias), torch.randn(1, 33, 48)
    with inference():
        fast = layer(states)
    torch.testing.assert_close(fast, layer(states).detach())
    with inference():
        assert layer.bfloat16()(states.bfloat16()).dtype == torch.bfloat16
