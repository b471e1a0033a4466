"""A GPU in name only, for tests of the code that runs on one: it computes real values on the CPU and counts its waits.

Tensors whose memory is marked say that they are on cuda:0 and refuse to meet others; what an operation makes of marked
tensors is marked. Whatever would make the processor wait for a real GPU is counted with the line that does it. The two
fused attention operators of CUDA, of which a CPU has none, are computed by plain formulas, with the restrictions of the
real ones, and with NaN where the real ones write nothing.

A dispatch mode sees every operator, below autograd, and so also those of the backward pass. A function mode sees what
never becomes an operator on a CPU: reading numbers, and copies between devices. What CUDA alone refuses (a dtype that a
kernel lacks, sizes beyond its limits) no test on a CPU can find.
"""

import collections
import contextlib
import math
import traceback
from typing import Any
from unittest import mock

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tuneoff.encoder import fused

CUDA = torch.device("cuda", 0)
_READS = {  # numbers and booleans, which only the processor has
    getattr(torch.Tensor, name): name
    for name in ("tolist", "item", "cpu", "__bool__", "__int__", "__float__", "__index__", "__contains__")
}
# operators with outputs whose size a GPU has to tell
_SIZED_BY_VALUES = {"nonzero", "masked_select", "unique_consecutive", "_unique2", "unique_dim", "bincount"}
_READ_OPERATORS = {"_local_scalar_dense", "equal", "is_nonzero"}
_FACTORY_RESULTS = (torch.tensor, torch.as_tensor)


