"""What a model is fed: packed tokens, or what its frozen first blocks once said of them.

# N examples  T tokens of a split  B examples of a batch  H hidden  C classes
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tuneoff.cache import build_seconds, cached, fingerprint
from tuneoff.data.batches import PackedBatch, by_length, filled, pack
from tuneoff.data.encode import TokenTable, token_rows
from tuneoff.encoder.anatomy import anatomy, blocks, pools_mean
from tuneoff.encoder.packed import POOLINGS, classify, embed, final_states, forward, pool, read_out, run_blocks
from tuneoff.engine.precision import computing_in, inference

# tokens of an evaluation batch, counted as if padded: large enough for full speed, small beside a training step
EVALUATION_TOKENS = 2048
# what the states of one split may take on disk; beyond it frozen blocks run again every epoch, with the same numbers
PREFIX_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Feed:
    """The examples of one split as a model with frozen first blocks takes them."""

    table: TokenTable
    # (T, H) states before first_block, (W, H) pooled states if no block trains, or None: start from tokens
    states: Tensor | None = None
    first_block: int = 0
    is_pooled: bool = False
    seconds: float = 0.0  # what it took to compute the states, whenever that was
    chosen: np.ndarray | None = None  # the examples of the table that are given; all if None

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example. (N,)."""
        return self.table.lengths if self.chosen is None else self.table.lengths[self.chosen]

    @property
    def labels(self) -> np.ndarray:
        """Of each example. (N,) or (N, C)."""
        return self.table.labels if self.chosen is None else self.table.labels[self.chosen]

    def batch(self, examples: np.ndarray, device: torch.device) -> tuple[PackedBatch, Tensor | None]:
        """Examples as a packed batch, and the states they start from: (1, T, H) or (W, 1, H)."""
        examples = examples if self.chosen is None else self.chosen[examples]
        batch = pack(self.table, examples).to(device)
        if self.states is None:
            return batch, None
        sequences, _ = self.table.sequences(examples)
        if self.is_pooled:
            return batch, self.states[torch.from_numpy(sequences)].to(device)[:, None]
        rows = torch.from_numpy(filled(token_rows(self.table.offsets, sequences)))
        return batch, self.states[rows].to(device)[None]


def logits(model: Any, feed: Feed, examples: np.ndarray) -> tuple[Tensor, PackedBatch]:
    """The model's answer for some examples of a feed. (B, C), and the batch."""
    batch, states = feed.batch(examples, next(model.parameters()).device)
    if states is None:
        return merged(forward(model, batch), batch), batch
    pooled = states if feed.is_pooled else read_out(model, states, batch, feed.first_block)
    return merged(classify(model, pooled), batch), batch


def merged(answers: Tensor, batch: PackedBatch) -> Tensor:
    """The mean of what is said of each example's windows. (W, ...) -> (B, ...)."""
    if batch.windows is None:
        return answers
    owner = torch.repeat_interleave(torch.arange(len(batch.windows), device=answers.device), batch.windows)
    sums = answers.new_zeros(len(batch.windows), *answers.shape[1:]).index_add(0, owner, answers)
    return sums / batch.windows[:, None]


def predict(model: Any, feed: Feed) -> np.ndarray:
    """Logits of every example of a feed, in order. (N, C) float32."""
    model.eval()
    answers = np.empty((len(feed), model.config.num_labels), np.float32)
    with inference():
        for examples in by_length(feed.lengths, EVALUATION_TOKENS):
            answers[examples] = logits(model, feed, examples)[0].cpu().numpy()
    return answers


def with_prefix(
    model: Any,
    table: TokenTable,
    first_block: int,
    model_fingerprint: str,
    dtype: torch.dtype,
    budget: int = PREFIX_BYTES,
) -> Feed:
    """A feed that starts behind the frozen blocks, their outputs taken from the cache or computed into it.

    Without frozen blocks, beyond the budget, or where blocks cannot be run apart (padded architectures), it starts
    from tokens. Frozen blocks run without dropout either way, so the numbers are the same in fp32; in bf16 the cache
    rounds states once more than running on does.
    """
    num_blocks, hidden = len(blocks(model)), model.config.hidden_size
    if first_block == num_blocks:
        pooling = "mean" if pools_mean(model.config) else "cls"
        states, seconds = embeddings(model, table, pooling, model_fingerprint, dtype)
        return Feed(table, states, first_block, is_pooled=True, seconds=seconds)
    bytes_needed = int(table.offsets[-1]) * hidden * dtype.itemsize
    if first_block == 0 or bytes_needed > budget or not anatomy(model.config).is_packed:
        return Feed(table)
    key = fingerprint(model_fingerprint, table.fingerprint, first_block, str(dtype))
    folder = cached(f"prefix-{key}", lambda into: _write_states(model, table, first_block, dtype, into))
    return Feed(table, _read(folder / "states.npy", dtype), first_block, seconds=build_seconds(folder))


def embeddings(
    model: Any, table: TokenTable, pooling: str, model_fingerprint: str, dtype: torch.dtype
) -> tuple[Tensor, float]:
    """The frozen encoder's vector of each sequence, (W, H) in fp32, and the seconds it took to make them.

    dtype: what the encoder computes in. One pass writes every pooling, so that probe and head share it.
    """

    def write(into: Path) -> None:
        size = (len(table.offsets) - 1, model.config.hidden_size)
        pooled = {name: _create(into / f"{name}.npy", size, torch.float32) for name in POOLINGS}
        with computing_in(dtype, model), inference():
            for examples, batch in _frozen_batches(model, table):
                states = final_states(model, batch)
                for name, vectors in pooled.items():
                    vectors[table.sequences(examples)[0]] = pool(model, states, batch, name)[:, 0].cpu().numpy()

    key = fingerprint(model_fingerprint, table.fingerprint, "pooled", str(dtype))
    folder = cached(f"prefix-{key}", write)
    return _read(folder / f"{pooling}.npy", torch.float32), build_seconds(folder)


def _write_states(model: Any, table: TokenTable, first_block: int, dtype: torch.dtype, into: Path) -> None:
    states = _create(into / "states.npy", (int(table.offsets[-1]), model.config.hidden_size), dtype)
    with computing_in(dtype, model), inference():
        for examples, batch in _frozen_batches(model, table):
            tokens = run_blocks(model, embed(model, batch), batch, 0, first_block)[0]  # (T of the batch, H)
            states[token_rows(table.offsets, table.sequences(examples)[0])] = _as_numpy(
                tokens[: batch.num_tokens].cpu()
            )


def _frozen_batches(model: Any, table: TokenTable) -> Iterator[tuple[np.ndarray, PackedBatch]]:
    model.eval()
    device = next(model.parameters()).device
    for examples in by_length(table.lengths, EVALUATION_TOKENS):
        yield examples, pack(table, examples).to(device)


# numpy has no bf16: its bits are kept as 16-bit integers
def _as_numpy(states: Tensor) -> np.ndarray:
    return (states.view(torch.int16) if states.dtype == torch.bfloat16 else states).numpy()


def _create(path: Path, shape: tuple[int, int], dtype: torch.dtype) -> np.ndarray:
    kind = np.int16 if dtype == torch.bfloat16 else np.float32
    return np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)


def _read(path: Path, dtype: torch.dtype) -> Tensor:
    # copy-on-write: torch wants writable memory, the file is never written
    states = torch.from_numpy(np.load(path, mmap_mode="c"))
    return states.view(torch.bfloat16) if dtype == torch.bfloat16 else states
