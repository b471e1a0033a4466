"""Findings of the data checks on data whose defects are planted."""

import numpy as np
import pandas as pd
import pytest

from tests.data.frames import load
from tuneoff.data.doctor.checks import examine
from tuneoff.data.doctor.copies import CLEAN, LEAKED, REPEATED, copies_of, scored_codes

SUBJECTS = ["the opening scene", "her second album", "our hotel room", "the phone", "that long match", "his new book"]
VERBS = ["surprised", "bored", "delighted", "annoyed", "moved"]


def lines_of(**splits):
    """Findings for splits of (text, label), in lines without what to do."""
    return [f"{finding.kind}: {finding.text}" for finding in examine(dataset_of(**splits))]


def dataset_of(**splits):
    return load({split: pd.DataFrame(rows, columns=["text", "label"]) for split, rows in splits.items()})


def distinct(prefix, count=30):
    return [(f"{prefix} {i}", i % 2) for i in range(count)]


def long_text(number):
    """A text of thirty words that shares few shingles with those of other numbers."""
    rng = np.random.default_rng(number)
    return " ".join(f"{rng.choice(SUBJECTS)} {rng.choice(VERBS)} us {rng.integers(1000)}" for _ in range(5))


def test_clean_data_has_no_findings():
    assert lines_of(train=distinct("a"), validation=distinct("b"), test=distinct("c")) == []


def test_duplicates_leaks_and_contradicting_labels_are_counted_most_harmful_first():
    train = [*distinct("a"), ("a 0", 0), ("a 1", 0)]
    test = [*distinct("c"), ("a 3", 1), ("b 2", 1), ("b 4", 0)]
    assert lines_of(train=train, validation=distinct("b"), test=test) == [
        "leakage from train into test: 1 of 33 test examples are also in train",
        "leakage from validation into test: 2 of 33 test examples are also in validation, 1 with another label",
        "contradicting labels in train: 1 of 30 distinct texts have more than one label, in 2 examples",
        "duplicates in train: 2 of 32 examples repeat an earlier one",
    ]


def test_copies_are_found_without_case_space_punctuation_and_forms_of_characters():
    train = [*distinct("a"), ("A  fine, ﬁlm…", 0), (long_text(0), 1), ("ＦＵＬＬ width", 1)]
    nearly = long_text(0).replace("us", "them", 1)
    test = [*distinct("c"), ("a fine film!", 0), (nearly, 0), ("full width", 0), (nearly + " really", 0)]
    findings = examine(dataset_of(train=train, validation=distinct("b"), test=test))
    leak = findings[0]
    assert leak.line == (
        "leakage from train into test: 4 of 34 test examples are also in train, 2 of them nearly, 3 with another "
        "label; --drop-leaks removes them from train"
    )
    assert leak.details == {"examples": 4, "of": 34, "near": 2, "with_another_label": 3}
    assert leak.harm == pytest.approx(4 / 34)


def test_scored_examples_are_marked_as_leaked_or_repeated():
    train = [*distinct("a"), (long_text(0), 1)]
    test = [("c 0", 0), ("C 0!", 1), ("a 3", 0), (long_text(0) + " indeed", 1), ("c 1", 1)]
    dataset = dataset_of(train=train, validation=distinct("b"), test=test)
    codes = scored_codes(dataset, copies_of(dataset.splits)).tolist()
    assert codes == [CLEAN, REPEATED, LEAKED, LEAKED, CLEAN]


def test_of_pairs_both_texts_must_be_nearly_equal():
    premise = long_text(1)
    rows = [(f"{premise} {i}", f"a {i}", i % 2) for i in range(30)]
    frames = {
        "train": [*rows, (premise, "they are glad about all of it today", 0), (premise, "no one was glad", 1)],
        "validation": [(long_text(i), "b", i % 2) for i in range(2, 32)],
        "test": [*[(long_text(i), "c", i % 2) for i in range(40, 70)], (premise, "nobody is here", 0), (premise, "They are glad about all of it today!", 1)],
    }  # fmt: skip
    columns = ["premise", "hypothesis", "label"]
    dataset = load({split: pd.DataFrame(rows, columns=columns) for split, rows in frames.items()})
    leak = next(finding for finding in examine(dataset) if finding.kind == "leakage from train into test")
    assert leak.details == {"examples": 1, "of": 32, "near": 0, "with_another_label": 1}


def test_rare_missing_and_imbalanced_classes_are_named():
    train = [(f"a {i}", "common") for i in range(50)] + [(f"b {i}", "rare") for i in range(5)]
    findings = examine(
        dataset_of(train=train, validation=[("x", "rare"), ("y", "common")], test=[("z", "common"), ("w", "common")])
    )
    assert [finding.line for finding in findings] == [
        "missing classes in test: no example of rare; use a test split that has them",
        "rare classes in train: fewer than 10 examples of rare; label more of them, or merge classes",
        "class imbalance in train: 50 examples of common, the largest class, and 5 of rare, the smallest; "
        "compare macro_f1 as well as accuracy",
    ]


def test_label_variants_are_named():
    train = [(f"a {i}", "positive") for i in range(100)] + [(f"b {i}", "negative") for i in range(100)]
    train += [("d", "Positive"), ("e", "positve")]
    test = [("x", "positive"), ("y", "negative")]
    line = examine(dataset_of(train=train, validation=test, test=[("v", "positive"), ("w", "negative")]))[-2]
    assert line.kind == "rare classes in train"
    variants = next(
        finding
        for finding in examine(dataset_of(train=train, validation=test, test=[("v", "positive"), ("w", "negative")]))
        if finding.kind == "label variants"
    )
    assert variants.text == "'Positive' (1) like 'positive' (102), 'positve' (1) like 'positive' (102)"
    assert variants.advice.startswith("--merge-labels")


def test_the_advice_on_class_imbalance_names_metrics_of_multilabel_data():
    rows = [(f"a {i}", ["x"] if i % 5 else ["x", "y"]) for i in range(60)]
    findings = examine(dataset_of(train=rows[:40], validation=rows[40:50], test=rows[50:]))
    assert any(finding.advice == "compare macro_f1 as well as micro_f1" for finding in findings)


def test_multilabel_texts_contradict_if_their_sets_of_labels_differ():
    labels = [["x"], ["x", "y"], ["y"], []]
    rows = [(f"a {i}", labels[i % 4]) for i in range(40)]
    lines = lines_of(
        train=[*rows, ("a 0", ["x"]), ("a 1", ["y"])],
        validation=[(f"b {text}", label) for text, label in rows],
        test=[*[(f"c {text}", label) for text, label in rows], ("a 2", ["x", "y"])],
    )
    assert lines == [
        "leakage from train into test: 1 of 41 test examples are also in train, 1 with another label",
        "contradicting labels in train: 1 of 40 distinct texts have more than one label, in 2 examples",
        "duplicates in train: 2 of 42 examples repeat an earlier one",
    ]


def test_many_texts_of_one_template_are_examined_in_bounded_time():
    rng = np.random.default_rng(0)
    template = "the model of the {} that you ordered from our shop in {} will be sent to you on {} as usual"
    rows = [(template.format(*rng.integers(1000, size=3)), int(i % 2)) for i in range(4000)]
    kinds = [line.split(":")[0] for line in lines_of(train=rows[:3000], validation=rows[3000:3200], test=rows[3200:])]
    assert kinds[0] in ("leakage from train into test", "duplicates in test")
