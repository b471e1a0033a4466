r"""Tags of phenomena in texts, such as negation or contrast: built-in ones, mostly for English, and patterns of users.

The built-in tags look words up in small lists made for this package, because a search for a hundred alternatives at
every character of a text takes minutes for a large test split. They are cues, not a parser: "not bad" has a negation
and a negative word. Users add regular expressions, which the library `regex` stops after a time limit: a pattern such
as ^(\w|\w\w)*$ takes longer than a lifetime on some texts.

# N texts
"""

import re
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tuneoff.errors import ConfigError, one_line

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_LAST_FIFTH = 0.8  # share of a text's words that stand before its last fifth
_MIN_WORDS = 8  # of a text with late polarity: a fifth of fewer is one word
# share of words that are English function words which other languages lack: 15 to 27 % in English captions, tweets and
# reviews, at most 4 % in ten other languages (docs/log.md)
_MIN_ENGLISH = 0.08
_LANGUAGE_SAMPLE = 2000  # texts
_SECONDS_PER_TEXT, _SECONDS_PER_TAG = 1.0, 30.0
_SHOWN_PATTERN = 60  # characters of a pattern in a message


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# without those that other languages of the same script use too, such as "is", "for" and "at"
_FUNCTION_WORDS = _words(
    "the of and to that it with they this from by but what were when your can said there which she their about out "
    "them then these would her him could been who its now are you just it's i'm don't how my than like two did not"
)
_NEGATIONS = _words(
    "not no never none neither nor cannot without hardly barely dont doesnt didnt isnt wasnt "
    "arent werent cant couldnt wont wouldnt shouldnt havent hasnt hadnt aint nope"
) | {"no" + word for word in ("body", "thing", "where")}
_CONTRASTS = _words(
    "but although though however yet despite nevertheless nonetheless whereas unless except otherwise instead albeit"
)
_HEDGES = _words(
    "maybe perhaps possibly probably might seems seem seemed appears apparently somewhat arguably presumably likely "
    "supposedly roughly almost fairly rather partly kinda sorta"
)
_POSITIVE = _words(
    "good great best better nice fine excellent wonderful fantastic amazing awesome brilliant superb perfect lovely "
    "beautiful beautifully charming delightful enjoyable enjoy enjoyed enjoys entertaining engaging funny fun "
    "hilarious love loved loves loving like liked likes "
    "happy glad pleased pleasant pleasure impressive impressed recommend "
    "recommended favorite favourite fresh clever smart witty compelling moving touching powerful strong sweet warm "
    "worth worthy thanks thank win wins won winner success successful excited exciting cool delicious easy helpful "
    "friendly outstanding remarkable satisfying solid thrilling terrific gorgeous hope hopeful proud well"
)
_NEGATIVE = _words(
    "bad worse worst awful terrible horrible poor poorly dull boring bored tedious weak flat stupid silly dumb mess "
    "messy waste wasted disappointing disappointed disappointment disappoints annoying annoyed ugly hate hated hates "
    "sad angry upset fail fails failed failure broken wrong lame bland predictable pointless unfunny ridiculous "
    "pathetic cheap slow stale tired tiresome sick painful pain hurt problem problems useless rude dirty lousy "
    "mediocre lacks lacking unfortunately sorry worry worried scared "
    "fear crap garbage trash rubbish nonsense empty forced "
    "clumsy confusing confused contrived shallow loses lost lose dead kill killed death disaster shame"
)
_NEGATED = re.compile(r"n['’]t\b", re.IGNORECASE)
_HEDGE_PHRASES = re.compile(
    r"\b(?:i (?:think|guess|suppose|believe)|(?:kind|sort) of|more or less|could be|may be|in a way)\b", re.IGNORECASE
)
_CONTRAST_PHRASES = re.compile(r"\b(?:on the other hand|even if|in spite of|rather than)\b", re.IGNORECASE)
_SARCASM_MARKS = re.compile(r"#(?:[Ss]arcas|[Ii]ron[yi])|(?<!\w)/s\b|[\"“‘]\s?[^\W\d_]+\s?[\"”’]|!\?|\?!")
_SARCASM_PHRASES = re.compile(  # of words in lower case
    r"\b(?:yeah (?:right|sure)|oh (?:right|sure|great|joy|good)|as if|thanks a (?:lot|bunch)"
    r"|big surprise|what an? (?:surprise|shock|joy|treat)"
    r"|how (?:original|nice|lovely|convenient|surprising)|so called|lol"
    r"|just what \w+ (?:need|want)(?:s|ed)?)\b"
)
_QUESTION = re.compile(r"[?¿？؟]")
_NUMBER = re.compile(r"\d")
# after a word or a comma, so that it does not begin a sentence
_NAME = re.compile(r"[^\W\d_,;'’][,;]?\s+(?!I['’])[A-Z][a-z]+")
_ALL_CAPS = re.compile(r"(?<![\w@#])[^\W\d_a-z]{3,}(?!\w)")
_EMOJI = re.compile(
    "[\U0001f300-\U0001faff\U0001f1e6-\U0001f1ff\u2600-\u27bf\u2b50\u2b55\u2764]"
    r"|(?<!\w)(?:[:;=8][-']?[)(\]\[DPpO3/\\|*]|<3|[xX]D)(?!\w)"
)


