"""Words that are planted in errors are found, over all strategies and for each, and hardly any other is."""

import numpy as np
import pytest

from tuneoff.comparison.words import over_represented_words, words_by_group


def draw_texts(count=2000, seed=0):
    """Texts of frequent and rare words, a tenth with "not", and error rates: 0.5 with it, 0.2 without."""
    rng = np.random.default_rng(seed)
    vocabulary = [f"word{i}" for i in range(200)]
    frequency = 1 / np.arange(1, 201)
    texts = [" ".join(rng.choice(vocabulary, 8, p=frequency / frequency.sum())) for _ in range(count)]
    has_not = rng.random(count) < 0.1
    texts = [f"not {text}" if is_planted else text for text, is_planted in zip(texts, has_not, strict=True)]
    return texts, (rng.random(count) < np.where(has_not, 0.5, 0.2)).astype(float)


def test_a_planted_word_is_first_and_hardly_any_other_is_significant():
    words = over_represented_words(*draw_texts())
    assert words["word"].iloc[0] == "not"
    assert words["low"].iloc[0] > 0
    assert words["log_odds"].iloc[0] == pytest.approx(np.log((0.5 / 0.5) / (0.2 / 0.8)), abs=0.5)
    assert (words["q"] < 0.05).sum() <= 2


def test_intervals_of_log_odds_cover_0_for_random_errors():
    is_covered = []
    for seed in range(5):
        texts, _ = draw_texts(seed=seed)
        words = over_represented_words(texts, np.random.default_rng(seed).random(2000) < 0.3)
        is_covered.append((words["low"] <= 0).to_numpy() & (words["high"] >= 0).to_numpy())
    assert np.mean(np.concatenate(is_covered)) > 0.93


def test_intervals_of_log_odds_cover_0_for_a_word_in_most_texts():
    rng = np.random.default_rng(0)
    is_covered = []
    for _ in range(150):
        texts = [f"{'the ' if rng.random() < 0.9 else ''}filler" for _ in range(400)]
        words = over_represented_words(texts, (rng.random(400) < 0.3).astype(float))
        word = words.set_index("word").loc["the"]
        is_covered.append(word["low"] <= 0 <= word["high"])
    assert np.mean(is_covered) >= 0.9


@pytest.mark.parametrize("texts", [["!", "?", "..."], [""]])
def test_texts_without_words_give_an_empty_table(texts):
    words = over_represented_words(texts, np.ones(len(texts)))
    assert len(words) == 0
    assert set(words) == set(over_represented_words(*draw_texts(50)))


def test_words_of_each_strategy_are_corrected_over_all_of_them():
    texts, planted = draw_texts()
    random = (np.random.default_rng(1).random(len(texts)) < 0.3).astype(float)
    table = words_by_group(texts, {"x": planted, "y": random})
    assert table["word"].iloc[0] == "not"
    assert table.groupby("word").size().eq(2).all()
    alone = over_represented_words(texts, planted)
    first = table[(table["word"] == "not") & (table["group"] == "x")]
    assert first["log_odds"].tolist() == alone["log_odds"].head(1).tolist()
    assert first["q"].max() < 0.05
    assert (table[table["group"] == "y"]["q"] < 0.05).sum() <= 1
    assert set(words_by_group(["!"], {"x": np.ones(1)})) == set(table)
