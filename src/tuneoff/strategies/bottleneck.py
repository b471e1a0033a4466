"""The network that the adapter strategy adds to a block."""

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN


class Bottleneck(nn.Module):
    """The network of an adapter: up(activation(down(states))). states: (..., H) -> (..., H).

    up starts at zero, so that the adapted model starts equal to the plain one (He et al., ICLR 2022, section 4.1).
    The names of the parts are AdapterHub's.
    """

    def __init__(self, hidden: int, size: int, activation: str, device: torch.device | None = None) -> None:
        super().__init__()
        down, up = nn.Linear(hidden, size, device=device), nn.Linear(size, hidden, device=device)
        nn.init.normal_(down.weight, std=0.02)
        for weights in (down.bias, up.weight, up.bias):
            nn.init.zeros_(weights)
        self.adapter_down = nn.Sequential(down, ACT2FN[activation])
        self.adapter_up = up

    def forward(self, states: Tensor) -> Tensor:
        """Compute the update, without the states that it is added to."""
        return self.adapter_up(self.adapter_down(states))


def register(module: nn.Module, path: str, part: Bottleneck) -> Bottleneck:
    """Register a module under a dotted path, with empty modules for the names in between that do not exist."""
    *parents, last = path.split(".")
    for name in parents:
        if not hasattr(module, name):
            module.add_module(name, nn.Module())
        module = module.get_submodule(name)
    module.add_module(last, part)
    return part
