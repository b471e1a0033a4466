"""Model inputs for one split: packed tokens, or cached outputs of the frozen lower blocks.

Algorithm: if the first block that trains is block k, blocks 0..k-1 and the embeddings compute the same outputs for an
example in every epoch, seed and strategy, because dropout is off in them. So they run once over the split, and their
outputs, (T, H) for all tokens, are stored in the cache as a memory-mapped file, whose key is the fingerprint of model,
tokens, k and dtype. Training then starts from rows of that file at block k. If no block trains (probe, head), only the
pooled vectors are stored, (W, H). Features of a frozen encoder are computed once in the feature-based approach of BERT
(Devlin et al., NAACL 2019, section 5.3); the cache between blocks extends that to partly frozen encoders.

Trade-off: disk, 2 or 4 bytes * T * H per split and k. Beyond PREFIX_BYTES the frozen blocks run again in every epoch,
with the same results up to rounding.

# N examples  W sequences (windows of long texts; else W = N)  T tokens  B examples of a batch  H hidden  C classes
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from tuneoff.cache import build_seconds, cached_folder, fingerprint
from tuneoff.data.batches import BUCKET_STEP, GPU_BUCKET_STEP, PackedBatch, length_sorted_batches, pack, pad_to_bucket
from tuneoff.data.tokens import TokenTable, token_positions
from tuneoff.encoder.anatomy import blocks, is_packed, pools_mean
from tuneoff.encoder.packed import POOLINGS, classify, embed, final_states, forward, pool, read_out, run_blocks
from tuneoff.engine.memory import is_out_of_memory, release_memory
from tuneoff.engine.precision import compute_dtype, inference
from tuneoff.files import preallocate

# tokens of an evaluation batch, counted as if padded: enough for full speed, in less memory than a training step
EVALUATION_TOKENS = 2048
_GPU_EVALUATION_TOKENS = 32_768  # the same for a GPU, estimated: 2,048 would be a few per cent of its speed
# of the free memory of a GPU that cached states may take, so that they are copied once and not in each step
_GPU_SHARE_FOR_STATES = 0.25
PREFIX_BYTES = 4 * 2**30  # largest size on disk of the cached states of one split
_Computed = TypeVar("_Computed")


@dataclass(frozen=True)
class SplitInputs:
    """Inputs of a model for the examples of one split: tokens, and if the lower blocks are frozen, their outputs."""

    table: TokenTable
    # (T, H) inputs of first_block, or (W, H) pooled vectors if no block trains; None: start from tokens
    states: Tensor | None = None
    first_block: int = 0
    is_pooled: bool = False
    seconds: float = 0.0  # spent on computing the states, in this run or an earlier one
    subset: np.ndarray | None = None  # indices of the examples to use; None for all

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example. (N,)."""
        return self.table.lengths if self.subset is None else self.table.lengths[self.subset]

    @property
    def labels(self) -> np.ndarray:
        """Label ids, (N,), or for multi-label data 0 and 1, (N, C)."""
        return self.table.labels if self.subset is None else self.table.labels[self.subset]

    def batch(self, examples: np.ndarray, device: torch.device) -> tuple[PackedBatch, Tensor | None]:
        """Return some examples as a packed batch, and the states to start from: (1, T, H), pooled (W, 1, H), or None.

        examples: (B,) indices, into the subset if there is one.
        """
        examples = examples if self.subset is None else self.subset[examples]
        step = BUCKET_STEP if device.type == "cpu" else GPU_BUCKET_STEP
        batch = pack(self.table, examples, step)
        if self.states is None:
            return batch.to(device), None
        sequences, _ = self.table.sequences(examples)
        # filled up like the tokens of pack, so that states and tokens have the same T
        rows = sequences if self.is_pooled else pad_to_bucket(token_positions(self.table.offsets, sequences), step)
        batch = replace(batch, states=torch.from_numpy(rows))
        assert batch.states is not None
        if self.states.device.type == device.type:
            batch = batch.to(device)
            states = self.states[batch.states]
        else:  # too large for the GPU: rows are copied while it computes
            states = self.states[batch.states].pin_memory().to(device, non_blocking=True)
            batch = batch.to(device)
        return batch, states[:, None] if self.is_pooled else states[None]

    def on_device(self, device: torch.device) -> SplitInputs:
        """Return these inputs with their states on a GPU, if they fit; on a CPU, these inputs."""
        if self.states is None or device.type == "cpu":
            return self
        free, _ = torch.cuda.mem_get_info(device)
        if self.states.numel() * self.states.element_size() > free * _GPU_SHARE_FOR_STATES:
            return self
        return replace(self, states=self.states.to(device))


