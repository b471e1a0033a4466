"""Forward and backward pass of a step as a CUDA graph: one launch in place of all their operations.

A step of 16 sentences is over on a large GPU before the processor has queued it. CUDA records what a step queues, and
queues it again in one launch, on the same memory ("CUDA Graphs", CUDA C++ Programming Guide; torch.cuda.CUDAGraph).
Whatever the processor decides while a step is recorded stays as it is: shapes, sizes of launches, numbers. So there is
a graph for each shape of batches. The tokens that fill a batch up make the shapes few (data/batches.py), a batch is
copied into the memory of its graph, and what else varies is read from tensors: the bounds of sequences, the weight of
the loss, the scale of fp16. The random numbers of dropout go on from step to step, because torch gives a graph the
generator's state at each launch.

A graph replaces a step only after it gave that step's gradients twice, up to rounding: on the batch that was recorded,
and on the next one of its shape, which finds numbers that the record holds fixed. A step that cannot be recorded, whose
gradients differ, or that lacks memory ends the use of graphs in a training, which goes on without. Optimizer and
clipping are not recorded: they are few launches already, and learning rates change. All graphs write their gradients to
the same memory, and share one pool for the rest.

Not recorded: attention by grids, whose shapes follow the lengths of texts (relative positions, fp32 with dropout);
checkpointing, which keeps states of the generator on the host; steps in several parts; several devices.
No GPU was at hand: this runs in tests on a pretended one, which records operators and executes them again.
TUNEOFF_CUDA_GRAPHS=off trains without.

# T tokens  B examples  W sequences  H hidden
"""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tuneoff.compat import copy_all
from tuneoff.data.batches import PackedBatch, VaryingLengthsError
from tuneoff.errors import one_line

_WORTH_RECORDING = 3  # batches of a shape, after which it is recorded
_MOST_GRAPHS = 16
_COMPARISONS = 2  # with steps that are not by the graph, before it is used
# batch, states to start from, and weight of the loss, () -> loss, (); the parameters have its gradients
Compute = Callable[[PackedBatch, Tensor | None, Tensor], Tensor]


