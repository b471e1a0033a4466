"""Near-repeated texts, which must not be in both training and test examples: retweets, templates, reposts.

Two texts repeat each other if they are equal but for case, punctuation, white space and links, or if their sets of
three-word shingles (Broder, "On the resemblance and containment of documents", 1997) have a Jaccard index of at least
0.7. In a text of twenty words that allows one changed word in the middle, or six words added at an end. Numbers count:
"5 of 10" and "9 of 10" may have different labels.

Algorithm: comparing all pairs takes too long for 50,000 texts. Two sets with a Jaccard index of at least t share one of
the first |A| - ceil(t |A|) + 1 elements of each, if all elements are in one order (prefix filtering, Chaudhuri et al.,
ICDE 2006). In the order of frequency, rarest first, few texts share such an element. Only these pairs are compared, in
blocks, so that memory stays bounded. No pair is missed.

# N examples
"""

import re

import numpy as np
import pyarrow as pa
from scipy import sparse

_JACCARD = 0.7
_SHINGLE_WORDS = 3
_BLOCK_PAIRS = 2**22  # candidate pairs in memory at once, about: 16 bytes each, and their shingles
_URL = re.compile(r"(?:https?://|www\.)\S+")
# a character of Chinese or Japanese, which are written without spaces, counts as a word
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_]+")


Pairs = tuple[np.ndarray, np.ndarray]  # row numbers of the first and of the second examples


def repeated_texts(table: pa.Table) -> tuple[Pairs, Pairs]:
    """Return the pairs of examples with equal texts, and those with similar ones.

    Of equal texts each is paired with the first of them, which alone is compared with others. Of a pair of texts, both
    together are compared.
    """
    texts = [_words(text) for text in _joined(table)]
    keys = np.array([" ".join(words) for words in texts], object)
    _, first_rows, codes = np.unique(keys, return_index=True, return_inverse=True)
    rows, firsts = np.arange(len(texts)), first_rows[codes]
    is_repeat = firsts != rows
    left, right = _similar([texts[row] for row in first_rows])
    return (firsts[is_repeat], rows[is_repeat]), (first_rows[left], first_rows[right])


def _joined(table: pa.Table) -> list[str]:
    texts = table["text"].to_pylist()
    if "text_pair" not in table.column_names:
        return texts
    return [f"{first} \x1f {second}" for first, second in zip(texts, table["text_pair"].to_pylist(), strict=True)]


def _words(text: str) -> list[str]:
    """Return the words of a text without case, punctuation and links; the text itself if it has none."""
    return _WORD.findall(_URL.sub(" ", text.casefold())) or [text]


def _similar(texts: list[list[str]]) -> Pairs:
    """Return the pairs of texts whose shingles are similar, each pair once: two arrays of row numbers."""
    shingles = _shingles(texts)
    sizes = np.diff(shingles.indptr)
    # the prefix of each row: its rarest shingles, which come first
    lengths = np.where(sizes > 0, sizes - np.ceil(_JACCARD * sizes).astype(int) + 1, 0)
    is_prefix = np.arange(shingles.nnz) - np.repeat(shingles.indptr[:-1], sizes) < np.repeat(lengths, sizes)
    prefixes = shingles.copy()
    prefixes.data = is_prefix.astype(np.int32)
    prefixes.eliminate_zeros()
    by_shingle = prefixes.T.tocsr()
    # candidates of each row, at most: the sum over its prefix of the texts that have the shingle too
    costs = prefixes @ np.diff(by_shingle.indptr)
    blocks = (np.cumsum(costs) // _BLOCK_PAIRS).astype(int)
    edges = []
    for block in np.unique(blocks):
        rows = np.flatnonzero(blocks == block)
        pairs = (prefixes[rows] @ by_shingle).tocoo()
        left, right = rows[pairs.row], pairs.col
        is_first = left < right
        left, right = left[is_first], right[is_first]
        for part in np.array_split(np.arange(len(left)), max(1, sizes[left].sum() // _BLOCK_PAIRS + 1)):
            shared = np.asarray(shingles[left[part]].multiply(shingles[right[part]]).sum(1)).ravel()
            union = sizes[left[part]] + sizes[right[part]] - shared
            is_similar = shared >= _JACCARD * union
            edges.append((left[part][is_similar], right[part][is_similar]))
    if not edges:
        return np.empty(0, int), np.empty(0, int)
    first, second = zip(*edges, strict=True)
    return np.concatenate(first), np.concatenate(second)


def _shingles(texts: list[list[str]]) -> sparse.csr_matrix:
    """Return the set of shingles of each text: a matrix of 0 and 1, columns from the rarest shingle to the commonest.

    Shingles are hashed, so that memory holds no strings. Texts that are shorter than a shingle have none.
    """
    from sklearn.feature_extraction.text import HashingVectorizer  # slow to import, and used only here

    vectorizer = HashingVectorizer(
        analyzer=_shingles_of, n_features=2**31 - 1, binary=True, norm=None, alternate_sign=False, dtype=np.int32
    )
    hashed = vectorizer.transform(texts)
    _, columns, counts = np.unique(hashed.indices, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts), np.int64)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    shingles = sparse.csr_matrix((hashed.data, rank[columns], hashed.indptr), shape=(len(texts), max(1, len(counts))))
    shingles.sort_indices()
    return shingles


def _shingles_of(words: list[str]) -> list[str]:
    return [" ".join(words[i : i + _SHINGLE_WORDS]) for i in range(len(words) - _SHINGLE_WORDS + 1)]
