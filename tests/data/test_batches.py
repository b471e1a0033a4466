"""Batches are slices of a token table, in buckets; orders of examples lose none."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.tiny import toy_texts, word_tokenizer
from tuneoff.data.batches import length_sorted_batches, pack, pad_to_bucket, training_batches
from tuneoff.data.tokens import tokenize_split


def test_a_batch_is_slices_of_the_table_end_to_end():
    texts, labels = toy_texts(37, np.random.default_rng(0))
    tokens = tokenize_split(pa.table({"text": texts, "label": labels}), word_tokenizer(), 32)
    batch = pack(tokens, np.array([5, 0, 11]))
    parts = [tokens.ids[tokens.offsets[i] : tokens.offsets[i + 1]] for i in (5, 0, 11)]
    count = sum(map(len, parts))
    assert batch.num_tokens == count
    assert batch.ids[0, :count].tolist() == np.concatenate(parts).tolist()
    assert batch.positions[0, :count].tolist() == np.concatenate([np.arange(len(p)) for p in parts]).tolist()
    assert batch.lengths.tolist() == [len(p) for p in parts]
    assert batch.labels.tolist() == tokens.labels[[5, 0, 11]].tolist()
    assert (batch.ids[0, batch.starts] == torch.tensor(2)).all()  # [CLS]


@pytest.mark.parametrize("count", [1, 15, 16, 17, 435, 512, 513, 5000])
def test_a_bucket_adds_less_than_16_tokens_or_a_sixteenth(count):
    tokens = pad_to_bucket(np.arange(3, 3 + count))
    assert (tokens[:count] == np.arange(3, 3 + count)).all()
    assert (tokens[count:] == 3).all()
    assert len(tokens) % 16 == 0
    assert len(tokens) < count + max(16, count / 16)


def test_there_are_few_bucket_sizes():
    assert len({len(pad_to_bucket(np.zeros(count))) for count in range(1024, 2049)}) == 17


def test_an_epoch_visits_every_example_once_in_an_order_of_seed_and_epoch():
    lengths = np.random.default_rng(0).integers(3, 30, 37)
    batches = {key: list(training_batches(lengths, 8, *key)) for key in ((0, 0), (0, 1), (1, 0))}
    again = list(training_batches(lengths, 8, 0, 0))
    orders = {key: np.concatenate(of_key) for key, of_key in batches.items()}
    assert all((np.diff(lengths[batch]) <= 0).all() for batch in again)
    assert all(sorted(order) == list(range(37)) for order in orders.values())
    assert (np.concatenate(again) == orders[0, 0]).all()
    assert (orders[0, 0] != orders[0, 1]).any()
    assert (orders[0, 0] != orders[1, 0]).any()


def test_length_sorted_batches_hold_every_example_once_within_the_limit():
    lengths = np.random.default_rng(0).integers(1, 160, 200)
    batches = list(length_sorted_batches(lengths, 128))
    assert sorted(np.concatenate(batches)) == list(range(200))
    assert (np.diff(lengths[np.concatenate(batches)]) <= 0).all()
    assert all(len(batch) == 1 or len(batch) * lengths[batch].max() <= 128 for batch in batches)
