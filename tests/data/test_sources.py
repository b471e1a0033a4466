"""Every form in which data comes gives the same dataset; what cannot be read says so in one line."""

import datasets
import numpy as np
import pandas as pd
import pytest

from tuneoff.data.dataset import DataSpec
from tuneoff.data.load import load_dataset, open_dataset, store_dataset
from tuneoff.data.sources import from_memory, keep_in_cache
from tuneoff.errors import DataError


def load(source, **options):
    return load_dataset(DataSpec(source=str(source), **options))


def rows(dataset):
    return sorted(
        (text, dataset.label_names[label])
        for table in dataset.splits.values()
        for text, label in zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True)
    )


WRITERS = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    "json": lambda frame, path: frame.to_json(path, orient="records"),
    "parquet": lambda frame, path: frame.to_parquet(path),
}


@pytest.mark.parametrize("ending", WRITERS)
def test_every_format_holds_the_same_examples(ending, toy, tmp_path):
    toy.loc[0, "text"] = 'a "quoted", text\nof two lines – é 😀'
    path = tmp_path / f"data.{ending}"
    WRITERS[ending](toy, path)
    dataset = load(path)
    assert rows(dataset) == sorted(zip(toy["text"], toy["label"], strict=True))
    assert dataset.label_names == ("negative", "positive")
    assert len(dataset.notes) == 2  # both other splits were carved


def test_python_objects_hold_the_same_examples(toy):
    expected = sorted(zip(toy["text"], toy["label"], strict=True))
    hub = datasets.Dataset.from_pandas(toy)
    features = hub.features.copy()
    features["label"] = datasets.ClassLabel(names=["negative", "positive"])
    for data in (toy, hub, hub.cast(features), datasets.DatasetDict({"train": hub}), hub.select(range(60))):
        dataset = load(keep_in_cache(from_memory(data)))
        assert rows(dataset) == expected


def test_declared_label_names_keep_their_order(toy):
    hub = datasets.Dataset.from_dict(
        {"text": list(toy["text"]), "label": (toy["label"] == "positive").astype(int).to_list()},
        features=datasets.Features(
            {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["worse", "better"])}
        ),
    )
    assert load(keep_in_cache(from_memory(hub))).label_names == ("worse", "better")


def test_a_folder_of_splits_and_renamed_splits(toy, tmp_path):
    for name, part in (("train", toy[:40]), ("dev", toy[40:50]), ("heldout", toy[50:])):
        part.to_csv(tmp_path / f"{name}.csv", index=False)
    common = load(tmp_path)
    assert common.num_examples("validation") == 10
    assert "carved" in common.notes[0]
    renamed = load(tmp_path, splits={"test": "heldout"})
    assert renamed.num_examples("test") == 10
    assert renamed.num_examples("validation") == 10
    assert renamed.notes == ()
    with pytest.raises(DataError, match=r"'heldot' is unknown; did you mean 'heldout'"):
        load(tmp_path, splits={"test": "heldot"})


def test_a_split_given_another_part_plays_no_second_one(toy, tmp_path):
    toy[:50].to_csv(tmp_path / "train.csv", index=False)
    toy[50:].to_csv(tmp_path / "validation.csv", index=False)
    dataset = load(tmp_path, splits={"test": "validation"})
    assert dataset.num_examples("test") == 10
    assert dataset.notes[0].startswith("validation was carved from train")


def test_one_file_a_split(toy, tmp_path):
    toy[:40].to_csv(tmp_path / "a.csv", index=False)
    toy[40:].to_json(tmp_path / "b.jsonl", orient="records", lines=True)
    for spec in (
        DataSpec(splits={"train": str(tmp_path / "a.csv"), "test": str(tmp_path / "b.jsonl")}),
        DataSpec(source=str(tmp_path / "a.csv"), splits={"test": str(tmp_path / "b.jsonl")}),
    ):
        dataset = load_dataset(spec)
        assert dataset.num_examples("test") == 20


def test_pairs_are_found_by_common_names(tmp_path):
    frame = pd.DataFrame({"premise": ["one"] * 20, "hypothesis": ["two"] * 20, "label": [0, 1, 2, 0] * 5})
    frame.to_parquet(tmp_path / "pairs.parquet")
    dataset = load(tmp_path / "pairs.parquet")
    assert dataset.is_pair
    assert dataset.splits["train"]["text_pair"][0].as_py() == "two"


def test_a_byte_order_mark_is_no_part_of_a_name(toy, tmp_path):
    toy.to_csv(tmp_path / "bom.csv", index=False, encoding="utf-8-sig")
    assert load(tmp_path / "bom.csv").num_labels == 2


