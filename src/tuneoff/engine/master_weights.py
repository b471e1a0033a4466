"""Mixed precision with fp32 master weights, and a word embedding whose master holds only the rows that training reads.

Master weights. The encoder computes with bf16 copies of its weights, while the optimizer updates fp32 masters, and
after each step the copies follow (Micikevicius et al., "Mixed Precision Training", ICLR 2018; bf16 has the exponents of
fp32 and needs no loss scaling). Updates of less than 1/256 of a weight, which bf16 would round away, add up in the
master. The plain way is torch's autocast, which casts every weight in every forward pass and returns gradients through
a transposed copy, 480 to 660 us per matrix (docs/log.md). Trade-off: 2 more bytes per parameter for the copy, and a
buffer of 4 for its fp32 gradient, which stays allocated because fresh ones cost 16 ms a step in page faults.

Embedding rows. A step reads a few hundred rows of the word embedding, but a dense gradient has all V of them: clearing
it took 19 % of a step, and AdamW would pass over all rows too. torch's SparseAdam skips rows without a gradient and so
computes something else. Here the result is AdamW's own, from two facts:

1. A row that no training text contains never has a gradient. Its moments stay 0, and each step only multiplies it by
   1 - learning rate * weight decay. One number, the product of these factors, describes all such rows.
2. All other rows, U of V, form a smaller dense master, on which AdamW runs unchanged.

The full weight, (V, H), that the model reads is not updated after a step. A hook on the embedding writes the rows that
a batch contains just before they are read, so a batch costs T rows instead of V. At the end `write_back` writes all
rows. For Rotten Tomatoes U is 12,062 of 30,522; for XLM-R, with 250,000 rows, much less than V.

On a GPU the processor would wait for the size of a sparse gradient, which would be summed in any order. There the model
reads the rows of the master by their numbers (RemappedRows).

# V rows of the word embedding  U of them read in training  H its width  T tokens of a batch
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tuneoff.compat import copy_all, sparse_rows

_BLOCK_IDS = 2**20  # of tokens that are in memory at once; numpy indexes by 8 bytes each


@dataclass(frozen=True)
class Snapshot:
    """A copy of all master weights at one moment."""

    weights: list[Tensor]
    decay: float  # factor of the embedding rows that have no master


def mean_snapshot(snapshots: Sequence[Snapshot]) -> Snapshot:
    """Average the weights of several snapshots (Izmailov et al., "Averaging Weights", UAI 2018)."""
    weights = [torch.stack(copies).mean(0) for copies in zip(*(s.weights for s in snapshots), strict=True)]
    return Snapshot(weights, sum(s.decay for s in snapshots) / len(snapshots))


class MasterWeights:
    """fp32 master weights of the trainable parameters. A parameter that computes in fp32 is its own master.

    Each step: backward, pull_gradients, optimizer.step, push_weights. At the end: write_back.
    """

    def __init__(self, model: Any, fp32_weights: dict[nn.Parameter, Tensor], read_ids: np.ndarray) -> None:
        """Create the masters for one training, within the context compute_dtype.

        fp32_weights: of every parameter, as compute_dtype yields them; the masters are these tensors, not copies.
        read_ids: all token ids of the training split, in any order, with repeats.
        """
        embedding = model.get_input_embeddings()
        self._embedding_rows: EmbeddingRows | RemappedRows | None = None
        if embedding.weight.requires_grad:
            rows = EmbeddingRows if embedding.weight.device.type == "cpu" else RemappedRows
            self._embedding_rows = rows(embedding, fp32_weights[embedding.weight], read_ids)
        self._master_of: dict[nn.Parameter, Tensor] = {}
        for parameter in (p for p in model.parameters() if p.requires_grad):
            is_fp32 = parameter.dtype == torch.float32
            self._master_of[parameter] = parameter if is_fp32 else fp32_weights[parameter]
        if self._embedding_rows is not None:
            self._master_of[embedding.weight] = self._embedding_rows.master
        # parameters that are copies of a master, with the buffer of its gradient; the word embedding is not among
        # them, because its master has fewer rows
        self._gradient_buffers = {
            parameter: torch.empty_like(master)
            for parameter, master in self._master_of.items()
            if parameter is not master and parameter.shape == master.shape
        }

    def __getitem__(self, parameter: nn.Parameter) -> Tensor:
        return self._master_of[parameter]

    @property
    def masters(self) -> list[Tensor]:
        """The master weights themselves, in an order that is the same in every process."""
        return list(self._master_of.values())

    @torch.no_grad()
    def pull_gradients(self) -> list[Tensor]:
        """After backward: give every master the gradient of its parameter, in fp32. Returns these gradients."""
        buffers, gradients = [], []
        for parameter, master in self._master_of.items():
            gradient = parameter.grad
            if gradient is None or parameter is master:
                master.grad = gradient
            elif gradient.is_sparse and isinstance(self._embedding_rows, EmbeddingRows):
                master.grad = self._embedding_rows.gather_gradient(gradient)
            else:
                master.grad = self._gradient_buffers[parameter]
                buffers.append(master.grad)
                gradients.append(gradient)
        copy_all(buffers, gradients)
        return [master.grad for master in self._master_of.values() if master.grad is not None]

    @torch.no_grad()
    def push_weights(self, optimizer: torch.optim.Optimizer) -> None:
        """After the optimizer's step: copy the masters to the model's parameters, and remove the gradients."""
        self._copy_masters()
        self.drop_gradients()
        if self._embedding_rows is not None:
            self._embedding_rows.decay_unread_rows(optimizer)

    def snapshot(self) -> Snapshot:
        """Copy the current masters."""
        current = self.current()
        return Snapshot([master.clone() for master in current.weights], current.decay)

    def current(self) -> Snapshot:
        """Return the current masters themselves, which the next step changes."""
        decay = 1.0 if self._embedding_rows is None else self._embedding_rows.decay
        return Snapshot([master.detach() for master in self._master_of.values()], decay)

    def drop_gradients(self) -> None:
        """Remove the gradients of a step that is not made."""
        for parameter in self._master_of:
            parameter.grad = None

    @torch.no_grad()
    def swap_in(self, snapshot: Snapshot) -> None:
        """Load a snapshot into masters and model, so that the model can be validated with it. Training may go on."""
        for master, saved in zip(self._master_of.values(), snapshot.weights, strict=True):
            master.copy_(saved)
        self._copy_masters()
        if self._embedding_rows is not None:
            self._embedding_rows.decay = snapshot.decay  # rows follow when the model reads them

    def _copy_masters(self) -> None:
        """Copy the masters to the parameters that compute with copies."""
        copy_all(list(self._gradient_buffers), [self._master_of[parameter] for parameter in self._gradient_buffers])

    @torch.no_grad()
    def write_back(self, snapshot: Snapshot) -> None:
        """Write a snapshot into the fp32 weights that __init__ received. Ends the training."""
        for master, saved in zip(self._master_of.values(), snapshot.weights, strict=True):
            master.copy_(saved)
        if self._embedding_rows is not None:
            self._embedding_rows.write_back(snapshot.decay)


class EmbeddingRows:
    """Master of the word embedding: the U rows that training reads. See the module docstring."""

    def __init__(self, embedding: nn.Embedding, fp32_weight: Tensor, read_ids: np.ndarray) -> None:
        self._fp32_weight = fp32_weight  # (V, H), unchanged until write_back
        self._ids, self._row_of_id = _rows_of(fp32_weight, _read_ids(embedding, len(fp32_weight), read_ids))
        self.master = fp32_weight[self._ids]  # (U, H)
        self.decay = 1.0  # factor of all rows without a master since the start of training
        self._gradient = torch.zeros_like(self.master)
        self._touched: Tensor | None = None  # rows of _gradient that are not zero
        embedding.sparse = True  # autograd then returns only the rows that the batch read
        self._weight = embedding.weight
        # a copy, since the hook writes into it: in fp32 it would be fp32_weight itself, and decay twice
        self._weight.data = fp32_weight.to(self._weight.dtype, copy=True)
        self._hook = embedding.register_forward_pre_hook(self._update_rows)

    def gather_gradient(self, sparse: Tensor) -> Tensor:
        """Return the gradient of the master. sparse: (V, H), of a batch -> (U, H)."""
        if self._touched is not None:
            self._gradient.index_fill_(0, self._touched, 0.0)  # clears a few hundred rows, not U
        ids, rows = sparse_rows(sparse)
        self._touched = self._row_of_id[ids]  # (T,) with repeats, which index_add_ sums
        return self._gradient.index_add_(0, self._touched, rows.float())

    def decay_unread_rows(self, optimizer: torch.optim.Optimizer) -> None:
        """Apply the weight decay of the optimizer's last step to the rows without a master."""
        self.decay *= _decay_of(optimizer, self.master)

    @torch.no_grad()
    def _update_rows(self, embedding: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        """Write the current values of the rows that the embedding is about to read. A forward pre-hook."""
        ids = arguments[0].flatten()
        rows = self._row_of_id[ids]
        # validation and test texts contain ids without a row (-1, which reads any row of the master): decayed instead
        current = torch.where(rows[:, None] >= 0, self.master[rows], self._fp32_weight[ids] * self.decay)
        self._weight.index_copy_(0, ids, current.to(self._weight.dtype))

    def write_back(self, decay: float) -> None:
        """Write all rows into the fp32 weight that __init__ received, and remove the hook."""
        self._fp32_weight.mul_(decay).index_copy_(0, self._ids, self.master)
        self._hook.remove()


class RemappedRows:
    """Master of the word embedding on a GPU: the model's weight holds the U rows that training reads, and no others.

    Ids become numbers of rows before they are read, so that the gradient is dense, (U, H), summed in a fixed order,
    and copied like any other. Ids without a row, which validation and test texts contain, get the decayed row of the
    full weight; training has none. With loss scaling, rows without a master decay in steps that are left out too, by
    one factor of 1 - learning rate * weight decay, which is far below the rounding of fp16.
    """

    def __init__(self, embedding: nn.Embedding, fp32_weight: Tensor, read_ids: np.ndarray) -> None:
        self._fp32_weight = fp32_weight  # (V, H), unchanged until write_back
        read = _read_ids(embedding, len(fp32_weight), read_ids)
        self._ids, self._row_of_id = _rows_of(fp32_weight, read)
        self._embedding, self._padding_idx = embedding, embedding.padding_idx
        weight, rows = embedding.weight, fp32_weight[self._ids]  # (U, H)
        is_fp32 = weight.dtype == torch.float32
        weight.data = rows.to(weight.dtype)
        self.master: Tensor = weight if is_fp32 else rows
        self.decay = 1.0  # factor of all rows without a master since the start of training
        if embedding.padding_idx is not None:  # its row has no gradient
            embedding.padding_idx = int(np.searchsorted(read, embedding.padding_idx))
        self._hooks = [
            embedding.register_forward_pre_hook(self._rows),
            embedding.register_forward_hook(self._fill_in),
        ]
        self._read: Tensor | None = None  # ids of the current call

    def decay_unread_rows(self, optimizer: torch.optim.Optimizer) -> None:
        """Apply the weight decay of the optimizer's last step to the rows without a master."""
        self.decay *= _decay_of(optimizer, self.master)

    def _rows(self, embedding: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Replace ids by numbers of rows, 0 for those without a row. A forward pre-hook."""
        self._read = arguments[0]
        return (self._row_of_id[arguments[0]].clamp(min=0), *arguments[1:])

    def _fill_in(self, embedding: nn.Module, arguments: tuple[Tensor, ...], states: Tensor) -> Tensor:
        """Replace the states of ids without a row. A forward hook."""
        ids, self._read = self._read, None
        if torch.is_grad_enabled():  # training reads no such ids
            return states
        assert ids is not None
        unread = (self._fp32_weight[ids] * self.decay).to(states.dtype)
        return torch.where(self._row_of_id[ids][..., None] >= 0, states, unread)

    def write_back(self, decay: float) -> None:
        """Write all rows into the fp32 weight that __init__ received, and remove the hooks."""
        self._fp32_weight.mul_(decay).index_copy_(0, self._ids, self.master.detach())
        self._embedding.padding_idx = self._padding_idx
        for hook in self._hooks:
            hook.remove()


def _read_ids(embedding: nn.Embedding, num_rows: int, read_ids: np.ndarray) -> np.ndarray:
    """Return the ids that have a row, in order. (U,). num_rows: of the embedding. read_ids: of the training split."""
    is_read = np.zeros(num_rows, bool)
    for start in range(0, len(read_ids), _BLOCK_IDS):
        is_read[read_ids[start : start + _BLOCK_IDS]] = True
    if embedding.padding_idx is not None:
        is_read[embedding.padding_idx] = True  # read by architectures that run padded
    return np.flatnonzero(is_read)


def _rows_of(fp32_weight: Tensor, read: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return the token id of each row, (U,), and the row of each id, (V,), -1 for ids without a row. read: (U,)."""
    ids = torch.from_numpy(read).to(fp32_weight.device)
    row_of_id = fp32_weight.new_full((len(fp32_weight),), -1, dtype=torch.int64).index_copy(
        0, ids, torch.arange(len(ids), device=fp32_weight.device)
    )
    return ids, row_of_id


def _decay_of(optimizer: torch.optim.Optimizer, master: Tensor) -> float:
    """Return the factor by which the optimizer's last step decays weights that are decayed with a master."""
    for group in optimizer.param_groups:
        if any(part is master for part in group["params"]):
            return float(1 - group["lr"] * group["weight_decay"])  # as AdamW: decoupled from the gradient
    return 1.0
