"""Tokens of single examples: what is marked as kept is what training reads."""

import numpy as np
import pyarrow as pa
import pytest

from tests.tiny import WORDS, word_tokenizer
from tuneoff.data.dataset import Dataset
from tuneoff.data.pieces import check_rows, kept_tokens, parse_rows, tokenized_examples
from tuneoff.data.spec import TruncationPolicy
from tuneoff.data.tokens import tokenize, tokenize_in_memory
from tuneoff.errors import ConfigError

SIZES = [3, 30, 5, 7, 6]


def words(count):
    return " ".join(WORDS[i % len(WORDS)] for i in range(count))


def dataset(texts, label=None):
    table = pa.table(
        {"text": pa.array(texts, pa.large_string()), "label": np.zeros(len(texts), int) if label is None else label}
    )
    return Dataset("made", {"train": table, "test": table.slice(0, 2)}, ("a", "b"), (), "f" * 16)  # fmt: skip


@pytest.mark.parametrize("max_length", [6, 9, 16, 64])
@pytest.mark.parametrize(
    ("long_texts", "sizes"),
    [("head", [30]), ("tail", [30]), ("head_tail", [30]), ("head", [20, 9]), ("tail", [4, 30]), ("head", [5, 5])],
)
def test_kept_tokens_are_those_that_training_reads(long_texts, sizes, max_length):
    tokenizer, policy = word_tokenizer(), TruncationPolicy(max_length, long_texts)
    texts = [words(size) for size in sizes]
    columns = dict(zip(("text", "text_pair"), ([text] for text in texts), strict=False))
    read = tokenize_in_memory(pa.table(columns), tokenizer, policy)
    tokenizer.backend_tokenizer.no_truncation()
    whole = np.array(tokenizer(*texts)["input_ids"])
    assert whole[kept_tokens(tokenizer, texts, policy)].tolist() == read.ids.tolist()


@pytest.mark.parametrize(("overlap", "max_windows", "size"), [(0.25, 2, 30), (0.5, 3, 30), (0.0, 2, 9), (0.25, 8, 30)])
def test_tokens_in_no_window_are_cut(overlap, max_windows, size):
    tokenizer = word_tokenizer()
    policy = TruncationPolicy(8, "windows", overlap, max_windows)
    text = " ".join(f"word{i}" for i in range(size))
    tokenizer.add_tokens([f"word{i}" for i in range(size)])  # so that windows can be told apart
    read = set(tokenize_in_memory(pa.table({"text": [text]}), tokenizer, policy).ids.tolist())
    whole = np.array(tokenizer(text)["input_ids"])
    assert set(whole[kept_tokens(tokenizer, [text], policy)].tolist()) == read


def test_typical_examples_are_chosen_by_their_length_before_truncation():
    data, tokenizer, policy = (
        dataset([*map(words, SIZES), "a strange word was in it with actors"]),
        word_tokenizer(),
        TruncationPolicy(6),
    )
    shown = tokenized_examples(data, "m", tokenizer, tokenize(data, tokenizer, policy), policy)
    reasons = {example.reason: example.example for example in shown.examples}
    assert reasons == {"shortest": 0, "median length": 3, "longest": 1, "has an unknown piece": 5}
    assert (shown.first_token, shown.first_id, shown.first_share) == ("[CLS]", 2, 1.0)
    longest, strange = shown.examples[2], shown.examples[3]
    assert (longest.num_tokens, longest.num_cut) == (32, 26)
    assert [piece.marks for piece in longest.pieces[:2]] == [("special",), ()]
    assert longest.pieces[10].marks == ("cut",)
    assert (strange.num_unknown, strange.pieces[2].text, strange.pieces[2].marks) == (2, "[UNK]", ("unknown",))


def test_a_long_example_shows_its_ends_and_where_it_is_cut():
    data, tokenizer, policy = dataset([words(1000)]), word_tokenizer(), TruncationPolicy(256)
    example = tokenized_examples(data, "m", tokenizer, tokenize(data, tokenizer, policy), policy).examples[0]
    positions = [piece.position for piece in example.pieces]
    assert len(positions) < 150
    assert {0, 254, 255, 256, 1001} <= set(positions)
    assert example.num_cut == 1002 - 256


def test_given_rows_are_shown_and_multilabel_names_are_joined():
    labels = pa.FixedSizeListArray.from_arrays(pa.array([1, 1, 0, 0], pa.int64()), 2)
    data, tokenizer, policy = dataset([words(3), words(4)], labels), word_tokenizer(), TruncationPolicy(8)
    shown = tokenized_examples(
        data, "m", tokenizer, tokenize(data, tokenizer, policy), policy, [("train", 0), ("test", 1)]
    )
    assert [(e.split, e.example, e.label) for e in shown.examples] == [("train", 0, "a, b"), ("test", 1, "no label")]


def test_rows_are_parsed():
    assert parse_rows("train:5, test:17-19") == [("train", 5), ("test", 17), ("test", 18), ("test", 19)]


@pytest.mark.parametrize("text", ["5", "train", "train:x", "train:7-5", "train:-1", "train:1-"])
def test_rows_that_cannot_be_parsed(text):
    with pytest.raises(ConfigError, match=r"are not split:row or split:first-last; write e\.g\. train:5"):
        parse_rows(text)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("train:5", "row 5 is not in train, which has 5 examples; give a row from 0 to 4"),
        ("dev:0", "split 'dev' is unknown"),
    ],
)
def test_rows_that_are_not_there(rows, message):
    with pytest.raises(ConfigError, match=message):
        check_rows(dataset([*map(words, SIZES)]), parse_rows(rows))
