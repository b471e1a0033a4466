"""The interface of strategies: a small config, and a function that adapts a model or fits a classifier.

A strategy decides which parameters are added and which train. It has no training loop of its own; the engine trains the
result (engine/loop.py).

Modules of strategies import torch, transformers, peft and scikit-learn inside their functions. These libraries take
seconds to import, and the command line needs the configs alone.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from tuneoff.encoder.anatomy import blocks, is_head, parameter_depths
from tuneoff.errors import ConfigError
from tuneoff.seeds import SOURCES, SPLIT
from tuneoff.validation import Options, is_list_field

if TYPE_CHECKING:
    import numpy as np
    from torch import nn


RECIPE = "recipe."  # starts the name of an option of the recipe among those of a strategy: recipe.batch_size


def _parse_recipe(given: Any) -> Any:
    """Parse options of the recipe, {batch_size: 18}, into pairs, which can be hashed."""
    if isinstance(given, dict):
        return tuple(given.items())
    if isinstance(given, tuple):
        return given
    raise ConfigError(
        f"recipe {given!r} is not option: value; write recipe: {{batch_size: 18}}, or recipe.batch_size=18"
    )


# options of the recipe that a strategy replaces, by name; checked by the study, which knows the rest of the recipe
RecipeChanges = Annotated[tuple[tuple[str, Any], ...], BeforeValidator(_parse_recipe), PlainSerializer(dict)]


class StrategyConfig(Options):
    """Base class of the options of a strategy. Unknown options are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ClassVar[str]
    # hyperparameters that a search varies by default -> the factor between the first values that it tries
    searched: ClassVar[dict[str, float]] = {}
    # options that are newer than the first stored runs: written, and part of a run's id, only if they are changed
    newer: ClassVar[frozenset[str]] = frozenset()
    recipe: RecipeChanges = Field(
        (), description="recipe of this strategy alone, in place of the study's: {batch_size: 18}, recipe.batch_size=18"
    )
    encoders: tuple[str, ...] = Field((), description="run on these of the study's encoders; by default on all")

    @classmethod
    def owner(cls) -> str:
        """Start of the error message."""
        return f"strategy {cls.name}"

    @model_validator(mode="before")
    @classmethod
    def _wrap_single_values(cls, options: Any) -> Any:
        """Accept `targets: query` for `targets: [query]`."""
        if not isinstance(options, dict):
            return options
        plain = (str, int, float)
        lists = {name for name, field in cls.model_fields.items() if is_list_field(field)} - {"recipe"}
        return {key: (value,) if key in lists and isinstance(value, plain) else value for key, value in options.items()}

    @model_validator(mode="before")
    @classmethod
    def _gather_recipe(cls, options: Any) -> Any:
        """Accept `recipe.batch_size: 18` for `recipe: {batch_size: 18}`."""
        if not isinstance(options, dict) or not any(str(key).startswith(RECIPE) for key in options):
            return options
        changes = {key.removeprefix(RECIPE): value for key, value in options.items() if str(key).startswith(RECIPE)}
        rest = {key: value for key, value in options.items() if not str(key).startswith(RECIPE)}
        return {**rest, "recipe": {**dict(_parse_recipe(rest.get("recipe", ()))), **changes}}

    @property
    def changed(self) -> dict[str, Any]:
        """The strategy's own options that differ from their defaults."""
        return self.model_dump(exclude_defaults=True, exclude=set(COMMON_OPTIONS))

    @property
    def label(self) -> str:
        """The strategy's name, its changed options and its recipe: 'lora rank=16 recipe.batch_size=8'."""
        return " ".join([self.name, *_written(self.changed), *self._recipe_written])

    @property
    def _recipe_written(self) -> list[str]:
        return _written({RECIPE + key: value for key, value in self.recipe})

    def to_json(self) -> dict[str, Any]:
        """Return the options as plain data; newer ones only where they differ from their defaults."""
        plain, changed = self.model_dump(mode="json"), self.model_dump(exclude_defaults=True)
        return {key: value for key, value in plain.items() if key in changed or key not in self.newer | COMMON_OPTIONS}

    @property
    def num_fits(self) -> int:
        """The number of classifiers that a run fits, of which validation selects one."""
        return 1


@runtime_checkable
class EmbeddingsConfig(Protocol):
    """Options that every strategy that fits on embeddings has."""

    pooling: Literal["cls", "mean"]


class GradientConfig(StrategyConfig):
    """Base class of the options of strategies that train by gradient descent."""

    searched: ClassVar[dict[str, float]] = {"learning_rate": 3.0}  # as in the grids of Devlin et al. and Hu et al.
    learning_rate: float = Field(gt=0, le=1)


# options of every strategy: of the recipe that it runs with and of the grid, not of the strategy itself
COMMON_OPTIONS = frozenset({"recipe", "encoders"})


def _written(options: Mapping[str, Any]) -> list[str]:
    return [f"{key}={format_option(value)}" for key, value in options.items()]


def format_option(value: Any) -> str:
    """Format the value of an option for display: ('query', 'value') as query+value."""
    return "+".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


# fields of the recipe that a run depends on, by Strategy.fits_on; None for all
_TRUNCATION_FIELDS = frozenset({"max_length", "long_texts", "overlap", "max_windows"})
_RECIPE_FIELDS = {
    "texts": frozenset({"class_weights"}),
    "embeddings": _TRUNCATION_FIELDS | {"precision", "class_weights"},
    "model": None,
}


