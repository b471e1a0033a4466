"""Every data source gives the same dataset; an unreadable source is one line."""

import datasets
import numpy as np
import pandas as pd
import pytest

from tests.data.frames import examples_of
from tuneoff.data.load import load_dataset, open_dataset, store_dataset
from tuneoff.data.sources import find_separator, from_memory, store_in_cache
from tuneoff.data.spec import DataSpec
from tuneoff.errors import DataError


def load(source, **options):
    return load_dataset(DataSpec(source=str(source), **options))


WRITERS = {
    "csv": lambda frame, path: frame.to_csv(path, index=False),
    "tsv": lambda frame, path: frame.to_csv(path, index=False, sep="\t"),
    "jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    "json": lambda frame, path: frame.to_json(path, orient="records"),
    "parquet": lambda frame, path: frame.to_parquet(path),
}


@pytest.mark.parametrize("ending", WRITERS)
def test_every_file_format_gives_the_same_examples(ending, toy, tmp_path):
    toy.loc[0, "text"] = 'a "quoted", text\nof two lines – é 😀'
    path = tmp_path / f"data.{ending}"
    WRITERS[ending](toy, path)
    dataset = load(path)
    assert examples_of(dataset) == sorted(zip(toy["text"], toy["label"], strict=True))
    assert dataset.label_names == ("negative", "positive")
    assert [note.split(":")[0] for note in dataset.notes] == [
        "test was held out from train",
        "validation was held out from train",
    ]


def test_every_python_object_gives_the_same_examples(toy):
    expected = sorted(zip(toy["text"], toy["label"], strict=True))
    hub = datasets.Dataset.from_pandas(toy)
    features = hub.features.copy()
    features["label"] = datasets.ClassLabel(names=["negative", "positive"])
    for data in (toy, hub, hub.cast(features), datasets.DatasetDict({"train": hub}), hub.select(range(60))):
        dataset = load(store_in_cache(from_memory(data)))
        assert examples_of(dataset) == expected


def test_declared_label_names_keep_their_order(toy):
    hub = datasets.Dataset.from_dict(
        {"text": list(toy["text"]), "label": (toy["label"] == "positive").astype(int).to_list()},
        features=datasets.Features(
            {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["worse", "better"])}
        ),
    )
    assert load(store_in_cache(from_memory(hub))).label_names == ("worse", "better")


def test_splits_of_a_folder_are_named_by_the_user_or_common_names(toy, tmp_path):
    for name, part in (("train", toy[:40]), ("dev", toy[40:50]), ("heldout", toy[50:])):
        part.to_csv(tmp_path / f"{name}.csv", index=False)
    common = load(tmp_path)
    assert common.num_examples("validation") == 10
    assert common.notes[0].startswith("test was held out from train: ")
    renamed = load(tmp_path, splits={"test": "heldout"})
    assert renamed.num_examples("test") == 10
    assert renamed.num_examples("validation") == 10
    assert renamed.notes == ()
    with pytest.raises(DataError, match=r"'heldot' is unknown; did you mean 'heldout'"):
        load(tmp_path, splits={"test": "heldot"})


def test_a_table_named_for_one_split_is_not_used_for_another(toy, tmp_path):
    toy[:50].to_csv(tmp_path / "train.csv", index=False)
    toy[50:].to_csv(tmp_path / "validation.csv", index=False)
    dataset = load(tmp_path, splits={"test": "validation"})
    assert dataset.num_examples("test") == 10
    assert dataset.notes[0].startswith("validation was held out from train")


def test_each_split_may_be_a_file(toy, tmp_path):
    toy[:40].to_csv(tmp_path / "a.csv", index=False)
    toy[40:].to_json(tmp_path / "b.jsonl", orient="records", lines=True)
    for spec in (
        DataSpec(splits={"train": str(tmp_path / "a.csv"), "test": str(tmp_path / "b.jsonl")}),
        DataSpec(source=str(tmp_path / "a.csv"), splits={"test": str(tmp_path / "b.jsonl")}),
    ):
        assert load_dataset(spec).splits["test"]["text"].to_pylist() == toy["text"][40:].to_list()


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_of_a_csv_file_is_found(toy, tmp_path, separator):
    texts = [f'{text}, "so; they|say"\tor\n{i},5' for i, text in enumerate(toy["text"])]
    data = toy.assign(text=texts, score=[f"{i},5" for i in range(len(toy))])
    data.to_csv(tmp_path / "a.csv", sep=separator, index=False, encoding="utf-8-sig")
    dataset = load(tmp_path / "a.csv", validation_fraction=0.2, test_fraction=0.2)
    assert {text for text, _ in examples_of(dataset)} == set(texts)
    assert dataset.separator == separator


@pytest.mark.parametrize(
    ("content", "separator"),
    [
        ("text;score\na;1,5\nb;2,5\n", ";"),  # decimal commas
        ("text,label\na;b,x\nc;d,y\n", ","),
        ("text\nno separator, but a comma\n", ","),
        ("text;label\na;b;x\nc;y\n", ";"),  # a broken record: the header decides
        ("text;label\n" + 'a "quoted, word;x\n' * 3, ";"),
        ("a;b\n" + "x" * 200_000 + ";y\n", ";"),  # longer than the csv module reads
    ],
)
def test_the_separator_of_difficult_files(tmp_path, content, separator):
    (tmp_path / "a.csv").write_text(content)
    assert find_separator(tmp_path / "a.csv") == separator


def test_a_byte_order_mark_is_not_part_of_a_column_name(toy, tmp_path):
    toy.to_csv(tmp_path / "bom.csv", index=False, encoding="utf-8-sig")
    assert load(tmp_path / "bom.csv").num_labels == 2


