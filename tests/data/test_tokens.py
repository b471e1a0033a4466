"""A token table holds the tokenizer's own tokens, flat; the cache is keyed by everything that determines them."""

import itertools

import numpy as np
import pyarrow as pa
import pytest

from tests.tiny import WORDS, toy_texts, word_tokenizer
from tuneoff.data.tokens import tokenize_split


@pytest.fixture
def table():
    texts, labels = toy_texts(37, np.random.default_rng(0))
    return pa.table({"text": texts, "label": labels})


def test_tokens_are_those_of_the_tokenizer(table):
    tokenizer = word_tokenizer()
    tokens = tokenize_split(table, tokenizer, 8)
    expected = tokenizer(table["text"].to_pylist(), truncation=True, max_length=8)["input_ids"]
    assert [tokens.ids[a:b].tolist() for a, b in itertools.pairwise(tokens.offsets)] == expected
    whole = tokenizer(table["text"].to_pylist())["input_ids"]
    assert tokens.is_truncated.tolist() == [len(ids) > 8 for ids in whole]
    assert tokens.is_truncated.any()
    assert not tokens.is_truncated.all()
    assert tokens.segments is None


def test_tokens_of_many_chunks_are_in_the_order_of_texts():
    texts = [" ".join(WORDS[i % 7 : i % 7 + 1 + i % 5]) for i in range(20_500)]  # 21 chunks, the last one short
    tokens = tokenize_split(pa.table({"text": texts, "label": np.zeros(len(texts), int)}), word_tokenizer(), 16)
    expected = word_tokenizer()(texts)["input_ids"]
    assert tokens.offsets.tolist() == np.cumsum([0, *map(len, expected)]).tolist()
    assert tokens.ids.tolist() == list(itertools.chain.from_iterable(expected))


def test_pairs_have_segments(table):
    pairs = table.append_column("text_pair", table["text"])
    tokens = tokenize_split(pairs, word_tokenizer(), 64)
    expected = word_tokenizer()(*[pairs[name].to_pylist() for name in ("text", "text_pair")])
    assert tokens.segments is not None
    assert tokens.segments.tolist() == list(itertools.chain.from_iterable(expected["token_type_ids"]))


def test_tokens_come_from_the_cache_for_equal_settings_only(table):
    first = tokenize_split(table, word_tokenizer(), 16)
    again = tokenize_split(table, word_tokenizer(), 16)
    assert again.fingerprint == first.fingerprint
    assert again.seconds == first.seconds  # of the one time that they were computed
    assert tokenize_split(table, word_tokenizer(), 17).fingerprint != first.fingerprint


def test_the_fingerprint_ignores_earlier_calls_of_the_tokenizer(table):
    tokenizer = word_tokenizer()
    fingerprints = [tokenize_split(table, tokenizer, length).fingerprint for length in (16, 8, 16)]
    assert fingerprints[0] == fingerprints[2] != fingerprints[1]
    assert tokenize_split(table, word_tokenizer(), 16).fingerprint == fingerprints[0]
