"""Tags mark the texts that they describe, other languages and bad patterns are answered in one line, and nothing hangs."""

import time

import numpy as np
import pytest

from tuneoff.data import tags
from tuneoff.data.tags import BUILT_IN, Text, english_share, parse_tags, tag_texts
from tuneoff.errors import ConfigError

ENGLISH = "I think that this is what they said about it, and the end of the story was just like that."
EXAMPLES = [
    ("negation", "it is not funny", "it is funny"),
    ("negation", "I didn’t laugh", "I did laugh"),
    ("negation", "nobody laughed", "somebody laughed"),
    ("contrast", "slow, but charming", "slow and charming"),
    ("contrast", "Although it is slow, I liked it", "It is slow, I liked it"),
    ("hedging", "perhaps the best", "the best"),
    ("hedging", "a kind of magic", "of a kind that is rare"),
    ("sarcasm cue", "what a \"surprise\"", "what \"a nice surprise\" is"),
    ("sarcasm cue", "Yeah, right. So good.", "You are right. So good."),
    ("late polarity", "the first hour of this film with its many actors is boring", "this boring film has many actors in its first hour"),
    ("late polarity", "we all went to the place near the sea and it was wonderful", "it was wonderful"),
    ("mixed polarity", "good actors in a bad film", "good actors in a film"),
    ("neutral wording", "a film about a man", "a good film about a man"),
    ("question", "is it good?", "it is good"),
    ("number", "seen 2 times", "seen two times"),
    ("name", "we saw Anna there", "We saw it there. Then I left"),
    ("all caps", "this is GREAT", "this is OK in the US"),
    ("emoji", "so good 😀", "so good"),
    ("emoji", "so good :-)", "ratio 3:1"),
]  # fmt: skip


@pytest.mark.parametrize(("tag", "with_it", "without"), EXAMPLES)
def test_a_built_in_tag_marks_what_it_describes(tag, with_it, without):
    assert BUILT_IN[tag].matches(Text.of(with_it))
    assert not BUILT_IN[tag].matches(Text.of(without))


def test_polarity_words_are_of_one_polarity():
    assert not tags._POSITIVE & tags._NEGATIVE


@pytest.mark.parametrize(
    "text",
    [
        "Der Film ist nicht so schlecht, wie alle sagen, und ich war froh, dass ich ihn gesehen habe.",
        "Le film n'est pas aussi mauvais que tout le monde le dit, et on est content de l'avoir vu.",
        "De film is niet zo slecht als iedereen zegt en ik was blij dat ik hem gezien had.",
        "Filmen er ikke så dårlig, som alle siger, og jeg var glad for at have set den.",
        "这部电影没有大家说的那么糟糕",
    ],
)
def test_tags_for_english_are_off_for_other_languages_with_a_note(text):
    tagged = tag_texts([[text] * 30], {"mine": "film"})
    assert {"question", "number", "all caps", "emoji", "mine"} == set(tagged.masks)
    assert "do not look like English" in tagged.notes[0]
    assert "negation" in tagged.notes[0]
    assert english_share([text]) < 0.05 < 0.15 < english_share([ENGLISH])


def test_a_pattern_of_the_user_is_added_and_replaces_a_built_in_tag():
    tagged = tag_texts([[ENGLISH, "it is nicht funny and they said that"]], {"negation": "nicht", "says": "(?i)SAID"})
    assert tagged.masks["negation"].tolist() == [False, True]
    assert tagged.masks["says"].tolist() == [True, True]
    assert tagged.meanings["negation"] == "nicht"
    assert tagged.notes == ("Tag says matches every text, so that it compares nothing.",)


def test_either_text_of_a_pair_may_match():
    tagged = tag_texts([["it is not funny", ENGLISH, ENGLISH], [ENGLISH, "is it?", ENGLISH]], {})
    assert tagged.masks["negation"].tolist() == [True, False, False]
    assert tagged.masks["question"].tolist() == [False, True, False]


@pytest.mark.parametrize(("pattern", "word"), [("zebra", "no"), (".", "every")])
def test_a_tag_that_matches_nothing_or_everything_is_a_note(pattern, word):
    tagged = tag_texts([[ENGLISH] * 3], {"mine": pattern})
    assert tagged.notes == (f"Tag mine matches {word} text, so that it compares nothing.",)


def test_a_pattern_that_would_never_end_is_stopped(monkeypatch):
    monkeypatch.setattr(tags, "_SECONDS_PER_TEXT", 0.2)
    start = time.monotonic()
    tagged = tag_texts([[ENGLISH, "a" * 40 + "b"]], {"slow": "^(?:a|a)*$", "fine": "story"})
    assert time.monotonic() - start < 20
    assert tagged.notes == (
        "Tag slow was left out: its pattern took more than 0.2 s on test example 1; simplify its repeats of repeats.",
    )
    assert "slow" not in tagged.masks
    assert tagged.masks["fine"].tolist() == [True, False]


def test_a_pattern_that_is_slow_on_every_text_is_stopped(monkeypatch):
    monkeypatch.setattr(tags, "_SECONDS_PER_TAG", 0.0)
    tagged = tag_texts([[ENGLISH] * 3], {"slow": "story"})
    assert "more than 0 s on the test texts" in tagged.notes[0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"late": "(but"}, "tag 'late': '(but' is no regular expression: missing )"),
        ({"late": "*but"}, "is no regular expression: nothing to repeat"),
        ({"late": ""}, "tag 'late' has no pattern but ''; write e.g. late: "),
        ({"late": 3}, "tag 'late' has no pattern but 3"),
        ({"a/b": "x"}, "tag name 'a/b' is not 1 to 40 letters"),
        ({"": "x"}, "tag name ''"),
        (["late"], "tag 'late' is not name=pattern; write e.g. late_but="),
        (["late=x", "late=y"], "tag 'late' is given twice"),
        (3, "tags 3 are not name: pattern"),
    ],
)  # fmt: skip
def test_a_bad_tag_is_one_line(given, message):
    with pytest.raises(ConfigError) as error:
        parse_tags(given)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_tags_of_the_command_line_keep_equals_signs_and_commas():
    assert parse_tags(["a=b=c,d{1,2}", "late but=x"]) == {"a": "b=c,d{1,2}", "late but": "x"}
    assert parse_tags(None) == {}


def test_empty_texts_have_no_tag_but_neutral_wording():
    tagged = tag_texts([[ENGLISH, "", " "]], {})
    matched = {tag for tag, mask in tagged.masks.items() if mask[1:].any()}
    assert matched == {"neutral wording"}
    assert all(mask.dtype == np.bool_ for mask in tagged.masks.values())