def batch_logits(model: Any, inputs: SplitInputs, examples: np.ndarray) -> tuple[Tensor, PackedBatch]:
    """Logits of some examples, (B, C), and their packed batch. examples: (B,) indices."""
    batch, states = inputs.batch(examples, next(model.parameters()).device)
    return logits_of(model, inputs, batch, states), batch


def logits_of(model: Any, inputs: SplitInputs, batch: PackedBatch, states: Tensor | None) -> Tensor:
    """Logits of a packed batch of some inputs, (B, C). states: to start from, as inputs.batch() returns them."""
    if states is None:
        return average_windows(forward(model, batch), batch)
    pooled = states if inputs.is_pooled else read_out(model, states, batch, inputs.first_block)
    return average_windows(classify(model, pooled), batch)


def average_windows(values: Tensor, batch: PackedBatch) -> Tensor:
    """Average over the windows of each example, for long texts. values: logits or vectors, (W, ...) -> (B, ...)."""
    if batch.windows is None:
        return values
    examples = torch.arange(len(batch.windows), device=values.device)
    example_of_window = torch.repeat_interleave(examples, batch.windows, output_size=len(batch.lengths))
    sums = values.new_zeros(len(batch.windows), *values.shape[1:]).index_add(0, example_of_window, values)
    return sums / batch.windows[:, None]


def predict_logits(model: Any, inputs: SplitInputs) -> np.ndarray:
    """Logits of every example, in the order of the split. (N, C) float32."""
    model.eval()
    device = next(model.parameters()).device
    inputs = inputs.on_device(device)
    logits = np.empty((len(inputs), model.config.num_labels), np.float32)
    batches, order = [], []
    with inference():
        for examples, of_batch in _in_batches(inputs.lengths, device, lambda ex: batch_logits(model, inputs, ex)[0]):
            batches.append(of_batch)
            order.append(examples)
        if batches:  # one copy at the end, for which alone the processor waits
            logits[np.concatenate(order)] = torch.cat(batches).cpu().numpy()
    return logits


def _in_batches(
    lengths: np.ndarray, device: torch.device, compute: Callable[[np.ndarray], _Computed]
) -> Iterator[tuple[np.ndarray, _Computed]]:
    """Yield the examples of batches of similar lengths, and what is computed of each. lengths: (N,) in tokens.

    Where memory lacks, a batch is divided in two, and so are all that are as large. compute: called with (B,) indices.
    """
    most = EVALUATION_TOKENS if device.type == "cpu" else _GPU_EVALUATION_TOKENS
    waiting = deque(length_sorted_batches(lengths, most))
    while waiting:
        examples = waiting.popleft()
        tokens, computed = len(examples) * int(lengths[examples].max()), []
        if tokens <= most or len(examples) == 1:
            try:
                computed.append(compute(examples))
            except (MemoryError, RuntimeError, OSError) as error:
                if not is_out_of_memory(error) or len(examples) == 1:
                    raise
                most = tokens // 2
        if computed:
            yield examples, computed[0]
        else:  # outside the handler, whose traceback keeps the tensors of the batch
            release_memory()
            waiting.extendleft(reversed(np.array_split(examples, 2)))


def cached_prefix_inputs(
    model: Any,
    table: TokenTable,
    first_block: int,
    model_fingerprint: str,
    dtype: torch.dtype,
    budget: int = PREFIX_BYTES,
) -> SplitInputs:
    """Inputs that start behind the frozen blocks 0..first_block-1, with their outputs from the cache.

    Outputs that the cache lacks are computed and stored. The inputs are tokens instead if no block is frozen, if the
    outputs need more than `budget` bytes, or if the model runs padded, so that its blocks cannot run one by one.
    Frozen blocks run without dropout in both cases, so results are the same, up to the rounding of products in batches
    of another composition. dtype: of the frozen blocks.
    """
    num_blocks, hidden = len(blocks(model)), model.config.hidden_size
    if first_block == num_blocks:
        pooling = "mean" if pools_mean(model.config) else "cls"
        states, seconds = embeddings(model, table, pooling, model_fingerprint, dtype)
        return SplitInputs(table, states, first_block, is_pooled=True, seconds=seconds)
    bytes_needed = int(table.offsets[-1]) * hidden * dtype.itemsize
    if first_block == 0 or bytes_needed > budget or not is_packed(model.config):
        return SplitInputs(table)
    key = fingerprint(model_fingerprint, table.fingerprint, first_block, str(dtype))
    folder = cached_folder(f"prefix-{key}", lambda into: _write_states(model, table, first_block, dtype, into))
    return SplitInputs(table, _read(folder / "states.npy", dtype), first_block, seconds=build_seconds(folder))


