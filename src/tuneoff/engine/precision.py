"""In which numbers products are computed."""

from contextlib import AbstractContextManager, nullcontext

import torch

from tuneoff.errors import ConfigError


def resolve(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of matrix products: bf16 where asked for, or where "auto" finds it native; else fp32."""
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


def products_in(dtype: torch.dtype, device: torch.device) -> AbstractContextManager:
    """A context in which matrix products use dtype; weights and the optimizer stay fp32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)
