"""Vocabulary of a dataset: its size and variety, what splits do not share, and the words and bigrams of each class.

# N texts  W words and bigrams  C classes  T running words
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import TypeAdapter

from tuneoff.cache import cached_folder, fingerprint
from tuneoff.data.dataset import Dataset, labels_of
from tuneoff.files import read_json, write_json
from tuneoff.scoring.log_odds import log_odds_ratios
from tuneoff.scoring.metrics import as_rows

# texts of a split that are read: enough for frequencies, and a bound on time and memory for a million texts
_MAX_TEXTS, _MAX_CHARACTERS = 100_000, 5_000_000
WINDOW = 500  # running words of the moving average; Covington & McFall, "Cutting the Gordian knot", 2010
# texts that must contain a word of a class, as a number and as a share, as for the words of errors
_MIN_TEXTS, _MIN_SHARE = 5, 0.0002
_SIGNIFICANT = 0.05  # false discovery rate among the words of a class
_LISTED, _LISTED_OF_MANY, _MANY = 10, 5, 20  # words listed of each class, with few and with many classes
# a character of Chinese or Japanese, which are written without spaces, counts as a word; "don't" is one
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_]+(?:['’][^\W_]+)*")
_VERSION = 1  # part of the cache's key; another way of counting needs another number
_NEGATIONS = {"no", "not", "nor", "never", "none", "nothing", "cannot", "without"}  # they carry a label's meaning


@dataclass(frozen=True)
class SplitVocabulary:
    """Words of one split."""

    texts: int  # that were read
    words: int
    types: int  # distinct words
    type_token_ratio: float  # types / words: the more words, the smaller it is
    moving_type_token_ratio: float  # mean over all windows of 500 words, so that sizes can be compared
    unseen_types: float | None  # share of the types that are not in train; None for train
    unseen_words: float | None  # share of the words


@dataclass(frozen=True)
class Term:
    """A word or bigram of a class."""

    text: str
    texts: int  # of the class that contain it
    log_odds: float  # ratio between the class and all others


@dataclass(frozen=True)
class ClassVocabulary:
    """Words and bigrams of one class in train."""

    label: str
    texts: int
    distinctive_words: list[Term]  # significantly more frequent than in other classes, most significant first
    distinctive_bigrams: list[Term]
    frequent_words: list[Term]  # in most texts, without English stop words
    frequent_bigrams: list[Term]


@dataclass(frozen=True)
class Vocabulary:
    """Words of a dataset, by split and by class."""

    splits: dict[str, SplitVocabulary]
    classes: list[ClassVocabulary]  # in the order of the labels
    is_sampled: bool  # a split was too large to be read in full


def describe_vocabulary(dataset: Dataset) -> Vocabulary:
    """Describe the words of a dataset, or load the description from the cache.

    Of a large split, a random sample of its texts is read.
    """
    sizes = {split: table.num_rows for split, table in dataset.splits.items()}
    key = fingerprint(dataset.fingerprint, sizes, dataset.label_names, _VERSION)
    file = cached_folder(f"vocabulary-{key}", lambda into: write_json(into / "words.json", asdict(_describe(dataset))))
    return vocabulary_from_json(read_json(file / "words.json"))


def vocabulary_from_json(stored: Any) -> Vocabulary:
    """Rebuild a stored vocabulary."""
    return TypeAdapter(Vocabulary).validate_python(stored)


def _describe(dataset: Dataset) -> Vocabulary:
    rows = {split: _sample(table) for split, table in dataset.splits.items()}
    words = {
        split: [_words(texts) for texts in _texts(dataset.splits[split].take(chosen))] for split, chosen in rows.items()
    }
    ids_of: dict[str, int] = {}
    ids = {
        split: np.fromiter(
            (ids_of.setdefault(word, len(ids_of)) for parts in of_split for part in parts for word in part), np.int64
        )
        for split, of_split in words.items()
    }
    splits = {
        split: _split_vocabulary(len(words[split]), ids[split], None if split == "train" else ids["train"])
        for split in dataset.splits
    }
    labels = as_rows(labels_of(dataset.splits["train"].take(rows["train"])), dataset.num_labels)
    return Vocabulary(
        splits=splits,
        classes=_classes(words["train"], labels, dataset.label_names),
        is_sampled=any(len(chosen) < dataset.num_examples(split) for split, chosen in rows.items()),
    )


def _sample(table: pa.Table) -> pa.Array:
    """Choose the rows that are read, in random order: a file may be sorted by label, and windows must not be."""
    order = np.random.default_rng(0).permutation(table.num_rows)[:_MAX_TEXTS]
    columns = [table[name] for name in ("text", "text_pair") if name in table.column_names]
    sizes = sum(pc.utf8_length(column).to_numpy().astype(np.int64) for column in columns)[order]
    return pa.array(order[: max(1, int(np.searchsorted(sizes.cumsum(), _MAX_CHARACTERS, side="right")))])


def _texts(table: pa.Table) -> Iterator[tuple[str, ...]]:
    """Yield the text, or the two texts, of each example."""
    columns = [table[name].to_pylist() for name in ("text", "text_pair") if name in table.column_names]
    return zip(*columns, strict=True)


def _words(texts: Sequence[str]) -> list[list[str]]:
    """Return the words of each text of an example in lower case."""
    return [_WORD.findall(text.lower()) for text in texts]


def _split_vocabulary(num_texts: int, words: np.ndarray, train: np.ndarray | None) -> SplitVocabulary:
    """Describe the words of a split. words, train: (T,) ids of running words."""
    types = np.unique(words)
    num_words = max(1, len(words))  # texts of punctuation alone have no word
    return SplitVocabulary(
        texts=num_texts,
        words=len(words),
        types=len(types),
        type_token_ratio=len(types) / num_words,
        moving_type_token_ratio=moving_type_token_ratio(words),
        unseen_types=None if train is None else float(np.isin(types, train, invert=True).sum() / max(1, len(types))),
        unseen_words=None if train is None else float(np.isin(words, train, invert=True).sum() / num_words),
    )


def moving_type_token_ratio(words: np.ndarray, window: int = WINDOW) -> float:
    """Mean share of distinct words in all windows of a number of running words (MATTR). words: (T,) ids.

    Source: Covington & McFall, Journal of Quantitative Linguistics 17, 2010. A text shorter than a window is one
    window. Algorithm: a window has as many types as words whose previous occurrence is before its start. Each word
    therefore counts in the windows that hold it and start after its previous occurrence, whose number is a difference
    of two positions.

    >>> moving_type_token_ratio(np.array([1, 2, 1, 1]), window=2)  # types of the windows: 2, 2, 1
    0.8333333333333334
    """
    count = len(words)
    window = min(window, count)
    if not count:
        return 0.0
    order = np.argsort(words, kind="stable")
    is_repeat = words[order][1:] == words[order][:-1]
    previous = np.full(count, -1)
    previous[order[1:][is_repeat]] = order[:-1][is_repeat]
    positions = np.arange(count)
    first = np.maximum(positions - window + 1, previous + 1)  # start of the first window that counts the word
    last = np.minimum(positions, count - window)
    return float(np.maximum(last - first + 1, 0).sum() / ((count - window + 1) * window))


def _terms(parts: list[list[str]]) -> list[str]:
    """Return the words and bigrams of an example; no bigram reaches from one text of a pair into the other."""
    return [term for words in parts for term in (*words, *map(" ".join, pairwise(words)))]


def _classes(words: list[list[list[str]]], labels: np.ndarray, label_names: Sequence[str]) -> list[ClassVocabulary]:
    """Describe the words of each class. words: of N examples; labels: (N, C) bool."""
    # slow to import: agents of machines, which import the records of studies, describe no data
    from scipy import stats
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

    min_texts = min(len(words), max(_MIN_TEXTS, round(_MIN_SHARE * len(words))))
    vectorizer = CountVectorizer(analyzer=_terms, binary=True, min_df=min_texts, dtype=np.int32)
    try:
        contains = vectorizer.fit_transform(words).tocsc()  # (N, W)
    except ValueError:  # no word is in enough texts
        return []
    terms = vectorizer.get_feature_names_out()
    is_bigram = np.array([" " in term for term in terms])
    stop_words = ENGLISH_STOP_WORDS - _NEGATIONS
    is_frequent = np.array([stop_words.isdisjoint(term.split()) for term in terms])
    everywhere = np.asarray(contains.sum(0)).ravel()  # (W,)
    num_listed = _LISTED if len(label_names) <= _MANY else _LISTED_OF_MANY
    classes = []
    for label, name in enumerate(label_names):
        is_member = labels[:, label]
        inside, num_inside = contains.T @ is_member.astype(np.int32), int(is_member.sum())
        log_odds, deviation = log_odds_ratios(inside, everywhere, num_inside, len(words))
        z = log_odds / deviation
        is_distinctive = (stats.false_discovery_control(stats.norm.sf(z)) < _SIGNIFICANT) & (z > 0)

        def listed(
            mask: np.ndarray,
            key: np.ndarray,
            inside: np.ndarray = inside,
            log_odds: np.ndarray = log_odds,
        ) -> list[Term]:
            chosen = np.flatnonzero(mask & (inside > 0))
            best = chosen[np.argsort(-key[chosen], kind="stable")[:num_listed]]
            return [Term(str(terms[i]), int(inside[i]), round(float(log_odds[i]), 3)) for i in best]

        classes.append(
            ClassVocabulary(
                label=name,
                texts=num_inside,
                distinctive_words=listed(is_distinctive & ~is_bigram, z),
                distinctive_bigrams=listed(is_distinctive & is_bigram, z),
                frequent_words=listed(is_frequent & ~is_bigram, inside),
                frequent_bigrams=listed(is_frequent & is_bigram, inside),
            )
        )
    return classes
