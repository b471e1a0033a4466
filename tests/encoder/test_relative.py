"""Packed attention with relative positions equals the model's own, in every variant, and the model stays what it is."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification

from tests.strategies.rows import STRATEGY_NAMES
from tests.studies import toy_spec
from tests.tiny import WORDS, padded, random_batch, tiny_model, word_tokenizer
from tests.training import adapted_model, toy_table
from tuneoff.cli.opening import opening
from tuneoff.encoder.anatomy import is_packed
from tuneoff.encoder.packed import _padded_states, classify, embed, forward, pool, read_out, run_blocks
from tuneoff.engine.inputs import SplitInputs, cached_prefix_inputs, predict_logits
from tuneoff.engine.precision import compute_dtype
from tuneoff.study import Study

# grids with rounded lengths of 96, 64 and 32
LENGTHS = [70, 66, 40, 33, 32, 31, 9, 3]
VARIANTS: dict[str, dict[str, Any]] = {
    "mpnet": {},
    "deberta-v2": {},
    "c2p": {"pos_att_type": ["c2p"]},
    "p2c": {"pos_att_type": ["p2c"]},
    "no terms": {"pos_att_type": []},
    "absolute positions": {"relative_attention": False, "pos_att_type": ["c2p"], "position_biased_input": True},
    "own projections": {"share_att_key": False},
    "a bucket per distance": {"position_buckets": 256},
    "no buckets": {"position_buckets": -1, "max_relative_positions": 20},
    "no norm": {"norm_rel_ebd": "none", "type_vocab_size": 2},
    "sizes": {"hidden_size": 24, "num_attention_heads": 3, "embedding_size": 8, "pooler_hidden_size": 24},
}


def variant(name, **changes):
    model_type = "mpnet" if name == "mpnet" else "deberta-v2"
    return tiny_model(model_type, max_position_embeddings=100, **VARIANTS[name], **changes)


def results(model, run, batch):
    """Logits and gradients."""
    model.zero_grad()
    logits = run(model, batch)
    F.cross_entropy(logits.float(), batch.labels).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return logits.detach(), gradients


def as_transformers(model, batch):
    return model(**padded(batch, model.config.pad_token_id)).logits


def assert_same(found, expected, **tolerance):
    tolerance = {"atol": 1e-5, "rtol": 1e-5, **tolerance}
    torch.testing.assert_close(found[0], expected[0], **tolerance)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in found[1].items():
        torch.testing.assert_close(gradient, expected[1][name], msg=name, **tolerance)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("lengths", [LENGTHS, LENGTHS[::-1], [32, 32], [1]], ids=str)
def test_grids_of_several_lengths_equal_a_padded_batch(name, lengths):
    model, batch = variant(name), random_batch(lengths)
    assert_same(results(model, forward, batch), results(model, as_transformers, batch))


@pytest.mark.parametrize("name", VARIANTS)
def test_first_tokens_alone_give_the_vectors_of_all_tokens_and_their_gradients(name):
    model, batch = variant(name), random_batch(LENGTHS)

    def on_all_tokens(model, batch):
        return classify(model, pool(model, run_blocks(model, embed(model, batch), batch, 0, 2), batch))

    def on_first_tokens(model, batch):
        return classify(model, read_out(model, embed(model, batch), batch, 0))

    assert_same(results(model, on_first_tokens, batch), results(model, on_all_tokens, batch))


@pytest.mark.parametrize("name", ["mpnet", "deberta-v2", "own projections", "a bucket per distance"])
def test_bf16_is_as_near_to_fp32_as_the_padded_model_in_bf16(name):
    model, batch = variant(name), random_batch(LENGTHS)
    exact = results(model, forward, batch)
    with compute_dtype(torch.bfloat16, model):
        ours = results(model, forward, batch)
        theirs = results(model, lambda m, b: classify(m, pool(m, _padded_states(m, b), b)), batch)

    def error(found):
        return sum((found[1][name].float() - gradient).norm() for name, gradient in exact[1].items()).item()

    assert error(ours) < 1.2 * error(theirs)
    torch.testing.assert_close(ours[0], exact[0], atol=0.03, rtol=0.03)


@pytest.mark.parametrize("model_type", ["mpnet", "deberta-v2"])
@pytest.mark.parametrize(
    "strategy", [name for name in STRATEGY_NAMES if name.startswith(("lora", "adapter", "bitfit", "peft"))]
)
def test_a_model_with_changed_layers_gives_the_logits_and_gradients_of_a_padded_batch(strategy, model_type):
    adapted, batch = adapted_model(strategy, model_type), random_batch([40, 33, 9, 3])
    for parameter in adapted.trainable.values():  # updates start at zero
        parameter.data += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    model = adapted.model.eval()
    assert_same(results(model, forward, batch), results(model, as_transformers, batch), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["mpnet", "deberta-v2"])
def test_attention_and_embeddings_of_distances_have_dropout_in_training_only(name):
    model, batch = variant(name, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3), random_batch([40, 9])
    assert torch.equal(forward(model, batch), forward(model, batch))
    model.train()
    torch.manual_seed(0)
    first, second = forward(model, batch), forward(model, batch)
    torch.manual_seed(0)
    assert torch.equal(forward(model, batch), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", ["mpnet", "deberta-v2"])
def test_what_is_saved_is_the_model_that_transformers_loads(name, tmp_path):
    model, batch = variant(name), random_batch(LENGTHS)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert loaded.config.to_diff_dict().keys() == model.config.to_diff_dict().keys()
    assert "acked" not in (tmp_path / "config.json").read_text()
    with torch.no_grad():
        torch.testing.assert_close(as_transformers(loaded, batch), forward(copy.deepcopy(model), batch))


@pytest.mark.parametrize("first_block", [1, 2])
@pytest.mark.parametrize("name", ["mpnet", "deberta-v2"])
def test_outputs_of_frozen_blocks_are_cached(name, first_block):
    model, table = variant(name, num_labels=2), toy_table()
    cached = cached_prefix_inputs(model, table, first_block, f"relative-{name}", torch.float32)
    assert cached.states is not None
    expected = predict_logits(model, SplitInputs(table))
    np.testing.assert_allclose(predict_logits(model, cached), expected, atol=1e-5)


def test_a_study_says_on_the_first_screen_that_an_encoder_runs_padded(toy_csv, tmp_path):
    for name, changes in (("packed", {}), ("padded", {"conv_kernel_size": 3})):
        folder = tmp_path / name
        tiny_model("deberta-v2", vocab_size=len(WORDS) + 5, **changes).base_model.save_pretrained(folder)
        word_tokenizer().save_pretrained(folder)
        spec = toy_spec(str(folder), toy_csv, strategies=["head"], seeds=[0], recipe={"max_length": 16})
        lines = opening(Study(spec, tmp_path / f"study {name}").plan())
        reason = f"! padded batches: {folder} cannot run packed, because its first block has a convolution over tokens"
        assert any(line.startswith(reason) for line in lines) == bool(changes)


def with_convolution():
    return tiny_model("deberta-v2", conv_kernel_size=3, max_position_embeddings=100)


def test_a_model_with_a_convolution_runs_on_padded_micro_batches_with_the_same_results():
    model = with_convolution()
    assert not is_packed(model.config)
    assert is_packed(tiny_model("deberta-v2").config)
    for lengths in (LENGTHS, [3, 70, 9, 66], [5]):
        batch = random_batch(lengths)
        assert_same(results(model, forward, batch), results(model, as_transformers, batch))


def test_micro_batches_are_of_like_length():
    model, shapes = with_convolution(), []
    model.deberta.register_forward_pre_hook(
        lambda module, arguments, options: shapes.append(tuple(options["input_ids"].shape)), with_kwargs=True
    )
    forward(model, random_batch(LENGTHS))
    assert sorted(shapes) == [(2, 40), (2, 70), (4, 32)]


def test_frozen_blocks_below_a_convolution_are_recomputed():
    inputs = cached_prefix_inputs(with_convolution(), toy_table(), 1, "convolution", torch.float32)
    assert inputs.states is None