@dataclass(frozen=True)
class Text:
    """A text with its words in lower case, in order and as a set."""

    raw: str
    words: tuple[str, ...]
    vocabulary: frozenset[str] = field(compare=False)

    @classmethod
    def of(cls, raw: str) -> "Text":
        """Split a text into words."""
        words = tuple(_WORD.findall(raw.lower().replace("’", "'")))
        return cls(raw, words, frozenset(words))

    @property
    def line(self) -> str:
        """The words in lower case, without punctuation."""
        return " ".join(self.words)

    def has_any(self, words: frozenset[str]) -> bool:
        """Return True if one of the words is in the text."""
        return not self.vocabulary.isdisjoint(words)


@dataclass(frozen=True)
class Tag:
    """A built-in tag."""

    meaning: str  # for readers of a report
    matches: Callable[[Text], bool]
    is_english: bool = True  # False for a tag of any language


def _has_late_polarity(text: Text) -> bool:
    if len(text.words) < _MIN_WORDS:
        return False
    first = next((i for i, word in enumerate(text.words) if word in _POSITIVE or word in _NEGATIVE), None)
    return first is not None and first >= _LAST_FIFTH * len(text.words)


def _is_all_caps(text: Text) -> bool:
    return any(match.group().isupper() for match in _ALL_CAPS.finditer(text.raw))


BUILT_IN: dict[str, Tag] = {
    "negation": Tag("not, no, never, without, -n't", lambda t: t.has_any(_NEGATIONS) or bool(_NEGATED.search(t.raw))),
    "contrast": Tag(
        "but, although, however, despite, yet",
        lambda t: t.has_any(_CONTRASTS) or bool(_CONTRAST_PHRASES.search(t.raw)),
    ),
    "hedging": Tag(
        "maybe, perhaps, seems, somewhat, I think, kind of",
        lambda t: t.has_any(_HEDGES) or bool(_HEDGE_PHRASES.search(t.raw)),
    ),
    "sarcasm cue": Tag(
        'a word in quotation marks, "yeah right", "as if", ?!, #irony',
        lambda t: bool(_SARCASM_MARKS.search(t.raw) or _SARCASM_PHRASES.search(t.line)),
    ),
    "late polarity": Tag(
        "the first positive or negative word stands in the last fifth of a text of at least eight words",
        _has_late_polarity,
    ),
    "mixed polarity": Tag("a positive and a negative word", lambda t: t.has_any(_POSITIVE) and t.has_any(_NEGATIVE)),
    "neutral wording": Tag(
        "neither a positive nor a negative word", lambda t: not t.has_any(_POSITIVE) and not t.has_any(_NEGATIVE)
    ),
    "question": Tag("a question mark", lambda t: bool(_QUESTION.search(t.raw)), is_english=False),
    "number": Tag("a digit", lambda t: bool(_NUMBER.search(t.raw)), is_english=False),
    "name": Tag("a capitalised word within a sentence", lambda t: bool(_NAME.search(t.raw))),
    "all caps": Tag("a word of three or more capital letters", _is_all_caps, is_english=False),
    "emoji": Tag("an emoji or emoticon", lambda t: bool(_EMOJI.search(t.raw)), is_english=False),
}


@dataclass(frozen=True)
class TagMasks:
    """The texts that each tag matches, and notes on tags that were left out or say nothing."""

    masks: dict[str, np.ndarray]  # tag -> (N,) bool
    meanings: dict[str, str]
    notes: tuple[str, ...]


def parse_tags(given: Any) -> dict[str, str]:
    """Read tags of a user: a mapping of names and patterns, or a list of name=pattern.

    Raises ConfigError for a pattern that is no regular expression.
    """
    if given is None:
        return {}
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, (Mapping, list, tuple)):
        raise ConfigError(f"tags {given!r} are not name: pattern; write tags: {{late_but: '\\bbut\\b'}}")
    pairs = given.items() if isinstance(given, Mapping) else map(_split_tag, given)
    tags = {}
    for name, pattern in pairs:
        name = str(name).strip()
        if not re.fullmatch(r"\w[\w -]{0,39}", name):
            raise ConfigError(f"tag name {name!r} is not 1 to 40 letters, digits, spaces, _ or -; write e.g. late_but")
        if not isinstance(pattern, str) or not pattern:
            raise ConfigError(f"tag {name!r} has no pattern but {pattern!r}; write e.g. {name}: '\\bbut\\b'")
        if name in tags:
            raise ConfigError(f"tag {name!r} is given twice; give each tag a name of its own")
        _compile(name, pattern)
        tags[name] = pattern
    return tags


