"""What a strategy is: a small config, and a function that says what changes and what trains. It never owns a loop."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sklearn.multiclass import OneVsRestClassifier
from torch import nn

from tuneoff.encoder.anatomy import blocks, is_head, parameter_depths
from tuneoff.errors import ConfigError


class StrategyConfig(BaseModel):
    """Base of every strategy's options. Unknown options are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ClassVar[str]
    # the options that a search varies unless told otherwise, and the factor between the first values it tries
    searched: ClassVar[dict[str, float]] = {}

    @model_validator(mode="before")
    @classmethod
    def _one_value_is_a_list_of_one(cls, given: Any) -> Any:
        """targets: query means targets: [query]."""
        if not isinstance(given, dict):
            return given
        plain = (str, int, float)
        lists = {name for name, field in cls.model_fields.items() if "tuple" in str(field.annotation)}
        return {key: (value,) if key in lists and isinstance(value, plain) else value for key, value in given.items()}

    @property
    def changed(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        return self.model_dump(exclude_defaults=True)

    @property
    def label(self) -> str:
        """The strategy and what differs from its defaults: 'lora rank=16'."""
        return " ".join([self.name, *[f"{key}={short(value)}" for key, value in self.changed.items()]])


class GradientConfig(StrategyConfig):
    """Base of the strategies that train by gradient descent."""

    searched: ClassVar[dict[str, float]] = {"learning_rate": 3.0}  # as the grids of Devlin et al. and of Hu et al. do
    learning_rate: float = Field(gt=0, le=1)


def short(value: Any) -> str:
    """An option's value for people."""
    return "+".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


@dataclass(frozen=True)
class Strategy:
    """One row of STRATEGIES."""

    config: type[StrategyConfig]
    # text: fits on the texts themselves | features: on frozen embeddings | gradient: changes and trains the model
    kind: Literal["text", "features", "gradient"]
    apply: Callable[..., Any]  # gradient: (model, config) -> Adapted; others: what `fit.py` describes
    summary: str
    is_seeded: bool = True  # whether the seed changes anything; if not, one run stands for all seeds


@dataclass(frozen=True)
class Adapted:
    """A model as a strategy left it. The engine derives everything else from the flags on its parameters."""

    model: Any
    added: tuple[str, ...] = ()  # full names of the parameters that the strategy put in
    layer_decay: float = 1.0  # each block's rate is the next one's times this
    saves: Callable[[Any, Any], None] | None = None  # (model, folder): how to save, if not as a whole model

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that train, by full name."""
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    @property
    def first_trained_block(self) -> int:
        """The first block that trains or is changed; the number of blocks where only the head trains.

        0 also where embeddings train. Everything before it gives the same outputs throughout training.
        """
        depths = parameter_depths(self.model)
        trained = [depths[name] for name in self.trainable]
        return max(0, min(trained, default=len(blocks(self.model))))


@dataclass(frozen=True)
class ParameterCounts:
    """How many numbers train, were added, belong to the head, and there are in all (added ones included)."""

    trainable: int
    added: int
    head: int
    total: int


def count_parameters(adapted: Adapted) -> ParameterCounts:
    """Count once each parameter of an adapted model."""
    sizes = {name: parameter.numel() for name, parameter in adapted.model.named_parameters()}
    return ParameterCounts(
        trainable=sum(sizes[name] for name in adapted.trainable),
        added=sum(sizes[name] for name in adapted.added),
        head=sum(size for name, size in sizes.items() if is_head(adapted.model, name)),
        total=sum(sizes.values()),
    )


def operations_per_token(adapted: Adapted) -> float:
    """Operations of a training step for each token, matrix products of the blocks alone.

    A forward pass is 2 a weight; a backward pass 2 for the states behind the first trained block and 2 more for the
    weights that train (Kaplan et al., 2020, section 2.1). Attention's own products, a few percent at the lengths of
    sentences, are left out.
    """
    return sum(operations_by_block(adapted))


def operations_by_block(adapted: Adapted) -> list[float]:
    """The same for each block that is not frozen with all before it."""
    parts = [list(block.parameters()) for block in blocks(adapted.model)[adapted.first_trained_block :]]
    return [sum(p.numel() * (6.0 if p.requires_grad else 4.0) for p in parameters) for parameters in parts]


def for_labels(classifier: Any, labels: np.ndarray) -> Any:
    """A scikit-learn classifier for labels: itself, or one for each label where an example may have several.

    labels: (N,) or (N, C).
    """
    return OneVsRestClassifier(classifier) if labels.ndim == 2 else classifier


def train_only(model: Any, is_trained: Callable[[str], bool]) -> None:
    """Let the parameters train whose full name is accepted; freeze the rest."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_trained(name))


def chosen_blocks(model: Any, layers: int | Iterable[int] | None) -> list[int]:
    """Indices of blocks: all for None, the last N for a number, or exactly those listed."""
    count = len(blocks(model))
    if layers is None:
        return list(range(count))
    chosen = list(range(count))[-layers:] if isinstance(layers, int) else sorted(set(layers))
    too_many = isinstance(layers, int) and layers > count
    if too_many or any(index >= count or index < 0 for index in chosen):
        allowed = f"a number from 1 to {count}" if isinstance(layers, int) else f"indices from 0 to {count - 1}"
        raise ConfigError(f"layers {short(layers)} does not fit an encoder of {count} blocks; give {allowed}")
    return chosen
