"""Predictions from files: every format and way of matching, and one line for every mistake."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tuneoff.data.predictions import match_predictions, read_predictions
from tuneoff.data.spec import DataSpec
from tuneoff.errors import DataError
from tuneoff.runs import RunPredictions

TEXTS = ["a good film", "a bad film", "so so", "dull", "a good film"]
NAMES = ("negative", "positive")
WORDS = ["positive", "negative", "positive", "negative", "positive"]  # predicted
IDS = [1, 0, 1, 0, 1]
TEST = pa.table({"text": pa.array(TEXTS, pa.large_string()), "label": [1, 0, 0, 0, 1]})
TAGS = ("news", "sport", "arts")
TAGGED = [["news"], ["news", "sport"], [], ["arts"], ["sport"]]
INDICATORS = [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1], [0, 1, 0]]
MULTILABEL = TEST.set_column(1, "label", pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(15, np.uint8)), 3))


def match(columns, test=TEST, names=NAMES, metric="accuracy", **spec):
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    return match_predictions("gpt", table, test, names, DataSpec(source="x", **spec), metric)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_every_format_is_read(suffix, tmp_path):
    frame, path = pd.DataFrame({"example": range(5), "predicted": WORDS}), tmp_path / f"p.{suffix}"
    if suffix == "parquet":
        frame.to_parquet(path)
    elif suffix.startswith("json"):
        rows = frame.to_dict("records")
        path.write_text(json.dumps(rows) if suffix == "json" else "\n".join(map(json.dumps, rows)))
    else:
        frame.to_csv(path, index=False, sep="," if suffix == "csv" else "\t")
    matched = read_predictions("gpt", str(path), TEST, NAMES, DataSpec(source="x"), metric="accuracy")
    assert matched.predicted.tolist() == IDS
    assert matched.probabilities is None


@pytest.mark.parametrize(
    "columns",
    [
        {"example": [4, 3, 2, 1, 0], "label": WORDS[::-1]},
        {"example": ["0", "1", "2.0", "3", "4"], "prediction": IDS},
        {"text": TEXTS[:4], "Predicted": WORDS[:4]},  # a text that occurs twice has one prediction
        {"text": [f" {text.replace(' ', '  ')}" for text in TEXTS], "label": [f" {word} " for word in WORDS]},
        {"review": TEXTS, "label": [f"{index}.0" for index in IDS]},
        {"example": range(5), "predicted": WORDS, "label": ["negative"] * 5},  # with the true labels
        {"example": range(5), "comment": ["why"] * 5, "predicted": pa.array(WORDS).dictionary_encode()},
        {"example": range(5), "negative": [0.1, 0.8, 0.3, 1, 0], "positive": [0.9, 0.2, 0.7, 0, 1]},
    ],
)
def test_predictions_are_matched_by_number_or_text(columns):
    assert match(columns).predicted.tolist() == IDS


def test_texts_are_matched_under_the_name_that_the_data_has():
    assert match({"Body text": TEXTS, "label": WORDS}, text="Body text").predicted.tolist() == IDS


def test_pairs_are_matched_by_both_texts():
    pairs = TEST.append_column("text_pair", pa.array(["one", "two", "three", "four", "five"]))
    swapped = {"premise": TEXTS[::-1], "hypothesis": ["five", "four", "three", "two", "one"], "label": [1, 0, 1, 0, 0]}
    assert match(swapped, pairs).predicted.tolist() == [0, 0, 1, 0, 1]
    with pytest.raises(DataError, match=r"no column example .* or text and text_pair among text, label"):
        match({"text": TEXTS, "label": WORDS}, pairs)


@pytest.mark.parametrize("columns", [("negative", "positive"), ("p0", "p1")])
def test_probabilities_are_named_after_classes_or_numbered(columns):
    positive = np.array([0.9, 0.2, 0.7, 0.0, 0.995])
    shares = dict(zip(columns, [1 - positive, positive], strict=True))
    matched = match({"example": range(5), **shares}, metric="log_loss")
    assert matched.probabilities[:, 1] == pytest.approx(positive)
    assert matched.predicted.tolist() == IDS
    decided_otherwise = match({"example": range(5), "predicted": ["negative"] * 5, **shares})
    assert decided_otherwise.predicted.tolist() == [0] * 5


def test_rounded_probabilities_are_made_to_sum_to_1():
    matched = match({"example": range(5), "p0": [0.33] * 5, "p1": [0.66] * 5})
    assert matched.probabilities.sum(1) == pytest.approx(1)


@pytest.mark.parametrize(
    ("columns", "options"),
    [
        ({"predicted": TAGGED}, {}),
        ({"predicted": INDICATORS}, {}),
        ({"labels": [[TAGS.index(tag) for tag in row] for row in TAGGED]}, {}),
        ({"label": ["|".join(row) for row in TAGGED]}, {}),
        ({"label": [", ".join(row) for row in TAGGED]}, {"label_separator": ","}),
        (dict(zip(TAGS, zip(*INDICATORS, strict=True), strict=True)), {}),
        ({"news": [0.9, 0.5, 0, 0, 0.1], "sport": [0, 1, 0.2, 0, 0.7], "arts": [0, 0, 0.4, 0.6, 0]}, {}),
    ],
)
def test_multilabel_predictions_are_lists_strings_or_columns(columns, options):
    matched = match({"example": range(5), **columns}, MULTILABEL, TAGS, **options)
    assert matched.predicted.tolist() == INDICATORS
    assert (matched.probabilities is None) == (0.9 not in columns.get("news", ()))


def test_rows_of_no_test_example_are_counted_and_left_out():
    matched = match({"text": [*TEXTS[:4], "another", "film"], "label": [*WORDS[:4], "unheard of", ""]})
    assert matched.predicted.tolist() == IDS
    assert matched.num_left_out == 2


def test_a_stored_table_gives_the_same_predictions_without_the_file():
    shares = {"p0": [0.1, 0.8, 0.3, 1, 0], "p1": [0.9, 0.2, 0.7, 0, 1]}
    matched = match({"example": [*range(5), 77], **{name: [*column, 0.5] for name, column in shares.items()}})
    again = match(matched.table(TEST, NAMES))
    assert again.predicted.tolist() == matched.predicted.tolist()
    assert again.probabilities == pytest.approx(matched.probabilities)
    assert again.num_left_out == matched.num_left_out == 1
    tagged = match({"example": range(5), "predicted": TAGGED}, MULTILABEL, TAGS)
    assert match(tagged.table(MULTILABEL, TAGS), MULTILABEL, TAGS).predicted.tolist() == INDICATORS
    with pytest.raises(DataError, match=r"1 of 5 test examples have another text .*: 2; correct the column example"):
        match(matched.table(TEST.set_column(0, "text", pa.array([*TEXTS[:2], "new", *TEXTS[3:]])), NAMES))


def run_table(labels):
    """The predictions.parquet of a run, with numbers as the names of its labels."""
    splits = {"validation": np.array([0, 0]), "test": np.array(labels)}
    probabilities = {split: np.full((len(ids), 2), 0.5) for split, ids in splits.items()}
    return RunPredictions(splits, {"validation": np.array([0, 0]), "test": np.array(IDS)}, probabilities).table()


def test_predictions_of_a_run_of_another_study_are_read():
    assert match(run_table([1, 0, 0, 0, 1]), names=("1", "2")).predicted.tolist() == IDS
    with pytest.raises(DataError, match=r"2 of 5 test examples have another true label .*: 1, 2; give predictions of"):
        match(run_table([1, 1, 1, 0, 1]))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": WORDS}, r"no column example \(row number in the test split, from 0\) or text among label; rename"),
        ({"example": range(5)}, "no column of labels among example; name it predicted, prediction or label"),
        ({"example": [0, 1, 4, 5], "label": WORDS[:4]}, r"2 of 5 test examples have no prediction \(the first example is 0\): 2, 3, beginning with 'so so'; no test example for 1 row; predict"),
        ({"text": ["dull", "A good film"], "label": WORDS[:2]}, "4 of 5 .*: 0, 1, 2, 4, beginning with 'a good film'; no test example for 1 row"),
        ({"example": ["0", "one", "2", "3", "4"], "label": WORDS}, r"column example holds 'one' in row 2 \(the first row is 1\)"),
        ({"example": range(5), "text": TEXTS[::-1], "label": WORDS}, "2 of 5 test examples have another text in the file .*: 1, 3; correct"),
        ({"example": [*range(5), 1, 2], "label": [*WORDS, "positive", "positive"]}, "predicted differently from an earlier row in 1 row .*: 6; give one"),
        ({"text": [*TEXTS[:4], "dull"], "label": [*WORDS[:4], "positive"]}, "predicted differently from an earlier row in 1 row .*: 5; give one"),
        ({"example": range(5), "label": ["positive", "neutral", "", "Negative", "negative"]}, r"labels outside the label set in 3 rows \(the first row is 1\): 2, 3, 4 hold 'neutral', '', 'Negative'; the labels are negative, positive"),
        ({"example": range(5), "label": [0, 1, 2, 0, 1]}, "in 5 rows .* hold '0', '1', '2'; the labels"),
        ({"example": range(5), "label": [["positive"]] * 5}, "the labels are lists, but the data has one label per example"),
        ({"example": range(5), "label": WORDS, "p0": [0.5] * 5}, "probabilities of 1 of 2 classes; no column 'p1'"),
        ({"example": range(5), "p0": [50] * 5, "p1": [50] * 5}, "column 'p0' holds '50' in row 1 .*; a probability is a number from 0 to 1"),
        ({"example": range(5), "p0": ["x"] * 5, "p1": [1] * 5}, "column 'p0' holds 'x' in row 1 "),
        ({"example": range(5), "p0": [None] * 5, "p1": [1] * 5}, "column 'p0' holds '' in row 1 "),
        ({"example": range(5), "p0": [0.5, 0.9, 0.5, 0.5, 0.5], "p1": [0.5] * 5}, r"do not sum to 1 in 1 row .*: 2; the first sum is 1.4"),
        ({"example": range(5), "text": [[1]] * 5, "label": WORDS}, "cast|texts"),
        (pa.table([range(5), WORDS, WORDS], names=["example", "label", "label"]), "column 'label' occurs 2 times; rename one"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_counts_and_the_first_culprits(columns, message):
    with pytest.raises(DataError, match=f"^predictions gpt: .*({message})") as caught:
        match(columns)
    assert "\n" not in str(caught.value)


def test_log_loss_needs_probabilities():
    with pytest.raises(DataError, match="predictions gpt: log loss needs probabilities; add a column for each class"):
        match({"example": range(5), "label": WORDS}, metric="log_loss")


def test_a_missing_file_is_named():
    with pytest.raises(DataError, match=r"predictions gpt: data file 'none\.csv' does not exist"):
        read_predictions("gpt", "none.csv", TEST, NAMES, DataSpec(source="x"), metric="accuracy")
