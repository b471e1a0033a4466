"""Repeated and nearly repeated texts: retweets, templates, reposts, copies in another split.

Two texts repeat each other if they are equal but for case, punctuation, white space, links and forms of Unicode
characters (NFKC), or if their sets of three-word shingles (Broder, "On the resemblance and containment of documents",
1997) have a Jaccard index of at least 0.7. In a text of twenty words that allows one changed word in the middle, or six
words added at an end. Numbers count: "5 of 10" and "9 of 10" may have different labels.

Algorithm: comparing all pairs takes too long for 50,000 texts. Two sets with a Jaccard index of at least t share one of
the first |A| - ceil(t |A|) + 1 elements of each, if all elements are in one order (prefix filtering, Chaudhuri et al.,
ICDE 2006). In the order of frequency, rarest first, few texts share such an element. Most of these pairs are told apart
by their sizes and by 64 parities of each set (bitmap filter, Sandes et al., arXiv 1711.07295); only the others are
compared. All this in blocks, and of many texts only those elements at a time whose hashes are in one range of all, so
that memory stays bounded. No pair is missed, unless the number of candidates is limited: a million texts made from one
template would have 10^12 pairs. With a limit, each text is compared with that many of the earlier texts that share an
element, evenly spread over them.

Words and shingles are hashed, so that memory holds no strings: words and texts in 64 bits, shingles in 31. Where there
are many shingles or prefixes, they are in files that are mapped into memory.

# N examples  S shingles of all of them
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from tuneoff.data import large

_JACCARD = 0.7
_SHINGLE_WORDS = 3
_BLOCK_PAIRS = 2**22  # candidate pairs in memory at once, about: 16 bytes each, and their shingles
_BLOCK_TEXTS = 2**15  # texts in memory as words at once; 15 bits of a sort key
_HASH_BITS = 31  # of a shingle: column numbers of a sparse matrix are int32
_COUNTERS = 2**22  # of shingles by the upper bits of their hashes
_SHIFT = _HASH_BITS - 22  # of a hash, to its counter
_PART_POSTINGS = 2**22  # postings in memory at once, about
_MAX_COUNT = 2**16 - 1  # 16 bits of a sort key
_BIT_COUNTS = np.array([number.bit_count() for number in range(2**16)], np.uint8)  # numpy 1 counts no bits
_ROUNDING = 1e-6  # of bounds that are compared with whole numbers
_URL = re.compile(r"(?:https?://|www\.)\S+")
# a character of Chinese or Japanese, which are written without spaces, counts as a word
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_]+")
# odd factors with random bits, one for each word of a shingle (the first ones are those of splitmix64)
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)


Pairs = tuple[np.ndarray, np.ndarray]  # row numbers of the first and of the second examples


@dataclass(frozen=True)
class Shingles:
    """The set of shingles of each text; texts that are shorter than a shingle have none."""

    hashes: np.ndarray  # (S,) int32, end to end, those of each text ascending
    starts: np.ndarray  # (N + 1,) int64: text i has hashes[starts[i]:starts[i + 1]]

    def sizes(self, rows: np.ndarray) -> np.ndarray:
        """Number of shingles of some texts. rows: (B,) -> (B,)."""
        return self.starts[rows + 1] - self.starts[rows]

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Shingles of some texts, end to end. rows: (B,) -> int32."""
        sizes = self.sizes(rows)
        ends = np.cumsum(sizes)
        return self.hashes[np.arange(sizes.sum()) + np.repeat(self.starts[rows] - (ends - sizes), sizes)]

    def matrix(self, rows: np.ndarray) -> sparse.csr_array:
        """Shingles of some texts as rows of 0 and 1. rows: (B,)."""
        hashes, starts = self.of(rows), np.concatenate([[0], np.cumsum(self.sizes(rows))])
        return sparse.csr_array((np.ones(len(hashes), np.int8), hashes, starts), shape=(len(rows), 2**_HASH_BITS - 1))


