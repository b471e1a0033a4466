"""Encoder against data: a tokenizer of English words meets English, German, unknown characters and long texts."""

import pandas as pd
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.data.frames import load
from tuneoff.data.doctor.encoder_fit import _reference_texts, encoder_fit, fit_findings, truncation_findings
from tuneoff.data.spec import TruncationPolicy
from tuneoff.data.tokens import tokenize

ENGLISH = "The children were playing in the garden of the old house"
GERMAN = "Die Kinder haben gestern im Garten hinter dem alten Haus gespielt"


@pytest.fixture(scope="module")
def tokenizer():
    """Word pieces: the English words of the reference and of the texts, and all letters."""
    words = f"{_reference_texts()['en'][1]} {ENGLISH}".lower().replace(".", " .").split()
    letters = [chr(code) for code in range(33, 383)]
    pieces = dict.fromkeys(["[UNK]", *words, *letters, *[f"##{letter}" for letter in letters]])
    backend = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")


def dataset(texts):
    return load(pd.DataFrame({"text": [f"{text} ." for text in texts], "label": [i % 2 for i in range(len(texts))]}))


def test_texts_that_the_tokenizer_was_made_for_have_no_finding(tokenizer):
    fit = encoder_fit(dataset([ENGLISH] * 60), "tiny", tokenizer)
    assert fit_findings(fit) == []
    assert fit.pieces_per_word == 1
    assert fit.best == ("English", 1.0)
    assert fit.made_for == ("English",)
    assert fit.scripts == {"Latin": 1.0}
    assert fit.text.startswith("1.0 pieces a word (English: 1.0), no unknown pieces; texts: ")


def test_texts_in_another_language_are_named_with_their_share(tokenizer):
    pytest.importorskip("py3langid")
    fit = encoder_fit(dataset([ENGLISH] * 30 + [GERMAN] * 30), "tiny", tokenizer)
    (finding,) = fit_findings(fit)
    assert finding.line.startswith(
        "language of the encoder: texts in German (50 %), and the tokenizer of tiny cuts them"
    )
    assert "it was made for English, and cuts English into 1.0; try a multilingual encoder, or one for German" in (
        finding.line
    )
    assert finding.harm == pytest.approx(0.5)


def test_without_the_detector_the_pieces_are_compared(tokenizer, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "py3langid.langid", None)
    (finding,) = fit_findings(encoder_fit(dataset([GERMAN] * 60), "tiny", tokenizer))
    assert finding.kind == "vocabulary of the encoder"


def test_unknown_pieces_are_named(tokenizer):
    (finding,) = fit_findings(encoder_fit(dataset([f"{ENGLISH} 😀 😀 ☃"] * 30), "tiny", tokenizer))
    assert finding.kind == "unknown pieces"
    assert "in 100 % of the texts: “😀”, “☃”" in finding.text


def test_other_scripts_are_measured(tokenizer):
    fit = encoder_fit(dataset([f"{ENGLISH} привет 你好 こんにちは"] * 30), "tiny", tokenizer)
    assert set(fit.scripts) == {"Latin", "Cyrillic", "Chinese", "Japanese"}


def test_truncation_of_more_than_a_twentieth_is_named_with_the_cost_of_a_longer_maximum(tokenizer):
    data = dataset([ENGLISH] * 50 + [" ".join([ENGLISH] * 4)] * 10)
    fit = encoder_fit(data, "tiny", tokenizer)
    for policy, longest, advice in (
        (TruncationPolicy(16), None, "max_length 64 truncates 0 % and reads 1.4 times the tokens"),
        (TruncationPolicy(16), 32, "max_length 32 truncates 17 % and reads 1.2 times the tokens"),
        (TruncationPolicy(16), 16, "read long texts in windows"),
    ):
        (finding,) = truncation_findings(fit, {"tiny": tokenize(data, tokenizer, policy)}["tiny"], policy, longest)
        assert finding.kind == "truncation"
        assert "is truncated to the first 16 tokens of tiny" in finding.text
        assert finding.advice.startswith(advice)
        assert finding.harm == finding.details["truncated"]["test"]
    policy = TruncationPolicy(64)
    assert truncation_findings(fit, tokenize(data, tokenizer, policy), policy, None) == []
