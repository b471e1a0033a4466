"""Truncation of texts above the maximum length, against transformers' own tokenizers and models."""

import copy
import itertools

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.tiny import WORDS, tiny_model, word_tokenizer
from tuneoff.data.batches import pack
from tuneoff.data.spec import TruncationPolicy
from tuneoff.data.tokens import tokenize_split
from tuneoff.encoder.anatomy import output_layer
from tuneoff.encoder.packed import forward, use_packed_attention
from tuneoff.engine.inputs import SplitInputs, average_windows, batch_logits, cached_prefix_inputs, predict_logits
from tuneoff.errors import ConfigError

RNG = np.random.default_rng(0)
TEXTS = [" ".join(RNG.choice(WORDS, size)) for size in (3, 40, 14, 15, 29, 200)]
TABLE = pa.table({"text": pa.array(TEXTS, pa.large_string()), "label": [0, 1, 0, 1, 0, 1]})


def sequences(tokens):
    return [tokens.ids[start:end].tolist() for start, end in itertools.pairwise(tokens.offsets)]


def test_the_tail_is_truncation_from_the_left():
    tokenizer = word_tokenizer()
    tokenizer.truncation_side = "left"
    expected = tokenizer(TEXTS, truncation=True, max_length=16)["input_ids"]
    assert sequences(tokenize_split(TABLE, word_tokenizer(), TruncationPolicy(16, "tail"))) == expected


def test_head_tail_is_a_quarter_from_the_start_and_the_rest_from_the_end():
    whole = word_tokenizer()(TEXTS)["input_ids"]
    tokens = tokenize_split(TABLE, word_tokenizer(), TruncationPolicy(16, "head_tail"))
    assert sequences(tokens) == [ids if len(ids) <= 16 else ids[:4] + ids[-12:] for ids in whole]
    assert tokens.is_truncated.tolist() == [len(ids) > 16 for ids in whole]


def test_windows_are_the_overflowing_tokens_of_transformers():
    tokenizer = word_tokenizer()
    tokens = tokenize_split(TABLE, tokenizer, TruncationPolicy(16, "windows", overlap=0.25, max_windows=5))
    overflowing = tokenizer(TEXTS, truncation=True, max_length=16, stride=4, return_overflowing_tokens=True)
    owners = overflowing["overflow_to_sample_mapping"]
    expected = [
        [ids for ids, owner in zip(overflowing["input_ids"], owners, strict=True) if owner == text][:5]
        for text in range(6)
    ]
    assert sequences(tokens) == [ids for windows in expected for ids in windows]
    assert tokens.counts.tolist() == [len(windows) for windows in expected] == [1, 4, 1, 2, 3, 5]
    assert tokens.lengths.tolist() == [sum(map(len, windows)) for windows in expected]
    assert tokens.is_truncated.tolist() == [False] * 5 + [True]
    assert len(tokens) == 6


def test_every_window_has_new_tokens_at_the_largest_overlap():
    tokens = tokenize_split(TABLE, word_tokenizer(), TruncationPolicy(4, "windows", overlap=0.8, max_windows=1000))
    assert tokens.counts.tolist() == [
        max(1, len(text.split()) - 1) for text in TEXTS
    ]  # two words each, one of them new
    assert not tokens.is_truncated.any()


@pytest.mark.parametrize("long_texts", ["head_tail", "windows"])
def test_pairs_are_refused_by_policies_for_single_texts(long_texts):
    pairs = TABLE.append_column("text_pair", TABLE["text"])
    message = f"long_texts {long_texts} is for single texts, and the data has pairs; use head or tail"
    with pytest.raises(ConfigError, match=message):
        tokenize_split(pairs, word_tokenizer(), TruncationPolicy(16, long_texts))


@pytest.fixture(scope="module", params=["bert", "mpnet", "deberta-v2"])
def models(request):
    """A model with packed attention, and the same one as transformers runs it."""
    model = tiny_model(request.param, vocab_size=len(WORDS) + 5).eval()
    plain = copy.deepcopy(model)
    if request.param == "bert":
        plain.set_attn_implementation("eager")
    use_packed_attention(model)
    return model, plain


@pytest.fixture(scope="module")
def windows():
    return tokenize_split(TABLE, word_tokenizer(), TruncationPolicy(16, "windows", max_windows=5))


def test_logits_are_the_mean_over_windows(models, windows):
    model, plain = models
    expected = []
    with torch.no_grad():
        for start, end in itertools.pairwise(windows.windows):
            of_windows = [plain(input_ids=torch.tensor([ids])).logits for ids in sequences(windows)[start:end]]
            expected.append(torch.cat(of_windows).mean(0).numpy())
        examples = np.array([5, 0, 3])
        of_batch = batch_logits(model, SplitInputs(windows), examples)[0].numpy()
    np.testing.assert_allclose(predict_logits(model, SplitInputs(windows)), np.stack(expected), atol=1e-5)
    np.testing.assert_allclose(of_batch, np.stack(expected)[examples], atol=1e-5)


@pytest.mark.parametrize("frozen", [1, 2])
def test_cached_frozen_blocks_give_the_logits_of_windows(models, windows, frozen):
    model, _ = models
    inputs = cached_prefix_inputs(model, windows, frozen, f"windows-{frozen}-{model.config.model_type}", torch.float32)
    assert inputs.states is not None
    np.testing.assert_allclose(predict_logits(model, inputs), predict_logits(model, SplitInputs(windows)), atol=1e-5)


def test_the_gradient_of_an_example_in_a_batch_is_that_of_its_mean_over_windows(models, windows):
    (model, _), examples = models, np.array([1, 2])
    weight = output_layer(model).weight
    logits, _ = batch_logits(model, SplitInputs(windows), examples)
    (in_batch,) = torch.autograd.grad(logits[0].sum(), weight)
    single = pack(windows, examples[:1])
    (by_itself,) = torch.autograd.grad(average_windows(forward(model, single), single)[0].sum(), weight)
    torch.testing.assert_close(in_batch, by_itself)
