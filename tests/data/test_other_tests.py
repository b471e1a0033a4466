"""Test sets from elsewhere: columns, labels, limits, and the errors for what does not fit the study's data."""

import pandas as pd
import pytest

from tuneoff.data.load import load_dataset
from tuneoff.data.other_tests import load_other_test, open_other_test, store_other_test
from tuneoff.data.spec import DataSpec, OtherTestSpec
from tuneoff.errors import ConfigError, DataError


@pytest.fixture
def data(toy_csv):
    """The options of the toy data."""
    return DataSpec(source=str(toy_csv), test_fraction=0.2)


def load(tmp_path, data, frame, spec=None, name="tweets"):
    """Write a test set and read it for the toy data."""
    path = tmp_path / f"{name}.csv"
    pd.DataFrame(frame).to_csv(path, index=False)
    options = OtherTestSpec.model_validate({"source": str(path), **(spec or {})})
    return load_other_test(name, options, load_dataset(data), data)


def test_labels_get_the_ids_of_the_study(tmp_path, data):
    test = load(tmp_path, data, {"text": ["so good", "so bad"], "label": ["positive", "negative"]})
    assert test.table["label"].to_pylist() == [1, 0]
    assert test.table.column_names == ["text", "label"]


def test_columns_of_its_own_are_named(tmp_path, data):
    frame = {"tweet": ["so good"], "text": ["not this"], "mood": ["positive"]}
    test = load(tmp_path, data, frame, {"text": "tweet", "label": "mood"})
    assert test.table["text"].to_pylist() == ["so good"]


def test_ids_and_other_cases_are_read_as_the_labels_and_noted(tmp_path, data):
    ids = load(tmp_path, data, {"text": ["so good", "so bad"], "label": [1, 0]})
    assert ids.table["label"].to_pylist() == [1, 0]
    assert "0 as negative and 1 as positive" in " ".join(ids.notes)
    cased = load(tmp_path, data, {"text": ["so good"], "label": ["Positive"]})
    assert cased.table["label"].to_pylist() == [1]


def test_other_labels_are_one_line_that_names_them_and_a_mapping(tmp_path, data):
    frame = {"text": ["so good", "so bad", "hm"], "label": ["pos", "negative", "neutral"]}
    with pytest.raises(DataError, match=r"test set 'tweets'.*'neutral', 'pos'.*'negative', 'positive'.*labels="):
        load(tmp_path, data, frame)
    mapped = load(tmp_path, data, frame, {"labels": {"pos": "positive", "neutral": None}})
    assert mapped.table["label"].to_pylist() == [1, 0]
    assert "1 example with the label neutral left out" in " ".join(mapped.notes)


def test_a_mapping_of_what_is_not_there_is_an_error(tmp_path, data):
    frame = {"text": ["so good"], "label": ["positive"]}
    with pytest.raises(ConfigError, match="'pos', which is no label there"):
        load(tmp_path, data, frame, {"labels": {"pos": "positive"}})
    with pytest.raises(ConfigError, match="did you mean 'positive'"):
        load(tmp_path, data, frame, {"labels": {"positive": "positiv"}})
    with pytest.raises(DataError, match="leaves out every example"):
        load(tmp_path, data, frame, {"labels": {"positive": None}})


def test_missing_labels_of_the_study_and_texts_of_train_are_noted(tmp_path, data, toy):
    dataset = load_dataset(data)
    repeated = dataset.splits["train"]["text"][0].as_py()
    test = load(tmp_path, data, {"text": [repeated, "so good"], "label": ["positive", "positive"]})
    notes = " ".join(test.notes)
    assert "no example of negative" in notes
    assert "1 of its 2 texts also stand in train" in notes


def test_a_limit_is_stratified(tmp_path, data):
    frame = {"text": [f"word {i}" for i in range(40)], "label": ["positive", "negative"] * 20}
    test = load(tmp_path, data, frame, {"limit": 10})
    assert sum(test.table["label"].to_pylist()) == 5


@pytest.mark.parametrize(
    ("frame", "message"),
    [({"text": [], "label": []}, "no examples"), ({"other": ["a b"], "label": ["positive"]}, None), ({"text": ["a b"]}, "no label column")],
)  # fmt: skip
def test_a_test_set_without_what_is_needed_is_one_line(tmp_path, data, frame, message):
    if message is None:  # the only column of texts
        assert load(tmp_path, data, frame).table["text"].to_pylist() == ["a b"]
        return
    with pytest.raises(DataError, match=message) as error:
        load(tmp_path, data, frame)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_one_line(data):
    with pytest.raises(DataError, match=r"test set 'x'.*does not exist"):
        load_other_test("x", OtherTestSpec(source="nowhere.csv"), load_dataset(data), data)


def test_the_test_split_of_a_folder_is_used(tmp_path, data):
    folder = tmp_path / "films"
    folder.mkdir()
    for split in ("train", "validation"):
        pd.DataFrame({"text": [f"{split} text"], "label": ["positive"]}).to_csv(folder / f"{split}.csv", index=False)
    test = load_other_test("films", OtherTestSpec(source=str(folder)), load_dataset(data), data)
    assert test.table["text"].to_pylist() == ["validation text"]
    assert "its split validation is used" in test.notes


def test_multi_label_test_sets_are_rows_of_zeros_and_ones(tmp_path):
    rows = {"text": [f"word {i}" for i in range(40)], "label": ["news|sport", "sport", "news", ""] * 10}
    pd.DataFrame(rows).to_csv(tmp_path / "many.csv", index=False)
    data = DataSpec(source=str(tmp_path / "many.csv"), label_separator="|")
    test = load(tmp_path, data, {"text": ["a b", "c d"], "label": ["sport", "news|sport"]})
    assert test.table["label"].to_pylist() == [[0, 1], [1, 1]]


def test_it_is_stored_and_opened_by_its_fingerprint(tmp_path, data):
    test = load(tmp_path, data, {"text": ["so good"], "label": ["positive"]})
    store_other_test(test)
    assert open_other_test(test.fingerprint).equals(test.table)


def test_options_are_written_after_colons():
    spec = OtherTestSpec.model_validate("hf:a/b:split=dev:text=tweet:labels=0=negative+4=positive+2=:limit=50")
    assert (spec.source, spec.split, spec.text, spec.limit) == ("hf:a/b", "dev", "tweet", 50)
    assert spec.labels == {"0": "negative", "4": "positive", "2": None}
