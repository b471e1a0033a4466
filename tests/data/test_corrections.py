"""Corrections of labels from a reviewed CSV file: applied by split, row and text; what does not fit is one line."""

import csv

import pandas as pd
import pytest

from tests.data.frames import load, multilabel_frame
from tuneoff.errors import DataError

HEADER = ["split", "row", "text", "corrected"]
TRAIN = [(f"train {i}", "pos" if i % 2 else "neg") for i in range(20)]
TEST = [("=a formula", "pos"), ("two\nlines", "neg"), ("x " * 2000, "pos"), ("plain", "neg")]


def data():
    train, test = (pd.DataFrame(rows, columns=["text", "label"]) for rows in (TRAIN, TEST))
    return {"train": train, "validation": train, "test": test}


def write(folder, *rows, header=HEADER):
    path = folder / "labels.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


def labels(dataset, split):
    table = dataset.splits[split]
    return {
        t: dataset.label_names[i] for t, i in zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True)
    }


def test_labels_are_changed_and_examples_dropped(tmp_path):
    rows = [["train", 1, "train 0", "pos"], ["train", 2, "train 1", ""], ["train", 3, "train 2", "-"]]
    rows += [["test", 4, "plain", "pos"], ["test", 1, "'=a formula", "neg"]]
    dataset = load(data(), corrections=write(tmp_path, *rows))
    train, test = labels(dataset, "train"), labels(dataset, "test")
    assert (train["train 0"], train["train 1"]) == ("pos", "pos")
    assert "train 2" not in train
    assert (test["plain"], test["=a formula"]) == ("pos", "neg")
    assert labels(dataset, "validation") == dict(TRAIN)
    assert "4 labels of labels.csv corrected: 3 changed and 1 dropped" in dataset.notes


def test_texts_are_recognized_as_the_file_and_a_spreadsheet_write_them(tmp_path):
    rows = [["test", 2, "two lines", "pos"], ["test", 3, ("x " * 2000)[:999] + "…", "neg"]]
    test = labels(load(data(), corrections=write(tmp_path, *rows)), "test")
    assert (test["two\nlines"], test["x " * 2000]) == ("pos", "neg")


def test_a_file_without_corrections_changes_nothing(tmp_path):
    unchanged = load(data(), corrections=write(tmp_path, ["train", 1, "train 0", ""]))
    assert unchanged.fingerprint == load(data()).fingerprint


def test_a_label_that_is_called_drop_is_a_label(tmp_path):
    frame = pd.DataFrame({"text": [f"t {i}" for i in range(20)], "label": ["drop", "keep"] * 10})
    dataset = load(frame, corrections=write(tmp_path, ["train", 2, "t 1", "drop"]))
    assert sum(dataset.num_examples(split) for split in dataset.splits) == 20


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["train", 99, "train 0", "pos"], "line 2: split train has no example in row 99"),
        (["train", 1, "another", "pos"], "line 2: row 1 of split train has another text, 'train 0'"),
        (["train", 1, "train 0", "positive"], "line 2: label 'positive' is unknown; choose from neg, pos, drop"),
        (["dev", 1, "train 0", "pos"], "line 2: split 'dev' is unknown"),
        (["train", "first", "train 0", "pos"], "line 2: row 'first' is not a number"),
    ],
)
def test_a_correction_that_does_not_fit_is_one_line(tmp_path, row, message):
    with pytest.raises(DataError) as error:
        load(data(), corrections=write(tmp_path, row))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_example_that_is_corrected_twice_is_one_line(tmp_path):
    rows = [["train", 1, "train 0", "pos"], ["train", 1, "train 0", "neg"]]
    with pytest.raises(DataError, match="line 3: row 1 of train is corrected twice, to 'pos' and 'neg'"):
        load(data(), corrections=write(tmp_path, *rows))


def test_a_missing_file_or_column_is_one_line(tmp_path):
    with pytest.raises(DataError, match="does not exist; tuneoff inspect DATA --review"):
        load(data(), corrections=str(tmp_path / "none.csv"))
    with pytest.raises(DataError, match="has no column 'corrected'; it needs split, row, text, corrected"):
        load(data(), corrections=write(tmp_path, ["train", 1, "train 0"], header=HEADER[:3]))


def test_multilabel_data_have_no_corrections(tmp_path):
    with pytest.raises(DataError, match="corrections are for single labels"):
        load(multilabel_frame(60), label="labels", corrections=write(tmp_path))