class PretendedGpu:
    """The state of a pretended GPU: which memory is its own, and what was counted."""

    def __init__(self) -> None:
        self._marks: dict[int, StorageWeakRef] = {}  # a weak reference keeps an address from being used again
        self._pinned: dict[int, StorageWeakRef] = {}
        self.waits: collections.Counter[tuple[str, str]] = collections.Counter()  # what, file:line
        self.mistakes: collections.Counter[tuple[str, str]] = collections.Counter()
        self.operators: collections.Counter[str] = collections.Counter()  # on marked tensors
        self.copies_to = 0  # to the GPU, without waiting
        self.record: list[tuple[Any, Any, Any, Any]] | None = None  # operators of a graph, while one is recorded
        self.replays = 0
        self.stream = "default"

    def forget_counts(self) -> None:
        """Set every count to zero."""
        for counter in (self.waits, self.mistakes, self.operators):
            counter.clear()
        self.copies_to = 0

    def has(self, tensor: torch.Tensor) -> bool:
        """Return True if a tensor is on the GPU."""
        return _address(tensor) in self._marks

    def mark(self, tensor: torch.Tensor) -> torch.Tensor:
        """Put a tensor on the GPU, where it is."""
        storage = _storage(tensor)
        if storage is not None:
            self._marks.setdefault(storage._cdata, StorageWeakRef(storage))
        return tensor

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a copy in pinned memory."""
        with _plain():
            copy = tensor.clone()
            storage = copy.untyped_storage()
        self._pinned[storage._cdata] = StorageWeakRef(storage)
        return copy

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        """Return True if a tensor is in pinned memory."""
        return _address(tensor) in self._pinned

    def wait(self, what: str) -> None:
        """Count a wait."""
        if self.record is not None:
            raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({what}, {_line()})")
        self.waits[what, _line()] += 1

    def mistake(self, what: str) -> None:
        """Count what a real GPU would refuse."""
        self.mistakes[what, _line()] += 1


def _plain():
    """A context without modes, in which tensors are what they are."""
    stack = contextlib.ExitStack()
    stack.enter_context(torch._C.DisableTorchFunction())
    stack.enter_context(torch._C._DisableTorchDispatch())
    return stack


def _storage(tensor):
    with _plain():
        try:
            return torch._C.TensorBase.untyped_storage(tensor)
        except (NotImplementedError, RuntimeError):  # sparse: no memory of its own
            return None


def _address(tensor):
    storage = _storage(tensor)
    return None if storage is None else storage._cdata


def _line() -> str:
    """Return the innermost line of the package; otherwise of the library that was called."""
    frames = [f for f in traceback.extract_stack() if __file__ != f.filename]
    ours = [f for f in frames if "/tuneoff/" in f.filename]
    at = (ours or frames)[-1]
    return f"{'/'.join(at.filename.split('/')[-2:])}:{at.lineno}"


def _is_cuda(device) -> bool:
    return isinstance(device, (str, torch.device)) and torch.device(device).type == "cuda"


class _Functions(TorchFunctionMode):
    """Sees calls of torch's functions and methods."""

    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self._gpu = gpu

    def __torch_function__(self, func, types, args=(), kwargs=None):
        gpu, kwargs = self._gpu, dict(kwargs or {})
        if func is torch.Tensor.backward:
            # a handler runs without its mode, and so would functions that the backward pass calls
            tensor, *given = args
            gradient = given[0] if given else kwargs.get("gradient")
            with self:
                gradients = (torch.ones_like(tensor) if gradient is None else gradient,)
                return torch.autograd.graph._engine_run_backward(
                    (tensor,), gradients, False, False, (), allow_unreachable=True, accumulate_grad=True
                )
        if func is torch.Tensor.pin_memory:
            return gpu.pin(args[0])
        if func in (torch.Tensor.to, torch.Tensor.cuda):
            return self._to(func, args, kwargs)
        if func in _READS and gpu.has(args[0]):
            gpu.wait(_READS[func])
            with _plain():
                return args[0].detach().clone() if func is torch.Tensor.cpu else func(*args, **kwargs)
        if func is torch.Tensor.numpy and gpu.has(args[0]):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if _is_cuda(kwargs.get("device")):
            kwargs["device"] = "cpu"
            if func in _FACTORY_RESULTS:
                gpu.wait("a tensor made of numbers of the processor")
            made = func(*args, **kwargs)
            return gpu.mark(made) if isinstance(made, torch.Tensor) else made
        return func(*args, **kwargs)

    def _to(self, func, args, kwargs):
        """Copy between devices, or change the dtype."""
        gpu, (tensor, *rest) = self._gpu, args
        target = CUDA if func is torch.Tensor.cuda else kwargs.pop("device", None)
        if func is torch.Tensor.cuda:
            rest = []
        dtype = kwargs.pop("dtype", None)
        for argument in rest:
            if isinstance(argument, (str, torch.device)):
                target = torch.device(argument)
            elif isinstance(argument, torch.Tensor):
                target, dtype = (CUDA if gpu.has(argument) else torch.device("cpu")), argument.dtype
            elif isinstance(argument, torch.dtype):
                dtype = argument
            elif isinstance(argument, bool):  # torch.nn.Module.to passes it by position
                kwargs["non_blocking"] = argument
        with torch._C.DisableTorchFunction():
            is_of_optimizer = any(f.filename.endswith("optim/adam.py") for f in traceback.extract_stack()[-8:])
            if target is None or _is_cuda(target) == gpu.has(tensor) or is_of_optimizer:  # it groups by C++'s device
                return tensor.to(dtype or tensor.dtype, **kwargs)
            if not _is_cuda(target):
                gpu.wait("copy to the processor")
            elif kwargs.get("non_blocking") and gpu.is_pinned(tensor) and gpu.record is None:
                gpu.copies_to += 1
            else:
                gpu.wait("copy of memory that is not pinned")
            with torch._C._DisableTorchDispatch():
                copied = tensor.to(dtype or tensor.dtype, **(kwargs | {"copy": True}))
            return gpu.mark(copied) if _is_cuda(target) else copied


