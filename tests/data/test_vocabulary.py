"""Vocabulary: words are counted as written, variety does not depend on size, and planted words tell the classes apart."""

import numpy as np
import pyarrow as pa
import pytest

from tests.tiny import BAD, FILLER, GOOD, toy_texts
from tuneoff.data import vocabulary
from tuneoff.data.dataset import Dataset
from tuneoff.data.vocabulary import describe_vocabulary, moving_type_token_ratio


def dataset(fingerprint, pairs=None, **splits):
    """A dataset of splits of (texts, labels)."""
    tables = {
        split: pa.table({"text": pa.array(texts, pa.large_string()), "label": np.array(labels)})
        for split, (texts, labels) in splits.items()
    }
    if pairs:
        tables["train"] = tables["train"].append_column("text_pair", pa.array(pairs, pa.large_string()))
    return Dataset("made", tables, ("bad", "good"), (), fingerprint)


@pytest.mark.parametrize("window", [1, 3, 7, 40, 500])
def test_the_moving_average_is_that_of_all_windows(window):
    words = np.random.default_rng(0).integers(0, 12, 40)
    size = min(window, len(words))
    ratios = [len(set(words[start : start + size])) / size for start in range(len(words) - size + 1)]
    assert moving_type_token_ratio(words, window) == pytest.approx(np.mean(ratios))


def test_the_moving_average_does_not_depend_on_the_number_of_words():
    words = np.random.default_rng(0).zipf(1.5, 40_000)
    ratios = [len(np.unique(words[:size])) / size for size in (2_000, 40_000)]
    moving = [moving_type_token_ratio(words[:size]) for size in (2_000, 40_000)]
    assert ratios[0] > 2 * ratios[1]
    assert moving[0] == pytest.approx(moving[1], rel=0.05)


def test_words_that_train_lacks():
    splits = dataset("unseen", train=(["The film, the story.", "A film"], [0, 1]), test=(["the music music"], [0]))
    found = describe_vocabulary(splits).splits
    assert (found["train"].words, found["train"].types, found["train"].unseen_types) == (6, 4, None)
    assert found["train"].type_token_ratio == pytest.approx(4 / 6)
    assert (found["test"].unseen_types, found["test"].unseen_words) == (0.5, pytest.approx(2 / 3))


def test_planted_words_are_distinctive_and_stop_words_are_not_frequent():
    described = describe_vocabulary(dataset("planted", train=toy_texts(400, np.random.default_rng(0))))
    bad, good = described.classes
    assert {term.text for term in bad.distinctive_words} == set(BAD)
    assert {term.text for term in good.distinctive_words} == set(GOOD)
    assert all(term.log_odds > 0 for term in [*bad.distinctive_words, *bad.distinctive_bigrams])
    assert {word for term in good.distinctive_bigrams for word in term.text.split()} <= {*GOOD, *FILLER}
    assert "the" not in {term.text for term in good.frequent_words}
    assert good.texts == 200


def test_words_without_a_difference_are_not_distinctive():
    texts, _ = toy_texts(400, np.random.default_rng(0))
    labels = np.random.default_rng(1).integers(0, 2, 400)
    classes = describe_vocabulary(dataset("noise", train=(texts, labels))).classes
    assert sum(len(part.distinctive_words) for part in classes) <= 2


def test_no_bigram_reaches_into_the_second_text():
    texts = ["film story"] * 20
    described = describe_vocabulary(dataset("pair", ["music actors"] * 20, train=(texts, np.arange(20) % 2)))
    assert {term.text for term in described.classes[0].frequent_bigrams} == {"film story", "music actors"}
    assert described.splits["train"].words == 80


def test_negations_and_characters_of_chinese_are_words():
    texts = ["It isn't good, not good", "它不好 good"] * 10
    described = describe_vocabulary(dataset("words", train=(texts, np.arange(20) % 2)))
    assert described.splits["train"].words == 10 * (5 + 4)
    assert {"not", "isn't"} <= {term.text for term in described.classes[0].frequent_words}


def test_texts_without_words():
    described = describe_vocabulary(dataset("none", train=(["!!!", "???"] * 4, [0, 1] * 4)))
    assert described.classes == []
    assert described.splits["train"].type_token_ratio == 0


def test_a_large_split_is_sampled(monkeypatch):
    monkeypatch.setattr(vocabulary, "_MAX_TEXTS", 50)
    texts = toy_texts(200, np.random.default_rng(0))
    described = describe_vocabulary(dataset("sampled", train=texts, test=toy_texts(20, np.random.default_rng(1))))
    assert described.is_sampled
    assert [part.texts for part in described.splits.values()] == [50, 20]
    assert sum(part.texts for part in described.classes) == 50
