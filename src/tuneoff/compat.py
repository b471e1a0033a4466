"""Private names of torch, transformers, peft and optuna that Tuneoff uses, and class swaps; other files use neither.

Each function has a plain fallback, which uses public names only and runs if the private name is missing.
tests/test_compat.py compares the two. Tested with torch 2.13.0 to 2.14.1, transformers 5.7.0 to 5.24.0, peft 0.21.0 to
0.21.2, and optuna 4.4 to 5.0.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# ---- torch


def has_native_bf16_cpu() -> bool:
    """Return True if torch multiplies bf16 natively on this CPU, which only private functions of torch tell.

    Fallback: the instruction sets that Linux lists; False on other systems, so that training uses fp32.
    """
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")
    present = [getattr(torch.cpu, check) for check in checks if hasattr(torch.cpu, check)]
    if present:
        return any(check() for check in present)
    from tuneoff.machine import lists_native_bf16

    return bool(lists_native_bf16())


def onednn_linear(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """F.linear in fp32 on a CPU, computed by oneDNN. It has no gradient.

    torch gives fp32 matrix products to MKL, which is half as fast on AMD processors (docs/log.md). Fallback: F.linear.
    """
    product = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
    return F.linear(states, weight, bias) if product is None else product(states, weight, bias, "none", [], "")


def divide_gradients_at_step(
    optimizer: torch.optim.Optimizer, divisor: Tensor, is_left_out: Tensor | None = None
) -> None:
    """Divide all gradients by a number in the optimizer's next step, or leave the step out. divisor: ().

    is_left_out: () of 1.0 or 0.0, on a GPU; None: the step is made.
    torch's fused AdamW divides gradients by `grad_scale` while it reads them, for loss scaling, so the division needs
    no extra pass over memory, and does nothing if `found_inf` is 1, so that the processor need not know. Fallback:
    divide the gradients in place now; those of a step that is left out become 0.
    """
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        optimizer.grad_scale = divisor  # type: ignore[attr-defined]
        if is_left_out is not None:
            optimizer.found_inf = is_left_out  # type: ignore[attr-defined]
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.div_(divisor)
                if is_left_out is not None:
                    parameter.grad.masked_fill_(is_left_out.bool(), 0.0)


def copy_all(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy tensors into others, whose dtype may differ; on a GPU in few launches. Fallback: one by one."""
    together = getattr(torch, "_foreach_copy_", None)
    if together is not None and targets:
        together(list(targets), list(sources))
        return
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


# the arguments that are passed by position, in their order
_FLASH_ARGUMENTS = (
    *("query", "key", "value", "cum_seq_q", "cum_seq_k", "max_q", "max_k"),
    *("dropout_p", "is_causal", "return_debug_mask", "scale", "window_size_left", "window_size_right"),
)
_EFFICIENT_ARGUMENTS = (
    *("query", "key", "value", "bias", "cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k"),
    *("dropout_p", "custom_mask_type", "compute_log_sumexp", "scale"),
)


def has_flash_attention() -> bool:
    """Return True if torch has the operator of flash_attention with the arguments that are passed."""
    return _has_operator("_flash_attention_forward", _FLASH_ARGUMENTS)


def has_efficient_attention() -> bool:
    """Return True if torch has the operator of efficient_attention with the arguments that are passed."""
    return _has_operator("_efficient_attention_forward", _EFFICIENT_ARGUMENTS)


@cache
def _has_operator(name: str, arguments: tuple[str, ...]) -> bool:
    operator = getattr(torch.ops.aten, name, None)
    if operator is None:
        return False
    return tuple(a.name for a in operator.default._schema.arguments)[: len(arguments)] == arguments


def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: tuple[Tensor, Tensor],
    longest: tuple[int, int],
    rate: float,
    scaling: float,
    reach: int | None,
) -> Tensor:
    """Attention within packed sequences by FlashAttention, on CUDA. query: (T, A, D); key, value: (keys, A, D).

    bounds: of queries and of keys, (W + 1,) int32. longest: of both. rate: of dropout. reach: the largest distance that
    is attended to. Fallback: grids (encoder/attention.py), where has_flash_attention() is False.
    """
    # negative: no limit; no causal mask; no debug mask
    left = right = -1 if reach is None else reach
    return torch.ops.aten._flash_attention_forward(
        *(query, key, value, *bounds, *longest, rate, False, False),
        scale=scaling,
        window_size_left=left,
        window_size_right=right,
    )[0]


def efficient_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: tuple[Tensor, Tensor],
    longest: tuple[int, int],
    rate: float,
    scaling: float,
) -> Tensor:
    """Attention within packed sequences by the memory-efficient kernel, on CUDA; arguments as in flash_attention.

    Fallback: grids (encoder/attention.py), where has_efficient_attention() is False.
    """
    is_trained = torch.is_grad_enabled() and any(states.requires_grad for states in (query, key, value))
    # no bias; no causal mask (0); the sums of exponentials are for the backward pass
    states = (part[None] for part in (query, key, value))
    return torch.ops.aten._efficient_attention_forward(
        *(*states, None, *bounds, *longest, rate, 0, is_trained), scale=scaling
    )[0][0]


def softmax_backward(gradient: Tensor, weights: Tensor) -> Tensor:
    """Gradient of softmax over the last axis, in one pass. gradient, weights: (..., L), weights = softmax(scores).

    Fallback: w * (g - sum(g * w)).
    """
    backward = getattr(torch, "_softmax_backward_data", None)
    if backward is not None:
        return backward(gradient, weights, -1, weights.dtype)
    return weights * (gradient - (gradient * weights).sum(-1, keepdim=True))


