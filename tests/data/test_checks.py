"""What the checks find, on data where the answer is known."""

import pandas as pd

from tuneoff.data.checks import findings
from tuneoff.data.dataset import DataSpec
from tuneoff.data.load import load_dataset
from tuneoff.data.sources import from_memory, keep_in_cache


def found(**splits):
    frames = {split: pd.DataFrame(rows, columns=["text", "label"]) for split, rows in splits.items()}
    return findings(load_dataset(DataSpec(source=keep_in_cache(from_memory(frames)))))


def plain(prefix, count=30):
    return [(f"{prefix} {i}", i % 2) for i in range(count)]


def test_clean_data_has_no_findings():
    assert found(train=plain("a"), validation=plain("b"), test=plain("c")) == []


def test_repeats_leaks_and_contradictions_are_counted():
    train = [*plain("a"), ("a 0", 0), ("a 1", 0)]
    lines = found(train=train, validation=plain("b"), test=[*plain("c"), ("a 3", 1), ("b 2", 0), ("b 4", 0)])
    assert lines == [
        "train: 2 of 32 examples repeat an earlier one",
        "train: 1 texts stand there with different labels",
        "test: 1 of 33 examples also stand in train",
        "test: 2 of 33 examples also stand in validation",
    ]


def test_imbalance_and_rare_and_absent_classes_are_named():
    train = [(f"a {i}", "common") for i in range(50)] + [(f"b {i}", "rare") for i in range(5)]
    lines = found(train=train, validation=[("x", "rare"), ("y", "common")], test=[("z", "common")])
    assert lines[0] == "train: fewer than 10 examples of rare"
    assert lines[1] == "test: no example of rare"
    assert "out of balance (common is 91%)" in lines[2]
