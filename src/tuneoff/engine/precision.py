"""Numeric precision: bf16 or fp32 for training, and fast fp32 for inference."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from tuneoff.compat import has_native_bf16_cpu, onednn_linear
from tuneoff.encoder.anatomy import is_head
from tuneoff.errors import ConfigError


def resolve(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype to train in. precision: "fp32", "bf16", or "auto" for bf16 if the processor has it natively.

    Raises ConfigError for bf16 on a GPU without native bf16. A CPU without it can emulate it, slowly.
    """
    if precision == "fp32":
        return torch.float32
    if has_native_bf16(device):
        return torch.bfloat16
    if precision == "bf16" and device.type == "cuda":
        raise ConfigError("precision bf16 is not supported by this GPU; use precision fp32 or auto")
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

    torch uses MKL for them, which is half as fast on AMD processors (docs/log.md).
    """
    with torch.inference_mode(), _OneDnnLinear():
        yield


class _OneDnnLinear(TorchFunctionMode):
    """Intercepts F.linear, so that no layer of a model has to be replaced."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.linear and len(args) == 3:
            states, weight, bias = args
            if states.dtype == weight.dtype == torch.float32 and states.device.type == "cpu":
                return onednn_linear(states, weight, bias)
        return func(*args, **(kwargs or {}))