def sparse_rows(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return the row indices, (T,), and the rows, (T, H), of a sparse embedding gradient. Indices may repeat.

    Fallback: the coalesced gradient, whose indices do not repeat; coalescing costs a sort.
    """
    if hasattr(gradient, "_indices") and hasattr(gradient, "_values"):
        return gradient._indices()[0], gradient._values()
    gradient = gradient.coalesce()
    return gradient.indices()[0], gradient.values()


def swap_class(module: nn.Module, new_class: type[nn.Module]) -> None:
    """Replace a module's class by a subclass with another forward; parameters and hooks stay as they are.

    A wrapper module would rename the parameters, and with them every saved weight.
    """
    assert issubclass(new_class, type(module)), f"{new_class} is not a subclass of {type(module)}"
    module.__class__ = new_class


# ---- transformers


def initialise_module(model: Any, module: nn.Module) -> None:
    """Initialise a module's own parameters (not those of its submodules) as its model class does.

    transformers skips parameters that it marked as loaded, so the marks are removed first. Fallback: matrices from a
    normal distribution with standard deviation initializer_range, biases 0, other vectors (norms) 1.
    """
    initialise = getattr(model, "_init_weights", None)
    if initialise is not None:
        for parameter in module.parameters(recurse=False):
            setattr(parameter, "_is_hf_initialized", False)  # noqa: B010
        initialise(module)
        return
    for name, parameter in module.named_parameters(recurse=False):
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.ndim > 1:
            nn.init.normal_(parameter, std=model.config.initializer_range)
        else:
            nn.init.ones_(parameter)


def attention_implementation(config: Any) -> str | None:
    """Return the name of the attention function that a model uses; fallback: None."""
    return getattr(config, "_attn_implementation", None)


def hub_commit(config: Any) -> str:
    """Return the hub commit that a config was loaded from; fallback: empty."""
    return getattr(config, "_commit_hash", None) or ""


# ---- peft


@cache
def fast_lora_class() -> type[nn.Module]:
    """Return the class of fast LoRA layers. Created on the first call, because peft is slow to import."""
    from peft.tuners.lora.layer import Linear

    class FastLoraLinear(Linear):
        """peft's LoRA layer, W x + b + s B A x, in fewer passes over memory (docs/log.md).

        The scale s multiplies A x, (..., r), instead of B A x, (..., out), and the update is added in place.
        """

        def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            """Compute the layer. x: (..., in) -> (..., out). Any case but one plain LoRA update is left to peft."""
            is_plain = len(self.active_adapters) == 1 and not (self.disable_adapters or self.merged or args or kwargs)
            if not is_plain or getattr(self, "lora_variant", None):
                return super().forward(x, *args, **kwargs)
            (name,) = self.active_adapters
            low = self.lora_A[name](self.lora_dropout[name](x)) * self.scaling[name]  # (..., r)
            result = self.base_layer(x)
            up: Tensor = self.lora_B[name].weight  # type: ignore[assignment]  # (out, r)
            result.view(-1, len(up)).addmm_(low.flatten(0, -2), up.t())  # B (s A x), added to the result
            return result

    return FastLoraLinear


# attributes of peft's layer that FastLoraLinear.forward reads
_LORA_ATTRIBUTES = ("active_adapters", "disable_adapters", "merged", "lora_dropout", "scaling", "base_layer")


def use_fast_lora(model: nn.Module) -> None:
    """Make the plain LoRA layers of a model compute by fast_lora_class().

    Fallback: peft's own forward, if peft has no such layer or the layer lacks an attribute that is read.
    """
    try:
        from peft.tuners.lora.layer import Linear
    except ImportError:
        return
    for module in model.modules():
        if type(module) is Linear and all(hasattr(module, name) for name in _LORA_ATTRIBUTES):
            swap_class(module, fast_lora_class())


def keep_vera_dtype(model: nn.Module) -> None:
    """Cast the random projections that all VeRA layers share to the dtype of the layers, before each forward pass.

    peft does not, and fails if the encoder computes in bf16. Fallback: nothing is cast.
    """
    try:
        from peft.tuners.vera.layer import VeraLayer
    except ImportError:
        return
    for module in model.modules():
        if isinstance(module, VeraLayer):
            module.register_forward_pre_hook(_cast_projections)


def _cast_projections(layer: Any, inputs: Any) -> None:
    for name, scale in layer.vera_lambda_d.items():
        for projection in (layer.vera_A, layer.vera_B):
            if projection[name].dtype != scale.dtype:
                projection[name] = projection[name].to(scale.dtype)


# ---- optuna

_RUNG = "completed_rung"  # prefix of the keys under which successive halving stores scores in a trial


def pruning_notes(trial: Any) -> dict[str, Any]:
    """Return the scores that successive halving has stored in an Optuna trial, by key.

    Fallback: an empty dictionary, so that a resumed search compares new trials with each other only.
    """
    return {key: value for key, value in getattr(trial, "system_attrs", {}).items() if key.startswith(_RUNG)}


def past_trial(notes: Mapping[str, Any], **fields: Any) -> Any:
    """Return a finished Optuna trial that holds the scores from pruning_notes.

    Fallback: the same trial without them, if create_trial has no argument for them.
    """
    import optuna

    try:
        return optuna.trial.create_trial(system_attrs=dict(notes), **fields)
    except TypeError:
        return optuna.trial.create_trial(**fields)
