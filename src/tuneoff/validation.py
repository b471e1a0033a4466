"""Validation of plain data against pydantic models; a failure is one line that names the key and the value."""

from typing import Any

from pydantic import BaseModel, ValidationError

from tuneoff.errors import ConfigError, unknown


def validated(model: type[BaseModel], data: dict[str, Any], where: str) -> Any:
    """Return plain data as an instance of a pydantic model. where: start of the error message.

    Raises ConfigError, in one line; for an unknown key it suggests the most similar allowed key.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError):
            raise cause from None
        raise ConfigError(f"{where}: {_one_line(model, first)}") from None


def _one_line(model: type[BaseModel], problem: Any) -> str:
    """Message for one of pydantic's error details."""
    path = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        allowed = _allowed_keys(model, path[:-1])
        return unknown("key", path[-1], allowed) if allowed else f"key {'.'.join(path)!r} is unknown"
    actual = f", not {problem['input']!r}" if problem["type"] != "missing" else ""
    return f"{'.'.join(path) or 'value'}: {problem['msg'].removeprefix('Input ')}{actual}"


def _allowed_keys(model: Any, path: list[str]) -> list[str]:
    """Keys of the (nested) model at a path; empty where the path leads to no model."""
    for part in path:
        model = model.model_fields[part].annotation if part in getattr(model, "model_fields", {}) else None
    return list(getattr(model, "model_fields", {}))
