"""Columns and texts: what is detected, what is dropped, and one line for each problem."""

import pandas as pd
import pytest

from tests.data.frames import frame, load
from tuneoff.errors import DataError


@pytest.mark.parametrize("names", [("review", "sentiment"), ("Sentence", "Label"), ("only_text", "target")])
def test_columns_are_detected_by_common_names(names):
    texts = [f"text {i}" for i in range(20)]
    dataset = load(pd.DataFrame({names[0]: texts, names[1]: [0, 1] * 10, "id": range(20)}))
    assert dataset.num_labels == 2
    assert sorted(text for table in dataset.splits.values() for text in table["text"].to_pylist()) == sorted(texts)


def test_the_columns_of_pairs_are_detected_by_common_names():
    pairs = pd.DataFrame({"premise": ["one"] * 20, "hypothesis": ["two"] * 20, "label": [0, 1, 2, 0] * 5})
    dataset = load(pairs)
    assert dataset.is_pair
    assert dataset.splits["train"]["text"][0].as_py() == "one"
    assert dataset.splits["train"]["text_pair"][0].as_py() == "two"


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (frame([0, 1] * 10), {"text": "txt"}, r"column 'txt' is unknown; did you mean 'text'\? Choose from text, label"),
        (pd.DataFrame({"a": ["x"] * 9, "b": ["y"] * 9, "label": [0, 1, 0] * 3}), {}, "no text column found among a, b, label"),
        (pd.DataFrame({"text": ["x"] * 9, "kind": [0, 1, 0] * 3}), {}, "no label column found among text, kind"),
        (frame([0, 1] * 10, texts=list(range(20))), {}, "holds int64, not text"),
        (frame([0, 1] * 10, texts=[str(i) for i in range(20)]), {}, "holds only numbers, not text"),
        (frame(["a", "b"] * 4, texts=[" "] * 8), {"drop_empty": True}, "no example with both text and label"),
        (frame([0, 1] * 3, texts=["a", " ", "b", "", "c", "d"]), {}, r"an empty text in 2 of 6 rows .*: 2, 4; .*drop_empty"),
        (frame([{"a": 1}] * 8), {}, "label column 'label' holds struct.*; it may hold single labels, or lists of labels"),
        (frame([0, 1] * 10, lists=[[1]] * 20), {"slices": ("lists",)}, "column 'lists' holds list.*; a group or slice column may hold strings or numbers"),
        ({"train": frame([0, 1] * 10), "test": pd.DataFrame({"text": ["a"], "class": [0]})}, {}, "split test has no column 'label'; it has text, class"),
    ],
)  # fmt: skip
def test_unusable_columns_and_texts_are_one_line(data, options, message):
    with pytest.raises(DataError, match=message) as error:
        load(data, **options)
    assert "\n" not in str(error.value)


def test_dropped_examples_are_noted():
    data = frame(["a", "b", "-", "a", "b", "a"] * 5, texts=["x", "", "z", "u", "v", "w"] * 5)
    dataset = load(data, drop_unlabelled=True, drop_empty=True)
    assert sum(table.num_rows for table in dataset.splits.values()) == 20
    assert dataset.notes[:2] == (
        "5 examples with no label were dropped from train",
        "5 examples with an empty text were dropped from train",
    )
