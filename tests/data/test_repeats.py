"""Near-repeated texts: which pairs count, and that no similar pair is missed."""

import numpy as np
import pyarrow as pa
import pytest

from tests.tiny import WORDS
from tuneoff.data.repeats import repeated_texts

TWEET = "RT @user the club has signed a new player from the second league for next season, says the coach today"


def pairs(texts, **columns):
    equal, similar = repeated_texts(pa.table({"text": texts, **columns}))
    return {tuple(sorted((int(i), int(j)))) for kind in (equal, similar) for i, j in zip(*kind, strict=True)}


@pytest.mark.parametrize(
    ("text", "is_repeat"),
    [
        (TWEET.upper(), True),
        (f"{TWEET}!!!  https://t.co/abc", True),
        (TWEET.replace("@user", "@someone"), True),
        (f"{TWEET} #football #news", True),
        (TWEET.replace("second", "third"), True),
        (TWEET.replace("second", "third").replace("player", "keeper"), False),
        ("the club has signed a new player", False),
        ("an entirely different text about the weather in the north, which is cold and wet again today", False),
    ],
)
def test_a_text_repeats_another_if_little_is_changed(text, is_repeat):
    assert pairs(["nothing of the sort", TWEET, text]) == ({(1, 2)} if is_repeat else set())


@pytest.mark.parametrize(
    "texts", [["5 of 10", "9 of 10"], ["!!!", "???"], ["good", "good film"], ["room 12 is cold", "room 13 is cold"]]
)
def test_short_texts_repeat_each_other_only_if_they_are_equal(texts):
    assert pairs(texts) == set()
    assert pairs([*texts, texts[0]]) == {(0, 2)}


def test_of_pairs_both_texts_are_compared():
    assert pairs(["a b c", "a b c", "a b c"], text_pair=["yes", "no", "yes"]) == {(0, 2)}


@pytest.mark.parametrize(("texts", "least"), [("short", 50), ("long", 200)])
def test_no_similar_pair_is_missed(texts, least):
    texts = {"short": texts_of_two_words, "long": edited_texts}[texts]()
    sets = [{tuple(words[i : i + 3]) for i in range(len(words) - 2)} for words in texts]
    expected = {
        (i, j)
        for j in range(len(sets))
        for i in range(j)
        if texts[i] != texts[j] and len(sets[i] & sets[j]) >= 0.7 * len(sets[i] | sets[j])
    }
    joined = [" ".join(words) for words in texts]
    first = {joined.index(text) for text in joined}  # of equal texts the first is compared
    assert len(expected) > least
    assert {pair for pair in pairs(joined) if joined[pair[0]] != joined[pair[1]]} == {
        (i, j) for i, j in expected if {i, j} <= first
    }


def texts_of_two_words():
    rng = np.random.default_rng(0)
    return [list(rng.choice(WORDS[:2], rng.integers(6, 14))) for _ in range(300)]  # many similar pairs


def edited_texts():
    """Texts of more shingles than a bitmap has bits, with up to eight words changed: around the limit of similarity."""
    rng, texts = np.random.default_rng(0), []
    for _ in range(30):
        first = rng.integers(300, size=90)
        for num_changed in range(9):
            words = first.copy()
            words[rng.integers(90, size=num_changed)] = rng.integers(300, size=num_changed)
            texts.append([f"w{word}" for word in words])
    return texts
