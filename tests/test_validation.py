"""Plain data against pydantic models."""

import pytest
from pydantic import BaseModel

from tuneoff.validation import is_list_field


class Options(BaseModel):
    """Fields of several kinds."""

    one: str
    number: int | None
    several: tuple[str, ...]
    several_or_none: tuple[int, ...] | None
    by_name: dict[str, tuple[int, ...]]
    tuple_of_luggage: str


@pytest.mark.parametrize("name", list(Options.model_fields))
def test_a_field_with_several_values_is_recognised(name):
    assert is_list_field(Options.model_fields[name]) == name.startswith("several")