@dataclass(frozen=True)
class Strategy:
    """One row of STRATEGIES. Other parts of the package read these fields and never compare a strategy's name."""

    config: type[StrategyConfig]
    # texts: fits a scikit-learn pipeline on texts; embeddings: fits a scikit-learn classifier on the frozen encoder's
    # embeddings; model: adapts the model, which the engine may then train
    fits_on: Literal["texts", "embeddings", "model"]
    apply: Callable[..., Any]  # model: (model, config) -> Adapted; the others return a fitted scikit-learn classifier
    summary: str  # for the command line
    # embeddings: (fitted classifier, features) -> class probabilities, (N, C)
    probabilities: "Callable[[Any, np.ndarray], np.ndarray] | None" = None
    # embeddings: fitted classifier -> the options of which validation selected one of several values
    selected_options: Callable[[Any], dict[str, Any]] | None = None
    is_seeded: bool = True  # the seed changes the result; if False, one run stands for all seeds
    learns: bool = True  # predictions depend on the text; False for the majority class and an untrained head
    is_baseline: bool = False  # added to every study, unless baselines: false
    is_default: bool = False  # compared when a study names no strategies
    needs_options: bool = False  # it has an option without a default, so its name is not a complete strategy

    @property
    def uses_encoder(self) -> bool:
        """True if a run needs a pretrained encoder."""
        return self.fits_on != "texts"

    @property
    def seed_sources(self) -> tuple[str, ...]:
        """The sources of randomness that change a run: of one that ignores seeds, its training examples alone."""
        if not self.is_seeded:
            return (SPLIT,) if self.learns else ()
        return SOURCES if self.learns else ("head",)

    @property
    def recipe_fields(self) -> frozenset[str] | None:
        """The fields of the recipe that change a run of this strategy; None for all of them."""
        if self.fits_on == "model" and not self.learns:
            return _TRUNCATION_FIELDS
        return _RECIPE_FIELDS[self.fits_on]


@dataclass(frozen=True)
class Adapted:
    """A model that a strategy has adapted. A parameter trains if its requires_grad is True."""

    model: Any
    added: tuple[str, ...] = ()  # full names of the parameters that the strategy added
    layer_decay: float = 1.0  # the learning rate of each block is that of the next block times this
    # full names of parameters with a learning rate of their own -> factor of the learning rate
    rate_factors: Mapping[str, float] = field(default_factory=dict)
    save: Callable[[Any, Any], None] | None = None  # (model, folder): saves the changes; None: save the whole model
    load: Callable[[Any, Any], None] | None = None  # (model, folder): loads what save has saved
    # a context in which the added weights are merged into the encoder's own; None if they cannot be
    merged: Callable[[], AbstractContextManager[None]] | None = None

    @property
    def trainable(self) -> "dict[str, nn.Parameter]":
        """The parameters that train, by full name."""
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    @property
    def first_trained_block(self) -> int:
        """The index of the first block that trains or is changed; the number of blocks if only the head trains.

        0 if embeddings train. The outputs of all blocks before it stay the same throughout training.
        """
        depths = parameter_depths(self.model)
        trained = [depths[name] for name in self.trainable]
        return max(0, min(trained, default=len(blocks(self.model))))


@dataclass(frozen=True)
class ParameterCounts:
    """Numbers of parameters: trainable, added by the strategy, in the head, and in total, including added ones."""

    trainable: int
    added: int
    head: int
    total: int


def count_parameters(adapted: Adapted) -> ParameterCounts:
    """Count the parameters of an adapted model; a shared parameter counts once."""
    sizes = {name: parameter.numel() for name, parameter in adapted.model.named_parameters()}
    return ParameterCounts(
        trainable=sum(sizes[name] for name in adapted.trainable),
        added=sum(sizes[name] for name in adapted.added),
        head=sum(size for name, size in sizes.items() if is_head(adapted.model, name)),
        total=sum(sizes.values()),
    )


def operations_per_token(adapted: Adapted) -> float:
    """Floating point operations of a training step per token, in the matrix products of the blocks.

    2 per weight in the forward pass; in the backward pass 2 for the gradient of the states, from the last block down to
    the first that trains, and 2 more for the gradient of weights that train (Kaplan et al., 2020, section 2.1). The
    products of attention itself, a few percent at the lengths of sentences, are not counted.
    """
    return sum(operations_by_block(adapted))


def operations_by_block(adapted: Adapted) -> list[float]:
    """Floating point operations of a training step per token, for each block from first_trained_block on."""
    parts = [list(block.parameters()) for block in blocks(adapted.model)[adapted.first_trained_block :]]
    return [sum(p.numel() * (6.0 if p.requires_grad else 4.0) for p in parameters) for parameters in parts]


def one_vs_rest_if_multilabel(classifier: Any, labels: "np.ndarray") -> Any:
    """Return a scikit-learn classifier as it is for labels (N,), and one per label for multi-label data, (N, C)."""
    from sklearn.multiclass import OneVsRestClassifier

    return OneVsRestClassifier(classifier) if labels.ndim == 2 else classifier


def train_only(model: Any, is_trained: Callable[[str], bool]) -> None:
    """Make the parameters trainable for whose full name is_trained returns True; freeze all others."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_trained(name))


def chosen_blocks(model: Any, layers: int | Iterable[int] | None) -> list[int]:
    """Return the indices of blocks that the option `layers` selects: None for all, N for the last N, or a list.

    Raises ConfigError for blocks that the encoder does not have.
    """
    count = len(blocks(model))
    if layers is None:
        return list(range(count))
    chosen = list(range(count))[-layers:] if isinstance(layers, int) else sorted(set(layers))
    is_too_many = isinstance(layers, int) and layers > count
    if is_too_many or any(index >= count or index < 0 for index in chosen):
        allowed = f"a number from 1 to {count}" if isinstance(layers, int) else f"indices from 0 to {count - 1}"
        raise ConfigError(f"layers {format_option(layers)} does not fit an encoder of {count} blocks; give {allowed}")
    return chosen
