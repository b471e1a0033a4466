"""Columns, labels and splits: what is found, and the one line for what is wrong."""

import datasets
import numpy as np
import pandas as pd
import pytest

from tuneoff.data.dataset import DataSpec
from tuneoff.data.load import load_dataset
from tuneoff.data.sources import from_memory, keep_in_cache
from tuneoff.errors import DataError


def load(data, **options):
    if not any(isinstance(part, pd.DataFrame) for part in data.values()):
        data = pd.DataFrame(data)
    return load_dataset(DataSpec(source=keep_in_cache(from_memory(data)), **options))


def frame(labels, texts=None, **more):
    return {"text": texts or [f"text {i}" for i in range(len(labels))], "label": labels, **more}


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([0, 1] * 10, ("0", "1")),
        ([1, 2, 3, 5] * 5, ("1", "2", "3", "5")),
        ([10, 9] * 10, ("9", "10")),
        ([-1, 1] * 10, ("-1", "1")),
        ([1.0, 2.0] * 10, ("1", "2")),
        ([True, False] * 10, ("false", "true")),
        (["b", " a "] * 10, ("a", "b")),
        (["10", "9"] * 10, ("9", "10")),
    ],
)
def test_labels_of_every_kind_become_ids(labels, names):
    dataset = load(frame(labels))
    assert dataset.label_names == names
    ids = np.concatenate([table["label"].to_numpy() for table in dataset.splits.values()])
    assert set(ids) == set(range(len(names)))


def test_given_names_set_the_order():
    assert load(frame(["neg", "pos"] * 10), labels=("pos", "neg")).label_names == ("pos", "neg")
    named = load(frame([0, 1] * 10), labels=("bad", "good"))
    assert named.label_names == ("bad", "good")


def test_classes_that_look_like_no_label_can_be_named():
    data = frame(["-1", "0", "1"] * 10)
    with pytest.raises(DataError, match="if '-1' is a class, name all classes with labels"):
        load(data)
    assert load(data, labels=("-1", "0", "1")).num_labels == 3
    assert load(frame(["+", "-"] * 10), labels=("-", "+")).label_names == ("-", "+")


def test_integers_under_declared_names_are_ids_in_every_split():
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["1", "2", "3"])}
    )
    parts = {
        split: datasets.Dataset.from_dict(
            {"text": [f"{split} {i}" for i in range(len(ids))], "label": ids}, features=features
        )
        for split, ids in (("train", [0, 1, 2] * 5), ("test", [1, 2]))
    }
    dataset = load_dataset(DataSpec(source=keep_in_cache(from_memory(datasets.DatasetDict(parts)))))
    assert dataset.label_names == ("1", "2", "3")
    assert dataset.splits["test"]["label"].to_pylist() == [1, 2]


def test_whole_numbers_written_as_fractions_are_the_same_label():
    splits = {"train": pd.DataFrame(frame(["1", "0"] * 10)), "test": pd.DataFrame(frame(["1.0", "0.0"]))}
    assert load(splits).splits["test"]["label"].to_pylist() == [1, 0]


def test_rows_are_the_files_own_after_dropping():
    data = frame(["a", None, "b", "a", "c", "b"] * 3)
    with pytest.raises(DataError, match=r"\(the first row is 1\): 5, 11, 17 hold 'c'"):
        load(data, labels=("a", "b"), drop_unlabelled=True)


