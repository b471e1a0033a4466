"""The whole state of a training, from which it goes on with the same bits.

It holds the fp32 master weights (the copies that the model computes with follow from them), the moments of AdamW, the
best weights so far, the position in the data (epoch, and steps of it: the order follows from seed and epoch), the
history, the seconds, and the random states of torch (dropout), numpy and Python. Frozen weights are not in it: they are
loaded and adapted again from the same seed. The learning rate is a function of the step.
"""

import random
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tuneoff.engine.master_weights import MasterWeights, Snapshot

if TYPE_CHECKING:
    from tuneoff.engine.loop import Trained

_STEP_COLUMNS = {"step": int, "epoch": int, "loss": float, "learning_rate": float}


@dataclass(frozen=True)
class State:
    """The state of a training, as a checkpoint holds it."""

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]  # JSON

    def with_own_weights(self) -> "State":
        """Return the state with a copy of the weights, which the end of a training changes."""
        copies = {name: value.clone() for name, value in self.tensors.items() if name.startswith("weights.")}
        return State(self.tensors | copies, self.numbers)


@dataclass
class Position:
    """The place of a training between two steps."""

    epoch: int = 0  # counted from 0
    steps: int = 0  # done in this epoch
    seconds: float = 0.0  # of steps in this epoch
    scores: dict[str, float] = field(default_factory=dict)  # of the last validation in this epoch
    scored_step: int = 0  # of that validation; 0: none
    is_done: bool = False  # no step follows


# score, epoch, step, weights
Kept = tuple[float, int, int, Snapshot]


def capture(
    master_weights: MasterWeights, optimizer: torch.optim.Optimizer, best: list[Kept], trained: "Trained", at: Position
) -> State:
    """Return the state of a training. Its tensors are those of the training itself, not copies.

    After the last step the best weights are all that is needed of the weights.
    """
    current, tensors = master_weights.current(), dict[str, Tensor]()
    if not (at.is_done and best):
        tensors |= {f"weights.{i}": weights for i, weights in enumerate(current.weights)}
        for number, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in moments.items()}
    for rank, (*_, snapshot) in enumerate(best):
        tensors |= {f"best.{rank}.{i}": weights for i, weights in enumerate(snapshot.weights)}
    steps = [[float(step[name]) for name in _STEP_COLUMNS] for step in trained.steps]
    tensors["steps"] = torch.tensor(steps, dtype=torch.float64).reshape(-1, len(_STEP_COLUMNS))
    history = asdict(replace(trained, steps=[], resumed_step=None))
    numbers = {
        "trained": history,
        "position": asdict(at),
        "decay": current.decay,
        "best": [[score, epoch, step, snapshot.decay] for score, epoch, step, snapshot in best],
    }
    return _with_random_states(State(tensors, numbers))


def restore(
    state: State,
    master_weights: MasterWeights,
    optimizer: torch.optim.Optimizer,
    best: list[Kept],
    trained: "Trained",
) -> Position:
    """Set a training to a state, in place, and return its place."""
    tensors, numbers = state.tensors, state.numbers
    count = len(master_weights.current().weights)
    device = master_weights.current().weights[0].device

    def snapshot(prefix: str, decay: float) -> Snapshot:
        return Snapshot([tensors[f"{prefix}.{i}"].to(device) for i in range(count)], decay)

    if "weights.0" in tensors:
        master_weights.swap_in(snapshot("weights", numbers["decay"]))
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, number, name = key.split(".")
            moments.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    best[:] = [
        (score, epoch, step, snapshot(f"best.{rank}", decay))
        for rank, (score, epoch, step, decay) in enumerate(numbers["best"])
    ]
    history = dict(numbers["trained"])
    trained.phases = type(trained.phases)(**history.pop("phases"))
    for name, value in history.items():
        if name not in ("steps", "resumed_step"):
            setattr(trained, name, value)
    columns = list(_STEP_COLUMNS.items())
    trained.steps = [
        {name: kind(value) for (name, kind), value in zip(columns, row, strict=True)}
        for row in tensors["steps"].tolist()
    ]
    trained.resumed_step = len(trained.steps)
    _set_random_states(state)
    return Position(**numbers["position"])


def _with_random_states(state: State) -> State:
    """Add every global random state."""
    _, keys, *rest = np.random.get_state()  # noqa: NPY002  the state that libraries use
    version, internal, gauss = random.getstate()
    tensors = state.tensors | {"random.torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors |= {f"random.cuda.{i}": of_device for i, of_device in enumerate(torch.cuda.get_rng_state_all())}
    numbers = {"numpy": [np.asarray(keys).tolist(), *rest], "python": [version, list(internal), gauss]}
    return State(tensors, {**state.numbers, "random": numbers})


def _set_random_states(state: State) -> None:
    torch.set_rng_state(state.tensors["random.torch"])
    if torch.cuda.is_available():
        names = [f"random.cuda.{i}" for i in range(torch.cuda.device_count())]
        torch.cuda.set_rng_state_all([state.tensors[name] for name in names if name in state.tensors])
    keys, *rest = state.numbers["random"]["numpy"]
    np.random.set_state(("MT19937", np.array(keys, np.uint32), *rest))  # noqa: NPY002
    version, internal, gauss = state.numbers["random"]["python"]
    random.setstate((version, tuple(internal), gauss))
