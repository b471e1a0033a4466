"""Tables and arrays that are mapped from a file are those that would be in memory, and leave nothing behind."""

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from tuneoff.cache import cache_folder
from tuneoff.data import large, repeats
from tuneoff.data.doctor import copies
from tuneoff.data.doctor.copies import copies_of
from tuneoff.data.load import load_dataset
from tuneoff.data.spec import DataSpec
from tuneoff.errors import StoreError

NUMBERS = np.arange(300)
TEXTS = [f"text {number} of a table, with ümlauts and {'long ' * (number % 7)}words" for number in NUMBERS]
TABLE = pa.table({"text": TEXTS, "label": [("good", "bad", "fair")[number % 3] for number in NUMBERS]})


@pytest.fixture
def is_large(monkeypatch):
    monkeypatch.setattr(large, "LARGE_BYTES", 0)


def is_mapped(buffer):
    """Tell whether a buffer lies in a mapping of a file."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            (first, last), file = (int(end, 16) for end in line.split()[0].split("-")), line.split()[5:]
            if first <= buffer.address < last:
                return bool(file) and str(cache_folder()) in file[0]
    return False


def write(path):
    rows = TABLE.to_pylist()
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(TABLE, path, row_group_size=70)
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(TABLE, path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataSpec(source=str(path), drop_duplicates=True, limits={"validation": 20})


@pytest.mark.parametrize("ending", ["parquet", "csv", "json", "jsonl"])
def test_a_large_file_is_the_same_dataset(ending, tmp_path, monkeypatch):
    spec = write(tmp_path / f"data.{ending}")
    expected = load_dataset(spec)
    monkeypatch.setattr(large, "LARGE_BYTES", 0)
    found = load_dataset(spec)
    assert found.fingerprint == expected.fingerprint
    assert {split: table.to_pydict() for split, table in found.splits.items()} == {
        split: table.to_pydict() for split, table in expected.splits.items()
    }


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="tells mappings by Linux's list of them")
def test_texts_of_a_large_file_are_mapped(is_large, tmp_path):
    spec = write(tmp_path / "data.parquet")
    for table in load_dataset(spec).splits.values():
        texts = [chunk.buffers()[2] for chunk in table["text"].chunks if len(chunk)]
        assert texts
        assert all(is_mapped(buffer) for buffer in texts)


def test_rows_are_taken_across_batches(is_large):
    table = pa.concat_tables([TABLE.slice(0, 100), TABLE.slice(100, 1), TABLE.slice(101)])
    rows = np.array([0, 99, 100, 101, 299])
    assert large.taken(table, rows).to_pydict() == table.take(pa.array(rows)).to_pydict()
    assert large.taken(table, rows[:0]).num_rows == 0
    assert large.kept(table, NUMBERS % 2 == 0)["text"].to_pylist() == TEXTS[::2]


def test_an_array_is_mapped_as_it_would_be_in_memory(is_large):
    blocks = [np.arange(5), np.empty(0, int), np.arange(7)]
    mapped = large.array_of(iter(blocks), np.int32)
    assert isinstance(mapped, np.memmap)
    assert mapped.dtype == np.int32
    assert mapped.tolist() == np.concatenate(blocks).tolist()
    assert large.array_of(iter([]), np.int32).tolist() == []


def test_nothing_is_left_in_the_cache(is_large, tmp_path):
    before = set(cache_folder().rglob("*")) if cache_folder().exists() else set()
    table = large.table_of(TABLE.to_batches(), TABLE.schema)
    assert set(cache_folder().rglob("*")) == before
    assert table.to_pydict() == TABLE.to_pydict()


def test_a_full_disk_is_named(is_large):
    def batches():
        yield TABLE.to_batches()[0]
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="the disk is full"):
        large.table_of(batches(), TABLE.schema)


def test_copies_of_many_texts_are_found_part_by_part(monkeypatch):
    rng = np.random.default_rng(0)
    words = [f"w{number}" for number in range(40)]
    texts = [" ".join(words[start : start + 12]) for start in rng.integers(0, 28, 200)]
    tables = {
        split: pa.table({"text": texts[half], "label": np.zeros(100, int)})
        for split, half in (("train", slice(100)), ("test", slice(100, 200)))
    }
    expected = copies_of(tables)
    assert len(expected.near[0])
    monkeypatch.setattr(repeats, "_PART_POSTINGS", 100)
    monkeypatch.setattr(repeats, "_BLOCK_TEXTS", 64)
    monkeypatch.setattr(large, "LARGE_BYTES", 0)
    found = copies_of(tables)
    assert sorted(zip(*found.near, strict=True)) == sorted(zip(*expected.near, strict=True))
    assert all((found.texts[split] == expected.texts[split]).all() for split in tables)


def test_of_more_texts_each_is_compared_with_fewer_and_every_copy_is_still_known(monkeypatch):
    template = " ".join(f"w{number}" for number in range(12))
    tables = {"train": pa.table({"text": [f"{template} end{row}" for row in range(60)], "label": np.zeros(60, int)})}
    pairs_of_few = len(copies_of(tables).near[0])
    monkeypatch.setattr(copies, "_LIMIT_OF_ALL", 60 * 8)  # as if there were two million texts
    of_many = copies_of(tables)
    assert len(of_many.near[0]) < pairs_of_few < 60 * 59 // 2
    assert len(np.unique(np.concatenate(of_many.near))) == 60
    assert of_many.repeats("train").is_near.sum() == 59


def test_a_full_disk_is_no_broken_file(is_large, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    spec = write(tmp_path / "data.parquet")
    monkeypatch.setattr(large, "_write_batches", fail)
    with pytest.raises(StoreError, match=r"^the disk is full"):
        load_dataset(spec)


def test_a_cache_that_cannot_be_written_is_not_needed(is_large, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TUNEOFF_CACHE", str(tmp_path / "file" / "cache"))
    assert large.table_of(TABLE.to_batches(), TABLE.schema).to_pydict() == TABLE.to_pydict()


def test_rows_in_another_order_are_refused(is_large):
    with pytest.raises(AssertionError):
        large.taken(TABLE, np.array([2, 1]))
