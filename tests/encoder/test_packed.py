"""A model gives the same logits and gradients on packed and on padded batches."""

import copy

import pytest
import torch
from torch.nn import functional as F

from tests.tiny import CONFIGS, padded, random_batch, tiny_model
from tuneoff.encoder.anatomy import anatomy
from tuneoff.encoder.packed import forward

LENGTHS = [7, 1, 23, 12, 5]
WITH_SEGMENTS = {"bert", "ernie", "electra", "albert", "nomic_bert"}


def plain_copy(model):
    """A copy of a model that transformers runs in its own way."""
    copied = copy.deepcopy(model)
    if anatomy(model.config).relative is None:
        copied.set_attn_implementation("eager")
    return copied


@pytest.mark.parametrize("is_pair", [False, True])
@pytest.mark.parametrize("model_type", CONFIGS)
def test_packed_equals_padded(model_type, is_pair):
    model = tiny_model(model_type)
    batch = random_batch(LENGTHS, is_pair=is_pair and model_type in WITH_SEGMENTS)
    plain = plain_copy(model)

    logits = forward(model, batch)
    loss = F.cross_entropy(logits, batch.labels)
    loss.backward()
    expected = plain(**padded(batch, model.config.pad_token_id), labels=batch.labels)
    expected.loss.backward()

    torch.testing.assert_close(logits, expected.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loss, expected.loss, atol=1e-5, rtol=1e-5)
    gradients = dict(plain.named_parameters())
    for name, parameter in model.named_parameters():
        if gradients[name].grad is None:
            assert parameter.grad is None, name
        else:
            torch.testing.assert_close(parameter.grad, gradients[name].grad, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("model_type", ["bert", "modernbert"])
def test_packed_equals_padded_for_equal_lengths(model_type):
    model = tiny_model(model_type)
    batch = random_batch([12, 12, 12])
    expected = plain_copy(model)(**padded(batch, model.config.pad_token_id)).logits
    torch.testing.assert_close(forward(model, batch), expected, atol=1e-5, rtol=1e-5)


def test_packed_equals_padded_for_a_head_that_reads_the_mean():
    model = tiny_model("modernbert", classifier_pooling="mean")
    batch = random_batch(LENGTHS)
    expected = plain_copy(model)(**padded(batch, model.config.pad_token_id)).logits
    torch.testing.assert_close(forward(model, batch), expected, atol=1e-5, rtol=1e-5)


def test_the_logits_of_an_example_do_not_depend_on_its_neighbours():
    model = tiny_model("bert")
    single, pair = random_batch([9]), random_batch([9, 14])
    torch.testing.assert_close(forward(model, pair)[:1], forward(model, single), atol=1e-6, rtol=1e-5)
