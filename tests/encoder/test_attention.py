"""Attention by grids equals plain attention, computed one example at a time."""

import pytest
import torch

from tests.tiny import random_batch, tiny_model
from tuneoff.encoder.anatomy import blocks
from tuneoff.encoder.attention import _PackedAttention, build_packing
from tuneoff.encoder.packed import embed, pool, read_out, run_blocks

LENGTHS = [70, 66, 40, 33, 32, 31, 9, 3]  # grids with rounded lengths of 96, 64 and 32
HEADS, SIZE = 3, 4


def plain_attention(query, key, value, lengths, scaling, window):
    """softmax(q k' s) v of one example after another. (T, A, D)."""
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


def random_states(count, seed):
    return torch.randn(count, HEADS, SIZE, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("lengths", [LENGTHS, LENGTHS[::-1], [32, 32], [1], [5, 70, 6]])
def test_attention_and_its_gradients_equal_plain_attention(lengths, window):
    batch, count = random_batch(lengths), sum(lengths)
    ours, theirs = ([random_states(count, seed) for seed in range(3)] for _ in range(2))
    mixed = _PackedAttention.apply(ours[0] * 0.5, *ours[1:], build_packing(batch), 0.0, window)
    query, key, value = theirs
    expected = plain_attention(query, key, value, lengths, 0.5, window)
    torch.testing.assert_close(mixed, expected, atol=1e-6, rtol=1e-5)
    gradient = random_states(count, 9).detach()
    mixed.backward(gradient)
    expected.backward(gradient)
    for our_input, their_input in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our_input.grad, their_input.grad, atol=1e-6, rtol=1e-5)


def test_the_gradient_of_attention_has_its_dropout_mask():
    """With all values 1 and all keys equal, an output is the sum of the kept weights, and so is the values' gradient."""
    batch = random_batch([40, 20])
    query, key = torch.zeros(60, 1, 8), torch.zeros(60, 1, 8)
    value = torch.ones(60, 1, 8, requires_grad=True)
    torch.manual_seed(0)
    mixed = _PackedAttention.apply(query, key, value, build_packing(batch), 0.5, None)
    assert mixed.std() > 0.05
    assert mixed.mean().item() == pytest.approx(1, abs=0.1)
    mixed.sum().backward()
    assert value.grad is not None
    assert value.grad.sum().item() == pytest.approx(mixed.sum().item(), rel=1e-5)


@pytest.mark.parametrize(
    "model_type", ["bert", "distilbert", "roberta", "electra", "albert", "ernie", "mpnet", "deberta-v2"]
)
def test_a_last_block_on_first_tokens_only_computes_the_same_vectors(model_type):
    model, batch = tiny_model(model_type), random_batch([40, 33, 9, 3])
    fast = read_out(model, embed(model, batch), batch, 0)
    all_tokens = run_blocks(model, embed(model, batch), batch, 0, len(blocks(model)))
    torch.testing.assert_close(fast, pool(model, all_tokens, batch), atol=1e-6, rtol=1e-5)


def test_a_head_that_reads_the_mean_gets_the_mean_of_all_tokens():
    model, batch = tiny_model("modernbert", classifier_pooling="mean"), random_batch([20, 9, 3])
    all_tokens = run_blocks(model, embed(model, batch), batch, 0, len(blocks(model)))
    means = [part.mean(0) for part in all_tokens[0, : batch.num_tokens].split([20, 9, 3])]
    torch.testing.assert_close(read_out(model, embed(model, batch), batch, 0)[:, 0], torch.stack(means))