def test_a_stored_dataset_opens_again(toy_csv):
    dataset = load(toy_csv)
    store_dataset(dataset)
    again = open_dataset(dataset.fingerprint)
    assert examples_of(again) == examples_of(dataset)
    assert again.label_names == dataset.label_names
    assert again.notes == dataset.notes


def test_the_fingerprint_depends_on_the_content_only(toy, tmp_path):
    toy.to_csv(tmp_path / "a.csv", index=False)
    toy.to_parquet(tmp_path / "b.parquet")
    toy.loc[3, "text"] += " indeed"
    toy.to_csv(tmp_path / "c.csv", index=False)
    fingerprints = [load(tmp_path / name).fingerprint for name in ("a.csv", "b.parquet", "c.csv")]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


@pytest.mark.parametrize(
    ("content", "position", "byte"),
    [(b"text,label\ncaf\xe9,1\n", 14, "0xe9"), (b"text,label\n" + b"x" * 2**20 + b"\xff,1\n", 11 + 2**20, "0xff"),
     (b"text,label\nend\xe2\x82", 14, "0xe2"), (b"text,label\n" + b"x" * (2**20 - 12) + b"\xe2(", 2**20 - 1, "0xe2")],
)  # fmt: skip
def test_a_wrong_encoding_is_reported_with_its_byte(content, position, byte, tmp_path):
    (tmp_path / "latin.csv").write_bytes(content)
    with pytest.raises(DataError, match=f"byte {byte} at position {position}; save it"):
        load(tmp_path / "latin.csv")


def test_quotes_that_are_never_closed_swallow_no_rows_of_a_tsv_file(tmp_path):
    lines = [f"line {i}\t{i % 2}" for i in range(32)]
    lines[3], lines[14] = '"Great, he said\t1', '"bad" film\t0'
    (tmp_path / "glue.tsv").write_text("sentence\tlabel\n" + "\n".join(lines) + "\n")
    assert sum(table.num_rows for table in load(tmp_path / "glue.tsv").splits.values()) == 32


def test_a_repeated_column_name_is_an_error(tmp_path):
    (tmp_path / "twice.csv").write_text("text,label,label\na,1,1\n")
    with pytest.raises(DataError, match="'label' occurs 2 times; rename one of them"):
        load(tmp_path / "twice.csv")


def test_file_suffixes_may_be_upper_case(toy, tmp_path):
    toy.to_csv(tmp_path / "TOY.CSV", index=False)
    assert load(tmp_path / "TOY.CSV").num_labels == 2


def test_equal_frames_have_one_place_in_the_cache(toy):
    toy["label"] = toy["label"].astype("category")
    toy["more"] = [[1, 2]] * 60
    again = toy.copy(deep=True)
    again["more"] = [list(item) for item in toy["more"]]
    assert store_in_cache(from_memory(toy)) == store_in_cache(from_memory(again))
    assert load(store_in_cache(from_memory(toy))).num_labels == 2


def test_a_frame_with_mixed_types_is_refused():
    with pytest.raises(DataError, match="DataFrame cannot be read"):
        from_memory(pd.DataFrame({"text": ["a", 1, b"x"], "label": [0, 1, 0]}))


def test_utf16_is_refused(toy, tmp_path):
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
def test_unreadable_files_are_refused(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        load(tmp_path / name)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.csv", "data file 'nowhere.csv' does not exist"),
        ("packaged:rotten", "'rotten' is unknown; .*rotten-tomatoes"),
        ("memory:0000000000000000", "no longer in the cache; pass it in again"),
    ],
)
def test_missing_sources_are_refused(source, message):
    with pytest.raises(DataError, match=message):
        load(source)


def test_folders_without_one_data_file_per_split_are_refused(toy, tmp_path):
    with pytest.raises(DataError, match=r"holds no data files; expected train\.csv or another of"):
        load(tmp_path)
    toy.to_csv(tmp_path / "train.csv", index=False)
    toy.to_parquet(tmp_path / "train.parquet")
    with pytest.raises(DataError, match="holds 'train' in two formats; keep one"):
        load(tmp_path)


def test_a_spec_without_train_data_is_refused():
    with pytest.raises(DataError, match=r"data has no source and no train file; set data\.source"):
        load_dataset(DataSpec())


def test_python_objects_of_other_types_are_refused():
    with pytest.raises(DataError, match="data is a list; give a file, a DataFrame"):
        from_memory([1, 2])


def test_packaged_data_is_the_official_train_split_with_held_out_splits():
    dataset = load("packaged:rotten-tomatoes")
    assert sum(dataset.num_examples(split) for split in dataset.splits) == 8530
    labels = np.concatenate([table["label"].to_numpy() for table in dataset.splits.values()])
    assert np.bincount(labels).tolist() == [4265, 4265]
    assert dataset.num_examples("test") == 853
    assert dataset.notes[0] == "test was held out from train: 853 of 8,530 examples, stratified by label, seed 0"


def test_multi_label_data_of_the_hub_keep_their_label_names():
    names = ["joy", "anger", "fear"]
    features = datasets.Features(
        {"text": datasets.Value("string"), "labels": datasets.List(datasets.ClassLabel(names=names))}
    )
    rows = {
        "text": [f"text {i}" for i in range(40)],
        "labels": [[i % 3, (i + 1) % 3] if i % 2 else [i % 3] for i in range(40)],
    }
    source = store_in_cache(from_memory(datasets.Dataset.from_dict(rows, features=features)))
    assert load(source).label_names == tuple(names)
