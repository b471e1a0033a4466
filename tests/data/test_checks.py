"""Findings of the data checks on data whose problems are known."""

import pandas as pd

from tests.data.frames import load
from tuneoff.data.checks import check_data


def findings_of(**splits):
    """Findings for splits of (text, label)."""
    return check_data(load({split: pd.DataFrame(rows, columns=["text", "label"]) for split, rows in splits.items()}))


def distinct(prefix, count=30):
    return [(f"{prefix} {i}", i % 2) for i in range(count)]


def test_clean_data_has_no_findings():
    assert findings_of(train=distinct("a"), validation=distinct("b"), test=distinct("c")) == []


def test_duplicates_leakage_and_label_noise_are_counted():
    train = [*distinct("a"), ("a 0", 0), ("a 1", 0)]
    test = [*distinct("c"), ("a 3", 1), ("b 2", 0), ("b 4", 0)]
    assert findings_of(train=train, validation=distinct("b"), test=test) == [
        "duplicates in train: 2 of 32 examples repeat an earlier one",
        "label noise in train: contradicting labels for 1 of 30 distinct texts",
        "leakage from train into test: 1 of 33 test examples are also in train",
        "leakage from validation into test: 2 of 33 test examples are also in validation",
    ]


def test_rare_missing_and_imbalanced_classes_are_named():
    train = [(f"a {i}", "common") for i in range(50)] + [(f"b {i}", "rare") for i in range(5)]
    assert findings_of(train=train, validation=[("x", "rare"), ("y", "common")], test=[("z", "common")]) == [
        "rare classes in train: fewer than 10 examples of rare",
        "missing classes in test: no example of rare",
        "class imbalance in train: 50 examples of common, the largest class, and 5 of rare, the smallest; "
        "compare macro_f1 as well as accuracy",
    ]


def test_multilabel_label_noise_compares_sets_of_labels():
    labels = [["x"], ["x", "y"], ["y"], []]
    rows = [(f"a {i}", labels[i % 4]) for i in range(40)]
    lines = findings_of(
        train=[*rows, ("a 0", ["x"]), ("a 1", ["y"])],
        validation=[(f"b {text}", label) for text, label in rows],
        test=[(f"c {text}", label) for text, label in rows],
    )
    assert lines == [
        "duplicates in train: 2 of 42 examples repeat an earlier one",
        "label noise in train: contradicting labels for 1 of 40 distinct texts",
    ]
