"""Strategies as users write them: a name, a name with options, or a config; and the recipe of each."""

from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    PlainSerializer,
)

from tuneoff.engine.recipe import Recipe
from tuneoff.errors import ConfigError, short_repr, unknown
from tuneoff.strategies import STRATEGIES, StrategyConfig
from tuneoff.strategies.base import RECIPE
from tuneoff.validation import parse_yaml, validated


def parse_strategy(given: Any) -> StrategyConfig:
    """Parse a strategy: a name ("lora"), a name with options ("lora:rank=16", {"lora": {"rank": 16}}) or a config."""
    if isinstance(given, StrategyConfig):
        return given
    if isinstance(given, dict) and len(given) == 1:
        name, options = next(iter(given.items()))
    elif isinstance(given, str):
        name, *pairs = (part.strip() for part in given.split(":"))
        options = dict(_parse_option(given, pair) for pair in pairs)
    else:
        raise ConfigError(
            f"strategy {short_repr(given)} is neither a name nor name: {{options}}; write lora or lora: {{rank: 16}}"
        )
    if name not in STRATEGIES:
        raise ConfigError(unknown("strategy", name, STRATEGIES))
    config = STRATEGIES[name].config
    if isinstance(options, dict) and config.model_config.get("extra") == "forbid":
        for key in options:
            if key in Recipe.model_fields and key not in config.model_fields:
                raise ConfigError(f"strategy {name}: {key} is an option of the recipe; write {RECIPE}{key}")
    return validated(config, options or {}, f"strategy {name}")


def _parse_option(given: str, pair: str) -> tuple[str, Any]:
    key, equals, value = pair.partition("=")
    if not equals:
        raise ConfigError(f"strategy {given!r}: {pair!r} is not option=value; write e.g. lora:rank=16")
    try:
        parsed = parse_yaml(value, "value")
    except ConfigError:
        raise ConfigError(f"strategy {given!r}: {value!r} cannot be read; several values are written a+b") from None
    return key.strip(), parsed.split("+") if isinstance(parsed, str) and "+" in parsed else parsed


def dump_strategy(config: StrategyConfig) -> dict[str, Any]:
    return {config.name: config.to_json()}


def recipe_of(strategy: StrategyConfig, recipe: Recipe) -> Recipe:
    """Return the recipe of a strategy: the study's, with the strategy's own options in place of its.

    Raises ConfigError, in one line, for an option that does not exist, is invalid, or changes nothing for the strategy.
    """
    changes = dict(strategy.recipe)
    if not changes:
        return recipe
    used = STRATEGIES[strategy.name].recipe_fields
    for key in changes:
        if key == "learning_rate":
            raise ConfigError(
                f"strategy {strategy.name}: learning_rate is its own option; leave out {RECIPE!r} before it"
            )
        if used is not None and key in Recipe.model_fields and key not in used:
            raise ConfigError(
                f"strategy {strategy.name} does not depend on {key} of the recipe; it uses {', '.join(sorted(used))}"
            )
    return validated(Recipe, {**recipe.model_dump(), **changes}, f"recipe of strategy {strategy.name}")


AnyStrategy = Annotated[StrategyConfig, BeforeValidator(parse_strategy), PlainSerializer(dump_strategy)]
