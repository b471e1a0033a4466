"""Plain data as what it is meant to be, or one line that says what is wrong with it."""

from typing import Any

from pydantic import BaseModel, ValidationError

from tuneoff.errors import ConfigError, unknown


def validated(kind: type[BaseModel], given: dict[str, Any], where: str) -> Any:
    """Plain data as a pydantic model. Raises ConfigError, in one line, with the nearest right key for a wrong one."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError):
            raise cause from None
        raise ConfigError(f"{where}: {_one_line(kind, first)}") from None


def _one_line(kind: type[BaseModel], problem: Any) -> str:
    path = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        allowed = _fields_at(kind, path[:-1])
        return unknown("key", path[-1], allowed) if allowed else f"key {'.'.join(path)!r} is unknown"
    came = f", not {problem['input']!r}" if problem["type"] != "missing" else ""
    return f"{'.'.join(path) or 'it'}: {problem['msg'].removeprefix('Input ')}{came}"


def _fields_at(kind: Any, path: list[str]) -> list[str]:
    """The keys allowed where a wrong one stands."""
    for part in path:
        kind = kind.model_fields[part].annotation if part in getattr(kind, "model_fields", {}) else None
    return list(getattr(kind, "model_fields", {}))
