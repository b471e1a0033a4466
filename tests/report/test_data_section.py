"""The data section: figures of lengths, tokens and words, folded away in a report; earlier studies have fewer."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.stored import stored_study
from tests.tiny import toy_texts, word_tokenizer
from tuneoff.data.describe import describe
from tuneoff.data.load import load_dataset
from tuneoff.data.spec import DataSpec, TruncationPolicy
from tuneoff.data.tokens import tokenize
from tuneoff.files import read_json, write_json
from tuneoff.report.section import Details, TableBlock, Text
from tuneoff.report.sections.data import data_section, data_sections
from tuneoff.report.sections.data_lengths import class_blocks, class_lengths, cuts, token_profiles
from tuneoff.report.write import markdown

POLICY = TruncationPolicy(6)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return described(tmp_path_factory.mktemp("data"), num_labels=2)


def described(folder, num_labels, encoders=("m",)):
    texts, labels = toy_texts(60 * num_labels, np.random.default_rng(0))
    labels = labels if num_labels == 2 else np.arange(len(texts)) % num_labels
    pd.DataFrame({"text": texts, "label": labels}).to_csv(folder / "toy.csv", index=False)
    dataset = load_dataset(DataSpec(source=str(folder / "toy.csv")), evaluate=None)
    tokenizers = {encoder: word_tokenizer() for encoder in encoders}
    tokens = {encoder: tokenize(dataset, tokenizers[encoder], POLICY) for encoder in encoders}
    return describe(dataset, tokens, tokenizers, POLICY)


def tables(section):
    return {table.name: table for table in section.tables()}


def test_a_report_folds_away_what_a_page_of_data_shows(data):
    section = data_section(data, POLICY)
    summaries = [block.summary for block in section.blocks if isinstance(block, Details)]
    assert summaries == [
        "Lengths in characters",
        "Lengths by class",
        "Some training examples",
        "Tokens of some examples",
        "Vocabulary and words by class",
    ]
    pages = data_sections(data, POLICY)
    assert not [block for part in pages for block in part.blocks if isinstance(block, Details)]
    assert set(tables(section)) == {name for part in pages for name in tables(part)}


def test_texts_and_words_are_not_in_the_published_report(data):
    text = markdown("made", [data_section(data, POLICY)])
    assert data.first_examples[0]["text"] not in text
    assert "distinctive" not in text.replace("more frequent", "")
    assert "| split | texts | words |" in text  # counts are
    page_only = {
        block.table.name
        for block in data_section(data, POLICY).every_block()
        if isinstance(block, TableBlock) and block.is_page_only
    }
    assert page_only == {"samples", "distinctive-words", "frequent-words"}


def test_the_table_of_cuts_names_encoders_if_there_are_two(data, tmp_path):
    both = described(tmp_path, 2, encoders=("m", "n"))
    assert [column.key for column in cuts(token_profiles(both)).columns][:2] == ["encoder", "max_length_tokens"]
    assert len(cuts(token_profiles(both)).rows) == 2 * len(cuts(token_profiles(data)).rows)
    keys = [block.text for block in data_section(both, POLICY).blocks if isinstance(block, Text) and block.is_key]
    assert [key.split(":")[0] for key in keys] == ["m", "n"]


def test_many_classes_show_the_longest_and_the_shortest(tmp_path):
    many = described(tmp_path, 30)
    assert "10 classes with the longest medians and the 10 with the shortest" in str(class_blocks(many))
    assert len(class_lengths(many).rows) == 30


def test_a_study_of_an_earlier_version_shows_what_it_stored(tmp_path):
    study = stored_study(tmp_path / "s", [("full", "full", 0.9), ("lora", "lora", 0.7)])
    stored = read_json(study.folder / "data.json")
    for part in ("characters", "token_examples", "vocabulary"):
        del stored[part]
    write_json(study.folder / "data.json", stored)
    section = data_section(study.comparison().data, study.spec.recipe.truncation)
    assert {"data", "lengths"} == set(tables(section))
    assert "after truncation" in str(section.blocks)
    assert [block.summary for block in section.blocks if isinstance(block, Details)] == ["Some training examples"]


def test_one_encoder_without_lengths_before_truncation_shows_all_after_it(data):
    old = replace(data.lengths["m"]["train"], before=None)
    mixed = replace(data, lengths={"old": {"train": old}, **data.lengths})
    assert "after truncation" in str(data_section(mixed, POLICY).blocks)
