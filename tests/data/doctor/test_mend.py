"""Data mended by its options: leaks, duplicates and contradicting labels dropped, label variants merged."""

import pandas as pd
import pytest

from tests.data.frames import load
from tuneoff.data.doctor.checks import examine
from tuneoff.errors import DataError

COLUMNS = ["text", "label"]
LONG = "a review of twenty words about the film that we saw in the old cinema at the corner of our street"


def rows(prefix, count=30):
    return [(f"{prefix} {i}", ("no", "yes")[i % 2]) for i in range(count)]


def frames(**extra):
    """Three splits of distinct texts, and more rows for some of them."""
    names = {"train": "a", "validation": "b", "test": "c"}
    return {split: pd.DataFrame([*rows(name), *extra.get(split, [])], columns=COLUMNS) for split, name in names.items()}


LEAKY = frames(
    train=[("C 1!", "no"), (LONG, "yes"), ("b 3", "no"), ("twice", "no"), ("Twice", "no"), ("both", "no"), ("Both", "yes")],
    validation=[("c 5", "no")],
    test=[(f"{LONG} today", "no"), ("d", "yes"), ("D", "no")],
)  # fmt: skip


def texts_of(dataset, split):
    return dataset.splits[split]["text"].to_pylist()


def test_leaks_are_dropped_from_the_earlier_split_near_ones_too():
    dataset = load(LEAKY, drop_leaks=True)
    assert not {"C 1!", LONG, "b 3"} & set(texts_of(dataset, "train"))
    assert "c 5" not in texts_of(dataset, "validation")
    assert (len(texts_of(dataset, "train")), len(texts_of(dataset, "test"))) == (34, 33)
    assert dataset.notes[-1] == "examples of texts that a later split has too dropped: 3 of train, 1 of validation"
    assert not any("leakage" in finding.kind for finding in examine(dataset))


def test_duplicates_keep_the_first_and_contradicting_texts_lose_all_copies():
    dataset = load(LEAKY, drop_duplicates=True)
    assert [text for text in texts_of(dataset, "train") if text.lower() in ("twice", "both")] == ["twice", "both"]
    assert [text for text in texts_of(dataset, "test") if text.lower() == "d"] == ["d"]
    dataset = load(LEAKY, drop_contradicting=True)
    assert [text for text in texts_of(dataset, "train") if text.lower() in ("twice", "both")] == ["twice", "Twice"]
    assert "d" not in texts_of(dataset, "test")
    assert "examples with contradicting labels dropped: 2 of train, 2 of test" in dataset.notes
    both = load(LEAKY, drop_contradicting=True, drop_duplicates=True)
    assert [text for text in texts_of(both, "train") if text.lower() in ("twice", "both")] == ["twice"]


def test_the_fingerprint_changes_only_where_something_is_dropped():
    options = {"drop_leaks": True, "drop_duplicates": True, "drop_contradicting": True, "merge_labels": True}
    assert load(frames(), **options).fingerprint == load(frames()).fingerprint
    assert load(LEAKY, drop_leaks=True).fingerprint != load(LEAKY).fingerprint


def test_held_out_splits_lose_their_leaks_too():
    data = pd.DataFrame([*rows("a", 100), *rows("A", 100)], columns=COLUMNS)
    leaky = load(data, test_fraction=0.2, validation_fraction=0.2)
    assert any("leakage" in finding.kind for finding in examine(leaky))
    clean = load(data, test_fraction=0.2, validation_fraction=0.2, drop_leaks=True)
    assert not any("leakage" in finding.kind for finding in examine(clean))


def test_pairs_are_dropped_if_both_texts_are_equal():
    columns = ["premise", "hypothesis", "label"]
    made = {
        split: pd.DataFrame([(f"p {i}", f"{name} {i}", i % 2) for i in range(30)], columns=columns)
        for split, name in (("train", "a"), ("validation", "b"), ("test", "c"))
    }
    made["train"] = pd.concat([made["train"], pd.DataFrame([("P 3", "c 3!", 0), ("p 3", "c 4", 0)], columns=columns)])
    assert load(made, drop_leaks=True).num_examples("train") == 31


def test_multilabel_texts_are_mended():
    labels = [["x"], ["x", "y"], ["y"], []]
    made = {
        split: pd.DataFrame({"text": [f"{name} {i}" for i in range(40)], "labels": labels * 10})
        for split, name in (("train", "a"), ("validation", "b"), ("test", "c"))
    }
    extra = pd.DataFrame({"text": ["A 1", "A 2", "C 3"], "labels": [["y"], ["Y"], ["x"]]})
    made["train"] = pd.concat([made["train"], extra], ignore_index=True)
    dataset = load(made, drop_leaks=True, drop_contradicting=True, drop_duplicates=True, merge_labels=True)
    assert dataset.label_names == ("x", "y")
    # a 1 with other labels is gone twice, a 2 with equal ones once, c 3 is a test text
    assert dataset.num_examples("train") == 39


def test_variants_are_merged_also_those_that_train_lacks():
    made = frames(train=[("x", "Yes"), ("y", "no.")], test=[("z", "YES")])
    with pytest.raises(DataError, match=r"'YES' looks like '(yes|Yes)': --merge-labels merges them"):
        load(made)
    dataset = load(made, merge_labels=True)
    assert dataset.label_names == ("no", "yes")
    assert dataset.notes[0] == "labels were merged: 'Yes' (1) into 'yes', 'no.' (1) into 'no', 'YES' (1) into 'yes'"
    assert load(made, merge_labels={"Yes": "yes", "no.": "maybe", "YES": "yes"}).label_names == ("maybe", "no", "yes")
    assert load(frames(), merge_labels=True).notes[0] == "merge_labels: no label looks like a variant of another"
    named = load(made, merge_labels=True, labels=("yes", "no", "Yes"))
    assert named.label_names == ("yes", "no")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"merge_labels": {"yse": "yes"}}, "merge_labels: label 'yse' is unknown; did you mean 'yes'"),
        ({"drop_leaks": True}, "drop_leaks leaves no training example of yes; leave it out"),
    ],
)
def test_bad_options_are_one_line(options, message):
    made = frames()
    made["test"] = pd.concat([made["test"], made["train"][made["train"].label == "yes"]])
    with pytest.raises(DataError, match=message) as error:
        load(made, **options)
    assert "\n" not in str(error.value)


def test_a_split_without_examples_is_an_error():
    made = frames()
    made["test"] = pd.concat([made["test"], made["validation"]])
    with pytest.raises(
        DataError, match="drop_leaks leaves no example in validation: all are also in test; leave it out"
    ):
        load(made, drop_leaks=True)
    made["validation"] = pd.DataFrame([("same", "no"), ("Same", "yes")], columns=COLUMNS)
    with pytest.raises(DataError, match="drop_contradicting leaves no example in validation; leave it out"):
        load(made, drop_contradicting=True)


def test_labels_that_are_numbers_can_be_merged():
    made = {split: data.assign(label=[i % 3 for i in range(len(data))]) for split, data in frames().items()}
    assert load(made, merge_labels={2: 1}).label_names == ("0", "1")
