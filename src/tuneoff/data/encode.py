"""Texts -> token ids, once: flat, memory-mapped, kept in the cache by fingerprint.

# N examples  T all tokens of a split
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tuneoff.cache import build_seconds, cached, fingerprint
from tuneoff.data.dataset import Dataset

_BATCH = 1000  # texts handed to the tokenizer at once: enough for its threads, small beside any memory


@dataclass(frozen=True)
class TokenTable:
    """The tokens of one split, end to end."""

    ids: np.ndarray  # (T,) int32
    offsets: np.ndarray  # (N + 1,) int64: example i is ids[offsets[i]:offsets[i + 1]]
    segments: np.ndarray | None  # (T,) uint8: 1 in the second text of a pair; None where the tokenizer has none
    is_truncated: np.ndarray  # (N,) bool
    labels: np.ndarray  # (N,) int64
    fingerprint: str
    seconds: float  # what tokenising took, whenever that was

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example. (N,) int64."""
        return np.diff(self.offsets)


def encode(dataset: Dataset, tokenizer: Any, max_length: int) -> dict[str, TokenTable]:
    """Every split of a dataset as tokens, from the cache where it holds them."""
    return {split: encode_split(table, tokenizer, max_length) for split, table in dataset.splits.items()}


def encode_split(table: pa.Table, tokenizer: Any, max_length: int) -> TokenTable:
    """One split as tokens. table: columns text, perhaps text_pair, and label.

    max_length: tokens, special ones included; longer texts are cut, pairs from the longer one first.
    """
    columns = [name for name in ("text", "text_pair") if name in table.column_names]
    tokenizer.backend_tokenizer.no_truncation()  # calls leave their truncation behind; it is no part of the rules
    tokenizer.backend_tokenizer.no_padding()
    rules = tokenizer.backend_tokenizer.to_str()
    key = fingerprint(table.select(columns), rules, max_length, tokenizer.truncation_side)
    folder = cached(f"tokens-{key}", lambda into: _write(table, columns, tokenizer, max_length, into))
    segments = folder / "segments.npy"
    return TokenTable(
        ids=np.load(folder / "ids.npy", mmap_mode="r"),
        offsets=np.load(folder / "offsets.npy"),
        segments=np.load(segments, mmap_mode="r") if segments.exists() else None,
        is_truncated=np.load(folder / "truncated.npy"),
        labels=table["label"].to_numpy(),
        fingerprint=key,
        seconds=build_seconds(folder),
    )


def _write(table: pa.Table, columns: list[str], tokenizer: Any, max_length: int, into: Path) -> None:
    """Tokenise in batches and append to files, so that memory stays bounded whatever the number of texts."""
    lengths: list[np.ndarray] = []
    truncated: list[np.ndarray] = []
    any_segment = False
    with open(into / "ids.raw", "wb") as ids, open(into / "segments.raw", "wb") as segments:
        for encodings in _batches(table, columns, tokenizer, max_length):
            lengths.append(np.array([len(e) for e in encodings], np.int64))
            truncated.append(np.array([bool(e.overflowing) for e in encodings]))
            ids.write(np.fromiter(chain.from_iterable(e.ids for e in encodings), np.int32).tobytes())
            types = np.fromiter(chain.from_iterable(e.type_ids for e in encodings), np.uint8)
            any_segment |= bool(types.any())
            segments.write(types.tobytes())
    np.save(into / "offsets.npy", np.concatenate([[0], *lengths]).cumsum().astype(np.int64))
    np.save(into / "truncated.npy", np.concatenate(truncated))
    _as_npy(into / "ids.raw", np.int32)
    uses_segments = any_segment and "token_type_ids" in tokenizer.model_input_names
    _as_npy(into / "segments.raw", np.uint8) if uses_segments else (into / "segments.raw").unlink()


def _batches(table: pa.Table, columns: list[str], tokenizer: Any, max_length: int) -> Iterator[list[Any]]:
    """Encodings of the texts by the thousand, from the tokenizer's own Rust, which uses all cores."""
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(max_length, strategy="longest_first", direction=tokenizer.truncation_side)
    try:
        for batch in table.select(columns).to_batches(max_chunksize=_BATCH):
            texts = [batch.column(name).to_pylist() for name in columns]
            # fast: without the characters that each token stands for
            yield backend.encode_batch_fast(texts[0] if len(texts) == 1 else list(zip(*texts, strict=True)))
    finally:
        backend.no_truncation()


def _as_npy(raw: Path, dtype: type) -> None:
    """Turn appended raw numbers into a .npy file beside them, without reading them into memory."""
    count = raw.stat().st_size // np.dtype(dtype).itemsize
    target = np.lib.format.open_memmap(raw.with_suffix(".npy"), mode="w+", dtype=dtype, shape=(count,))
    target[:] = np.memmap(raw, dtype=dtype, mode="r", shape=(count,))
    target.flush()
    raw.unlink()
