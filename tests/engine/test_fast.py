"""Fast code compared with its plain equivalent: master weights, embedding rows, dropout, linear layers."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.tiny import random_batch, tiny_model
from tests.training import toy_model, toy_table
from tuneoff.data.batches import pack
from tuneoff.encoder.dropout import FastDropout, dropout, keep_mask, use_fast_dropout
from tuneoff.encoder.packed import forward
from tuneoff.engine.master_weights import MasterWeights
from tuneoff.engine.precision import compute_dtype, inference


def train_plain(model, table, count=20, weight_decay=0.1):
    """Steps of torch's AdamW on all parameters."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=weight_decay)
    for step in range(count):
        batch_loss(model, table, step).backward()
        optimizer.step()
        optimizer.zero_grad()


def optimizer_of(model, master_weights, weight_decay=0.1):
    return torch.optim.AdamW([master_weights[p] for p in model.parameters()], lr=1e-2, weight_decay=weight_decay)


def train_masters(model, master_weights, optimizer, table, count=20):
    """The same steps by way of master weights."""
    for step in range(count):
        batch_loss(model, table, step).backward()
        master_weights.pull_gradients()
        optimizer.step()
        master_weights.push_weights(optimizer)


def batch_loss(model, table, step):
    batch = pack(table, np.arange(step % 4, 32, 4))
    return F.cross_entropy(forward(model, batch), batch.labels)


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "modernbert", "albert", "deberta-v2", "mpnet"])
def test_an_embedding_by_rows_ends_with_the_weights_of_adamw_on_the_dense_one(model_type):
    """Rows that every step reads, rows that some steps read, and rows that training never reads but that decay."""
    fast = tiny_model(model_type, num_labels=2, vocab_size=60)
    plain, table = copy.deepcopy(fast), toy_table()
    train_plain(plain, table)
    with compute_dtype(torch.float32, fast) as fp32_weights:
        master_weights = MasterWeights(fast, fp32_weights, table.ids)
        train_masters(fast, master_weights, optimizer_of(fast, master_weights), table)
        master_weights.write_back(master_weights.snapshot())
    assert len(master_weights[fast.get_input_embeddings().weight]) < 30
    ours, theirs = (dict(model.named_parameters()) for model in (fast, plain))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_rows_that_only_validation_reads_are_up_to_date_between_steps():
    fast = tiny_model("bert", vocab_size=60).eval()
    plain, table = copy.deepcopy(fast), toy_table()
    train_plain(plain, table, count=4, weight_decay=0.5)
    with compute_dtype(torch.float32, fast) as fp32_weights:
        master_weights = MasterWeights(fast, fp32_weights, table.ids)
        train_masters(fast, master_weights, optimizer_of(fast, master_weights, weight_decay=0.5), table, count=4)
        batch = random_batch([9, 5], seed=3)
        batch.ids.remainder_(60)
        assert set(batch.ids[0].tolist()) - set(table.ids.tolist())
        with torch.no_grad():
            torch.testing.assert_close(forward(fast, batch), forward(plain, batch), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("ends_training", [True, False])
def test_a_snapshot_restores_the_weights_of_its_moment(ends_training):
    model, table, batch = toy_model("full").model, toy_table(), pack(toy_table(), np.arange(8))
    with compute_dtype(torch.bfloat16, model) as fp32_weights:
        master_weights = MasterWeights(model, fp32_weights, table.ids)
        optimizer = optimizer_of(model, master_weights)
        train_masters(model, master_weights, optimizer, table, count=3)
        snapshot, logits = master_weights.snapshot(), forward(model, batch)
        train_masters(model, master_weights, optimizer, table, count=3)
        assert not torch.equal(forward(model, batch), logits)
        if ends_training:
            master_weights.write_back(snapshot)
        else:
            master_weights.swap_in(snapshot)
            assert torch.equal(forward(model, batch), logits)
    for parameter, saved in zip(model.parameters(), snapshot.weights, strict=True):
        assert parameter.dtype == torch.float32
        if parameter.shape == saved.shape:  # all but the word embedding
            assert torch.equal(parameter, saved)


def test_a_frozen_embedding_is_not_split_into_rows():
    model = toy_model("lora").model
    before = model.get_input_embeddings().weight.detach().clone()
    with compute_dtype(torch.bfloat16, model) as fp32_weights:
        MasterWeights(model, fp32_weights, toy_table().ids)
    assert not model.get_input_embeddings().sparse
    assert torch.equal(model.get_input_embeddings().weight, before)


def test_small_updates_add_up_in_a_master_and_would_be_lost_in_bf16():
    """Updates of a thousandth of a weight: bf16 has eight significant bits."""
    model = toy_model("full").model
    weight = model.bert.encoder.layer[0].output.dense.weight
    with compute_dtype(torch.bfloat16, model) as fp32_weights:
        master_weights = MasterWeights(model, fp32_weights, toy_table().ids)
        master = master_weights[weight]
        start, without_master = master.clone(), weight.detach().clone()
        for _ in range(20):
            with torch.no_grad():
                master.mul_(1.001)
                without_master.mul_(1.001)
            master_weights.push_weights(torch.optim.AdamW([master]))
        assert weight.dtype == torch.bfloat16
        torch.testing.assert_close(weight.detach(), (start * 1.001**20).bfloat16())
        assert torch.equal(without_master, start.bfloat16())
    torch.testing.assert_close(weight.detach(), start * 1.001**20)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_fast_dropout_drops_at_its_rate_and_keeps_the_mean(rate, dtype):
    torch.manual_seed(0)
    dropped = dropout(torch.ones(1_000_003, dtype=dtype), rate, training=True).float()
    assert (dropped == 0).float().mean().item() == pytest.approx(rate, abs=0.002)
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    assert len(dropped.unique()) == 2


def test_random_bits_of_neighbouring_elements_are_independent():
    torch.manual_seed(0)
    kept = (keep_mask(torch.ones(1_000_000), 0.3) > 0).float() - 0.7
    for lag in (1, 2, 3, 4, 5, 8):
        assert (kept[lag:] * kept[:-lag]).mean().abs() < 5 * 0.21 / 1000  # five standard errors


def test_the_gradient_of_fast_dropout_is_its_mask():
    torch.manual_seed(0)
    states = torch.randn(7, 5, requires_grad=True)
    dropped = dropout(states, 0.4, training=True)
    dropped.sum().backward()
    torch.testing.assert_close(states.grad, (dropped / states).detach())


def test_dropout_changes_nothing_in_evaluation_or_at_rate_0_and_drops_all_at_rate_1():
    states = torch.randn(5)
    assert dropout(states, 0.5, training=False) is states
    assert dropout(states, 0.0, training=True) is states
    assert (dropout(states, 1.0, training=True) == 0).all()


def test_dropout_modules_of_a_model_become_fast_in_place():
    model = tiny_model("bert").train()
    use_fast_dropout(model)
    assert {type(module) for module in model.modules() if isinstance(module, nn.Dropout)} == {FastDropout}
    assert model.dropout.p == 0.1
    torch.manual_seed(0)
    first, second = model.dropout(torch.ones(99)), model.dropout(torch.ones(99))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_in_inference_equal_torchs(bias):
    layer, states = nn.Linear(48, 20, bias=bias), torch.randn(1, 33, 48)
    with inference():
        fast = layer(states)
    torch.testing.assert_close(fast, layer(states).detach())
    with inference():
        assert layer.bfloat16()(states.bfloat16()).dtype == torch.bfloat16
