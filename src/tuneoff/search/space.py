"""Hyperparameter search: its budget and its search spaces."""

import re
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tuneoff.engine.recipe import Recipe
from tuneoff.errors import ConfigError, unknown
from tuneoff.strategies import STRATEGIES, StrategyConfig
from tuneoff.strategies.base import RECIPE
from tuneoff.validation import validated, whole_number

_REACH = 2  # factors from a strategy's default value to either end of its search range
RECIPE_SPACE = "recipe"  # name of the space of every strategy
_TOKENS = ("max_length", "long_texts", "overlap", "max_windows")  # options of the recipe that decide them
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
_LONGEST = 30 * 86_400  # seconds per strategy: a month


class Range(BaseModel):
    """Search range of a number; integers only if both ends are integers."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    low: int | float
    high: int | float
    log: bool = Field(True, description="sample on a log scale")

    @model_validator(mode="after")
    def _is_not_empty(self) -> "Range":
        if self.low >= self.high:
            raise ConfigError(f"search space from low {self.low:g} to high {self.high:g} is empty; swap or widen it")
        if self.log and self.low <= 0:
            raise ConfigError(
                f"search space from low {self.low:g} is sampled on a log scale; start above 0, or set log: false"
            )
        return self

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high


def _parse_values(given: Any) -> Any:
    if isinstance(given, Range):
        return given
    if isinstance(given, (list, tuple)) and given:
        return tuple(given)
    if isinstance(given, dict) and given:
        return validated(Range, given, "search space")
    raise ConfigError(f"search space {given!r} has no values; write a list, [4, 8], or low and high")


Space = dict[str, Annotated[Range | tuple[Any, ...], BeforeValidator(_parse_values)]]


def _parse_seconds(given: Any) -> Any:
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([smh]?)\s*", given) if isinstance(given, str) else None
    return float(match[1]) * _UNITS[match[2]] if match else given


def parse_time(given: Any) -> Any:
    """Parse a time limit: 90, "90s", "10m" or "1h" -> seconds. Raises ConfigError for anything else.

    >>> parse_time("10m"), parse_time(90)
    (600.0, 90.0)
    """
    if given is None:
        return None
    seconds = _parse_seconds(given)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise ConfigError(f"time {given!r} is not a time; write 10m, 90s or 1h")
    if not 1 <= seconds <= _LONGEST:
        raise ConfigError(f"time {given!r} is not from 1 second to 30 days; write 10m, 90s or 1h")
    return float(seconds)


class SearchSpec(BaseModel):
    """Search budget, the same for every strategy: a number of trials, or a time."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    trials: int | None = Field(None, ge=1, le=10_000, description="trials per strategy")
    budget: Annotated[float, BeforeValidator(_parse_seconds)] | None = Field(
        None, gt=0, le=_LONGEST, description="time per strategy instead of trials: seconds, 10m or 1h"
    )
    # Jamieson & Talwalkar, AISTATS 2016; asynchronous as in Li et al., MLSys 2020
    halving: bool = Field(
        True, description="successive halving: stop a trial outside the better half at 1, 2, 4, ... epochs"
    )
    spaces: dict[str, Space] = Field(
        {},
        description="strategy -> hyperparameter -> values, or low and high; by default each strategy's learning rate "
        "or C; recipe -> options of the recipe, for every strategy that depends on them",
    )

    @model_validator(mode="after")
    def _has_one_budget(self) -> "SearchSpec":
        if (self.trials is None) == (self.budget is None):
            raise ConfigError("search needs either trials or a budget; write trials: 4, or budget: 10m")
        return self

    def space_of(self, strategy: StrategyConfig) -> Space:
        """Return the search space of a strategy.

        Its own learning rate or C, unless the study sets it to another value than the default, and every
        hyperparameter that the study names for it.
        """
        own = {name: _range_around(strategy, name) for name in strategy.searched if name not in strategy.changed}
        named = {**self.spaces.get(strategy.name, {}), **self.spaces.get(strategy.label, {})}
        named = {_canonical(strategy, name): values for name, values in named.items()}
        shared = {RECIPE + name: values for name, values in self.spaces.get(RECIPE_SPACE, {}).items()}
        shared = {name: values for name, values in shared.items() if _depends_on(strategy, name)}
        return {**own, **shared, **named}


def parse_search(given: Any) -> Any:
    """Parse a short form: 4 or "4" is four trials, "10m" ten minutes per strategy, "none" no search."""
    if isinstance(given, str):
        if given.strip().lower() == "none":
            return None
        if (trials := whole_number(given)) is not None:
            return {"trials": trials}
        if re.fullmatch(r"[\s0-9]*", given) or not isinstance(_parse_seconds(given), float):
            raise ConfigError(f"search {given!r} is neither trials nor a time; write 4, 10m or none")
        return {"budget": given}
    if isinstance(given, (bool, float)):
        raise ConfigError(f"search {given!r} is neither trials nor a time; write 4, 10m or none")
    if isinstance(given, dict) and (strange := [key for key in given if key not in SearchSpec.model_fields]):
        raise ConfigError(unknown("key of search", str(strange[0]), SearchSpec.model_fields))
    return {"trials": given} if isinstance(given, int) else given


def default_value(strategy: StrategyConfig, option: str) -> float:
    """Return the value at which the search of an option starts; for several values, their geometric mean."""
    value = getattr(strategy, option)
    return float(np.exp(np.log(value).mean())) if isinstance(value, tuple) else value


def _range_around(strategy: StrategyConfig, option: str) -> Range:
    start, factor = default_value(strategy, option), strategy.searched[option] ** _REACH
    high = start * factor
    return Range(low=start / factor, high=min(1.0, high) if option == "learning_rate" else high, log=True)


