"""Attention by grids against the plain one, example by example."""

import pytest
import torch

from tests.tiny import random_batch, tiny_model
from tuneoff.encoder.anatomy import blocks, pools_mean
from tuneoff.encoder.attention import _Attend, packing
from tuneoff.encoder.packed import embed, pool, read_out, run_blocks

LENGTHS = [70, 66, 40, 33, 32, 31, 9, 3]  # grids of 96, 64 and 32
HEADS, SIZE = 3, 4


def plain(query, key, value, lengths, scaling, window):
    """softmax(q k' s) v of one example after the other. (T, A, D)."""
    mixed, start = [], 0
    for length in lengths:
        q, k, v = (states[start : start + length].transpose(0, 1) for states in (query, key, value))  # (A, L, D)
        scores = q @ k.transpose(1, 2) * scaling
        if window:
            positions = torch.arange(length)
            scores = scores.masked_fill((positions[:, None] - positions).abs() >= window, -torch.inf)
        mixed.append((scores.softmax(-1) @ v).transpose(0, 1))
        start += length
    return torch.cat(mixed)


def states(count, seed):
    return torch.randn(count, HEADS, SIZE, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("lengths", [LENGTHS, LENGTHS[::-1], [32, 32], [1], [5, 70, 6]])
def test_attention_and_its_gradients_are_the_plain_ones(lengths, window):
    batch, count = random_batch(lengths), sum(lengths)
    inputs, twins = ([states(count, seed) for seed in range(3)] for _ in range(2))
    found = _Attend.apply(inputs[0] * 0.5, *inputs[1:], packing(batch), 0.0, window)
    expected = plain(*twins, lengths, 0.5, window)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    gradient = states(count, 9).detach()
    found.backward(gradient)
    expected.backward(gradient)
    for ours, theirs in zip(inputs, twins, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-5)


def test_attentions_dropout_is_in_its_gradient():
    """With values of one and keys alike, an output is the sum of what was kept; so is the gradient's."""
    batch = random_batch([40, 20])
    query, key = torch.zeros(60, 1, 8), torch.zeros(60, 1, 8)
    value = torch.ones(60, 1, 8, requires_grad=True)
    torch.manual_seed(0)
    found = _Attend.apply(query, key, value, packing(batch), 0.5, None)
    assert found.std() > 0.05
    assert found.mean().item() == pytest.approx(1, abs=0.1)
    found.sum().backward()
    assert value.grad.sum().item() == pytest.approx(found.sum().item(), rel=1e-5)


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "roberta", "electra", "albert", "ernie"])
def test_the_last_block_on_first_tokens_alone_says_the_same_of_them(model_type):
    model, batch = tiny_model(model_type), random_batch([40, 33, 9, 3])
    fast = read_out(model, embed(model, batch), batch, 0)
    every = run_blocks(model, embed(model, batch), batch, 0, len(blocks(model)))
    torch.testing.assert_close(fast, pool(model, every, batch), atol=1e-6, rtol=1e-5)


def test_a_head_that_reads_the_mean_has_all_tokens():
    model, batch = tiny_model("modernbert", classifier_pooling="mean"), random_batch([20, 9, 3])
    assert pools_mean(model.config)
    every = run_blocks(model, embed(model, batch), batch, 0, len(blocks(model)))
    torch.testing.assert_close(read_out(model, embed(model, batch), batch, 0), pool(model, every, batch))