@dataclass(frozen=True)
class HashedTexts:
    """Texts as hashes: equal keys for texts that are equal after folding, and the set of shingles of each."""

    keys: np.ndarray  # (N,) uint64
    shingles: Shingles

    @property
    def first_rows(self) -> np.ndarray:
        """Rows of the first text of each key, ascending."""
        return np.sort(np.unique(self.keys, return_index=True)[1])


def repeated_texts(table: pa.Table) -> tuple[Pairs, Pairs]:
    """Return the pairs of examples with equal texts, and those with similar ones.

    Of equal texts each is paired with the first of them, which alone is compared with others. Of a pair of texts, both
    together are compared.
    """
    texts = hash_texts(joined_texts(table))
    _, first_rows, codes = np.unique(texts.keys, return_index=True, return_inverse=True)
    rows, firsts = np.arange(len(texts.keys)), first_rows[codes]
    is_repeat = firsts != rows
    left, right = similar_pairs(texts.shingles, first_rows)
    return (firsts[is_repeat], rows[is_repeat]), (first_rows[left], first_rows[right])


def joined_texts(table: pa.Table) -> pa.ChunkedArray:
    """Return one text per example, the two texts of a pair joined."""
    if "text_pair" not in table.column_names:
        return table["text"]
    kind = table["text"].type
    separator, schema = pa.scalar(" \x1f ", kind), pa.schema({"text": kind})

    def joined(batch: pa.RecordBatch) -> pa.RecordBatch:
        both = pc.binary_join_element_wise(batch["text"], batch["text_pair"], separator)
        return pa.record_batch([both], schema=schema)

    return large.table_of(map(joined, table.select(["text", "text_pair"]).to_batches()), schema)["text"]


def folded_words(text: str) -> list[str]:
    """Return the words of a text without case, punctuation and links; the text itself if it has none."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    text = text.casefold()
    return _WORD.findall(_URL.sub(" ", text)) or [text]


def hash_texts(texts: pa.ChunkedArray) -> HashedTexts:
    """Fold and hash texts, in blocks."""
    keys, sizes = [], []

    def hashes() -> Iterator[np.ndarray]:
        for start in range(0, max(1, len(texts)), _BLOCK_TEXTS):
            words = [folded_words(text) for text in texts.slice(start, _BLOCK_TEXTS).to_pylist()]
            keys.append(_hashes([" ".join(of_text) for of_text in words]))
            of_block, sizes_of_block = _shingles(words)
            sizes.append(sizes_of_block)
            yield of_block

    of_all = large.array_of(hashes(), np.int32)
    return HashedTexts(np.concatenate(keys), Shingles(of_all, np.concatenate([[0], *sizes]).cumsum()))


def similar_pairs(shingles: Shingles, rows: np.ndarray, limit: int | None = None) -> Pairs:
    """Return the pairs of texts whose shingles are similar, each pair once, the earlier one first, as places in rows.

    rows: (B,) of the texts that are compared. limit: of earlier texts that a text is compared with for each element
    that it shares with them.
    """
    found, bitmaps = [np.empty(0, np.int64)], _Bitmaps.of(shingles, rows)
    for postings in _postings(shingles, rows):
        for left, right in _candidates_of_part(bitmaps, limit, postings):
            is_similar = _are_similar(shingles, rows[left], rows[right])
            found.append((left[is_similar] << 32) | right[is_similar])
    pairs = np.unique(np.concatenate(found))  # one pair may share elements of several parts
    return pairs >> 32, pairs & (2**32 - 1)


@dataclass(frozen=True)
class _Bitmaps:
    """What tells most pairs of texts apart without their shingles. (B,) each."""

    sizes: np.ndarray  # int32
    parities: np.ndarray  # uint64: bit i is the parity of the number of shingles whose hash modulo 64 is i

    @classmethod
    def of(cls, shingles: Shingles, rows: np.ndarray) -> "_Bitmaps":
        sizes, parities = shingles.sizes(rows), np.zeros(len(rows), np.uint64)
        for start in range(0, len(rows), _BLOCK_TEXTS):
            block = slice(start, start + _BLOCK_TEXTS)
            bits = np.uint64(1) << (shingles.of(rows[block]) & 63).astype(np.uint64)
            has_any = np.flatnonzero(sizes[block])
            firsts = (np.cumsum(sizes[block]) - sizes[block])[has_any]
            parities[start + has_any] = np.bitwise_xor.reduceat(bits, firsts) if len(firsts) else 0
        return cls(sizes.astype(np.int32), parities)

    def may_be_similar(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Mask of the pairs whose Jaccard index may be high enough. left, right: (P,).

        A shingle of one text only turns one bit, so that at least as many shingles are in one text only as bits differ;
        at a Jaccard index of t they are (1 - t) / (1 + t) of the sum of both sizes.
        """
        first, second = self.sizes[left], self.sizes[right]
        is_near = np.minimum(first, second) >= _JACCARD * np.maximum(first, second)
        parts = (self.parities[left] ^ self.parities[right]).view(np.uint16).reshape(-1, 4)
        differing = _BIT_COUNTS[parts].sum(1)
        return is_near & (differing <= (1 - _JACCARD) / (1 + _JACCARD) * (first + second) + _ROUNDING)


