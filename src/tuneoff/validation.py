"""Validation of plain data against pydantic models; a failure is one line that names the key and the value."""

from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from tuneoff.errors import ConfigError, unknown

# pattern of a field -> in words
_PATTERNS = {r"^\w[\w.-]*$": "letters, digits, _, - and . only, the first one a letter, a digit or _"}


def validated(model: type[BaseModel], data: dict[str, Any], where: str) -> Any:
    """Return plain data as an instance of a pydantic model. where: start of the error message.

    Raises ConfigError, in one line; for an unknown key it suggests the most similar allowed key.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _config_error(model, error, where) from None


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
        return f"{'.'.join(path[:-2])}: key {problem['input']!r} {problem['msg'].removeprefix('Input ')}"
    if problem["type"] == "string_pattern_mismatch" and problem["ctx"]["pattern"] in _PATTERNS:
        allowed_characters = _PATTERNS[problem["ctx"]["pattern"]]
        return f"{'.'.join(path)}: {problem['input']!r} does not fit the pattern, which is {allowed_characters}"
    if problem["type"] == "too_short":
        return f"{'.'.join(path)}: no value; give at least {problem['ctx']['min_length']}"
    reason = problem["msg"].removeprefix("Input ")
    if problem["type"].endswith("_parsing"):  # "should be a valid integer, unable to parse string as an integer"
        reason = reason.partition(",")[0]
    actual = f", not {problem['input']!r}" if problem["type"] != "missing" else ""
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