def _split_tag(given: Any) -> tuple[str, str]:
    name, equals, pattern = str(given).partition("=")
    if not equals:
        raise ConfigError(rf"tag {given!r} is not name=pattern; write e.g. late_but='\bbut\b'")
    return name, pattern


def _compile(name: str, pattern: str) -> Any:
    import regex  # its time limit is the reason; 20 ms that only studies with tags of their own need

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "possible nested set" of later versions
            return regex.compile(pattern)
    except (regex.error, OverflowError, RecursionError) as error:
        raise ConfigError(
            f"tag {name!r}: {_shown(pattern)!r} is no regular expression: {one_line(error)}; put a backslash before "
            r"characters such as ( [ * + ? that are meant literally"
        ) from None


def _shown(pattern: str) -> str:
    return pattern if len(pattern) <= _SHOWN_PATTERN else pattern[: _SHOWN_PATTERN - 1] + "…"


def tag_texts(columns: Sequence[Sequence[str]], patterns: Mapping[str, str]) -> TagMasks:
    """Match every tag on texts. columns: the texts, for pairs two columns of them, of which either may match.

    patterns: of the user; one with the name of a built-in tag replaces it. A pattern that exceeds its time limit is
    left out with a note, and so are tags for English on texts in other languages.
    """
    masks: dict[str, np.ndarray] = {}
    notes, has_english = [], is_english([text for column in columns for text in column[:_LANGUAGE_SAMPLE]])
    built_in = {name: tag for name, tag in BUILT_IN.items() if name not in patterns}
    if not has_english:
        left_out = [name for name, tag in built_in.items() if tag.is_english]
        built_in = {name: tag for name, tag in built_in.items() if not tag.is_english}
        if left_out:
            notes.append(
                f"The texts do not look like English, so that tags for English are off ({', '.join(left_out)}); write "
                "tags of your own (tags: in the study, or --tag name=pattern)."
            )
    for column in columns:
        texts = [Text.of(text) for text in column]
        for name, tag in built_in.items():
            mask = np.fromiter(map(tag.matches, texts), bool, len(texts))
            masks[name] = masks.get(name, False) | mask
    for name, pattern in patterns.items():
        matched, note = _match_pattern(name, pattern, columns)
        if matched is None:
            notes.append(note)
        else:
            masks[name] = matched
    meanings = {name: tag.meaning for name, tag in built_in.items()} | {n: _shown(p) for n, p in patterns.items()}
    for name in patterns:
        if name in masks and (masks[name].all() or not masks[name].any()):
            notes.append(
                f"Tag {name} matches {'every' if masks[name].any() else 'no'} text, so that it compares nothing."
            )
    return TagMasks(masks, {name: meanings[name] for name in masks}, tuple(notes))


def _match_pattern(name: str, pattern: str, columns: Sequence[Sequence[str]]) -> tuple[np.ndarray | None, str]:
    """Return the texts that a user's pattern matches; None, with a note, if it takes too long."""
    compiled, start = _compile(name, pattern), time.monotonic()
    mask = np.zeros(len(columns[0]), bool)
    for column in columns:
        for index, text in enumerate(column):
            try:
                mask[index] |= compiled.search(text, timeout=_SECONDS_PER_TEXT) is not None
            except TimeoutError:
                limit = f"more than {_SECONDS_PER_TEXT:g} s on test example {index:,}"
                return None, _too_slow(name, limit)
            except MemoryError:
                return None, _too_slow(name, f"more memory than there is on test example {index:,}")
            if time.monotonic() - start > _SECONDS_PER_TAG:
                return None, _too_slow(name, f"more than {_SECONDS_PER_TAG:g} s on the test texts")
    return mask, ""


def _too_slow(name: str, limit: str) -> str:
    return f"Tag {name} was left out: its pattern took {limit}; simplify its repeats of repeats."


def is_english(texts: Iterable[str]) -> bool:
    """Return True if enough of the words are English function words.

    >>> is_english(["it is the best of them", "I was there"]), is_english(["das ist der beste Film, den ich kenne"])
    (True, False)
    """
    return english_share(texts) >= _MIN_ENGLISH


def english_share(texts: Iterable[str]) -> float:
    """Share of words that are English function words; 0 without words."""
    words = [word for text in texts for word in _WORD.findall(text.lower().replace("’", "'"))]
    return sum(word in _FUNCTION_WORDS for word in words) / len(words) if words else 0.0