def _candidates_of_part(bitmaps: _Bitmaps, limit: int | None, postings: np.ndarray) -> Iterator[Pairs]:
    """Yield the pairs that share an element of some postings and may be similar, in blocks; each pair once."""
    shared = postings >> 32
    is_shared = np.zeros(len(postings), bool)
    is_shared[1:] = shared[1:] == shared[:-1]
    starts = np.maximum.accumulate(np.where(is_shared, 0, np.arange(len(postings))))
    ranks = (np.arange(len(postings)) - starts).astype(np.int32)  # among the entries of a shingle
    rows = (postings & (2**32 - 1)).astype(np.int32)
    del postings, shared, starts
    entries = np.flatnonzero(is_shared)
    entries = entries[np.argsort(rows[entries], kind="stable")]
    costs = ranks[entries] if limit is None else np.minimum(ranks[entries], limit)  # candidates that each entry gives
    totals, in_order, start = np.cumsum(costs, dtype=np.int64), rows[entries], 0
    while start < len(entries):
        end = int(np.searchsorted(totals, totals[start] + _BLOCK_PAIRS))
        # whole rows, so that each pair is in one block
        end = int(np.searchsorted(in_order, in_order[max(start, end - 1)], side="right"))
        left, right = _entries_sharing(rows, ranks, entries[start:end], costs[start:end])
        may_be = bitmaps.may_be_similar(left, right)
        pairs = np.unique((left[may_be].astype(np.int64) << 32) | right[may_be])
        yield pairs >> 32, pairs & (2**32 - 1)
        start = end


def _entries_sharing(rows: np.ndarray, ranks: np.ndarray, entries: np.ndarray, costs: np.ndarray) -> Pairs:
    """Return pairs of rows: of each entry with as many earlier entries of its shingle as it costs.

    They are evenly spread over the earlier entries, so that all splits are among them. rows, ranks: of all entries.
    """
    ends = np.cumsum(costs, dtype=np.int64)
    steps = np.arange(ends[-1]) - np.repeat(ends - costs, costs)
    later, behind = np.repeat(entries, costs), np.repeat(ranks[entries].astype(np.int64), costs)
    earlier = later - behind + behind * steps // np.repeat(costs, costs)
    return rows[earlier], rows[later]


