"""Attention by the fused operators equals grids and plain attention in fp64; the operators are those of a pretended GPU."""

from unittest import mock

import pytest
import torch

from tests.pretended_gpu import pretended_gpu
from tests.tiny import random_batch, tiny_model
from tuneoff.encoder.attention import build_packing
from tuneoff.encoder.fused import fused_kernel
from tuneoff.encoder.packed import embed, forward, read_out
from tuneoff.engine.precision import deterministic

HEADS, SIZE = 3, 8
LENGTHS = [70, 66, 40, 33, 32, 31, 9, 3]  # 284 tokens, filled up to 288


def states_of(count, dtype):
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(count, HEADS, SIZE, generator=generator).to(dtype).requires_grad_() for _ in range(3)]


def plain(states, batch, window):
    """Softmax(q k' / 2) v of each example in fp64, with zeros for what fills the batch up."""
    mixed, start = torch.zeros(len(states[0]), HEADS, SIZE, dtype=torch.float64), 0
    for length in batch.lengths.tolist():
        q, k, v = (part[start : start + length].double() for part in states)
        scores = torch.einsum("iad,jad->aij", q, k) / 2
        if window:
            positions = torch.arange(length)
            scores = scores.masked_fill((positions[:, None] - positions).abs() >= window, -torch.inf)
        mixed[start : start + length] = torch.einsum("aij,jad->iad", scores.softmax(-1), v)
        start += length
    return mixed


@pytest.mark.parametrize(
    ("dtype", "window", "tolerance"),
    [(torch.bfloat16, None, 3e-2), (torch.bfloat16, 5, 3e-2), (torch.float32, None, 1e-5)],
)
@pytest.mark.parametrize("lengths", [LENGTHS, [2] * 130, [17, 5]])
def test_a_fused_kernel_and_its_gradients_equal_plain_attention(dtype, window, tolerance, lengths):
    """With 130 texts of 2 tokens, the sequence that fills the batch up is the longest."""
    batch = random_batch(lengths)
    total, count = batch.ids.shape[1], sum(lengths)
    ours, theirs = (states_of(total, dtype) for _ in range(2))
    gradient = torch.randn(total, HEADS, SIZE, generator=torch.Generator().manual_seed(1)).to(dtype)
    gradient[count:] = 0  # nothing reads what fills the batch up
    expected = plain(theirs, batch, window)
    expected.backward(gradient.double())
    with pretended_gpu() as gpu:
        query, key, value = (gpu.mark(part) for part in ours)
        packing = build_packing(batch.to(torch.device("cuda", 0)))
        kernel = fused_kernel(query, packing.batch, window, 0.0)
        assert kernel is not None
        torch.use_deterministic_algorithms(True)  # the backward pass refuses to run without
        try:
            mixed = kernel(query, key, value, packing.bounds(), 0.0, 0.5, window)
            mixed.backward(gpu.mark(gradient))
        finally:
            torch.use_deterministic_algorithms(False)
        assert not gpu.mistakes
    torch.testing.assert_close(mixed[:count].double(), expected[:count], atol=tolerance, rtol=tolerance)
    assert mixed.isfinite().all()
    for our_input, their_input in zip(ours, theirs, strict=True):
        assert our_input.grad is not None
        assert their_input.grad is not None
        torch.testing.assert_close(our_input.grad, their_input.grad.to(dtype), atol=tolerance, rtol=tolerance)
        assert not our_input.grad[count:].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_first_tokens_alone_attend_to_all_tokens(dtype):
    model, batch = tiny_model("bert").to(dtype), random_batch(LENGTHS[2:])
    model.classifier.float()
    with torch.no_grad():
        expected = read_out(model, embed(model, batch), batch, 0)
    with pretended_gpu() as gpu, torch.no_grad():
        model.to("cuda")
        moved = batch.to(torch.device("cuda", 0))
        vectors = read_out(model, embed(model, moved), moved, 0)
        assert not gpu.mistakes
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(vectors, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("model_type", ["deberta-v2", "electra", "albert", "nomic_bert", "roberta"])
def test_other_architectures_compute_the_same_on_a_gpu(model_type):
    model, batch = tiny_model(model_type), random_batch(LENGTHS[2:])
    with torch.no_grad():
        expected = forward(model, batch)
    with pretended_gpu() as gpu, torch.no_grad():
        model.to("cuda")
        logits = forward(model, batch.to(torch.device("cuda", 0)))
        assert not gpu.mistakes
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)


def test_the_kernel_is_chosen_by_gpu_dtype_head_size_window_and_dropout():
    def chosen(capability, dtype, size=64, window=None, rate=0.0, has_flash=True):
        built = mock.patch.object(torch.backends.cuda, "is_flash_attention_available", return_value=has_flash)
        with pretended_gpu(capability) as gpu, built:
            states = gpu.mark(torch.zeros(8, 1, size, dtype=dtype))
            kernel = fused_kernel(states, batch.to(torch.device("cuda", 0)), window, rate)
        return None if kernel is None else kernel.__name__

    batch = random_batch([5, 3])
    assert chosen((8, 0), torch.bfloat16, rate=0.1) == chosen((9, 0), torch.float16, window=5) == "_flash"
    assert chosen((8, 0), torch.float32) == chosen((7, 5), torch.float16) == "_efficient"
    assert chosen((8, 0), torch.float32, window=5) is None
    assert chosen((8, 0), torch.float32, rate=0.1) is chosen((7, 5), torch.float16, rate=0.1) is None  # its gradient
    assert chosen((8, 0), torch.bfloat16, has_flash=False) is None  # a build without its kernels
    assert chosen((7, 5), torch.float16, window=5) is None
    assert chosen((8, 0), torch.bfloat16, size=20) is None
    assert chosen((8, 0), torch.bfloat16, size=256) is None
    assert fused_kernel(torch.zeros(8, 1, 64), batch, None, 0.0) is None


def test_dropout_of_a_fused_kernel_is_drawn_again_for_its_gradient():
    """With all values 1 and all keys equal, an output is the sum of the kept weights, and so is the values' gradient."""
    batch = random_batch([40, 24])
    query, key = (torch.zeros(64, 1, 8, dtype=torch.bfloat16) for _ in range(2))
    value = torch.ones(64, 1, 8, dtype=torch.bfloat16, requires_grad=True)
    with pretended_gpu() as gpu:
        packing = build_packing(batch.to(torch.device("cuda", 0)))
        kernel = fused_kernel(gpu.mark(query), packing.batch, None, 0.5)
        assert kernel is not None
        with deterministic(torch.device("cuda", 0)):
            mixed = kernel(query, gpu.mark(key), gpu.mark(value), packing.bounds(), 0.5, 1.0, None)
            mixed.sum().backward()
    assert mixed.std() > 0.05
    assert value.grad is not None
    assert value.grad.float().sum().item() == pytest.approx(mixed.float().sum().item(), rel=0.02)


def test_grids_with_a_window_have_the_masks_of_before():
    """The mask is left out exactly where no key is hidden."""
    grids = build_packing(random_batch([32, 32, 20])).masks(None)
    assert grids[0] is not None  # one grid of three rows, the last of them padded
    assert build_packing(random_batch([32, 32])).masks(None) == [None]
    assert build_packing(random_batch([32, 32])).masks(32) == [None]
    assert build_packing(random_batch([32, 32])).masks(31)[0] is not None