class _Operators(TorchDispatchMode):
    """Sees every operator, also those of the backward pass."""

    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self._gpu = gpu

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        gpu, kwargs = self._gpu, kwargs or {}
        tensors = [a for a in tree_leaves((args, kwargs)) if isinstance(a, torch.Tensor)]
        on = [gpu.has(tensor) for tensor in tensors]
        name = func._schema.name.removeprefix("aten::")
        if any(on):
            gpu.operators[name] += 1
            self._check(name, args, kwargs, tensors, on)
        is_for_gpu = _is_cuda(kwargs.get("device"))
        arguments = kwargs | {"device": torch.device("cpu")} if is_for_gpu else kwargs
        made = func(*args, **arguments)
        if gpu.record is not None:
            gpu.record.append((func, args, arguments, made))
        if (any(on) or is_for_gpu) and name not in ("copy_", "_local_scalar_dense"):
            for result in tree_leaves(made):
                if isinstance(result, torch.Tensor) and not any(result is tensor for tensor in tensors):
                    gpu.mark(result)
        return made

    def _check(self, name, args, kwargs, tensors, on):
        gpu = self._gpu
        if name in _SIZED_BY_VALUES | _READ_OPERATORS:
            gpu.wait(name)
        if name == "repeat_interleave" and kwargs.get("output_size") is None:
            gpu.wait("repeat_interleave without output_size")
        if name.startswith("mkldnn"):
            gpu.mistake(name)
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            indices = [index for index in args[1] if index is not None]
            if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                gpu.wait(f"{name} by a mask")
            if gpu.has(args[0]) and not all(gpu.has(index) for index in indices):
                gpu.wait(f"{name} by indices of the processor")
                return
        others = [tensor for tensor, is_on in zip(tensors, on, strict=True) if not is_on]
        if name == "copy_" and others:
            if not (gpu.has(args[0]) and gpu.is_pinned(args[1]) and kwargs.get("non_blocking")):
                gpu.wait("copy_ between devices")
        elif any(tensor.dim() for tensor in others):  # numbers in tensors without axes may come from the processor
            gpu.mistake(f"{name} of tensors on two devices, {[tuple(tensor.shape) for tensor in others]}")


class _Graph:
    """A CUDA graph in name: its operators are executed again, on the same memory, with the numbers that they had."""

    def __init__(self, gpu: PretendedGpu) -> None:
        self.gpu, self.operators = gpu, list[tuple[Any, Any, Any, Any]]()

    def replay(self) -> None:
        self.gpu.replays += 1
        with _plain(), torch.no_grad():
            for func, args, kwargs, made in self.operators:
                if func.is_view:
                    continue
                given = [a for a in tree_leaves((args, kwargs)) if isinstance(a, torch.Tensor)]
                for old, new in zip(tree_leaves(made), tree_leaves(func(*args, **kwargs)), strict=True):
                    if isinstance(old, torch.Tensor) and not any(old is tensor for tensor in given):
                        old.copy_(new)


@contextlib.contextmanager
def _recording(graph, pool=None, capture_error_mode="global"):
    """A context whose operators become a graph. Unlike here, a real GPU does not compute them; what they write is void.

    So what they have computed is overwritten.
    """
    graph.gpu.record, stream = graph.operators, graph.gpu.stream
    graph.gpu.stream = "of the recording"  # and stays, as in torch, where the recording fails
    try:
        yield
    except RuntimeError as error:
        if "capturing" in str(error):
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture") from None
        raise
    finally:
        graph.gpu.record = None
    graph.gpu.stream = stream
    with _plain(), torch.no_grad():
        for func, args, kwargs, made in graph.operators:
            given = [a for a in tree_leaves((args, kwargs)) if isinstance(a, torch.Tensor)]
            for result in tree_leaves(made):
                is_new = isinstance(result, torch.Tensor) and not any(result is tensor for tensor in given)
                if is_new and not func.is_view and result.is_floating_point():
                    result.fill_(math.nan)