def embeddings(
    model: Any, table: TokenTable, pooling: str, model_fingerprint: str, dtype: torch.dtype
) -> tuple[Tensor, float]:
    """The frozen encoder's vector of each sequence, (W, H) in fp32, and the seconds spent on computing them.

    dtype: of the encoder's computation. One pass stores every pooling, so that the strategies probe and head share it.
    """

    def write(into: Path) -> None:
        size = (len(table.offsets) - 1, model.config.hidden_size)  # (W, H)
        pooled = {name: _create(into / f"{name}.npy", size, torch.float32) for name in POOLINGS}

        def compute(batch: PackedBatch) -> list[Tensor]:
            states = final_states(model, batch)
            return [pool(model, states, batch, name)[:, 0].cpu() for name in pooled]

        with compute_dtype(dtype, model), inference():
            for examples, of_batch in _frozen(model, table, compute):
                for vectors, values in zip(pooled.values(), of_batch, strict=True):
                    vectors[table.sequences(examples)[0]] = values.numpy()

    key = fingerprint(model_fingerprint, table.fingerprint, "pooled", str(dtype))
    folder = cached_folder(f"prefix-{key}", write)
    return _read(folder / f"{pooling}.npy", torch.float32), build_seconds(folder)


def pooled_vectors(model: Any, table: TokenTable, pooling: str) -> np.ndarray:
    """The frozen encoder's vector of each example in fp32, the mean over its windows, past the cache. (N, H)."""
    vectors = np.empty((len(table), model.config.hidden_size), np.float32)

    def compute(batch: PackedBatch) -> Tensor:
        return average_windows(pool(model, final_states(model, batch), batch, pooling)[:, 0], batch).cpu()

    with inference():
        for examples, of_batch in _frozen(model, table, compute):
            vectors[examples] = of_batch.numpy()
    return vectors


def _write_states(model: Any, table: TokenTable, first_block: int, dtype: torch.dtype, into: Path) -> None:
    """Write the inputs of `first_block` for all tokens of a split, (T, H), to into/states.npy."""
    states = _create(into / "states.npy", (int(table.offsets[-1]), model.config.hidden_size), dtype)

    def compute(batch: PackedBatch) -> Tensor:
        return run_blocks(model, embed(model, batch), batch, 0, first_block)[0, : batch.num_tokens].cpu()

    with compute_dtype(dtype, model), inference():
        for examples, tokens in _frozen(model, table, compute):
            states[token_positions(table.offsets, table.sequences(examples)[0])] = _as_numpy(tokens)


def _frozen(
    model: Any, table: TokenTable, compute: Callable[[PackedBatch], _Computed]
) -> Iterator[tuple[np.ndarray, _Computed]]:
    """Yield the examples of a split in batches, and what the model computes of each in evaluation mode."""
    model.eval()
    device = next(model.parameters()).device
    return _in_batches(table.lengths, device, lambda examples: compute(pack(table, examples).to(device)))


# numpy has no bf16: a file holds its bits as int16
_STORED = {torch.bfloat16: np.int16, torch.float16: np.float16, torch.float32: np.float32}


def _as_numpy(states: Tensor) -> np.ndarray:
    return (states.view(torch.int16) if states.dtype == torch.bfloat16 else states).numpy()


def _create(path: Path, shape: tuple[int, int], dtype: torch.dtype) -> np.ndarray:
    created = np.lib.format.open_memmap(path, mode="w+", dtype=_STORED[dtype], shape=shape)
    preallocate(path, path.stat().st_size)
    return created


def _read(path: Path, dtype: torch.dtype) -> Tensor:
    # copy-on-write, because torch warns about read-only memory; the file is never written
    states = torch.from_numpy(np.load(path, mmap_mode="c"))
    return states.view(torch.bfloat16) if dtype == torch.bfloat16 else states
