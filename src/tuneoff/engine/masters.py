"""The fp32 weights that an optimizer steps, beside those that a model computes with.

The encoder computes with bf16 copies of its weights; the optimizer steps fp32 masters, and the copies follow
(Micikevicius et al., "Mixed Precision Training", ICLR 2018; bf16 needs no loss scaling). Nothing is cast inside a
forward or backward pass, which is where autocast spends its time.

A row of the word embedding that no training text reads never has a gradient: all that AdamW does to it is decay. So
the embedding's master holds only the rows that training reads, and the weights that result are AdamW's own. Reading
10,000 of XLM-R's 250,000 rows costs 10,000.

# V rows of the word embedding  U of them read in training  H its width  T tokens of a batch
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Snapshot:
    """The masters at one moment."""

    weights: list[Tensor]
    decay: float  # of the embedding rows that have no master


def mean_of(snapshots: Sequence[Snapshot]) -> Snapshot:
    """The mean of the weights of several moments (Izmailov et al., 2018, of checkpoints)."""
    weights = [torch.stack(found).mean(0) for found in zip(*(s.weights for s in snapshots), strict=True)]
    return Snapshot(weights, sum(s.decay for s in snapshots) / len(snapshots))


class Masters:
    """fp32 masters of the parameters that train; a parameter that computes in fp32 is its own master."""

    def __init__(self, model: Any, full: dict[nn.Parameter, Tensor], read_ids: np.ndarray) -> None:
        """Set up for one training.

        full: every parameter's fp32 weights, as computing_in hands them out; read_ids: all token ids of the training
        split, in any order, with repeats.
        """
        embedding = model.get_input_embeddings()
        self._rows = _Rows(embedding, full[embedding.weight], read_ids) if embedding.weight.requires_grad else None
        self._of: dict[nn.Parameter, Tensor] = {}
        for parameter in (p for p in model.parameters() if p.requires_grad):
            is_own = parameter.dtype == torch.float32
            self._of[parameter] = parameter if is_own else full[parameter]
        if self._rows is not None:
            self._of[embedding.weight] = self._rows.master
        # parameters that follow a master of their own size, and where the master's gradient is put
        self._copies = {p: torch.empty_like(m) for p, m in self._of.items() if p is not m and p.shape == m.shape}

    def __getitem__(self, parameter: nn.Parameter) -> Tensor:
        return self._of[parameter]

    @torch.no_grad()
    def take_gradients(self) -> list[Tensor]:
        """After backward: masters have their parameters' gradients, in fp32; gives the gradients."""
        for parameter, master in self._of.items():
            gradient = parameter.grad
            if gradient is None or parameter is master:
                master.grad = gradient
            elif gradient.is_sparse and self._rows is not None:
                master.grad = self._rows.gather(gradient)
            else:
                master.grad = self._copies[parameter].copy_(gradient)
        return [master.grad for master in self._of.values() if master.grad is not None]

    @torch.no_grad()
    def give_weights(self, optimizer: torch.optim.Optimizer) -> None:
        """After the optimizer's step: the model's weights follow, and gradients are gone."""
        for parameter in self._copies:
            parameter.copy_(self._of[parameter])
        for parameter in self._of:
            parameter.grad = None
        if self._rows is not None:
            self._rows.decay_rest(optimizer)

    def snapshot(self) -> Snapshot:
        """A copy of the masters as they stand."""
        decay = 1.0 if self._rows is None else self._rows.decay
        return Snapshot([master.detach().clone() for master in self._of.values()], decay)

    @torch.no_grad()
    def show(self, snapshot: Snapshot) -> None:
        """Let the model compute with a snapshot, without ending the training."""
        for master, kept in zip(self._of.values(), snapshot.weights, strict=True):
            master.copy_(kept)
        for parameter in self._copies:
            parameter.copy_(self._of[parameter])
        if self._rows is not None:
            self._rows.decay = snapshot.decay

    @torch.no_grad()
    def restore(self, snapshot: Snapshot) -> None:
        """End the training: the fp32 weights handed in become those of the snapshot."""
        for master, kept in zip(self._of.values(), snapshot.weights, strict=True):
            master.copy_(kept)
        if self._rows is not None:
            self._rows.settle(snapshot.decay)


class _Rows:
    """The word embedding's master: the rows that training reads. A row comes up to date when the model reads it."""

    def __init__(self, embedding: nn.Embedding, full: Tensor, read_ids: np.ndarray) -> None:
        is_read = np.bincount(read_ids, minlength=len(full)) > 0
        if embedding.padding_idx is not None:
            is_read[embedding.padding_idx] = True  # padded architectures read it
        self._full = full  # (V, H)
        self._ids = torch.from_numpy(np.flatnonzero(is_read)).to(full.device)  # (U,)
        self._row_of = full.new_full((len(full),), -1, dtype=torch.int64).index_copy(
            0, self._ids, torch.arange(len(self._ids), device=full.device)
        )
        self.master = full[self._ids]  # (U, H)
        self.decay = 1.0
        self._gradient = torch.zeros_like(self.master)
        self._touched: Tensor | None = None  # rows of _gradient that are not zero
        embedding.sparse = True  # autograd then gives the touched rows alone
        self._weight = embedding.weight
        self._weight.data = full.to(self._weight.dtype, copy=True)
        self._hook = embedding.register_forward_pre_hook(self._bring_up_to_date)

    def gather(self, sparse: Tensor) -> Tensor:
        """The gradient of the master's rows. sparse: (V, H), of a batch -> (U, H)."""
        if self._touched is not None:
            self._gradient.index_fill_(0, self._touched, 0.0)
        self._touched = self._row_of[sparse._indices()[0]]  # (T,) with repeats, which index_add_ sums
        return self._gradient.index_add_(0, self._touched, sparse._values().float())

    def decay_rest(self, optimizer: torch.optim.Optimizer) -> None:
        """What the optimizer's last step did to every row that has no master."""
        for group in optimizer.param_groups:
            if any(master is self.master for master in group["params"]):
                self.decay *= 1 - group["lr"] * group["weight_decay"]

    @torch.no_grad()
    def _bring_up_to_date(self, embedding: nn.Module, given: tuple[Tensor, ...]) -> None:
        ids = given[0].flatten()
        rows = self._row_of[ids]
        fresh = torch.where(rows[:, None] >= 0, self.master[rows], self._full[ids] * self.decay)
        self._weight.index_copy_(0, ids, fresh.to(self._weight.dtype))

    def settle(self, decay: float) -> None:
        """Write all rows into the fp32 weights that came."""
        self._full.mul_(decay).index_copy_(0, self._ids, self.master)
        self._hook.remove()
