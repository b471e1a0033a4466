"""Tokenize texts, each split once: flat arrays of token ids, memory-mapped, in the cache by fingerprint.

# N examples  W sequences  T tokens of a split  B examples of a batch
"""

import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tuneoff.cache import build_seconds, cached_folder, fingerprint
from tuneoff.data.dataset import Dataset, labels_of
from tuneoff.data.spec import TruncationPolicy
from tuneoff.errors import ConfigError
from tuneoff.machine import cores

_PARALLELISM = "TOKENIZERS_PARALLELISM"  # environment variable; "false" keeps a tokenizer from starting threads
_NO_LIMIT = 2**31 - 1  # a max_length above that of any text
_CHUNK_TEXTS = 1000  # texts that a thread tokenizes at a time; few enough for any memory


@dataclass(frozen=True)
class TokenTable:
    """Tokens of one split, end to end. An example is one sequence, or several windows of a long text.

    W = N unless long texts are tokenized in windows.
    """

    ids: np.ndarray  # (T,) int32
    offsets: np.ndarray  # (W + 1,) int64: sequence i is ids[offsets[i]:offsets[i + 1]]
    segments: np.ndarray | None  # (T,) uint8: 1 in the second text of a pair; None if the encoder has no segments
    is_truncated: np.ndarray  # (N,) bool
    labels: np.ndarray  # (N,) ids, or multi-label (N, C) of 0 and 1
    fingerprint: str
    seconds: float  # that tokenizing took, in this study or an earlier one
    windows: np.ndarray | None = None  # (N + 1,): example i has the sequences windows[i] to windows[i + 1]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, in all of its windows. (N,) int64."""
        return np.diff(self.offsets if self.windows is None else self.offsets[self.windows])

    @property
    def counts(self) -> np.ndarray:
        """Sequences of each example. (N,)."""
        return np.ones(len(self), np.int64) if self.windows is None else np.diff(self.windows)

    def sequences(self, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the sequences of some examples, and the number of sequences of each, (B,); None if each has one."""
        if self.windows is None:
            return examples, None
        return token_positions(self.windows, examples), self.counts[examples]


def token_positions(offsets: np.ndarray, sequences: np.ndarray) -> np.ndarray:
    """Return the positions of the tokens of some sequences in the flat arrays, in order. (T of them,) int64."""
    lengths = offsets[sequences + 1] - offsets[sequences]
    starts = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(offsets[sequences] - starts, lengths)


def tokenize(dataset: Dataset, tokenizer: Any, policy: TruncationPolicy | int) -> dict[str, TokenTable]:
    """Tokenize every split of a dataset, or load its tokens from the cache."""
    return {split: tokenize_split(table, tokenizer, policy) for split, table in dataset.splits.items()}


def tokenize_split(table: pa.Table, tokenizer: Any, policy: TruncationPolicy | int) -> TokenTable:
    """Tokenize one split, or load its tokens from the cache. table: columns text, for pairs text_pair, and label.

    policy: a number is the maximum length, with the start of longer texts kept. Of pairs, the longer text is
    truncated first. Raises ConfigError for a policy that pairs do not support.
    """
    policy = TruncationPolicy(policy) if isinstance(policy, int) else policy
    columns = [name for name in ("text", "text_pair") if name in table.column_names]
    if len(columns) == 2 and policy.long_texts in ("head_tail", "windows"):
        raise ConfigError(
            f"long_texts {policy.long_texts} is for single texts, and the data has pairs; use head or tail"
        )
    _without_padding(tokenizer)  # which must not change the fingerprint
    rules = tokenizer.backend_tokenizer.to_str()
    key = fingerprint(table.select(columns), rules, tokenizer.truncation_side, *vars(policy).values())
    folder = cached_folder(f"tokens-{key}", lambda into: _write_tokens(table, columns, tokenizer, policy, into))
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


def tokenize_in_memory(texts: pa.Table, tokenizer: Any, policy: TruncationPolicy) -> TokenTable:
    """Tokenize texts without labels, into memory and past the cache. texts: columns text, for pairs text_pair."""
    _without_padding(tokenizer)
    chunks = list(_token_chunks(texts, texts.column_names, tokenizer, policy))
    segments = np.concatenate([chunk.segments for chunk in chunks])
    has_segments = segments.any() and "token_type_ids" in tokenizer.model_input_names
    counts = np.concatenate([chunk.counts for chunk in chunks])
    return TokenTable(
        ids=np.concatenate([chunk.ids for chunk in chunks]),
        offsets=np.concatenate([[0], *[chunk.lengths for chunk in chunks]]).cumsum().astype(np.int64),
        segments=segments if has_segments else None,
        is_truncated=np.concatenate([chunk.is_truncated for chunk in chunks]),
        labels=np.zeros(texts.num_rows, np.int64),
        fingerprint="",
        seconds=0.0,
        windows=np.concatenate([[0], counts]).cumsum() if policy.long_texts == "windows" else None,
    )


def count_tokens(texts: pa.Table, tokenizer: Any) -> np.ndarray:
    """Count the tokens of texts without truncation, special tokens included. (N,). texts: text, perhaps text_pair."""
    _without_padding(tokenizer)
    chunks = _token_chunks(texts, texts.column_names, tokenizer, TruncationPolicy(_NO_LIMIT))
    return np.concatenate([np.empty(0, np.int64), *[chunk.lengths for chunk in chunks]])


def _without_padding(tokenizer: Any) -> None:
    """Remove the truncation and padding that a tokenizer was saved with, or that its last call set."""
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()


@dataclass(frozen=True)
class _TokenChunk:
    """Tokens of consecutive texts."""

    ids: np.ndarray  # of all sequences, end to end, int32
    segments: np.ndarray  # as ids, uint8
    lengths: np.ndarray  # of each sequence
    is_truncated: np.ndarray  # of each text
    counts: np.ndarray  # sequences of each text


def _write_tokens(table: pa.Table, columns: list[str], tokenizer: Any, policy: TruncationPolicy, folder: Path) -> None:
    """Tokenize in chunks and append them to files, so that memory is bounded for any number of texts."""
    lengths: list[np.ndarray] = []
    is_truncated: list[np.ndarray] = []
    counts: list[np.ndarray] = []
    has_second_segment = False
    with open(folder / "ids.raw", "wb") as ids, open(folder / "segments.raw", "wb") as segments:
        for chunk in _token_chunks(table, columns, tokenizer, policy):
            lengths.append(chunk.lengths)
            counts.append(chunk.counts)
            is_truncated.append(chunk.is_truncated)
            ids.write(chunk.ids.tobytes())
            has_second_segment |= bool(chunk.segments.any())
            segments.write(chunk.segments.tobytes())
    np.save(folder / "offsets.npy", np.concatenate([[0], *lengths]).cumsum().astype(np.int64))
    np.save(folder / "truncated.npy", np.concatenate(is_truncated))
    if policy.long_texts == "windows":
        np.save(folder / "windows.npy", np.concatenate([[0], *counts]).cumsum().astype(np.int64))
    _convert_to_npy(folder / "ids.raw", np.int32)
    if has_second_segment and "token_type_ids" in tokenizer.model_input_names:
        _convert_to_npy(folder / "segments.raw", np.uint8)
    else:
        (folder / "segments.raw").unlink()


def _token_chunks(
    table: pa.Table, columns: list[str], tokenizer: Any, policy: TruncationPolicy
) -> Iterator[_TokenChunk]:
    """Tokenize the texts in chunks of 1,000, in order.

    Algorithm: each chunk is a task for a pool with one thread per core, and the tokenizer's own threads are switched
    off. Threads are enough, because the tokenizer is compiled code that releases Python's global lock. Two such
    threads took 3.0 s for 100,000 texts, the tokenizer's own threads 5.0 s (docs/log.md, "Tokenizing on both cores").

    Memory: futures wait in a queue in the order of their chunks, so that the output does not depend on which thread
    is faster. When more than two per thread are in the queue, the oldest is taken out before the next is submitted:
    enough to keep all threads busy while the caller writes, and a bound on the chunks in memory.

    The tokenizer is shared by all threads: its truncation is set before they start and removed when they have ended.
    The switch for its threads is an environment variable of the whole process, so it is restored as well.
    """
    backend, num_threads = tokenizer.backend_tokenizer, cores()

    def tokenize_chunk(batch: pa.RecordBatch) -> _TokenChunk:
        texts = [batch.column(name).to_pylist() for name in columns]
        # "fast": without the character offsets of tokens, which nothing reads
        encodings = backend.encode_batch_fast(texts[0] if len(texts) == 1 else list(zip(*texts, strict=True)))
        return _CHUNK_OF[policy.long_texts](encodings, policy)

    direction = "left" if policy.long_texts == "tail" else tokenizer.truncation_side
    if policy.long_texts == "windows":
        backend.enable_truncation(policy.max_length, stride=_stride(backend, policy), direction="right")
    elif policy.long_texts != "head_tail":
        backend.enable_truncation(policy.max_length, strategy="longest_first", direction=direction)
    previous = os.environ.get(_PARALLELISM)
    os.environ[_PARALLELISM] = "false"
    try:
        with ThreadPoolExecutor(num_threads) as pool:
            futures: deque[Future[_TokenChunk]] = deque()
            for batch in table.select(columns).to_batches(max_chunksize=_CHUNK_TEXTS):
                futures.append(pool.submit(tokenize_chunk, batch))
                if len(futures) > 2 * num_threads:
                    yield futures.popleft().result()
            while futures:
                yield futures.popleft().result()
    finally:
        backend.no_truncation()
        os.environ.pop(_PARALLELISM) if previous is None else os.environ.update({_PARALLELISM: previous})


def _stride(backend: Any, policy: TruncationPolicy) -> int:
    """Return the overlap of neighbouring windows in tokens, so that each window has at least one new token."""
    room = policy.max_length - backend.num_special_tokens_to_add(False)  # for tokens that are not special
    return max(0, min(policy.overlap_tokens, room - 1))


def windows_reach(backend: Any, policy: TruncationPolicy) -> int:
    """Return how many tokens of a text all of its windows hold together, special tokens left out."""
    room = policy.max_length - backend.num_special_tokens_to_add(False)
    return room + (policy.max_windows - 1) * (room - _stride(backend, policy))


def _one_end(encodings: Sequence[Any], policy: TruncationPolicy) -> _TokenChunk:
    """Keep the first or the last tokens, as the tokenizer has truncated them."""
    return _token_chunk([(e.ids, e.type_ids) for e in encodings], [bool(e.overflowing) for e in encodings])


def _both_ends(encodings: Sequence[Any], policy: TruncationPolicy) -> _TokenChunk:
    """Keep the first and the last tokens of a long text; special tokens are at the ends, so they are kept."""
    sequences = []
    for e in encodings:
        ids, segments = e.ids, e.type_ids
        if len(ids) > policy.max_length:
            tail = policy.max_length - policy.head_tokens
            ids, segments = ids[: policy.head_tokens] + ids[-tail:], segments[: policy.head_tokens] + segments[-tail:]
        sequences.append((ids, segments))
    return _token_chunk(sequences, [len(e) > policy.max_length for e in encodings])


def _windows(encodings: Sequence[Any], policy: TruncationPolicy) -> _TokenChunk:
    """Keep the first windows of each text, at most max_windows; a text with more windows is truncated."""
    windows = [[e, *e.overflowing] for e in encodings]
    kept = [of_text[: policy.max_windows] for of_text in windows]
    sequences = [(window.ids, window.type_ids) for of_text in kept for window in of_text]
    is_truncated = [len(of_text) > policy.max_windows for of_text in windows]
    return _token_chunk(sequences, is_truncated, [len(of_text) for of_text in kept])


_CHUNK_OF = {"head": _one_end, "tail": _one_end, "head_tail": _both_ends, "windows": _windows}


def _token_chunk(
    sequences: Sequence[tuple[list[int], list[int]]], is_truncated: list[bool], counts: list[int] | None = None
) -> _TokenChunk:
    """Join sequences of ids and segments end to end. counts: sequences of each text; by default one."""
    return _TokenChunk(
        ids=np.fromiter(chain.from_iterable(ids for ids, _ in sequences), np.int32),
        segments=np.fromiter(chain.from_iterable(segments for _, segments in sequences), np.uint8),
        lengths=np.array([len(ids) for ids, _ in sequences], np.int64),
        is_truncated=np.array(is_truncated),
        counts=np.ones(len(is_truncated), np.int64) if counts is None else np.array(counts, np.int64),
    )


def _convert_to_npy(raw: Path, dtype: type) -> None:
    """Convert a file of raw numbers to a .npy file without loading it into memory.

    Through the file interface: on a full disk a write through a memory map kills the process.
    """
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    header = {"descr": descr, "fortran_order": False, "shape": (raw.stat().st_size // np.dtype(dtype).itemsize,)}
    with open(raw, "rb") as source, open(raw.with_suffix(".npy"), "wb") as target:
        np.lib.format.write_array_header_1_0(target, header)
        shutil.copyfileobj(source, target)
    raw.unlink()