def check_spaces(search: SearchSpec, strategies: Sequence[StrategyConfig], recipe: Recipe) -> None:
    """Raise ConfigError for a search space of an unknown strategy or option, or with an invalid value.

    recipe: the study's, of which trials replace options.
    """
    for name, space in search.spaces.items():
        if name == RECIPE_SPACE:
            for option, values in space.items():
                _check_recipe(recipe, option, values)
                if not any(_depends_on(strategy, RECIPE + option) for strategy in strategies):
                    raise ConfigError(f"search space of the recipe: no strategy of the study depends on {option}")
            continue
        named = [strategy for strategy in strategies if name in (strategy.name, strategy.label)]
        if not named:
            labels = dict.fromkeys(label for s in strategies for label in (s.name, s.label))
            raise ConfigError(f"search space for {unknown('strategy', name, [*labels, RECIPE_SPACE])}")
        for strategy in named:
            for option, values in space.items():
                full = _canonical(strategy, option)
                if not full.startswith(RECIPE):
                    for value in _tried(values):
                        with_options(strategy, {option: value})
                    continue
                _check_recipe(recipe, full.removeprefix(RECIPE), values)
                if not _depends_on(strategy, full):
                    raise ConfigError(f"search space of {strategy.name}: it does not depend on {full}; leave it out")


def _tried(values: Range | tuple[Any, ...]) -> tuple[Any, ...]:
    return (values.low, values.high) if isinstance(values, Range) else values


def _check_recipe(recipe: Recipe, option: str, values: Range | tuple[Any, ...]) -> None:
    if option in _TOKENS:
        raise ConfigError(
            f"search space of the recipe: {option} changes the texts' tokens, which all trials share; "
            f"compare strategies with {RECIPE}{option} instead"
        )
    for value in _tried(values):
        validated(Recipe, {**recipe.model_dump(), option: value}, "search space of the recipe")


def with_options(strategy: StrategyConfig, options: dict[str, Any]) -> StrategyConfig:
    """Return a strategy with some options replaced. Raises ConfigError, in one line, for an invalid one."""
    given = {**strategy.model_dump(exclude_none=True), **options}
    return validated(type(strategy), given, f"search space of {strategy.name}")


def _canonical(strategy: StrategyConfig, option: str) -> str:
    """Return the full name of an option in a search space: recipe.epochs for epochs, which the strategy lacks."""
    is_own = option in type(strategy).model_fields or option not in Recipe.model_fields
    return option if is_own else RECIPE + option


def _depends_on(strategy: StrategyConfig, option: str) -> bool:
    row = STRATEGIES[strategy.name]
    return row.recipe_fields is None or option.removeprefix(RECIPE) in row.recipe_fields


def own_options(strategy: StrategyConfig, options: dict[str, Any]) -> dict[str, Any]:
    """Return those of some options, from a search space, that are the strategy's own."""
    return {name: value for name, value in options.items() if not _canonical(strategy, name).startswith(RECIPE)}


def recipe_options(strategy: StrategyConfig, options: dict[str, Any]) -> dict[str, Any]:
    """Return those of some options, from a search space, that are the recipe's, by their names there."""
    full = {_canonical(strategy, name): value for name, value in options.items()}
    return {name.removeprefix(RECIPE): value for name, value in full.items() if name.startswith(RECIPE)}


def recipe_values(recipe: Recipe, space: Space) -> dict[str, Any]:
    """Return a recipe's own values of those options of a search space that are the recipe's."""
    names = [name for name in space if name.startswith(RECIPE)]
    return {name: getattr(recipe, name.removeprefix(RECIPE)) for name in names}


def parse_spaces(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Parse the command line's search spaces: lora.rank=4,8,16 lists values, lora.learning_rate=1e-5..1e-3 is a range.

    >>> parse_spaces(["lora.rank=4,8", "recipe.epochs=2,3"])
    {'lora': {'rank': [4, 8]}, 'recipe': {'epochs': [2, 3]}}
    """
    spaces: dict[str, dict[str, Any]] = {}
    for text in texts:
        # a comma ends a space where a name follows: lora.rank=4,8,lora.alpha=8,16
        for part in re.split(r",(?=[^,=]+=)", text):
            name, equals, values = part.rpartition("=")
            strategy, dot, option = name.strip().partition(f".{RECIPE}")
            option = RECIPE + option if dot else option
            if not dot:
                strategy, dot, option = name.strip().rpartition(".")
            if not (equals and dot and strategy and values.strip()):
                raise ConfigError(
                    f"--search-space {text!r} is not strategy.option=values; write lora.rank=4,8,16, "
                    "lora.learning_rate=1e-5..1e-3 or recipe.epochs=2,3,5"
                )
            own = spaces.setdefault(" ".join(strategy.split(":")), {})
            if option in own:
                raise ConfigError(f"--search-space {text!r} names {strategy}.{option} twice; give it once")
            own[option] = (
                _parse_ends(text, values) if ".." in values else [_number_or_text(v) for v in values.split(",")]
            )
    return spaces


def _parse_ends(text: str, values: str) -> dict[str, Any]:
    low, _, high = (part.strip() for part in values.partition(".."))
    ends = [_number_or_text(low), _number_or_text(high)]
    if not all(isinstance(end, (int, float)) for end in ends):
        raise ConfigError(f"--search-space {text!r}: {values!r} is not two numbers; write 1e-5..1e-3")
    return {"low": ends[0], "high": ends[1], "log": ends[0] > 0}


def _number_or_text(value: str) -> Any:
    """Read a value: a number, also 1e-5, which YAML takes for text; true or false; several values a+b; or text."""
    text = value.strip()
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    return text.split("+") if "+" in text else text
