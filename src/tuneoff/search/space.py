"""Hyperparameter search: its budget and its search spaces."""

import re
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tuneoff.errors import ConfigError, unknown
from tuneoff.strategies.base import StrategyConfig
from tuneoff.validation import validated

_REACH = 2  # factors from a strategy's default value to either end of its search range
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


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


class SearchSpec(BaseModel):
    """Search budget, the same for every strategy: a number of trials, or a time."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    trials: int | None = Field(None, ge=1, description="trials per strategy")
    budget: Annotated[float, BeforeValidator(_parse_seconds)] | None = Field(
        None, gt=0, description="time per strategy instead of trials: seconds, 10m or 1h"
    )
    # Jamieson & Talwalkar, AISTATS 2016; asynchronous as in Li et al., MLSys 2020
    halving: bool = Field(
        True, description="successive halving: stop a trial outside the better half at 1, 2, 4, ... epochs"
    )
    spaces: dict[str, Space] = Field(
        {},
        description="strategy -> hyperparameter -> values, or low and high; by default each strategy's learning rate "
        "or C",
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
        return {**own, **self.spaces.get(strategy.name, {}), **self.spaces.get(strategy.label, {})}


def parse_search(given: Any) -> Any:
    """Parse a short form: 4 or "4" is four trials, "10m" ten minutes per strategy, "none" no search."""
    if isinstance(given, str):
        if given.strip().lower() == "none":
            return None
        if given.strip().isdigit():
            return {"trials": int(given)}
        if not isinstance(_parse_seconds(given), float):
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


def check_spaces(search: SearchSpec, strategies: Sequence[StrategyConfig]) -> None:
    """Raise ConfigError for a search space of an unknown strategy or option, or with an invalid value."""
    for name, space in search.spaces.items():
        named = [strategy for strategy in strategies if name in (strategy.name, strategy.label)]
        if not named:
            labels = dict.fromkeys(label for s in strategies for label in (s.name, s.label))
            raise ConfigError(f"search space for {unknown('strategy', name, labels)}")
        for option, values in space.items():
            tried = (values.low, values.high) if isinstance(values, Range) else values
            for value in tried:
                for strategy in named:
                    with_options(strategy, {option: value})


def with_options(strategy: StrategyConfig, options: dict[str, Any]) -> StrategyConfig:
    """Return a strategy with some options replaced. Raises ConfigError, in one line, for an invalid one."""
    given = {**strategy.model_dump(exclude_none=True), **options}
    return validated(type(strategy), given, f"search space of {strategy.name}")
