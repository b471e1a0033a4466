"""In which numbers a model computes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from tuneoff.encoder.anatomy import is_head
from tuneoff.errors import ConfigError


def resolve(precision: str, device: torch.device) -> torch.dtype:
    """The dtype to compute in: bf16 where asked for, or where "auto" finds it native; else fp32."""
    if precision == "fp32":
        return torch.float32
    if has_native_bf16(device):
        return torch.bfloat16
    if precision == "bf16" and device.type == "cuda":
        raise ConfigError("precision bf16 is not supported by this GPU; use fp32 or auto")
    return torch.bfloat16 if precision == "bf16" else torch.float32


def has_native_bf16(device: torch.device) -> bool:
    """Whether bf16 products run at full speed. torch has no public question for CPUs."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")
        return any(getattr(torch.cpu, check)() for check in checks if hasattr(torch.cpu, check))
    return False


@contextmanager
def computing_in(dtype: torch.dtype, model: Any) -> Iterator[dict[nn.Parameter, Tensor]]:
    """A context in which the encoder's parameters are of a dtype; the head stays fp32.

    Gives every parameter's fp32 weights, which the model has again afterwards, with whatever was done to them.
    """
    full = {parameter: parameter.data for parameter in model.parameters()}
    try:
        for name, parameter in model.named_parameters():
            if not is_head(model, name):
                parameter.data = parameter.data.to(dtype)
        yield full
    finally:
        for parameter, weights in full.items():
            parameter.data = weights
            parameter.grad = None


@contextmanager
def inference() -> Iterator[None]:
    """A context without gradients, in which a CPU's fp32 products are oneDNN's.

    torch gives them to MKL, which is half as fast on AMD processors (docs/log.md).
    """
    with torch.inference_mode(), _OneDnn():
        yield


class _OneDnn(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.linear and len(args) == 3 and torch.backends.mkldnn.is_available():
            states, weight, bias = args
            if states.dtype == weight.dtype == torch.float32 and states.device.type == "cpu":
                return torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
        return func(*args, **(kwargs or {}))
