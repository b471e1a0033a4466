"""Data files that somebody prepared to do harm, and random ones: a dataset or one line, no crash, no hang."""

import os

import pytest

pytest.importorskip("hypothesis")

from hypothesis import given

from tests.hostile.data_files import CONTENTS, FILES, OPTIONS, load, stream
from tests.hostile.forking import ForkedReader
from tests.hostile.guard import called, guarded
from tests.hostile.profiles import quick
from tuneoff.data import isolated

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks")

SLOW = ("bomb-rows.parquet", "bomb-cell.parquet", "wider.csv", "cell-of-100-MB.csv", "cell-of-100-MB.jsonl")


def check_named(name, tmp_path):
    write, options = FILES[name]
    write(tmp_path / name)
    outcome = guarded(lambda: load(tmp_path / name, **options), seconds=40)
    assert outcome.is_good, outcome
    if name != "bomb-rows.parquet":  # predict reads any number of rows in constant memory, one batch after the other
        outcome = guarded(stream, tmp_path / name, seconds=40)
        assert outcome.is_good, outcome


@pytest.mark.parametrize("name", [name for name in FILES if name not in SLOW])
def test_a_hostile_data_file_is_read_or_refused_in_one_line(name, tmp_path):
    check_named(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_a_huge_data_file_is_read_or_refused_in_one_line(name, tmp_path):
    check_named(name, tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("null.json", "line 1 holds no JSON object"),
        ("deep.jsonl", "nests lists or objects more than 100 deep"),
        ("binary-label.parquet", "label column 'label' of split train cannot be read as text"),
        ("bomb-cells.parquet", "would unpack to more than"),
        ("keys.jsonl", "has 50,000 columns, and at most 10,000 are read"),
        ("long-label.csv", "has 100,000 bytes in row 1, and at most 1,000 are read"),
    ],
)
def test_the_line_says_what_is_wrong(name, message, tmp_path):
    write, options = FILES[name]
    write(tmp_path / name)
    assert message in guarded(lambda: load(tmp_path / name, **options)).text


@pytest.mark.parametrize(
    "name", ["view-label.parquet", "deep-in-text.jsonl", "escapes.jsonl", "bool-label.parquet", "dictionary.parquet"]
)
def test_an_unusual_file_that_is_right_is_read(name, tmp_path):
    write, options = FILES[name]
    write(tmp_path / name)
    load(tmp_path / name, **options)


@pytest.mark.parametrize("ending", CONTENTS)
def test_any_file_is_read_or_refused_in_one_line(ending, tmp_path, monkeypatch):
    monkeypatch.setattr(isolated, "_start", ForkedReader)  # the same child, started faster
    path, tried = tmp_path / f"any.{ending}", []

    @quick
    @given(CONTENTS[ending], OPTIONS)
    def check(content, options):
        path.write_bytes(content)
        for outcome in (called(lambda: load(path, **options)), called(stream, path)):
            tried.append(outcome[0])
            assert outcome[0] in ("accepted", "refused"), outcome[1]
            assert "\n" not in outcome[1]

    check()
    assert tried


@pytest.mark.parametrize(
    "name", ["hf:/", "hf:.", "hf:~", "hf:../x", "hf:csv", "hf:imagefolder", "hf:text/x", "memory:../../x"]
)
def test_names_of_the_hub_and_the_cache_are_no_paths(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind, text = called(load, name)
    assert kind == "refused"
    assert "is no dataset" in text or "is a kind of files" in text or "is no data" in text


def test_a_folder_does_not_take_the_place_of_a_dataset_of_the_hub(tmp_path, monkeypatch):
    (tmp_path / "glue").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "for a file or a folder, leave out hf:" in called(load, "hf:glue")[1]