def test_a_stored_dataset_opens_again(toy_csv):
    dataset = load(toy_csv)
    store_dataset(dataset)
    again = open_dataset(dataset.fingerprint)
    assert rows(again) == rows(dataset)
    assert again.label_names == dataset.label_names


def test_the_fingerprint_follows_the_content(toy, tmp_path):
    toy.to_csv(tmp_path / "a.csv", index=False)
    toy.to_parquet(tmp_path / "b.parquet")
    toy.loc[3, "text"] += " indeed"
    toy.to_csv(tmp_path / "c.csv", index=False)
    prints = [load(tmp_path / name).fingerprint for name in ("a.csv", "b.parquet", "c.csv")]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(
    ("content", "position", "byte"),
    [(b"text,label\ncaf\xe9,1\n", 14, "0xe9"), (b"text,label\n" + b"x" * 2**20 + b"\xff,1\n", 11 + 2**20, "0xff"),
     (b"text,label\nend\xe2\x82", 14, "0xe2"), (b"text,label\n" + b"x" * (2**20 - 12) + b"\xe2(", 2**20 - 1, "0xe2")],
)  # fmt: skip
def test_wrong_encoding_names_the_byte(content, position, byte, tmp_path):
    (tmp_path / "latin.csv").write_bytes(content)
    with pytest.raises(DataError, match=f"byte {byte} at position {position}; save it"):
        load(tmp_path / "latin.csv")


def test_quotes_that_open_nothing_swallow_no_rows(tmp_path):
    lines = [f"line {i}\t{i % 2}" for i in range(32)]
    lines[3], lines[14] = '"Great, he said\t1', '"bad" film\t0'
    (tmp_path / "glue.tsv").write_text("sentence\tlabel\n" + "\n".join(lines) + "\n")
    assert sum(table.num_rows for table in load(tmp_path / "glue.tsv").splits.values()) == 32


def test_a_column_named_twice_is_an_error(tmp_path):
    (tmp_path / "twice.csv").write_text("text,label,label\na,1,1\n")
    with pytest.raises(DataError, match="'label' stands there 2 times"):
        load(tmp_path / "twice.csv")


def test_endings_may_be_in_capitals(toy, tmp_path):
    toy.to_csv(tmp_path / "TOY.CSV", index=False)
    assert load(tmp_path / "TOY.CSV").num_labels == 2


def test_the_same_frame_is_known_again_whatever_its_types(toy):
    toy["label"] = toy["label"].astype("category")
    toy["more"] = [[1, 2]] * 60
    again = toy.copy(deep=True)
    again["more"] = [list(item) for item in toy["more"]]
    assert keep_in_cache(from_memory(toy)) == keep_in_cache(from_memory(again))
    assert load(keep_in_cache(from_memory(toy))).num_labels == 2


def test_a_frame_of_mixed_types_is_one_line():
    with pytest.raises(DataError, match="DataFrame cannot be read"):
        from_memory(pd.DataFrame({"text": ["a", 1, b"x"], "label": [0, 1, 0]}))


def test_utf16_is_named(toy, tmp_path):
    toy.to_csv(tmp_path / "wide.csv", index=False, encoding="utf-16")
    with pytest.raises(DataError, match="UTF-16"):
        load(tmp_path / "wide.csv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", "", "empty"),
        ("header.csv", "text,label\n", "no examples"),
        ("ragged.csv", "text,label\na,b\nc,d,e\n", "cannot be parsed"),
        ("data.xlsx", "x", "ends in .xlsx; give one of .csv"),
        ("broken.jsonl", '{"text": "a", "label"\n', "cannot be parsed"),
        ("broken.parquet", "PAR1", "cannot be parsed"),
    ],
)
def test_unreadable_files_say_so(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        load(tmp_path / name)


def test_what_does_not_exist_says_so(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        load("nowhere.csv")
    with pytest.raises(DataError, match="holds no data files"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"'rotten' is unknown; .*rotten-tomatoes"):
        load("packaged:rotten")
    with pytest.raises(DataError, match="no longer in the cache; pass it in again"):
        load("memory:0000000000000000")
    with pytest.raises(DataError, match="is a list"):
        from_memory([1, 2])
    with pytest.raises(DataError, match="names no source"):
        load_dataset(DataSpec())


def test_packaged_data_is_the_official_train_split():
    dataset = load("packaged:rotten-tomatoes")
    assert sum(dataset.num_examples(split) for split in dataset.splits) == 8530
    labels = np.concatenate([table["label"].to_numpy() for table in dataset.splits.values()])
    assert np.bincount(labels).tolist() == [4265, 4265]
    assert dataset.num_examples("test") == 853
    assert any("test was carved from train" in note for note in dataset.notes)
