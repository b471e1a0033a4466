"""Several devices that train one model: each computes a part of every step's batch, and their gradients are summed.

Algorithm: one process per device, each with the whole model. In a step every device draws the same batch, takes its
part of it (token_parts), and divides the loss of that part by the weight of the whole batch, as the loop does with the
parts of gradient accumulation (loss.py). So the sum of all gradients is that of one device, up to the order of
additions; it is clipped after the sum, and every device makes the same step with the same bits. The first device alone
validates.

torch's DistributedDataParallel is not used: it acts on calls of one wrapped module, while the loop calls the blocks of
a model one by one, with the outputs of frozen ones from a cache; it does not know the masters, whose gradients are fp32
and, for the word embedding, dense rows instead of a sparse matrix; and it averages where a sum is needed. Trade-off: it
sends gradients while the backward pass goes on; here they are sent once, after it, as one buffer of 4 bytes for each
trained parameter (Li et al., "PyTorch Distributed", VLDB 2020, describe what overlap saves).

# B examples of a batch  P trained parameters
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist

from tuneoff.compat import copy_all
from tuneoff.errors import DeviceError, TuneoffError, one_line


class DeviceGroup:
    """This process' device among those that train one model, in the process group that torch has started."""

    def __init__(self) -> None:
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self._buffer: Tensor | None = None  # (P + 1,) of a training: all gradients, and the loss
        self._views: list[Tensor] = []  # of the gradients of its masters in the buffer
        self._is_trained: list[bool] = []  # masters that get a gradient, on any device

    @property
    def is_first(self) -> bool:
        """True for the device that validates, stores and reports."""
        return self.rank == 0

    def start(self) -> None:
        """Forget the parameters of the training before."""
        self._buffer, self._views, self._is_trained = None, [], []

    def part(self, examples: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return this device's examples of a batch, possibly none. examples: (B,). lengths: (B,) tokens of each."""
        return examples[token_parts(lengths, self.count)[self.rank]]

    def seed_step(self, seed: int, step: int) -> None:
        """Give dropout random numbers of its own for each device and step, so that a resumed training has the same."""
        torch.manual_seed(int(np.random.SeedSequence([seed, step, self.rank]).generate_state(1)[0]))

    @torch.no_grad()
    def sum_gradients(self, masters: Sequence[Tensor], losses: Sequence[Tensor]) -> Tensor:
        """Replace the gradients of the masters by their sums over all devices. Returns the sum of all losses, ().

        A gradient that is missing on a device, which has no example in this step, is 0 there.
        """
        if self._buffer is None:
            self._prepare(masters)
        assert self._buffer is not None
        assert all(is_trained or m.grad is None for m, is_trained in zip(masters, self._is_trained, strict=True))
        trained = [master for master, is_trained in zip(masters, self._is_trained, strict=True) if is_trained]
        pairs = [(view, master.grad) for view, master in zip(self._views, trained, strict=True)]
        copy_all([v for v, g in pairs if g is not None], [g for _, g in pairs if g is not None])
        for view, gradient in pairs:
            if gradient is None:
                view.zero_()
        self._buffer[-1] = sum(losses, start=self._buffer.new_zeros(()))
        with _together():
            dist.all_reduce(self._buffer)
        for view, master in zip(self._views, trained, strict=True):
            master.grad = view
        return self._buffer[-1].clone()

    def _prepare(self, masters: Sequence[Tensor]) -> None:
        """Agree on the masters that get gradients, which are the same in every step, and make room for these."""
        has_gradient = torch.tensor([float(master.grad is not None) for master in masters], device=masters[0].device)
        with _together():
            dist.all_reduce(has_gradient)
        self._is_trained = [count > 0 for count in has_gradient.tolist()]
        trained = [master for master, is_trained in zip(masters, self._is_trained, strict=True) if is_trained]
        sizes = [master.numel() for master in trained]
        self._buffer = torch.zeros(sum(sizes) + 1, device=masters[0].device)
        parts = self._buffer[:-1].split(sizes)
        self._views = [part.view(master.shape) for part, master in zip(parts, trained, strict=True)]

    def from_first(self, action: Callable[[], Any]) -> Any:
        """Do something on the first device alone, and return its result on all. Its error is raised on all.

        Raises DeviceError if one of them is gone.
        """
        result, error = None, None
        if self.is_first:
            try:
                result = action()
            except Exception as raised:  # passed on: the others would wait for ever
                error = raised
        outcome = [result, None if error is None else str(error) or type(error).__name__]
        with _together():
            dist.broadcast_object_list(outcome)
        if error is not None:
            raise error
        if outcome[1] is not None:
            raise TuneoffError(f"the first device: {outcome[1]}")
        return outcome[0]


@contextmanager
def _together() -> Iterator[None]:
    """A context in which all devices take part. Raises DeviceError if one of them is gone."""
    try:
        yield
    except RuntimeError as error:  # of gloo or nccl
        raise DeviceError(f"another device is gone ({one_line(error, 150)})") from error


def token_parts(lengths: np.ndarray, count: int) -> list[np.ndarray]:
    """Divide the examples of a batch among devices so that these have about as many tokens. Returns positions, (n,).

    The longest example first, each to the device with the fewest tokens, of equals the first (Graham, "Bounds on
    Multiprocessing Timing Anomalies", 1969): two devices differ by at most the tokens of one example. lengths: (B,).
    """
    totals, parts = np.zeros(count, np.int64), [list[int]() for _ in range(count)]
    for position in np.argsort(-lengths, kind="stable"):
        fewest = int(totals.argmin())
        totals[fewest] += lengths[position]
        parts[fewest].append(int(position))
    return [np.array(part, np.int64) for part in parts]
