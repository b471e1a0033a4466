"""Lengths before truncation: whole texts are counted, outliers are points, and every max_length has its consequence."""

import numpy as np
import pyarrow as pa
import pytest

from tests.tiny import WORDS, word_tokenizer
from tuneoff.data.dataset import Dataset
from tuneoff.data.lengths import Cut, character_profiles, cut_at, full_lengths, recommended_length, token_profiles
from tuneoff.data.spec import TruncationPolicy
from tuneoff.data.tokens import tokenize, tokenize_split

SIZES = [1, 2, 3, 5, 8, 13, 40, 3, 3, 2]


def dataset(sizes=SIZES, is_pair=False, labels=None):
    """Texts of some numbers of words in train, and the first five of them in test."""
    texts = [" ".join(WORDS[i % len(WORDS)] for i in range(size)) for size in sizes]
    columns = {
        "text": pa.array(texts, pa.large_string()),
        "label": np.arange(len(sizes)) % 2 if labels is None else labels,
    }
    columns |= {"text_pair": pa.array(texts[::-1], pa.large_string())} if is_pair else {}
    table = pa.table(columns)
    return Dataset("made", {"train": table, "test": table.slice(0, 5)}, ("a", "b"), (), str(sizes)[:16])


@pytest.mark.parametrize("long_texts", ["head", "tail", "head_tail", "windows"])
def test_whole_texts_are_counted_whatever_was_truncated(long_texts):
    data, tokenizer = dataset(), word_tokenizer()
    tokens = tokenize_split(data.splits["train"], tokenizer, TruncationPolicy(8, long_texts))
    assert full_lengths(data.splits["train"], tokens, tokenizer).tolist() == [size + 2 for size in SIZES]
    assert max(tokens.lengths) != max(SIZES) + 2


def test_both_texts_of_a_pair_count():
    data, tokenizer = dataset(is_pair=True), word_tokenizer()
    tokens = tokenize_split(data.splits["train"], tokenizer, 8)
    expected = [first + second + 3 for first, second in zip(SIZES, SIZES[::-1], strict=True)]
    assert full_lengths(data.splits["train"], tokens, tokenizer).tolist() == expected
    assert list(character_profiles(data)) == ["text", "text_pair"]


def test_a_profile_has_outliers_classes_and_cuts():
    data, tokenizer = dataset(), word_tokenizer()
    profiles = token_profiles(data, tokenize(data, tokenizer, 8), tokenizer)
    train = profiles["train"]
    assert (train.all.max, train.all.num_outliers, train.all.outliers) == (42, 1, [42])
    assert train.all.box[0] == 3
    assert train.all.box[-1] == 15  # the last length within 1.5 interquartile ranges
    assert [spread and spread.examples for spread in train.by_class] == [5, 5]
    assert train.cuts[0] == Cut(32, 0.1, 10 / 100)
    assert sum(train.histogram.examples) == len(SIZES)  # those beyond the last edge are in the last bin
    assert profiles["test"].by_class == []


def test_a_class_without_examples_has_no_lengths():
    profiles = character_profiles(dataset(labels=np.zeros(len(SIZES), int)))
    assert profiles["text"]["train"].by_class[1] is None


def test_points_of_many_outliers_are_bounded_and_hold_the_longest():
    sizes = [5] * 900 + list(range(50, 150))
    spread = character_profiles(dataset(sizes))["text"]["train"].all
    assert spread.num_outliers == 100
    assert len(spread.outliers) == 50
    assert spread.outliers[-1] == spread.max


def test_the_recommended_length_truncates_at_most_a_twentieth():
    lengths = np.array([10] * 95 + [100] * 5)
    assert recommended_length([cut_at(lengths, size) for size in (8, 32, 64, 128)]) == cut_at(lengths, 32)
    assert recommended_length([cut_at(lengths + 600, size) for size in (32, 512)]) is None
