"""The stored description of data: it reads itself, and descriptions of earlier versions."""

import json

import numpy as np
import pandas as pd

from tests.tiny import toy_texts, word_tokenizer
from tuneoff.data.describe import DataDescription, describe
from tuneoff.data.load import load_dataset
from tuneoff.data.spec import DataSpec, TruncationPolicy
from tuneoff.data.tokens import tokenize


def description(tmp_path):
    texts, labels = toy_texts(60, np.random.default_rng(0))
    pd.DataFrame({"text": texts, "label": labels}).to_csv(tmp_path / "toy.csv", index=False)
    dataset = load_dataset(DataSpec(source=str(tmp_path / "toy.csv")), evaluate=None)
    tokenizer, policy = word_tokenizer(), TruncationPolicy(6)
    return describe(dataset, {"m": tokenize(dataset, tokenizer, policy)}, {"m": tokenizer}, policy)


def test_a_stored_description_reads_itself(tmp_path):
    described = description(tmp_path)
    stored = json.loads(json.dumps(described.to_json()))
    assert DataDescription.from_json(stored) == described
    assert described.vocabulary.classes
    assert described.lengths["m"]["train"].before.all.max > described.lengths["m"]["train"].max


def test_a_description_of_an_earlier_version_lacks_the_newer_parts(tmp_path):
    stored = description(tmp_path).to_json()
    for part in ("characters", "token_examples", "vocabulary"):
        del stored[part]
    del stored["lengths"]["m"]["train"]["before"]
    read = DataDescription.from_json(stored)
    assert (read.characters, read.token_examples, read.vocabulary) == ({}, None, None)
    assert read.lengths["m"]["train"].before is None
