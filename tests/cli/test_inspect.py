"""inspect: lengths before truncation, tokens of examples, and a page that holds all of it without training."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.tiny import toy_texts


@pytest.fixture
def long_csv(tmp_path):
    """Two classes; one text of 200 words, and one with unknown words."""
    texts, labels = toy_texts(80, np.random.default_rng(0))
    texts[7], texts[9] = "good " * 200, "an <b>unheard</b> thing"
    path = tmp_path / "long.csv"
    pd.DataFrame({"text": texts, "label": np.where(labels == 1, "positive", "negative")}).to_csv(path, index=False)
    return path


def test_lengths_are_counted_before_truncation(tuneoff, long_csv, encoder):
    printed = tuneoff("inspect", long_csv, "--model", encoder, "--max-length", "16")[1]
    assert "longest 202; 1.2 % truncated at 16" in printed
    assert "max_length 32 truncates 1.2 % of train" in printed
    stored = json.loads(tuneoff("inspect", long_csv, "--model", encoder, "--json")[1])
    lengths = stored["lengths"][encoder]["train"]
    assert (lengths["max"], lengths["before"]["all"]["max"]) == (128, 202)
    assert [cut["max_length"] for cut in lengths["before"]["cuts"]] == [32, 64, 96, 128, 192, 256, 384, 512]
    assert stored["characters"]["text"]["train"]["all"]["max"] == 1000
    assert {part["label"] for part in stored["vocabulary"]["classes"]} == {"negative", "positive"}
    assert [example["reason"] for example in stored["token_examples"]["examples"]] == [
        "shortest",
        "median length",
        "longest",
        "has an unknown piece",
    ]


def test_tokens_are_printed(tuneoff, long_csv, encoder):
    printed = tuneoff("inspect", long_csv, "--model", encoder, "--max-length", "16", "--tokens")[1]
    assert "[CLS] (id 2) is at position 0 of every sequence, checked in all splits." in printed
    assert "train example 7 · longest · label positive · 202 tokens · 186 cut" in printed
    assert "[CLS] 2  good" in printed
    assert printed.count("✂") >= 3
    assert " more …" in printed


def test_tokens_of_given_rows_are_printed(tuneoff, long_csv, encoder):
    printed = tuneoff("inspect", long_csv, "--model", encoder, "--rows", "train:9,train:3-4")[1]
    lines = [line for line in printed.splitlines() if line.startswith("train example")]
    assert [line.split(" · ")[0] for line in lines] == ["train example 9", "train example 3", "train example 4"]
    assert "[UNK] 1" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rows", "train:80"], "row 80 is not in train, which has 80 examples; give a row from 0 to 79"),
        (["--rows", "test:1"], "split 'test' is unknown; choose from train"),
        (["--rows", "7"], "rows '7' are not split:row or split:first-last"),
        (["--max-length", "65"], "max_length 65 is above the limit of"),
    ],
)
def test_a_mistake_is_one_line(tuneoff, long_csv, encoder, options, message):
    code, _, error = tuneoff("inspect", long_csv, "--model", encoder, *options)
    assert (code, error.count("\n")) == (2, 1)
    assert message in error


def test_the_page_has_figures_without_training(tuneoff, long_csv, encoder, tmp_path):
    tuneoff("inspect", long_csv, "--model", encoder, "--max-length", "16", "--report", "data.html")
    page = (tmp_path / "data.html").read_text()
    charts = ["labels", "lengths", "lengths-box", "truncation", "characters-text", "characters-box", "class-lengths"]
    for chart in [*charts, "words-class-0", "words-class-1"]:
        assert f'data-chart="{chart}"' in page
    for table in ("lengths", "truncation", "characters", "class-lengths", "words-by-split", "distinctive-words"):
        assert f'id="table-{table}"' in page
    assert "max_length 32 is the smallest that truncates at most 5 % of the training texts" in page
    assert '<span class="special" title="position 0, special"><b>[CLS]</b><i>2</i></span>' in page
    assert '<span class="cut" title="position 15, cut"><b>good</b>' in page
    assert " more …</span>" in page
    assert "<b>unheard" not in page
    assert not (tmp_path / "results").exists()


def test_the_page_of_pairs_has_both_texts(tuneoff, encoder, tmp_path):
    texts, labels = toy_texts(40, np.random.default_rng(0))
    frame = pd.DataFrame({"premise": texts, "hypothesis": texts[::-1], "label": labels})
    frame.to_csv(tmp_path / "pairs.csv", index=False)
    columns = ["--text", "premise", "--text-pair", "hypothesis"]
    assert tuneoff("inspect", "pairs.csv", *columns, "--model", encoder, "--report", "data.html")[0] == 0
    page = (tmp_path / "data.html").read_text()
    assert "<th>second text</th>" in page.replace('<th class="words">', "<th>")
    assert 'data-chart="characters-text_pair"' in page
