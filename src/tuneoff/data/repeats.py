"""Repeated and nearly repeated texts: retweets, templates, reposts, copies in another split.

Two texts repeat each other if they are equal but for case, punctuation, white space, links and forms of Unicode
characters (NFKC), or if their sets of three-word shingles (Broder, "On the resemblance and containment of documents",
1997) have a Jaccard index of at least 0.7. In a text of twenty words that allows one changed word in the middle, or six
words added at an end. Numbers count: "5 of 10" and "9 of 10" may have different labels.

Algorithm: comparing all pairs takes too long for 50,000 texts. Two sets with a Jaccard index of at least t share one of
the first |A| - ceil(t |A|) + 1 elements of each, if all elements are in one order (prefix filtering, Chaudhuri et al.,
ICDE 2006). In the order of frequency, rarest first, few texts share such an element. Only these pairs are compared, in
blocks, so that memory stays bounded. No pair is missed, unless the number of candidates is limited: a million texts
made from one template would have 10^12 pairs. With a limit, each text is compared with that many of the earlier texts
that share an element, evenly spread over them.

Words and shingles are hashed, so that memory holds no strings: words and texts in 64 bits, shingles in 31.

# N examples
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

_JACCARD = 0.7
_SHINGLE_WORDS = 3
_BLOCK_PAIRS = 2**22  # candidate pairs in memory at once, about: 16 bytes each, and their shingles
_BLOCK_TEXTS = 2**15  # texts in memory as words at once; 15 bits of a sort key
_HASH_BITS = 31  # of a shingle: column numbers of a sparse matrix are int32
_COUNTERS = 2**22  # of shingles by the upper bits of their hashes
_MAX_COUNT = 2**16 - 1  # 16 bits of a sort key
_URL = re.compile(r"(?:https?://|www\.)\S+")
# a character of Chinese or Japanese, which are written without spaces, counts as a word
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_]+")
# odd factors with random bits, one for each word of a shingle (the first ones are those of splitmix64)
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)


Pairs = tuple[np.ndarray, np.ndarray]  # row numbers of the first and of the second examples


@dataclass(frozen=True)
class HashedTexts:
    """Texts as hashes: equal keys for texts that are equal after folding, and the set of shingles of each."""

    keys: np.ndarray  # (N,) uint64
    shingles: sparse.csr_array  # N rows of 0 and 1; texts that are shorter than a shingle have none

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
    blocks = list(similar_pairs(texts.shingles[first_rows]))
    left, right = (np.concatenate([np.empty(0, int), *[block[side] for block in blocks]]) for side in (0, 1))
    return (firsts[is_repeat], rows[is_repeat]), (first_rows[left], first_rows[right])


def joined_texts(table: pa.Table) -> pa.ChunkedArray:
    """Return one text per example, the two texts of a pair joined."""
    if "text_pair" not in table.column_names:
        return table["text"]
    separator = pa.scalar(" \x1f ", table["text"].type)
    return pc.binary_join_element_wise(table["text"], table["text_pair"], separator)


def folded_words(text: str) -> list[str]:
    """Return the words of a text without case, punctuation and links; the text itself if it has none."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    text = text.casefold()
    return _WORD.findall(_URL.sub(" ", text)) or [text]


def hash_texts(texts: pa.ChunkedArray) -> HashedTexts:
    """Fold and hash texts, in blocks."""
    keys, hashes, sizes = [], [], []
    for start in range(0, max(1, len(texts)), _BLOCK_TEXTS):
        words = [folded_words(text) for text in texts.slice(start, _BLOCK_TEXTS).to_pylist()]
        keys.append(_hashes([" ".join(of_text) for of_text in words]))
        of_block, sizes_of_block = _shingles(words)
        hashes.append(of_block)
        sizes.append(sizes_of_block)
    starts = np.concatenate([[0], np.cumsum(np.concatenate(sizes))])
    columns = np.concatenate(hashes)
    ones = np.ones(len(columns), np.int8)
    return HashedTexts(
        np.concatenate(keys), sparse.csr_array((ones, columns, starts), shape=(len(starts) - 1, 2**_HASH_BITS - 1))
    )


