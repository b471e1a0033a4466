"""The cache: fingerprints of content, and pruning."""

import os
import time
from pathlib import Path

import pyarrow as pa
import pytest

from tuneoff import cache
from tuneoff.cache import cached_folder, fingerprint, prune

COLUMNS = {
    "text": pa.array(["a", "bc", None, "", "é", "def"]),
    "large": pa.array(["a", "bc", None, "", "é", "def"], pa.large_string()),
    "label": pa.array([0, 1, None, 2, 3, 4]),
    "score": pa.array([0.5, None, 1.0, 2.0, 3.0, 4.0]),
    "lists": pa.array([["a"], [], None, ["b", "c"], [], ["d"]]),
    "ids": pa.FixedSizeListArray.from_arrays(pa.array(range(12), pa.uint8()), 2),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_fingerprint_does_not_depend_on_chunks_or_slices(name):
    column = COLUMNS[name]
    whole = fingerprint(pa.table({"column": column}))
    chunks = pa.chunked_array([column[:0], column[:1], column[1:4], column[4:]])
    assert fingerprint(pa.table({"column": chunks})) == whole
    assert fingerprint(pa.table({"column": pa.concat_arrays([column[2:], column])[4:]})) == whole
    assert fingerprint(pa.table({"column": chunks[:5]})) != whole


def test_fingerprints_of_one_chunk_are_those_of_earlier_versions():
    assert fingerprint(pa.table(COLUMNS)) == "a79ef488137fd6d9"


@pytest.fixture
def three_folders(tmp_path, monkeypatch):
    """A cache with three folders, the oldest beyond the limit of 2,500 bytes."""
    monkeypatch.setenv("TUNEOFF_CACHE", str(tmp_path))
    for age, name in enumerate(["new", "old", "older"]):
        folder = cached_folder(name, lambda into: (into / "data").write_bytes(bytes(800)))
        used = time.time() - age * 2 * cache._IN_USE_SECONDS
        os.utime(folder, (used, used))
    return tmp_path


def test_the_least_recently_used_folders_are_pruned(three_folders):
    prune(limit=2500)
    assert sorted(path.name for path in three_folders.iterdir() if path.is_dir()) == ["new", "old"]


def test_a_folder_that_is_in_use_stays_whole(three_folders, monkeypatch):
    """Windows neither renames nor removes a folder with an open file."""

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(Path, "rename", refuse)
    prune(limit=2500)
    assert sorted(path.name for path in (three_folders / "older").iterdir()) == ["checksums.json", "data", "seconds"]
    assert sorted(path.name for path in three_folders.iterdir() if path.is_dir()) == ["new", "old", "older"]