@pytest.mark.parametrize("names", [("review", "sentiment"), ("Sentence", "Label"), ("only_text", "target")])
def test_columns_are_found_by_common_names(names):
    texts = [f"text {i}" for i in range(20)]
    assert load({names[0]: texts, names[1]: [0, 1] * 10, "id": range(20)}).num_labels == 2


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (frame([0, 1] * 10), {"text": "txt"}, r"column 'txt' is unknown; did you mean 'text'\? Choose from text, label"),
        ({"a": ["x"] * 9, "b": ["y"] * 9, "label": [0, 1, 0] * 3}, {}, "no text column found among a, b, label"),
        ({"text": ["x"] * 9, "kind": [0, 1, 0] * 3}, {}, "no label column found among text, kind"),
        (frame([0, 1] * 10, texts=list(range(20))), {}, "holds int64, not text"),
        (frame([0, 1] * 10, texts=[str(i) for i in range(20)]), {}, "holds only numbers, not text"),
        (frame([0] * 20), {}, "one class only, '0'"),
        (frame([0, 1, None, 0, 1, None] * 3), {}, r"no label in 6 of 18 rows .*: 3, 6, 9, 12, 15 and 1 more; .*drop_unlabelled"),
        (frame(["a", "b", "-", "a", "", "b"]), {}, r"no label in 2 of 6 rows .*: 3, 5"),
        (frame(["a", "nan", "b", "NaN", "a", "b"]), {}, r"no label in 2 of 6 rows .*: 2, 4"),
        (frame(["a", "b"] * 4, texts=[" "] * 8), {"drop_empty": True}, "no example with both text and label"),
        (frame([0, 1, -1, 0, 1, 0]), {}, r"no label in 1 of 6 rows .*: 3"),
        (frame([0, 1] * 3, texts=["a", " ", "b", "", "c", "d"]), {}, r"an empty text in 2 of 6 rows .*: 2, 4"),
        (frame(["a", "b", "c"] * 4), {"labels": ("a", "b")}, r"outside the label set in 4 rows .*: 3, 6, 9, 12 hold 'c'; the labels are a, b"),
        (frame(["a", "b"] * 4), {"labels": ("a", "b", "c")}, "no example of c"),
        (frame(["a", "b"] * 4), {"labels": ("a", "a")}, "repeat"),
        (frame([0, 1, 0]), {}, "too few to carve"),
        (frame([f"class {i}" for i in range(30)]), {}, "30 classes in 30 examples; is it the label"),
        (frame([[0], [1]] * 10), {}, "gives every example exactly one label"),
        (frame([0, 1] * 10), {"limits": {"train": 1}}, "below the number of classes"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_line(data, options, message):
    with pytest.raises(DataError, match=message) as caught:
        load(data, **options)
    assert "\n" not in str(caught.value)


def test_an_unlabelled_split_is_named():
    splits = {"train": pd.DataFrame(frame([0, 1] * 10)), "test": pd.DataFrame(frame([-1] * 5))}
    with pytest.raises(DataError, match="split test is unlabelled; name another one in its place"):
        load(splits)


def test_labels_outside_the_train_set_are_named():
    splits = {"train": pd.DataFrame(frame(["a", "b"] * 10)), "test": pd.DataFrame(frame(["a", "b", "c"]))}
    with pytest.raises(DataError, match=r"split test has labels outside the label set in 1 rows .*: 3 hold 'c'"):
        load(splits)


def test_what_is_dropped_is_noted():
    data = frame(["a", "b", "-", "a", "b", "a"] * 5, texts=["x", "", "z", "u", "v", "w"] * 5)
    dataset = load(data, drop_unlabelled=True, drop_empty=True)
    assert sum(table.num_rows for table in dataset.splits.values()) == 20
    assert dataset.notes[:2] == (
        "5 examples with no label were left out of train",
        "5 examples with an empty text were left out of train",
    )


def test_limits_keep_shares_and_are_noted():
    dataset = load(frame([0, 0, 0, 1] * 100), limits={"train": 40, "test": 8})
    assert np.bincount(dataset.splits["train"]["label"].to_numpy()).tolist() == [30, 10]
    assert dataset.num_examples("test") == 8
    assert any("train is a subset: 40 of 320" in note for note in dataset.notes)


def test_the_same_seed_carves_the_same_and_another_does_not():
    data = frame([0, 1] * 50)
    assert load(data).fingerprint == load(data).fingerprint != load(data, split_seed=1).fingerprint


def test_splits_share_no_example_and_lose_none():
    dataset = load(frame([0, 1, 2, 2] * 25))
    texts = [text for table in dataset.splits.values() for text in table["text"].to_pylist()]
    assert len(texts) == len(set(texts)) == 100
