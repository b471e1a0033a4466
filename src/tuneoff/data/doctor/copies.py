"""Copies: texts that occur more than once, in one split or in several, with equal or with other labels.

Texts are equal after folding, or nearly equal (data/repeats.py). Labels and folds are compared by the smallest and
largest value among the copies: both are one's own value exactly where no copy has another.

# N examples of a split  U distinct texts
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tuneoff.data.dataset import FOLD, Dataset, labels_of
from tuneoff.data.repeats import HashedTexts, Pairs, hash_texts, jaccard, joined_texts, similar_pairs

# of earlier texts that a text is compared with for each shingle that they share: bounds time and memory where a million
# texts were made from few templates, or ten million from few sentences; fewer above a million texts
_LIMIT, _LEAST = 16, 4
_LIMIT_OF_ALL = 2**24  # of all texts together, for a shingle each
_LARGEST = np.iinfo(np.int64).max
_JACCARD = 0.7  # of each text of a pair: pairs with one premise and two hypotheses are no copies
CLEAN, LEAKED, REPEATED = 0, 1, 2  # codes of scored examples


@dataclass(frozen=True)
class Twins:
    """Copies of each example of a split among other examples."""

    is_equal: np.ndarray  # (N,) bool: an equal text is among them
    is_near: np.ndarray  # (N,) bool: no equal text is, but a nearly equal one
    has_other_label: np.ndarray  # (N,) bool: a copy has another label

    @property
    def is_copied(self) -> np.ndarray:
        """Mask of the examples with a copy. (N,) bool."""
        return self.is_equal | self.is_near


@dataclass(frozen=True)
class Copies:
    """The texts of all splits by number, their labels, and which texts are nearly equal."""

    texts: dict[str, np.ndarray]  # split -> number of each example's text, (N,)
    labels: dict[str, np.ndarray]  # split -> number of each example's label or set of labels, (N,)
    near: Pairs  # numbers of nearly equal texts, each pair once
    num_texts: int

    def twins(self, split: str, others: Sequence[str]) -> Twins:
        """Return the copies of a split's examples in other splits."""
        texts, labels = self.texts[split], self.labels[split]
        equal = self._ranges([self.texts[name] for name in others], [self.labels[name] for name in others])
        near = self._of_near(equal)
        is_equal, is_near = equal.occurs[texts], near.occurs[texts]
        has_other = (is_equal & equal.differs(texts, labels)) | (is_near & near.differs(texts, labels))
        return Twins(is_equal, is_near & ~is_equal, has_other)

    def repeats(self, split: str) -> Twins:
        """Return the copies of a split's examples among the earlier examples of the same split."""
        texts = self.texts[split]
        rows = np.arange(len(texts))
        first = self._ranges([texts], [rows])
        near = self._of_near(first)
        is_equal = first.low[texts] < rows
        is_near = ~is_equal & near.occurs[texts] & (near.low[texts] < rows)
        return Twins(is_equal, is_near, np.zeros(len(texts), bool))

    def contradicting(self, split: str) -> np.ndarray:
        """Mask of the examples whose text occurs in the same split with another label. (N,) bool."""
        texts, labels = self.texts[split], self.labels[split]
        return self._ranges([texts], [labels]).differs(texts, labels)

    def across_folds(self, folds: np.ndarray) -> np.ndarray:
        """Mask of the training examples with a copy in another fold. folds: (N,) -> (N,) bool."""
        texts = self.texts["train"]
        equal = self._ranges([texts], [folds])
        near = self._of_near(equal)
        return equal.differs(texts, folds) | (near.occurs[texts] & near.differs(texts, folds))

    def _ranges(self, texts: Sequence[np.ndarray], values: Sequence[np.ndarray]) -> "_Ranges":
        low, high = np.full(self.num_texts, _LARGEST), np.full(self.num_texts, -_LARGEST)
        for of_split, own in zip(texts, values, strict=True):
            np.minimum.at(low, of_split, own)
            np.maximum.at(high, of_split, own)
        return _Ranges(low, high)

    def _of_near(self, ranges: "_Ranges") -> "_Ranges":
        """Return the range of values of each text's nearly equal texts."""
        low, high = np.full(self.num_texts, _LARGEST), np.full(self.num_texts, -_LARGEST)
        for text, other in (self.near, self.near[::-1]):
            np.minimum.at(low, text, ranges.low[other])
            np.maximum.at(high, text, ranges.high[other])
        return _Ranges(low, high)


