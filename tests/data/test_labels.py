"""Labels become ids: single labels, multi-label data, missing labels and label names."""

import datasets
import numpy as np
import pandas as pd
import pytest

from tests.data.frames import MULTILABEL_NAMES, examples_of, frame, load, multilabel_frame
from tuneoff.data.dataset import labels_of
from tuneoff.data.labels import rarest_label
from tuneoff.data.load import load_dataset
from tuneoff.data.spec import DataSpec
from tuneoff.errors import DataError

SORTED_NAMES = tuple(sorted(MULTILABEL_NAMES))


@pytest.mark.parametrize(
    ("labels", "names", "ids"),
    [
        ([0, 1], ("0", "1"), [0, 1]),
        ([1, 5, 3, 2], ("1", "2", "3", "5"), [0, 3, 2, 1]),
        ([10, 9], ("9", "10"), [1, 0]),
        ([-1, 1], ("-1", "1"), [0, 1]),
        ([1.0, 2.0], ("1", "2"), [0, 1]),
        ([True, False], ("false", "true"), [1, 0]),
        (["b", " a "], ("a", "b"), [1, 0]),
        (["10", "9"], ("9", "10"), [1, 0]),
    ],
)
def test_single_labels_of_every_type_become_ids(labels, names, ids):
    dataset = load(frame(labels * 10))
    assert not dataset.is_multilabel
    assert dataset.label_names == names
    assert examples_of(dataset) == sorted((f"text {i}", names[ids[i % len(ids)]]) for i in range(10 * len(labels)))


# "²" and "--5".lstrip("-") are digits to str.isdigit, and int() raises ValueError for both
UNUSUAL = ["½", "10", "²", "9", "--5", "b", "-3"]


@pytest.mark.parametrize(
    "data",
    [
        frame(UNUSUAL * 5),
        pd.DataFrame(
            {
                "text": [f"text {i}" for i in range(35)],
                "labels": [[label, UNUSUAL[i % 3]] for i, label in enumerate(UNUSUAL * 5)],
            }
        ),
    ],
    ids=["single-label", "multi-label"],
)
def test_integers_sort_by_size_and_all_other_labels_by_alphabet(data):
    assert load(data).label_names == ("-3", "9", "10", "--5", "b", "²", "½")


def test_label_names_of_the_user_set_the_order_of_ids():
    assert load(frame(["neg", "pos"] * 10), labels=("pos", "neg")).label_names == ("pos", "neg")


def test_label_names_that_the_data_does_not_use_name_its_ids():
    dataset = load(frame([0, 1] * 10), labels=("bad", "good"))
    assert examples_of(dataset) == sorted((f"text {i}", ("bad", "good")[i % 2]) for i in range(20))


def test_integers_are_ids_of_declared_label_names_in_every_split():
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["1", "2", "3"])}
    )
    parts = {
        split: datasets.Dataset.from_dict(
            {"text": [f"{split} {i}" for i in range(len(ids))], "label": ids}, features=features
        )
        for split, ids in (("train", [0, 1, 2] * 5), ("test", [1, 2]))
    }
    dataset = load(datasets.DatasetDict(parts))
    assert dataset.label_names == ("1", "2", "3")
    assert dataset.splits["test"]["label"].to_pylist() == [1, 2]


def test_whole_numbers_written_as_fractions_are_the_same_label():
    splits = {"train": frame(["1", "0"] * 10), "test": frame(["1.0", "0.0"])}
    assert load(splits).splits["test"]["label"].to_pylist() == [1, 0]


def test_classes_that_look_like_missing_labels_can_be_named():
    data = frame(["-1", "0", "1"] * 10)
    with pytest.raises(DataError, match="if '-1' is a class, name all classes with labels"):
        load(data)
    assert load(data, labels=("-1", "0", "1")).num_labels == 3
    assert load(frame(["+", "-"] * 10), labels=("-", "+")).label_names == ("-", "+")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, None, 0, 1, None] * 3, r"no label in 6 of 18 rows .*: 3, 6, 9, 12, 15 and 1 more; .*drop_unlabelled"),
        (["a", "b", "-", "a", "", "b"], r"no label in 2 of 6 rows .*: 3, 5"),
        (["a", "nan", "b", "NaN", "a", "b"], r"no label in 2 of 6 rows .*: 2, 4"),
        ([0, 1, -1, 0, 1, 0], r"no label in 1 of 6 rows .*: 3"),
        ([["a"]] * 10 + [None] * 10, "no label in 10 of 20 rows"),
    ],
)
def test_missing_labels_are_reported_with_their_rows(labels, message):
    with pytest.raises(DataError, match=message):
        load(frame(labels))


def test_an_unlabelled_split_is_reported():
    with pytest.raises(DataError, match="split test is unlabelled; use another split in its place"):
        load({"train": frame([0, 1] * 10), "test": frame([-1] * 5)})