@contextlib.contextmanager
def pretended_gpu(capability=(8, 0)):
    """A context in which this machine has a GPU of a compute capability. Yields it."""
    gpu, cpu_state = PretendedGpu(), torch.get_rng_state
    names = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_capability": lambda *_: capability,
        "get_device_name": lambda *_: "a pretended GPU",
        "is_bf16_supported": lambda including_emulation=True: capability >= (8, 0) or including_emulation,
        "mem_get_info": lambda *_: (2**33, 2**34),
        "max_memory_allocated": lambda *_: 0,
        "empty_cache": lambda: None,
        "synchronize": lambda *_: gpu.wait("synchronize"),
        "get_rng_state": lambda *_: cpu_state(),
        "set_rng_state": lambda state, *_: torch.set_rng_state(state),  # its numbers are those of the processor
        "get_rng_state_all": lambda: [cpu_state()],
        "set_rng_state_all": lambda _: None,
        "CUDAGraph": lambda: _Graph(gpu),
        "graph": _recording,
        "graph_pool_handle": lambda: (0, 1),
        "current_stream": lambda: gpu.stream,
        "set_stream": lambda stream: setattr(gpu, "stream", stream),
    }
    with contextlib.ExitStack() as stack:
        for name, value in names.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        device_of: Any = torch._C.TensorBase.device
        device = property(lambda tensor: CUDA if gpu.has(tensor) else device_of.__get__(tensor))
        stack.enter_context(mock.patch.object(torch.Tensor, "device", device, create=True))
        stack.enter_context(mock.patch.object(torch.Tensor, "is_cuda", property(gpu.has), create=True))
        stack.enter_context(mock.patch.object(torch.Tensor, "is_cpu", property(lambda t: not gpu.has(t)), create=True))
        stack.enter_context(mock.patch.object(torch.backends.cuda, "is_flash_attention_available", return_value=True))
        fused._capability.cache_clear()
        stack.callback(fused._capability.cache_clear)
        stack.enter_context(_Functions(gpu))
        stack.enter_context(_Operators(gpu))
        yield gpu


# ---- the fused operators, on a CPU. S sequences; queries (T, A, D), keys and values (K, A, D)


def _sequences(bounds, longest, num_queries, num_keys):
    """Yield the slices of queries and keys of each sequence, after the checks of the real operators."""
    (bounds_q, bounds_k), (longest_q, longest_k) = bounds, longest
    assert bounds_q.dtype == bounds_k.dtype == torch.int32, "bounds must be int32"
    assert bounds_q.is_contiguous()
    assert bounds_k.is_contiguous()
    assert len(bounds_q) == len(bounds_k)
    queries, keys = bounds_q.tolist(), bounds_k.tolist()
    assert queries[-1] <= num_queries
    assert keys[-1] <= num_keys
    for row in range(len(queries) - 1):
        q, k = slice(queries[row], queries[row + 1]), slice(keys[row], keys[row + 1])
        assert q.stop - q.start <= longest_q, "a sequence is longer than the longest"
        assert k.stop - k.start <= longest_k, "a sequence is longer than the longest"
        yield row, q, k


def _weights(q, k, scale, reach, rate, seed):
    """Weights, (A, rows, columns) in fp64, and which of them dropout keeps, divided by the rate of those."""
    scores = torch.einsum("iad,jad->aij", q.double(), k.double()) * scale
    if reach is not None and reach >= 0:
        rows, columns = torch.arange(len(q)), torch.arange(len(k))
        scores = scores.masked_fill((rows[:, None] - columns).abs() > reach, -math.inf)
    generator = torch.Generator().manual_seed(seed)
    keep = (torch.rand(scores.shape, generator=generator) >= rate).double() / (1 - rate)
    return scores.softmax(-1), keep


def _attend(query, key, value, bounds, longest, rate, scale, reach, seed):
    output = torch.full_like(query, math.nan)
    for row, q, k in _sequences(bounds, longest, len(query), len(key)):
        weights, keep = _weights(query[q], key[k], scale, reach, rate, seed + row)
        output[q] = torch.einsum("aij,jad->iad", weights * keep, value[k].double()).to(query.dtype)
    return output


