"""A token table holds what the tokenizer says, flat; batches are slices of it."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.tiny import toy_texts, word_tokenizer
from tuneoff.data.batches import by_length, filled, pack, training_order
from tuneoff.data.encode import encode_split


@pytest.fixture
def table():
    texts, labels = toy_texts(37, np.random.default_rng(0))
    return pa.table({"text": texts, "label": labels})


def test_tokens_are_the_tokenizers(table):
    tokenizer = word_tokenizer()
    encoded = encode_split(table, tokenizer, 8)
    expected = tokenizer(table["text"].to_pylist(), truncation=True, max_length=8)["input_ids"]
    found = [encoded.ids[a:b].tolist() for a, b in zip(encoded.offsets, encoded.offsets[1:], strict=False)]
    assert found == expected
    whole = tokenizer(table["text"].to_pylist())["input_ids"]
    assert encoded.is_truncated.tolist() == [len(ids) > 8 for ids in whole]
    assert encoded.is_truncated.any()
    assert not encoded.is_truncated.all()
    assert encoded.segments is None


def test_pairs_have_segments(table):
    pairs = table.append_column("text_pair", table["text"])
    encoded = encode_split(pairs, word_tokenizer(), 64)
    expected = word_tokenizer()(*[pairs[name].to_pylist() for name in ("text", "text_pair")])
    assert encoded.segments.tolist() == [t for types in expected["token_type_ids"] for t in types]


def test_the_cache_is_used_again_and_not_mixed_up(table, monkeypatch):
    first = encode_split(table, word_tokenizer(), 16)
    monkeypatch.setattr("tuneoff.data.encode._write", None)  # a second write would fail
    again = encode_split(table, word_tokenizer(), 16)
    assert again.fingerprint == first.fingerprint
    with pytest.raises(TypeError):
        encode_split(table, word_tokenizer(), 17)


def test_the_fingerprint_forgets_earlier_calls(table):
    tokenizer = word_tokenizer()
    prints = [encode_split(table, tokenizer, length).fingerprint for length in (16, 8, 16)]
    assert prints[0] == prints[2] != prints[1]
    assert encode_split(table, word_tokenizer(), 16).fingerprint == prints[0]


def test_a_batch_is_slices_end_to_end(table):
    encoded = encode_split(table, word_tokenizer(), 32)
    batch = pack(encoded, np.array([5, 0, 11]))
    parts = [encoded.ids[encoded.offsets[i] : encoded.offsets[i + 1]] for i in (5, 0, 11)]
    count = sum(map(len, parts))
    assert batch.num_tokens == count
    assert batch.ids[0, :count].tolist() == np.concatenate(parts).tolist()
    assert batch.positions[0, :count].tolist() == np.concatenate([np.arange(len(p)) for p in parts]).tolist()
    assert batch.lengths.tolist() == [len(p) for p in parts]
    assert batch.labels.tolist() == encoded.labels[[5, 0, 11]].tolist()
    assert (batch.ids[0, batch.starts] == torch.tensor(2)).all()  # [CLS]


@pytest.mark.parametrize("count", [1, 15, 16, 17, 435, 512, 513, 5000])
def test_a_batch_is_filled_up_to_a_size_that_comes_often(count):
    rows = filled(np.arange(3, 3 + count))
    assert (rows[:count] == np.arange(3, 3 + count)).all()
    assert (rows[count:] == 3).all()
    assert len(rows) % 16 == 0
    assert len(rows) < count + max(16, count / 16)


def test_an_epoch_visits_every_example_once_in_an_order_of_its_own():
    lengths = np.random.default_rng(0).integers(3, 30, 37)
    batches = {key: list(training_order(lengths, 8, *key)) for key in ((0, 0), (0, 1), (1, 0))}
    batches["again"] = list(training_order(lengths, 8, 0, 0))
    epochs = [np.concatenate(batches[key]) for key in ((0, 0), "again", (0, 1), (1, 0))]
    assert all((np.diff(lengths[batch]) <= 0).all() for batch in batches["again"])
    assert all(sorted(order) == list(range(37)) for order in epochs)
    assert (epochs[0] == epochs[1]).all()
    assert (epochs[0] != epochs[2]).any()
    assert (epochs[0] != epochs[3]).any()


def test_evaluation_batches_hold_every_example_once_within_the_limit():
    lengths = np.random.default_rng(0).integers(1, 60, 200)
    batches = list(by_length(lengths, 128))
    assert sorted(np.concatenate(batches)) == list(range(200))
    assert all(len(b) == 1 or len(b) * lengths[b].max() <= 128 for b in batches)
