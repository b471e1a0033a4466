"""What is planted in the errors is found there, and nothing else is."""

import numpy as np
import pytest

from tuneoff.comparison import errors


def test_error_rates_by_length_hold_every_example_once():
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 60, 900)
    shares = np.where(lengths > 40, 0.5, 0.1)
    found = errors.by_length(lengths, shares)
    assert found["examples"].sum() == 900
    assert (found["longest"].to_numpy()[:-1] < found["shortest"].to_numpy()[1:]).all()
    assert found["rate"].iloc[0] == pytest.approx(0.1)
    assert found["rate"].iloc[-1] == pytest.approx(0.5)
    assert found["low"].iloc[-1] < 0.5 < found["high"].iloc[-1]
    assert (found["examples"] @ found["rate"]) == pytest.approx(shares.sum())


def test_texts_of_one_length_are_one_piece():
    found = errors.by_length(np.full(10, 7), np.zeros(10))
    assert found[["shortest", "longest", "examples"]].values.tolist() == [[7, 7, 10]]


def planted(count=2000, seed=0):
    """Texts of common and rare words; those with 'not' are wrong more often."""
    rng = np.random.default_rng(seed)
    vocabulary = [f"word{i}" for i in range(200)]
    frequency = 1 / np.arange(1, 201)
    texts = [" ".join(rng.choice(vocabulary, 8, p=frequency / frequency.sum())) for _ in range(count)]
    has_not = rng.random(count) < 0.1
    texts = [f"not {text}" if held else text for text, held in zip(texts, has_not, strict=True)]
    return texts, (rng.random(count) < np.where(has_not, 0.5, 0.2)).astype(float)


def test_a_planted_word_comes_first_and_chance_is_not_called_a_finding():
    texts, shares = planted()
    found = errors.words(texts, shares)
    assert found["word"].iloc[0] == "not"
    assert found["low"].iloc[0] > 0
    odds = np.log((0.5 / 0.5) / (0.2 / 0.8))
    assert found["log_odds"].iloc[0] == pytest.approx(odds, abs=0.5)
    assert (found["q"] < 0.05).sum() <= 2


def test_intervals_of_words_hold_what_is_true():
    held = [
        (found["low"] <= 0).to_numpy() & (found["high"] >= 0).to_numpy()
        for seed in range(5)
        for found in [errors.words(planted(seed=seed)[0], np.random.default_rng(seed).random(2000) < 0.3)]
    ]
    assert np.mean(np.concatenate(held)) > 0.93


def test_intervals_of_words_that_most_texts_hold_hold_what_is_true():
    rng = np.random.default_rng(0)
    held = []
    for _ in range(150):
        texts = [f"{'the ' if rng.random() < 0.9 else ''}filler" for _ in range(400)]
        found = errors.words(texts, (rng.random(400) < 0.3).astype(float)).set_index("word").loc["the"]
        held.append(found["low"] <= 0 <= found["high"])
    assert 0.9 <= np.mean(held) <= 1


def test_without_words_there_is_nothing_to_say():
    assert len(errors.words(["!", "?", "..."], np.zeros(3))) == 0
    assert "word" in errors.words([""], np.ones(1))


def test_overlap_by_hand():
    found = errors.overlap({"a": np.array([1, 1, 0, 0.5]), "b": np.array([1, 0, 0, 0.5]), "c": np.zeros(4)})
    shared = {(row["one"], row["other"]): row["shared"] for _, row in found.iterrows()}
    assert shared["a", "b"] == pytest.approx(1.5 / 2.5)
    assert shared["a", "b"] == shared["b", "a"]
    assert (shared["a", "a"], shared["a", "c"], shared["c", "c"]) == (1, 0, 1)


def test_planted_label_errors_are_found():
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=600)
    probabilities = np.full((600, 3), 0.1)
    probabilities[np.arange(600), truth] = 0.8
    probabilities = rng.dirichlet([1, 1, 1], 600) * 0.2 + probabilities * 0.8
    labels = truth.copy()
    labels[:30] = (labels[:30] + 1) % 3
    found = errors.likely_label_errors(labels, probabilities)
    # only those that reach what their class usually has are named, which is about half
    assert set(found["example"]) <= set(range(30))
    assert len(found) >= 10
    assert (found["likely"].to_numpy() == truth[found["example"]]).all()


def test_a_class_without_examples_is_never_likely():
    probabilities = np.tile([0.2, 0.3, 0.5], (4, 1))
    assert len(errors.likely_label_errors(np.array([0, 1, 0, 1]), probabilities).query("likely == 2")) == 0


def answers_of(predicted, num_labels=2, sure=0.9):
    """What runs say, (S, N), as sure of it as given."""
    predicted = np.asarray(predicted)
    chances = np.full((*predicted.shape, num_labels), (1 - sure) / (num_labels - 1))
    np.put_along_axis(chances, predicted[..., None], sure, axis=-1)
    return errors.Answers(predicted, chances)


def test_what_most_seeds_say_counts_and_likelihood_where_they_are_equal():
    found = answers_of([[0, 1, 1, 0], [0, 1, 0, 1], [0, 0, 0, 1]])
    assert found.most.tolist() == [0, 1, 0, 1]
    assert found.shares(np.array([0, 1, 1, 1])).tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1 / 3])
    undecided = errors.Answers(np.array([[0], [1]]), np.array([[[0.6, 0.4]], [[0.1, 0.9]]]))
    assert undecided.most.tolist() == [1]


def test_examples_are_counted_by_how_many_strategies_miss_them():
    labels = np.array([0, 1, 0, 1])
    answers = {
        "right": answers_of([[0, 1, 0, 1]]),
        "half": answers_of([[0, 1, 1, 0]]),
        "most frequent": answers_of([[0, 0, 0, 0]]),
    }
    found = errors.analyse(labels, answers, {"most frequent"}, ["one two", "three", "four", "five"])
    assert found.joint == ("right", "half")
    assert found.missed_by.tolist() == [2, 2, 0]
    assert set(found.by_length["group"]) == set(answers)
    assert found.length_unit == "words"
    alone = errors.analyse(labels, {"most frequent": answers["most frequent"]}, {"most frequent"}, [])
    assert alone.joint == ("most frequent",)
    assert len(alone.words) == len(alone.by_length) == 0


def test_confidence_is_told_apart_by_right_and_wrong():
    labels = np.array([0, 0, 1, 1])
    found = errors.analyse(labels, {"one": answers_of([[0, 0, 0, 0]], sure=0.7)}, set(), []).confidence.set_index("of")
    assert found.loc["wrong", "median"] == pytest.approx(0.7)
    assert found.loc["margin", "median"] == pytest.approx(0.4)
    assert found["examples"].to_dict() == {"right": 2, "wrong": 2, "margin": 2}


def test_languages_without_spaces_are_counted_in_characters():
    assert errors.lengths_of(["two words", "and three words"])[0] == "words"
    unit, lengths = errors.lengths_of(["这是一个没有空格的很长的句子它会一直写下去直到结束为止", "短"])
    assert (unit, lengths.tolist()) == ("characters", [27, 1])
