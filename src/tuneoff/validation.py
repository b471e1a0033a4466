"""Validation of plain data against pydantic models; a failure is one line that names the key and the value."""

import re
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from tuneoff.errors import ConfigError, one_line, short_repr, unknown

_MAX_DEPTH, _MAX_VALUES = 50, 100_000  # of YAML
# pattern of a field -> in words
_PATTERNS = {r"^\w[\w.-]*$": "letters, digits, _, - and . only, the first one a letter, a digit or _"}


def whole_number(text: str) -> int | None:
    """Return the number that a text of digits stands for; None for any other text.

    >>> whole_number(" 12 "), whole_number("²"), whole_number("9" * 5000)
    (12, None, None)
    """
    return int(text) if re.fullmatch(r"\s*[0-9]{1,15}\s*", text) else None


def validated(model: type[BaseModel], data: dict[str, Any], where: str) -> Any:
    """Return plain data as an instance of a pydantic model. where: start of the error message.

    Raises ConfigError, in one line; for an unknown key it suggests the most similar allowed key.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _config_error(model, error, where) from None
    except (TypeError, AttributeError, OverflowError, RecursionError) as error:
        # a value of a kind that a validator does not expect: a mapping in place of a name
        raise ConfigError(f"{where}: a value is of the wrong kind ({one_line(error)})") from error


class Options(BaseModel):
    """Base class of options that users write in Python: LoRA(rnk=4) is a ConfigError that names rank."""

    if not TYPE_CHECKING:  # type checkers read the fields

        def __init__(self, **options: Any) -> None:
            try:
                super().__init__(**options)
            except ValidationError as error:
                raise _config_error(type(self), error, self.owner()) from None

    @classmethod
    def owner(cls) -> str:
        """Start of the error message: whose options these are."""
        return cls.__name__.lower()


def _config_error(model: type[BaseModel], error: ValidationError, where: str) -> ConfigError:
    """Return the first of pydantic's errors as one line."""
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if not isinstance(cause, ConfigError):
        return ConfigError(f"{where}: {_one_line(model, first)}")
    own = f"{model.owner()}: " if issubclass(model, Options) else ""
    return ConfigError(f"{where}: {str(cause).removeprefix(own)}") if own and str(cause).startswith(own) else cause


def _one_line(model: type[BaseModel], problem: Any) -> str:
    """Message for one of pydantic's error details."""
    path = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        allowed = _allowed_keys(model, path[:-1])
        return unknown("key", path[-1], allowed) if allowed else f"key {'.'.join(path)!r} is unknown"
    if path and path[-1] == "[key]":  # of a mapping, as in limits: the key and this mark end the path
        return f"{'.'.join(path[:-2])}: key {short_repr(problem['input'])} {problem['msg'].removeprefix('Input ')}"
    if problem["type"] == "string_pattern_mismatch" and problem["ctx"]["pattern"] in _PATTERNS:
        allowed_characters = _PATTERNS[problem["ctx"]["pattern"]]
        given = short_repr(problem["input"])
        return f"{'.'.join(path)}: {given} does not fit the pattern, which is {allowed_characters}"
    if problem["type"] == "too_short":
        return f"{'.'.join(path)}: no value; give at least {problem['ctx']['min_length']}"
    reason = problem["msg"].removeprefix("Input ")
    if problem["type"].endswith("_parsing"):  # "should be a valid integer, unable to parse string as an integer"
        reason = reason.partition(",")[0]
    actual = f", not {short_repr(problem['input'])}" if problem["type"] != "missing" else ""
    return f"{'.'.join(path) or 'value'}: {reason}{actual}"


def _allowed_keys(model: Any, path: list[str]) -> list[str]:
    """Keys of the (nested) model at a path; empty where the path leads to no model."""
    for part in path:
        model = model.model_fields[part].annotation if part in getattr(model, "model_fields", {}) else None
    return list(getattr(model, "model_fields", {}))


def is_list_field(field: FieldInfo) -> bool:
    """Return True if a field of a pydantic model takes several values: a tuple, or a tuple or None."""
    kind = field.annotation
    return any(get_origin(part) is tuple for part in (get_args(kind) if _is_union(kind) else (kind,)))


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, UnionType)


def parse_yaml(text: str, where: str, loader: Any = yaml.SafeLoader) -> Any:
    """Parse YAML. where: start of the error message.

    Raises ConfigError, in one line, also for values that are too deep, or that aliases multiply (a few lines of them
    stand for more values than any memory holds).
    """
    try:
        depth = 0
        for event in yaml.parse(text, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise ConfigError(f"{where} is nested more than {_MAX_DEPTH} deep; flatten it")
        if _num_values(yaml.compose(text, Loader=loader), {}) > _MAX_VALUES:
            raise ConfigError(f"{where} holds more than {_MAX_VALUES:,} values, its aliases resolved; write fewer")
        return yaml.load(text, loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{where} is not YAML: {one_line(error)}") from error
    except (ValueError, TypeError, OverflowError, KeyError, AttributeError) as error:
        # dates that do not exist, numbers of thousands of digits, keys that are lists
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{where} holds a value that YAML cannot read: {one_line(error)}") from error


def _num_values(node: yaml.Node | None, sizes: dict[int, int]) -> int:
    """Count the values of a node with its aliases resolved; endless for one that holds itself. sizes: by node."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1 + len(node.value) // 100 if node else 1
    if id(node) not in sizes:
        sizes[id(node)] = 2 * _MAX_VALUES  # until it is known
        children = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        sizes[id(node)] = 1 + sum(_num_values(child, sizes) for child in children)
    return sizes[id(node)]
