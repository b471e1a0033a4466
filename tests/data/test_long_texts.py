"""Texts beyond the longest sequence: what of them is read, against transformers' own tokenizers and models."""

import copy

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.tiny import WORDS, tiny_model, word_tokenizer
from tuneoff.data.batches import pack
from tuneoff.data.encode import Reading, encode_split
from tuneoff.encoder.packed import forward, use_packed_attention
from tuneoff.engine.feed import Feed, logits, merged, predict, with_prefix
from tuneoff.errors import ConfigError

RNG = np.random.default_rng(0)
TEXTS = [" ".join(RNG.choice(WORDS, size)) for size in (3, 40, 14, 15, 29, 200)]
TABLE = pa.table({"text": pa.array(TEXTS, pa.large_string()), "label": [0, 1, 0, 1, 0, 1]})


def sequences(encoded):
    return [encoded.ids[a:b].tolist() for a, b in zip(encoded.offsets, encoded.offsets[1:], strict=False)]


def test_the_tail_is_what_truncation_from_the_left_leaves():
    tokenizer = word_tokenizer()
    tokenizer.truncation_side = "left"
    expected = tokenizer(TEXTS, truncation=True, max_length=16)["input_ids"]
    assert sequences(encode_split(TABLE, word_tokenizer(), Reading(16, "tail"))) == expected


def test_both_ends_are_a_quarter_of_the_head_and_the_rest_of_the_tail():
    whole = word_tokenizer()(TEXTS)["input_ids"]
    encoded = encode_split(TABLE, word_tokenizer(), Reading(16, "head_tail"))
    assert sequences(encoded) == [ids if len(ids) <= 16 else ids[:4] + ids[-12:] for ids in whole]
    assert encoded.is_truncated.tolist() == [len(ids) > 16 for ids in whole]


def test_windows_are_transformers_overflowing_ones():
    tokenizer = word_tokenizer()
    encoded = encode_split(TABLE, tokenizer, Reading(16, "windows", overlap=0.25, max_windows=5))
    found = tokenizer(TEXTS, truncation=True, max_length=16, stride=4, return_overflowing_tokens=True)
    owners = np.array(found["overflow_to_sample_mapping"])
    expected = [
        [ids for ids, owner in zip(found["input_ids"], owners, strict=True) if owner == text][:5] for text in range(6)
    ]
    assert sequences(encoded) == [ids for windows in expected for ids in windows]
    assert encoded.counts.tolist() == [len(windows) for windows in expected]
    assert encoded.counts.tolist() == [1, 4, 1, 2, 3, 5]
    assert encoded.lengths.tolist() == [sum(map(len, windows)) for windows in expected]
    assert encoded.is_truncated.tolist() == [False] * 5 + [True]
    assert len(encoded) == 6


def test_an_overlap_always_leaves_room_for_new_tokens():
    encoded = encode_split(TABLE, word_tokenizer(), Reading(4, "windows", overlap=0.8, max_windows=1000))
    assert encoded.counts.max() < 1000


@pytest.mark.parametrize("long_texts", ["head_tail", "windows"])
def test_pairs_are_not_read_in_ways_that_need_one_text(long_texts):
    pairs = TABLE.append_column("text_pair", TABLE["text"])
    with pytest.raises(
        ConfigError, match=f"long_texts {long_texts} reads one text, and the data has pairs; use head or tail"
    ):
        encode_split(pairs, word_tokenizer(), Reading(16, long_texts))


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    model = tiny_model("bert", vocab_size=len(WORDS) + 5).eval()
    plain = copy.deepcopy(model)
    plain.set_attn_implementation("eager")
    use_packed_attention(model)
    return model, plain


@pytest.fixture(scope="module")
def windows():
    return encode_split(TABLE, word_tokenizer(), Reading(16, "windows", max_windows=5))


def test_logits_are_the_mean_of_those_of_the_windows(models, windows):
    (model, plain), singles = models, []
    with torch.no_grad():
        for text in range(6):
            found = sequences(windows)[windows.windows[text] : windows.windows[text + 1]]
            each = [
                plain(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)).long()).logits
                for ids in found
            ]
            singles.append(torch.cat(each).mean(0).numpy())
        examples = np.array([5, 0, 3])
        together = logits(model, Feed(windows), examples)[0].numpy()
    np.testing.assert_allclose(predict(model, Feed(windows)), np.stack(singles), atol=1e-5)
    np.testing.assert_allclose(together, np.stack(singles)[examples], atol=1e-5)


@pytest.mark.parametrize("frozen", [1, 2])
def test_windows_of_frozen_blocks_come_from_the_cache_as_they_were(models, windows, frozen):
    model, _ = models
    feed = with_prefix(model, windows, frozen, f"windows-{frozen}", torch.float32)
    assert feed.states is not None
    np.testing.assert_allclose(predict(model, feed), predict(model, Feed(windows)), atol=1e-5)


def test_a_gradient_through_windows_is_that_of_the_mean(models, windows):
    (model, _), examples = models, np.array([1, 2])
    answers, _ = logits(model, Feed(windows), examples)
    answers[0].sum().backward()
    weight = model.classifier.weight
    found, weight.grad = weight.grad.clone(), None
    alone = pack(windows, examples[:1])
    merged(forward(model, alone), alone)[0].sum().backward()
    torch.testing.assert_close(found, weight.grad)
    weight.grad = None
