"""Lengths of texts before truncation, in characters and in tokens: outliers, by class, and the share that is cut.

# N examples  C classes
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tuneoff.cache import cached_folder
from tuneoff.data.dataset import Dataset, is_member, labels_of
from tuneoff.data.tokens import TokenTable, count_tokens

MAX_LENGTHS = (32, 64, 96, 128, 192, 256, 384, 512)  # tokens; 512 is the limit of BERT and most encoders after it
ACCEPTABLE_CUT = 0.05  # share of texts; a max_length that truncates more is not recommended
_BINS = 32
_CLIP = 0.99  # quantile of the lengths at which a histogram ends: a few long texts would squeeze all others
_MAX_OUTLIERS, _MAX_CLASS_OUTLIERS = 50, 8  # points of a box plot


@dataclass(frozen=True)
class Histogram:
    """Counts between neighbouring edges; the last bin includes its upper edge."""

    edges: list[int]
    examples: list[int]


@dataclass(frozen=True)
class Spread:
    """Distribution of lengths as a box plot shows it."""

    examples: int
    mean: float
    p95: float
    max: int
    box: list[float]  # lower whisker, quartiles, upper whisker
    num_outliers: int  # examples beyond the whiskers
    outliers: list[int]  # some of their lengths, the extremes included


@dataclass(frozen=True)
class Cut:
    """Consequence of a max_length if the first tokens of longer texts are kept."""

    max_length: int
    texts: float  # share that is truncated
    tokens: float  # share of all tokens that is lost


@dataclass(frozen=True)
class LengthProfile:
    """Lengths of the texts of one split before truncation."""

    all: Spread
    by_class: list[Spread | None]  # of train, in the order of the labels; empty for other splits
    histogram: Histogram  # its last bin also holds all longer texts
    cuts: list[Cut]  # empty for lengths in characters


def character_profiles(dataset: Dataset) -> dict[str, dict[str, LengthProfile]]:
    """Profile the lengths of a dataset in characters: column (text, for pairs also text_pair) -> split."""
    columns = ["text", *(["text_pair"] if dataset.is_pair else [])]
    return {
        column: _profiles(
            dataset, {split: pc.utf8_length(table[column]).to_numpy() for split, table in dataset.splits.items()}
        )
        for column in columns
    }


def token_profiles(dataset: Dataset, tokens: Mapping[str, TokenTable], tokenizer: Any) -> dict[str, LengthProfile]:
    """Profile the lengths of a dataset in tokens, special tokens included: split -> profile."""
    lengths = {split: full_lengths(dataset.splits[split], table, tokenizer) for split, table in tokens.items()}
    return _profiles(dataset, lengths, MAX_LENGTHS)


def full_lengths(texts: pa.Table, tokens: TokenTable, tokenizer: Any) -> np.ndarray:
    """Count the tokens of each example before truncation. tokens: of these texts. (N,) int64.

    Only texts that were truncated, or divided into windows, are tokenized again; their counts are in the cache.
    """
    lengths = tokens.lengths.copy()
    is_whole = ~tokens.is_truncated & (tokens.counts == 1)
    if is_whole.all():
        return lengths
    columns = [name for name in ("text", "text_pair") if name in texts.column_names]

    def write(folder: Path) -> None:
        np.save(folder / "lengths.npy", count_tokens(texts.select(columns).filter(pa.array(~is_whole)), tokenizer))

    lengths[~is_whole] = np.load(cached_folder(f"lengths-{tokens.fingerprint}", write) / "lengths.npy")
    return lengths


def recommended_length(cuts: Sequence[Cut]) -> Cut | None:
    """Return the smallest max_length that truncates at most 5 % of the texts; None if all of them truncate more."""
    return next((cut for cut in cuts if cut.texts <= ACCEPTABLE_CUT), None)


def _profiles(
    dataset: Dataset, lengths: Mapping[str, np.ndarray], max_lengths: Sequence[int] = ()
) -> dict[str, LengthProfile]:
    edges = _bin_edges(np.concatenate(list(lengths.values())))
    profiles = {}
    for split, of_split in lengths.items():
        labels = labels_of(dataset.splits[split])
        classes = range(dataset.num_labels) if split == "train" else ()
        by_class = (of_split[is_member(labels, label)] for label in classes)
        profiles[split] = LengthProfile(
            all=_spread(of_split, _MAX_OUTLIERS),
            by_class=[_spread(of_class, _MAX_CLASS_OUTLIERS) if len(of_class) else None for of_class in by_class],
            histogram=Histogram(edges.tolist(), np.histogram(np.minimum(of_split, edges[-1]), edges)[0].tolist()),
            cuts=[cut_at(of_split, max_length) for max_length in max_lengths],
        )
    return profiles


def cut_at(lengths: np.ndarray, max_length: int) -> Cut:
    """Compute the shares of texts and tokens that a max_length cuts. lengths: (N,), in tokens.

    >>> cut_at(np.array([10, 30, 60]), 40)
    Cut(max_length=40, texts=0.3333333333333333, tokens=0.2)
    """
    lost = np.maximum(lengths - max_length, 0)
    return Cut(max_length, float((lost > 0).mean()), float(lost.sum() / max(1, lengths.sum())))


def _spread(lengths: np.ndarray, max_outliers: int) -> Spread:
    low, median, high = np.quantile(lengths, [0.25, 0.5, 0.75])
    reach = 1.5 * (high - low)  # Tukey (1977): a whisker ends at the last example within it
    is_outlier = (lengths < low - reach) | (lengths > high + reach)
    within, outliers = lengths[~is_outlier], np.sort(lengths[is_outlier])
    ranks = np.unique(np.linspace(0, len(outliers) - 1, min(len(outliers), max_outliers)).round().astype(int))
    return Spread(
        examples=len(lengths),
        mean=float(lengths.mean()),
        p95=float(np.quantile(lengths, 0.95)),
        max=int(lengths.max()),
        box=[int(within.min()), *map(float, (low, median, high)), int(within.max())],
        num_outliers=len(outliers),
        outliers=outliers[ranks].tolist(),
    )


def _bin_edges(lengths: np.ndarray) -> np.ndarray:
    """Return integer edges of bins of equal width that cover 99 % of the lengths."""
    clip = max(1, int(np.quantile(lengths, _CLIP)))
    width = -(-clip // _BINS)
    return np.arange(0, clip + 1 + width, width)
