"""Texts -> token ids, once: flat, memory-mapped, kept in the cache by fingerprint.

# N examples  T all tokens of a split
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from tuneoff.cache import build_seconds, cached, fingerprint
from tuneoff.data.dataset import Dataset, labels_of
from tuneoff.errors import ConfigError
from tuneoff.machine import cores

_PARALLELISM = "TOKENIZERS_PARALLELISM"  # whether the tokenizer starts threads of its own
_BATCH = 1000  # texts a thread takes at once: small beside any memory


LongTexts = Literal["head", "tail", "head_tail", "windows"]


@dataclass(frozen=True)
class Reading:
    """How many tokens of a text are read, and which if it is longer."""

    max_length: int  # of a sequence, special tokens included
    long_texts: LongTexts = "head"
    overlap: float = 0.25  # share of a window that the next one holds too
    max_windows: int = 8

    def spoken(self) -> str:
        """What is read, in words."""
        most = f"{self.max_length} tokens"
        windows = f"up to {self.max_windows} windows of {most} that overlap by {self.shared}"
        return {
            "head": f"the first {most}",
            "tail": f"the last {most}",
            "head_tail": f"{most}: the first {self.head} and the last {self.max_length - self.head}",
            "windows": f"{windows}; the mean of their logits counts, for a probe that of their vectors",
        }[self.long_texts]

    @property
    def head(self) -> int:
        """Tokens from the beginning where both ends are read: a quarter (Sun et al., CCL 2019: 128 of 510)."""
        return self.max_length // 4

    @property
    def shared(self) -> int:
        """Tokens that two neighbouring windows have in common."""
        return int(self.overlap * self.max_length)


@dataclass(frozen=True)
class TokenTable:
    """The tokens of one split, end to end. An example is one sequence, or several windows of a long text.

    # W sequences; N where no text is read in windows
    """

    ids: np.ndarray  # (T,) int32
    offsets: np.ndarray  # (W + 1,) int64: sequence i is ids[offsets[i]:offsets[i + 1]]
    segments: np.ndarray | None  # (T,) uint8: 1 in the second text of a pair; None where the tokenizer has none
    is_truncated: np.ndarray  # (N,) bool
    labels: np.ndarray  # (N,) ids, or (N, C) of 0 and 1
    fingerprint: str
    seconds: float  # what tokenising took, whenever that was
    windows: np.ndarray | None = None  # (N + 1,): example i is the sequences from windows[i] to windows[i + 1]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, in all of its windows. (N,) int64."""
        return np.diff(self.offsets if self.windows is None else self.offsets[self.windows])

    def sequences(self, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The sequences of some examples, and how many each has, (B,); None where each has one."""
        return (examples, None) if self.windows is None else (token_rows(self.windows, examples), self.counts[examples])

    @property
    def counts(self) -> np.ndarray:
        """Sequences of each example. (N,)."""
        return np.ones(len(self), np.int64) if self.windows is None else np.diff(self.windows)


def token_rows(offsets: np.ndarray, examples: np.ndarray) -> np.ndarray:
    """Positions in a flat table of everything that the given examples hold, in order. (T,) int64."""
    lengths = offsets[examples + 1] - offsets[examples]
    starts = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(offsets[examples] - starts, lengths)


def encode(dataset: Dataset, tokenizer: Any, reading: Reading | int) -> dict[str, TokenTable]:
    """Every split of a dataset as tokens, from the cache where it holds them."""
    return {split: encode_split(table, tokenizer, reading) for split, table in dataset.splits.items()}


def encode_split(table: pa.Table, tokenizer: Any, reading: Reading | int) -> TokenTable:
    """One split as tokens. table: columns text, perhaps text_pair, and label.

    reading: a number is the most tokens of a text's head. Pairs are cut from the longer text first.
    """
    reading = Reading(reading) if isinstance(reading, int) else reading
    columns = [name for name in ("text", "text_pair") if name in table.column_names]
    if len(columns) == 2 and reading.long_texts in ("head_tail", "windows"):
        raise ConfigError(f"long_texts {reading.long_texts} reads one text, and the data has pairs; use head or tail")
    tokenizer.backend_tokenizer.no_truncation()  # calls leave their truncation behind; it is no part of the rules
    tokenizer.backend_tokenizer.no_padding()
    rules = tokenizer.backend_tokenizer.to_str()
    key = fingerprint(table.select(columns), rules, tokenizer.truncation_side, *vars(reading).values())
    folder = cached(f"tokens-{key}", lambda into: _write(table, columns, tokenizer, reading, into))
    segments, windows = folder / "segments.npy", folder / "windows.npy"
    return TokenTable(
        ids=np.load(folder / "ids.npy", mmap_mode="r"),
        offsets=np.load(folder / "offsets.npy"),
        segments=np.load(segments, mmap_mode="r") if segments.exists() else None,
        is_truncated=np.load(folder / "truncated.npy"),
        labels=labels_of(table),
        fingerprint=key,
        seconds=build_seconds(folder),
        windows=np.load(windows) if windows.exists() else None,
    )


def _write(table: pa.Table, columns: list[str], tokenizer: Any, reading: Reading, into: Path) -> None:
    """Tokenise in batches and append to files, so that memory stays bounded whatever the number of texts."""
    lengths: list[np.ndarray] = []
    truncated: list[np.ndarray] = []
    counts: list[np.ndarray] = []
    any_segment = False
    with open(into / "ids.raw", "wb") as ids, open(into / "segments.raw", "wb") as segments:
        for part in _pieces(table, columns, tokenizer, reading):
            lengths.append(part.lengths)
            counts.append(part.counts)
            truncated.append(part.is_truncated)
            ids.write(part.ids.tobytes())
            any_segment |= bool(part.segments.any())
            segments.write(part.segments.tobytes())
    np.save(into / "offsets.npy", np.concatenate([[0], *lengths]).cumsum().astype(np.int64))
    np.save(into / "truncated.npy", np.concatenate(truncated))
    if reading.long_texts == "windows":
        np.save(into / "windows.npy", np.concatenate([[0], *counts]).cumsum().astype(np.int64))
    _as_npy(into / "ids.raw", np.int32)
    uses_segments = any_segment and "token_type_ids" in tokenizer.model_input_names
    _as_npy(into / "segments.raw", np.uint8) if uses_segments else (into / "segments.raw").unlink()


@dataclass(frozen=True)
class _Piece:
    """The tokens of some neighbouring texts, as in a TokenTable."""

    ids: np.ndarray
    segments: np.ndarray
    lengths: np.ndarray  # of each sequence
    is_truncated: np.ndarray  # of each text, as counts
    counts: np.ndarray


def _pieces(table: pa.Table, columns: list[str], tokenizer: Any, reading: Reading) -> Iterator[_Piece]:
    """The texts by the thousand, in order. A thread a core: faster than the tokenizer's own threads (docs/log.md)."""
    backend, num_threads = tokenizer.backend_tokenizer, cores()

    def encoded(batch: pa.RecordBatch) -> _Piece:
        texts = [batch.column(name).to_pylist() for name in columns]
        # fast: without the characters that each token stands for
        found = backend.encode_batch_fast(texts[0] if len(texts) == 1 else list(zip(*texts, strict=True)))
        return _READ[reading.long_texts](found, reading)

    direction = "left" if reading.long_texts == "tail" else tokenizer.truncation_side
    if reading.long_texts == "windows":
        backend.enable_truncation(reading.max_length, stride=_stride(backend, reading), direction="right")
    elif reading.long_texts != "head_tail":
        backend.enable_truncation(reading.max_length, strategy="longest_first", direction=direction)
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


def _stride(backend: Any, reading: Reading) -> int:
    """Tokens that neighbouring windows share, below what a window has room for beside special ones."""
    room = reading.max_length - backend.num_special_tokens_to_add(False)
    return max(0, min(reading.shared, room - 1))


def _as_they_are(found: Sequence[Any], reading: Reading) -> _Piece:
    return _piece([(e.ids, e.type_ids) for e in found], [bool(e.overflowing) for e in found])


def _both_ends(found: Sequence[Any], reading: Reading) -> _Piece:
    """The first tokens and the last of what is too long: special ones stand at the ends."""
    sequences = []
    for e in found:
        ids, segments = e.ids, e.type_ids
        if len(ids) > reading.max_length:
            tail = reading.max_length - reading.head
            ids, segments = ids[: reading.head] + ids[-tail:], segments[: reading.head] + segments[-tail:]
        sequences.append((ids, segments))
    return _piece(sequences, [len(e) > reading.max_length for e in found])


def _in_windows(found: Sequence[Any], reading: Reading) -> _Piece:
    windows = [[e, *e.overflowing] for e in found]
    kept = [each[: reading.max_windows] for each in windows]
    sequences = [(window.ids, window.type_ids) for each in kept for window in each]
    is_cut = [len(each) > reading.max_windows for each in windows]
    return _piece(sequences, is_cut, [len(each) for each in kept])


def _piece(
    sequences: Sequence[tuple[list[int], list[int]]], is_truncated: list[bool], counts: list[int] | None = None
) -> _Piece:
    return _Piece(
        ids=np.fromiter(chain.from_iterable(ids for ids, _ in sequences), np.int32),
        segments=np.fromiter(chain.from_iterable(segments for _, segments in sequences), np.uint8),
        lengths=np.array([len(ids) for ids, _ in sequences], np.int64),
        is_truncated=np.array(is_truncated),
        counts=np.ones(len(is_truncated), np.int64) if counts is None else np.array(counts, np.int64),
    )


_READ = {"head": _as_they_are, "tail": _as_they_are, "head_tail": _both_ends, "windows": _in_windows}


def _as_npy(raw: Path, dtype: type) -> None:
    """Turn appended raw numbers into a .npy file beside them, without reading them into memory."""
    count = raw.stat().st_size // np.dtype(dtype).itemsize
    target = np.lib.format.open_memmap(raw.with_suffix(".npy"), mode="w+", dtype=dtype, shape=(count,))
    target[:] = np.memmap(raw, dtype=dtype, mode="r", shape=(count,))
    target.flush()
    raw.unlink()