def _are_similar(shingles: Shingles, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Mask of the pairs of texts whose Jaccard index is high enough. left, right: (P,) rows."""
    parts = np.array_split(np.arange(len(left)), int(shingles.sizes(left).sum()) // _BLOCK_PAIRS + 1)
    return np.concatenate([jaccard(shingles, left[part], right[part]) >= _JACCARD for part in parts])


def jaccard(shingles: Shingles, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the Jaccard index of pairs of texts, (B,); 0 where neither has a shingle. left, right: (B,)."""
    first, second = shingles.matrix(left), shingles.matrix(right)
    shared = np.asarray(first.multiply(second).sum(1)).ravel()
    return shared / np.maximum(1, np.diff(first.indptr) + np.diff(second.indptr) - shared)


def _counts(shingles: Shingles, texts: np.ndarray) -> np.ndarray:
    """Count the shingles of some texts by the upper bits of their hashes.

    Any order of shingles that is the same for all texts gives valid prefixes.
    """
    counts = np.zeros(_COUNTERS, np.int64)
    for start in range(0, len(texts), _BLOCK_TEXTS):
        counts += np.bincount(shingles.of(texts[start : start + _BLOCK_TEXTS]) >> _SHIFT, minlength=_COUNTERS)
    return np.minimum(counts, _MAX_COUNT)


def _postings(shingles: Shingles, texts: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the prefixes of all texts, their rarest shingles, in parts of one range of hashes each.

    As sorted numbers: a shingle above, a place in texts below.
    """
    counts, ends = _counts(shingles, texts), [0]

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(texts), _BLOCK_TEXTS):
            of_block = _prefixes(shingles, texts[start : start + _BLOCK_TEXTS], counts) + start
            ends.append(ends[-1] + len(of_block))
            yield of_block

    of_all = large.array_of(blocks(), np.int64)
    num_parts = len(of_all) // _PART_POSTINGS + 1
    edges = ((np.arange(1, num_parts) << _HASH_BITS) // num_parts) << 32
    # each block is sorted, so that its part is a slice
    bounds = [
        start + np.array([0, *np.searchsorted(of_all[start:end], edges), end - start]) for start, end in pairwise(ends)
    ]
    for part in range(num_parts):
        slices = [of_all[of_block[part] : of_block[part + 1]] for of_block in bounds]
        yield np.sort(np.concatenate([np.empty(0, np.int64), *slices]))


def _prefixes(shingles: Shingles, texts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the postings of a block of texts, sorted."""
    hashes, sizes = shingles.of(texts).astype(np.int64), shingles.sizes(texts)
    rows = np.repeat(np.arange(len(sizes)), sizes)
    in_order = np.sort((rows << (16 + _HASH_BITS)) | (counts[hashes >> _SHIFT] << _HASH_BITS) | hashes)
    lengths = np.where(sizes > 0, sizes - np.ceil(_JACCARD * sizes).astype(int) + 1, 0)
    is_prefix = np.arange(len(in_order)) - np.repeat(np.cumsum(sizes) - sizes, sizes) < np.repeat(lengths, sizes)
    return np.sort(((in_order[is_prefix] & (2**_HASH_BITS - 1)) << 32) | rows[is_prefix])


def _shingles(texts: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes of the shingles of each text without repeats, sorted, and the number of each text's."""
    lengths = np.array([len(words) for words in texts], np.int64)
    hashes = _hashes([word for words in texts for word in words])
    if not len(hashes):
        return np.empty(0, np.int32), lengths
    # a shingle starts at each word but the last two of a text
    num_starts = np.maximum(0, lengths - _SHINGLE_WORDS + 1)
    rows = np.repeat(np.arange(len(texts)), num_starts)
    offsets = np.cumsum(lengths) - lengths
    starts = np.arange(num_starts.sum()) + np.repeat(offsets - (np.cumsum(num_starts) - num_starts), num_starts)
    mixed = np.zeros(len(starts), np.uint64)
    for position, factor in enumerate(_FACTORS):
        mixed += hashes[starts + position] * factor  # modulo 2^64
    columns = (mixed >> np.uint64(64 - _HASH_BITS)).astype(np.int64) % (2**_HASH_BITS - 1)
    distinct = np.unique((rows << 32) | columns)
    return (distinct & (2**32 - 1)).astype(np.int32), np.bincount(distinct >> 32, minlength=len(texts))


def _hashes(strings: list[str]) -> np.ndarray:
    """Return a hash of each string that is the same in every process. (N,) uint64."""
    from pandas.util import hash_array  # slow to import

    return hash_array(np.array(strings, object), categorize=False)
