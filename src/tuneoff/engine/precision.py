"""Numeric precision: bf16, fp16 or fp32 for training, fast fp32 for inference, and the same bits again on a GPU.

fp16 is for GPUs that multiply no bf16 (T4, V100). Its smallest number is 6e-8, so that small gradients would vanish:
the loss is multiplied by a scale, and the gradients are divided by it before the optimizer's step. A step whose
gradients overflow is left out, and the scale is halved; after many steps without, it is doubled (Micikevicius et al.,
"Mixed Precision Training", ICLR 2018). torch's GradScaler does the same, but waits for the GPU in each step to see
whether to make it. Here all of it stays on the GPU, and fused AdamW leaves the step out by itself.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from tuneoff.compat import has_native_bf16_cpu, onednn_linear
from tuneoff.encoder.anatomy import is_head
from tuneoff.errors import ConfigError

_FAST_FP16 = (7, 0)  # V100: the first GPU with tensor cores
# as torch's GradScaler
_FIRST_SCALE = 2.0**16
_GROWTH_STEPS = 2000
CUBLAS_WORKSPACE = ":4096:8"  # one of the two values with which cuBLAS gives the same bits


def resolve(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype to train in. precision: "fp32", "bf16", or "auto" for bf16 if the processor has it natively.

    "auto" is fp16 on GPUs that have no bf16 but fast products of fp16 (T4, V100).

    Raises ConfigError for bf16 on a GPU without native bf16. A CPU without it can emulate it, slowly.
    """
    if precision == "fp32":
        return torch.float32
    if has_native_bf16(device):
        return torch.bfloat16
    if precision == "bf16" and device.type == "cuda":
        raise ConfigError("precision bf16 is not supported by this GPU; use precision fp32 or auto")
    if device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) >= _FAST_FP16:
        return torch.float16
    return torch.bfloat16 if precision == "bf16" else torch.float32


def has_native_bf16(device: torch.device) -> bool:
    """Return True if the device multiplies bf16 natively, so that bf16 is faster than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return has_native_bf16_cpu()
    return False


@contextmanager
def compute_dtype(dtype: torch.dtype, model: Any) -> Iterator[dict[nn.Parameter, Tensor]]:
    """A context in which the encoder's parameters have a dtype; the head stays fp32.

    Yields the fp32 weights of every parameter. The model has these tensors again afterwards, with the changes that were
    made to them within the context (MasterWeights).
    """
    fp32_weights = {parameter: parameter.data for parameter in model.parameters()}
    try:
        for name, parameter in model.named_parameters():
            if not is_head(model, name):
                parameter.data = parameter.data.to(dtype)
        yield fp32_weights
    finally:
        for parameter, weights in fp32_weights.items():
            parameter.data = weights
            parameter.grad = None


@contextmanager
def inference() -> Iterator[None]:
    """A context without gradients, in which oneDNN computes the fp32 linear layers on a CPU.

    torch uses MKL for them, which is half as fast on AMD processors (docs/log.md). On a GPU the interception would only
    cost time, and predictions are made with deterministic algorithms.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.inference_mode(), deterministic(device), nullcontext() if device.type == "cuda" else _OneDnnLinear():
        yield


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """A context in which the same operations give the same bits on a GPU; on a CPU they do so without it.

    Strict, because with warnings only the backward pass of FlashAttention adds in any order. Sums by index, which add
    in the order in which threads arrive, then sort first. Products of fp32 are not rounded to TF32 (10 bits instead of
    23), which cuDNN does by default, NVIDIA's containers everywhere, and users of a notebook may have asked for.
    """
    if device.type != "cuda":
        yield
        return
    # read by cuBLAS when it starts; the worker process sets it too. Without it torch refuses matrix products here
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fills = memory.fill_uninitialized_memory
    # a kernel for every tensor that is made, against reading what was never written; nothing here reads such memory
    memory.fill_uninitialized_memory = False
    backends: Any = torch.backends
    products = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    precisions = [kind.fp32_precision for kind in products]
    torch.use_deterministic_algorithms(True)
    try:
        for kind in products:
            kind.fp32_precision = "ieee"
        yield
    finally:
        for kind, precision in zip(products, precisions, strict=True):
            kind.fp32_precision = precision
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = fills


def lacks_determinism(error: BaseException) -> bool:
    """Return True for an operation that deterministic() does not allow."""
    return "does not have a deterministic implementation" in str(error)


def allow_any_order() -> None:
    """Within deterministic(): allow operations that add in any order, and FlashAttention to do so."""
    torch.use_deterministic_algorithms(True, warn_only=True)


class LossScale:
    """Scale of the loss in fp16. All of it is on the device, so that no step waits. See the module docstring."""

    def __init__(self, device: torch.device) -> None:
        self.scale = torch.full((), _FIRST_SCALE, device=device)
        self.finite_steps = torch.zeros((), device=device)  # since the scale changed

    def restore(self, scale: Tensor, finite_steps: Tensor) -> None:
        """Go back to an earlier scale. finite_steps: made since it changed."""
        self.scale.copy_(scale)
        self.finite_steps = finite_steps.to(self.scale.device)

    def update(self, is_left_out: Tensor) -> None:
        """Adapt the scale after a step. is_left_out: () of 1.0 if its gradients were not finite, else 0.0."""
        count = (self.finite_steps + 1) * (1 - is_left_out)
        grows = (count == _GROWTH_STEPS).float()
        self.scale *= (1 + grows) * (1 - 0.5 * is_left_out)
        self.finite_steps = count * (1 - grows)

    def is_exhausted(self) -> Tensor:
        """() of 1.0 if gradients overflow at any scale, so that the training has diverged, else 0.0."""
        return (self.scale < 1).float()


class _OneDnnLinear(TorchFunctionMode):
    """Intercepts F.linear, so that no layer of a model has to be replaced."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.linear and len(args) == 3:
            states, weight, bias = args
            if states.dtype == weight.dtype == torch.float32 and states.device.type == "cpu":
                return onednn_linear(states, weight, bias)
        return func(*args, **(kwargs or {}))