def test_labels_of_test_that_train_lacks_are_reported():
    splits = {"train": frame(["a", "b"] * 10), "test": frame(["a", "b", "c"])}
    with pytest.raises(DataError, match=r"split test has labels outside the label set in 1 rows .*: 3 hold 'c'"):
        load(splits)


def test_row_numbers_in_messages_count_dropped_rows():
    data = frame(["a", None, "b", "a", "c", "b"] * 3)
    with pytest.raises(DataError, match=r"\(the first row is 1\): 5, 11, 17 hold 'c'"):
        load(data, labels=("a", "b"), drop_unlabelled=True)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0] * 20, {}, "one class only, '0'"),
        (["a", "b", "c"] * 4, {"labels": ("a", "b")}, r"outside the label set in 4 rows .*: 3, 6, 9, 12 hold 'c'; the labels are a, b"),
        (["a", "b"] * 4, {"labels": ("a", "b", "c")}, "no example of c"),
        (["a", "b"] * 4, {"labels": ("a", "a")}, "label names repeat: a, a"),
        ([f"class {i}" for i in range(30)], {}, "30 classes in 30 examples; is it the label"),
        ([[0], [1]] * 10, {}, "gives every example exactly one label; give one column of single labels"),
        ([["a"], ["a", "b"]] * 10, {"labels": ("a",)}, r"has label 'b' in row 2 .* outside the label set; the labels are a"),
    ],
)  # fmt: skip
def test_unusable_labels_are_one_line(labels, options, message):
    with pytest.raises(DataError, match=message) as error:
        load(frame(labels), **options)
    assert "\n" not in str(error.value)


def test_lists_separated_strings_and_columns_are_the_same_multilabel_data(tmp_path):
    data = multilabel_frame(60)
    lists = load(data)
    data.assign(labels=data["labels"].map("|".join)).to_csv(tmp_path / "separated.csv", index=False)
    columns = data[["text"]].assign(**{name: [int(name in row) for row in data["labels"]] for name in SORTED_NAMES})
    columns.to_csv(tmp_path / "columns.csv", index=False)
    from_strings = load_dataset(DataSpec(source=str(tmp_path / "separated.csv"), label_separator="|"))
    from_columns = load_dataset(DataSpec(source=str(tmp_path / "columns.csv"), label_columns=SORTED_NAMES))
    assert lists.is_multilabel
    assert lists.label_names == from_strings.label_names == from_columns.label_names == SORTED_NAMES
    assert lists.fingerprint == from_strings.fingerprint == from_columns.fingerprint
    by_text = dict(zip(data["text"], data["labels"], strict=True))
    for table in lists.splits.values():
        for text, row in zip(table["text"].to_pylist(), labels_of(table), strict=True):
            assert [SORTED_NAMES[i] for i in np.flatnonzero(row)] == sorted(by_text[text])
    assert any(note.startswith("multi-label: an example of train has 1.0") for note in lists.notes)


def test_lists_of_zeros_and_ones_need_names():
    data = multilabel_frame(60)
    rows = data.assign(labels=[[int(name in row) for name in SORTED_NAMES] for row in data["labels"]])
    assert load(rows, labels=SORTED_NAMES).fingerprint == load(data).fingerprint
    with pytest.raises(DataError, match="holds lists of 3 times 0 or 1; name the labels in their order with labels"):
        load(rows)


def test_a_multilabel_split_without_labels_and_missing_labels_are_refused():
    data = multilabel_frame(60).assign(labels=lambda table: table["labels"].map("|".join))
    with pytest.raises(DataError, match="split test has no label in any row; use another split in its place"):
        load({"train": data, "test": data.assign(labels="")}, label_separator="|")
    with pytest.raises(DataError, match="no label in 1 of 60 rows"):
        load(data.assign(labels=[None, *data["labels"][1:]]), label_separator="|")


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"x": [0, 1], "y": [1, 2]}, {"label_columns": ("x", "y")}, "label column 'y' of split train holds 2 in row 2; a column in label_columns may hold only 0 and 1"),
        ({"x": [0, 1]}, {"label_columns": ("x", "z")}, "column 'z' is unknown"),
        ({"x": [0, 1], "label": [0, 1]}, {"label_columns": ("x",), "label": "label"}, "label_columns does not go with label"),
    ],
)  # fmt: skip
def test_unusable_label_columns_are_one_line(columns, options, message):
    data = pd.DataFrame({"text": ["a b", "c d"] * 10, **{name: values * 10 for name, values in columns.items()}})
    with pytest.raises(DataError, match=message) as error:
        load(data, **options)
    assert "\n" not in str(error.value)


def test_the_rarest_label_of_an_example_is_its_stratum():
    labels = np.array([[1, 1, 0], [1, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 0]])  # counts 3, 2, 1
    assert rarest_label(labels).tolist() == [1, 2, 0, 1, 3]