def similar_pairs(shingles: sparse.csr_array, limit: int | None = None) -> Iterator[Pairs]:
    """Yield the pairs of rows whose shingles are similar, each pair once, the earlier row first, in blocks.

    limit: of earlier texts that a text is compared with for each element that it shares with them.
    """
    postings = _postings(shingles)
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
    totals, in_order, sizes, start = np.cumsum(costs, dtype=np.int64), rows[entries], np.diff(shingles.indptr), 0
    while start < len(entries):
        end = int(np.searchsorted(totals, totals[start] + _BLOCK_PAIRS))
        # whole rows, so that each pair is in one block
        end = int(np.searchsorted(in_order, in_order[max(start, end - 1)], side="right"))
        yield _similar(shingles, sizes, *_candidates(rows, ranks, entries[start:end], costs[start:end]))
        start = end


def _candidates(rows: np.ndarray, ranks: np.ndarray, entries: np.ndarray, costs: np.ndarray) -> Pairs:
    """Return pairs of rows without repeats: of each entry with as many earlier entries of its shingle as it costs.

    They are evenly spread over the earlier entries, so that all splits are among them. rows, ranks: of all entries.
    """
    ends = np.cumsum(costs, dtype=np.int64)
    steps = np.arange(ends[-1]) - np.repeat(ends - costs, costs)
    later, behind = np.repeat(entries, costs), np.repeat(ranks[entries].astype(np.int64), costs)
    earlier = later - behind + behind * steps // np.repeat(costs, costs)
    pairs = np.unique((rows[earlier].astype(np.int64) << 32) | rows[later])
    return pairs >> 32, pairs & (2**32 - 1)


def _similar(shingles: sparse.csr_array, sizes: np.ndarray, left: np.ndarray, right: np.ndarray) -> Pairs:
    """Return the pairs whose Jaccard index is high enough. left, right: rows of the candidates."""
    small, large = np.minimum(sizes[left], sizes[right]), np.maximum(sizes[left], sizes[right])
    is_near = small >= _JACCARD * large
    left, right = left[is_near], right[is_near]
    parts = np.array_split(np.arange(len(left)), max(1, int(sizes[left].sum()) // _BLOCK_PAIRS + 1))
    is_similar = np.concatenate([jaccard(shingles, left[part], right[part]) >= _JACCARD for part in parts])
    return left[is_similar], right[is_similar]


def jaccard(shingles: sparse.csr_array, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the Jaccard index of the shingles of pairs of rows; 0 where neither has any. (N,)."""
    first, second = shingles[left], shingles[right]
    shared = np.asarray(first.multiply(second).sum(1)).ravel()
    return shared / np.maximum(1, np.diff(first.indptr) + np.diff(second.indptr) - shared)


def _postings(shingles: sparse.csr_array) -> np.ndarray:
    """Return the prefix of each row, its rarest shingles, as sorted numbers: a shingle in the upper bits, a row below.

    Any order of shingles that is the same for all rows gives a valid prefix: shingles are counted by the upper bits of
    their hashes.
    """
    shift = _HASH_BITS - int(np.log2(_COUNTERS))
    counts = np.zeros(_COUNTERS, np.int64)
    for start in range(0, shingles.nnz, _BLOCK_PAIRS):
        counts += np.bincount(shingles.indices[start : start + _BLOCK_PAIRS] >> shift, minlength=_COUNTERS)
    counts = np.minimum(counts, _MAX_COUNT)
    parts = [np.empty(0, np.int64)]
    for start in range(0, shingles.shape[0], _BLOCK_TEXTS):
        indptr = shingles.indptr[start : start + _BLOCK_TEXTS + 1].astype(np.int64)
        hashes, sizes = shingles.indices[indptr[0] : indptr[-1]].astype(np.int64), np.diff(indptr)
        rows = np.repeat(np.arange(len(sizes)), sizes)
        in_order = np.sort((rows << (16 + _HASH_BITS)) | (counts[hashes >> shift] << _HASH_BITS) | hashes)
        lengths = np.where(sizes > 0, sizes - np.ceil(_JACCARD * sizes).astype(int) + 1, 0)
        is_prefix = np.arange(len(in_order)) - np.repeat(indptr[:-1] - indptr[0], sizes) < np.repeat(lengths, sizes)
        parts.append(((in_order[is_prefix] & (2**_HASH_BITS - 1)) << 32) | (rows[is_prefix] + start))
    return np.sort(np.concatenate(parts))


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