@dataclass(frozen=True)
class _Ranges:
    """Smallest and largest value of some examples of each text. (U,) each."""

    low: np.ndarray
    high: np.ndarray

    @property
    def occurs(self) -> np.ndarray:
        """Mask of the texts with a value. (U,) bool."""
        return self.low < _LARGEST

    def differs(self, texts: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Mask of the examples of which some example of the text has another value. texts, values: (N,)."""
        return (self.low[texts] != values) | (self.high[texts] != values)


def copies_of(tables: Mapping[str, pa.Table], with_near: bool = True) -> Copies:
    """Find the copies among the examples of splits. with_near: also of nearly equal texts."""
    joined = pa.chunked_array([chunk for table in tables.values() for chunk in joined_texts(table).chunks])
    hashed = hash_texts(joined)
    first_rows, texts = np.unique(hashed.keys, return_index=True, return_inverse=True)[1:]
    near = _near_pairs(tables, hashed, first_rows) if with_near else (np.empty(0, int), np.empty(0, int))
    ends = np.cumsum([table.num_rows for table in tables.values()])[:-1]
    return Copies(
        texts=dict(zip(tables, np.split(texts, ends), strict=True)),
        labels={split: _label_numbers(labels_of(table)) for split, table in tables.items()},
        near=near,
        num_texts=len(first_rows),
    )


def scored_codes(dataset: Dataset, copies: Copies) -> np.ndarray:
    """Return a code for each scored example: CLEAN, LEAKED (its text is also read in training) or REPEATED. (N,) uint8.

    With folds, a text leaks if it is also in another fold.
    """
    split = dataset.scored_split
    codes = np.where(copies.repeats(split).is_copied, REPEATED, CLEAN).astype(np.uint8)
    if dataset.folds:
        is_leaked = copies.across_folds(dataset.splits[split][FOLD].to_numpy())
    else:
        is_leaked = copies.twins(split, [name for name in copies.texts if name != split]).is_copied
    codes[is_leaked] = LEAKED
    return codes


def _near_pairs(tables: Mapping[str, pa.Table], hashed: HashedTexts, first_rows: np.ndarray) -> Pairs:
    """Return the numbers of nearly equal texts; of pairs of texts, both must be equal or nearly equal."""
    limit = min(_LIMIT, max(_LEAST, _LIMIT_OF_ALL // max(1, len(first_rows))))
    order = np.argsort(first_rows).astype(np.int32)  # of rows: a text beyond the limit has earlier ones still
    left, right = (order[side] for side in similar_pairs(hashed.shingles, first_rows[order], limit))
    names = [name for name in ("text", "text_pair") if name in next(iter(tables.values())).column_names]
    for name in names if len(names) > 1 and len(left) else ():
        column = hash_texts(pa.chunked_array([chunk for table in tables.values() for chunk in table[name].chunks]))
        first, second = first_rows[left], first_rows[right]
        is_near = column.keys[first] == column.keys[second]
        is_near |= jaccard(column.shingles, first, second) >= _JACCARD
        left, right = left[is_near], right[is_near]
    return left, right


def _label_numbers(labels: np.ndarray) -> np.ndarray:
    """Return a number for each label, or for each set of labels of multi-label data. (N,) or (N, C) -> (N,) int64."""
    if labels.ndim == 1:
        return labels.astype(np.int64)
    # random weights: two of 10,000 sets have the same sum with a probability of 1e-11
    weights = np.random.default_rng(0).integers(2**62, size=labels.shape[1])
    return labels @ weights