def _attend_backward(d_output, query, key, value, bounds, longest, rate, scale, reach, seed):
    d_query, d_key, d_value = (torch.full_like(states, math.nan) for states in (query, key, value))
    for row, q, k in _sequences(bounds, longest, len(query), len(key)):
        weights, keep = _weights(query[q], key[k], scale, reach, rate, seed + row)
        gradient = d_output[q].double()
        d_value[k] = torch.einsum("aij,iad->jad", weights * keep, gradient).to(value.dtype)
        d_weights = torch.einsum("iad,jad->aij", gradient, value[k].double()) * keep
        d_scores = weights * (d_weights - (d_weights * weights).sum(-1, keepdim=True)) * scale
        d_query[q] = torch.einsum("aij,jad->iad", d_scores, key[k].double()).to(query.dtype)
        d_key[k] = torch.einsum("aij,iad->jad", d_scores, query[q].double()).to(key.dtype)
    return d_query, d_key, d_value


def _check_states(*states, dtypes):
    for part in states:
        assert part.dtype in dtypes, f"the operator takes {dtypes}, not {part.dtype}"
        assert part.stride(-1) == 1
        assert part.shape[-1] % 8 == 0


def _draw_seed(rate, bounds) -> int:
    """As many draws as sequences, of which the last counts: the real operators go on by their number."""
    return int(torch.randint(2**31, (len(bounds) - 1,))[-1]) if rate else 0


def _flash_forward(
    query, key, value, cum_q, cum_k, max_q, max_k, rate, is_causal, debug, *, scale=None, window_size_left=None,
    window_size_right=None, **_,
):  # fmt: skip
    _check_states(query, key, value, dtypes=(torch.bfloat16, torch.float16))
    assert not is_causal
    assert window_size_left == window_size_right
    seed = _draw_seed(rate, cum_q)
    output = _attend(query, key, value, (cum_q, cum_k), (max_q, max_k), rate, scale, window_size_left, seed)
    sums = query.new_zeros((query.shape[1], len(query)), dtype=torch.float32)
    state = torch.tensor([seed, 0], dtype=torch.uint64)
    return output, sums, state, torch.empty((), dtype=torch.uint64), query.new_empty(0)


def _flash_backward(
    d_output, query, key, value, output, sums, cum_q, cum_k, max_q, max_k, rate, is_causal, state, unused, *,
    scale=None, window_size_left=None, window_size_right=None,
):  # fmt: skip
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    seed = int(state.view(torch.int64)[0])
    bounds, longest = (cum_q, cum_k), (max_q, max_k)
    return _attend_backward(d_output, query, key, value, bounds, longest, rate, scale, window_size_left, seed)


def _efficient_forward(
    query, key, value, bias, cum_q, cum_k, max_q, max_k, rate, mask_type, with_sums=False, *, scale=None, **_
):
    _check_states(query, key, value, dtypes=(torch.float32, torch.float16, torch.bfloat16))
    assert bias is None
    assert mask_type == 0
    assert len(query) == len(key) == 1
    seed = _draw_seed(rate, cum_q)
    output = _attend(query[0], key[0], value[0], (cum_q, cum_k), (max_q, max_k), rate, scale, None, seed)
    sums = query.new_zeros((len(cum_q) - 1, query.shape[2], -(-max_q // 32) * 32 if with_sums else 0))
    return output[None], sums.float(), torch.tensor(seed), torch.tensor(0), max_q, max_k


def _efficient_backward(
    d_output, query, key, value, bias, output, cum_q, cum_k, max_q, max_k, sums, rate, seed, offset, mask_type,
    bias_requires_grad, *, scale=None, **_,
):  # fmt: skip
    assert sums.numel(), "the forward pass kept no sums for the backward pass"
    parts = _attend_backward(
        d_output[0], query[0], key[0], value[0], (cum_q, cum_k), (max_q, max_k), rate, scale, None, int(seed)
    )
    return *(part[None] for part in parts), query.new_empty(0)


_LIBRARY = torch.library.Library("aten", "IMPL")  # for as long as this module is there
for _name, _kernel in (
    ("_flash_attention_forward", _flash_forward),
    ("_flash_attention_backward", _flash_backward),
    ("_efficient_attention_forward", _efficient_forward),
    ("_efficient_attention_backward", _efficient_backward),
):
    _LIBRARY.impl(_name, _kernel, "CPU")
