"""Texts -> token ids, once: flat, memory-mapped, kept in the cache by fingerprint.

# N examples  T all tokens of a split
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tuneoff.cache import build_seconds, cached, fingerprint
from tuneoff.data.dataset import Dataset, labels_of
from tuneoff.machine import cores

_PARALLELISM = "TOKENIZERS_PARALLELISM"  # whether the tokenizer starts threads of its own
_BATCH = 1000  # texts a thread takes at once: small beside any memory


@dataclass(frozen=True)
class TokenTable:
    """The tokens of one split, end to end."""

    ids: np.ndarray  # (T,) int32
    offsets: np.ndarray  # (N + 1,) int64: example i is ids[offsets[i]:offsets[i + 1]]
    segments: np.ndarray | None  # (T,) uint8: 1 in the second text of a pair; None where the tokenizer has none
    is_truncated: np.ndarray  # (N,) bool
    labels: np.ndarray  # (N,) ids, or (N, C) of 0 and 1
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
        labels=labels_of(table),
        fingerprint=key,
        seconds=build_seconds(folder),
    )


def _write(table: pa.Table, columns: list[str], tokenizer: Any, max_length: int, into: Path) -> None:
    """Tokenise in batches and append to files, so that memory stays bounded whatever the number of texts."""
    lengths: list[np.ndarray] = []
    truncated: list[np.ndarray] = []
    any_segment = False
    with open(into / "ids.raw", "wb") as ids, open(into / "segments.raw", "wb") as segments:
        for part in _pieces(table, columns, tokenizer, max_length):
            lengths.append(part.lengths)
            truncated.append(part.is_truncated)
            ids.write(part.ids.tobytes())
            any_segment |= bool(part.segments.any())
            segments.write(part.segments.tobytes())
    np.save(into / "offsets.npy", np.concatenate([[0], *lengths]).cumsum().astype(np.int64))
    np.save(into / "truncated.npy", np.concatenate(truncated))
    _as_npy(into / "ids.raw", np.int32)
    uses_segments = any_segment and "token_type_ids" in tokenizer.model_input_names
    _as_npy(into / "segments.raw", np.uint8) if uses_segments else (into / "segments.raw").unlink()


@dataclass(frozen=True)
class _Piece:
    """The tokens of some neighbouring texts, as in a TokenTable."""

    ids: np.ndarray
    segments: np.ndarray
    lengths: np.ndarray
    is_truncated: np.ndarray


def _pieces(table: pa.Table, columns: list[str], tokenizer: Any, max_length: int) -> Iterator[_Piece]:
    """The texts by the thousand, in order. A thread a core: faster than the tokenizer's own threads (docs/log.md)."""
    backend, num_threads = tokenizer.backend_tokenizer, cores()

    def encoded(batch: pa.RecordBatch) -> _Piece:
        texts = [batch.column(name).to_pylist() for name in columns]
        # fast: without the characters that each token stands for
        found = backend.encode_batch_fast(texts[0] if len(texts) == 1 else list(zip(*texts, strict=True)))
        return _Piece(
            np.fromiter(chain.from_iterable(e.ids for e in found), np.int32),
            np.fromiter(chain.from_iterable(e.type_ids for e in found), np.uint8),
            np.array([len(e) for e in found], np.int64),
            np.array([bool(e.overflowing) for e in found]),
        )

    backend.enable_truncation(max_length, strategy="longest_first", direction=tokenizer.truncation_side)
    before = os.environ.get(_PARALLELISM)
    os.environ[_PARALLELISM] = "false"
    try:
        with ThreadPoolExecutor(num_threads) as threads:
            waiting: deque[Future[_Piece]] = deque()
            for batch in table.select(columns).to_batches(max_chunksize=_BATCH):
                waiting.append(threads.submit(encoded, batch))
                if len(waiting) > 2 * num_threads:  # memory stays bounded
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        backend.no_truncation()
        os.environ.pop(_PARALLELISM) if before is None else os.environ.update({_PARALLELISM: before})


def _as_npy(raw: Path, dtype: type) -> None:
    """Turn appended raw numbers into a .npy file beside them, without reading them into memory."""
    count = raw.stat().st_size // np.dtype(dtype).itemsize
    target = np.lib.format.open_memmap(raw.with_suffix(".npy"), mode="w+", dtype=dtype, shape=(count,))
    target[:] = np.memmap(raw, dtype=dtype, mode="r", shape=(count,))
    target.flush()
    raw.unlink()