@dataclass
class _Graph:
    """A recorded step, and the memory that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    batch: PackedBatch
    states: Tensor | None
    weight: Tensor
    loss: Tensor
    gradients: dict[nn.Parameter, Tensor]
    comparisons: int = 0  # that it has passed

    def replay(self, batch: PackedBatch, states: Tensor | None, weight: Tensor) -> Tensor:
        """Compute a step of another batch of this shape. Returns the loss; the parameters have its gradients."""
        own, new = _variable(self.batch, states), _variable(batch, states)
        copy_all([own[name] for name in new], list(new.values()))
        self.weight.copy_(weight)
        if self.states is not None and states is not None:
            self.states.copy_(states)
        self.graph.replay()
        for parameter, gradient in self.gradients.items():
            parameter.grad = gradient
        return self.loss.clone()


# why a recording has failed in this process: torch does not free its memory, so that no other one is tried
_failure = ""


class StepGraphs:
    """The graphs of one training, by the shape of a batch."""

    def __init__(self, parameters: Iterable[nn.Parameter], compute: Compute, dtype: torch.dtype) -> None:
        """compute: a step as it is without graphs. dtype: of the encoder; gradients may differ by its rounding."""
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._compute, self._tolerance = compute, max(1e-5, torch.finfo(dtype).eps)
        self._graphs: dict[tuple[Any, ...], _Graph] = {}
        self._seen: Counter[tuple[Any, ...]] = Counter()
        self._pool: Any = None  # memory that all graphs share: one is replayed at a time
        self._gradients: dict[nn.Parameter, Tensor] = {}  # which all graphs write
        self._is_used = os.environ.get("TUNEOFF_CUDA_GRAPHS", "on") != "off" and not _failure
        self.error = _failure  # that ended their use

    def compute(self, batch: PackedBatch, states: Tensor | None, weight: Tensor) -> Tensor:
        """Compute a step by its graph, if there is one; else as it is. Returns the loss, ()."""
        if not self._is_used:
            return self._compute(batch, states, weight)
        shape = _shape(batch, states)
        graph = self._graphs.get(shape)
        if graph is not None and graph.comparisons == _COMPARISONS:
            return graph.replay(batch, states, weight)
        before = torch.cuda.get_rng_state()
        loss = self._compute(batch, states, weight)
        self._seen[shape] += 1
        if graph is not None or (self._seen[shape] >= _WORTH_RECORDING and len(self._graphs) < _MOST_GRAPHS):
            self._try(shape, (batch, states, weight), loss, before)
        return loss

    def _try(
        self, shape: tuple[Any, ...], step: tuple[PackedBatch, Tensor | None, Tensor], loss: Tensor, before: Tensor
    ) -> None:
        """Record a step, or replay it if that was done, and compare. Gradients and random state stay as they are.

        loss: of the step. before: the random state before it.
        """
        computed, after = self._take_gradients(), torch.cuda.get_rng_state()
        try:
            if shape not in self._graphs:
                self._graphs[shape] = self._record(*step, computed)
            torch.cuda.set_rng_state(before)
            self._graphs[shape].comparisons += self._is_equal(self._graphs[shape], step, loss, computed)
        except VaryingLengthsError:
            self.end("")
        except RuntimeError as error:  # a lack of memory is one
            self.end(one_line(error, 150))
        torch.cuda.set_rng_state(after)
        for parameter in self._parameters:
            parameter.grad = computed.get(parameter)

    def _record(
        self, batch: PackedBatch, states: Tensor | None, weight: Tensor, computed: dict[nn.Parameter, Tensor]
    ) -> _Graph:
        """Record a step. Nothing is computed. computed: the gradients of such a step."""
        global _failure
        fixed, weight = _fixed(batch), weight.clone()
        states = None if states is None else states.clone()
        if not self._gradients:
            self._gradients = {parameter: torch.empty_like(gradient) for parameter, gradient in computed.items()}
        graph = torch.cuda.CUDAGraph()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        stream = torch.cuda.current_stream()
        try:
            # of this thread: others of this process may ask the GPU for something meanwhile
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                loss = self._compute(fixed, states, weight)
                gradients = self._take_gradients()
                if gradients.keys() != self._gradients.keys():
                    raise RuntimeError("a graph gives gradients to other parameters")
                copy_all(list(self._gradients.values()), [gradients[parameter] for parameter in self._gradients])
        except BaseException as error:
            # where the end of a recording fails, torch stays on the stream that was recorded
            torch.cuda.set_stream(stream)
            if isinstance(error, RuntimeError):
                # the end of a failed recording raises, too, in place of what made it fail
                _failure = one_line(error.__context__ or error, 150)
                raise RuntimeError(_failure) from error
            raise
        return _Graph(graph, fixed, states, weight, loss, self._gradients)

    def _is_equal(
        self,
        graph: _Graph,
        step: tuple[PackedBatch, Tensor | None, Tensor],
        loss: Tensor,
        computed: dict[nn.Parameter, Tensor],
    ) -> bool:
        """Replay a step, and compare it with what was computed of it. Raises RuntimeError if they differ.

        Returns False if they cannot be compared, because numbers are not finite (fp16).
        """
        replayed = graph.replay(*step)
        gradients = self._take_gradients()
        if gradients.keys() != computed.keys():  # of the batch that was recorded first
            raise RuntimeError("a graph gives gradients to other parameters")
        squares = [
            torch.stack([(gradients[of].float() - own.float()).square().sum(), own.float().square().sum()])
            for of, own in computed.items()
        ]
        losses = torch.stack([(replayed - loss).square(), loss.square()])
        numbers = torch.stack([torch.stack(squares).sum(0), losses]).sqrt()
        for apart, size in numbers.tolist():  # waits for the GPU
            if not math.isfinite(size):
                return False
            if not apart <= self._tolerance * size:
                raise RuntimeError(f"a graph gives other gradients (by {apart:.1e} of {size:.1e})")
        return True

    def _take_gradients(self) -> dict[nn.Parameter, Tensor]:
        """Return the gradients that the parameters have, and remove them."""
        taken = {parameter: parameter.grad for parameter in self._parameters if parameter.grad is not None}
        for parameter in taken:
            parameter.grad = None
        return taken

    @property
    def hold_memory(self) -> bool:
        """Tell whether there are graphs, whose memory nothing else can use."""
        return bool(self._graphs)

    def end(self, error: str) -> None:
        """Use no graphs any more, and free their memory."""
        self._is_used, self.error, self._pool = False, error, None
        self._take_gradients()
        self._gradients = {}
        self._graphs.clear()


def _shape(batch: PackedBatch, states: Tensor | None) -> tuple[Any, ...]:
    """Return what the processor knows of a batch while a step is recorded: batches of the same share a graph."""
    sizes = [tuple(tensor.shape) for tensor in _variable(batch, states).values()]
    return (*sizes, None if _is_pooled(states) else batch.longest, None if states is None else tuple(states.shape))


def _is_pooled(states: Tensor | None) -> bool:
    """Tell whether a step starts from a vector for each sequence, (W, 1, H), and so reads no tokens."""
    return states is not None and states.shape[1] == 1


def _variable(batch: PackedBatch, states: Tensor | None) -> dict[str, Tensor]:
    """Return what differs between batches of one shape."""
    names = ["lengths", "labels", "windows"]
    if not _is_pooled(states):
        names += ["ids", "positions", "segments", "offsets"]
    tensors = {name: getattr(batch, name) for name in names}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def _fixed(batch: PackedBatch) -> PackedBatch:
    """Return a copy of a batch on a GPU whose lengths the processor does not know."""
    copies = {name: tensor.clone() for name, tensor in _variable(batch, None).items()}
    total, longest = batch.ids.shape[1], batch.longest
    return replace(batch, **copies, num_tokens=total, host_lengths=None, states=None, fixed_longest=longest)
