"""Strategies as users write them."""

import pytest

from tuneoff.spec.file import study_from
from tuneoff.spec.strategy import parse_strategy
from tuneoff.strategies import Full, LoRA


@pytest.mark.parametrize(
    "notation",
    [
        "lora:rank=16:targets=query+key",
        {"lora": {"rank": 16, "targets": ["query", "key"]}},
        LoRA(rank=16, targets=("query", "key")),
    ],
)
def test_a_strategy_can_be_written_three_ways(notation):
    assert parse_strategy(notation) == LoRA(rank=16, targets=("query", "key"))
    assert parse_strategy(notation).label == "lora rank=16 targets=query+key"


def test_a_strategy_may_be_a_config_object():
    fields = {"data": {"source": "x"}, "strategies": (Full(layer_decay=0.9),), "baselines": False}
    assert study_from(fields).strategies == (Full(layer_decay=0.9),)
