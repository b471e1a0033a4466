"""Tables are read and written batch by batch, and rows that cannot be read are counted and lose no others."""

import io
import json
import sys

import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest

from tuneoff.data import stream
from tuneoff.data.stream import BadRows, decoded, format_of, read_batches, table_writer
from tuneoff.errors import ConfigError, DataError, StoreError


def read(path, format_name, bad=None):
    tables = list(read_batches(str(path), format_name, BadRows() if bad is None else bad))
    return [row for table in tables for row in table.to_pylist()]


ROWS = [
    {"text": "plain", "id": "01"},
    {"text": 'quotes " and, commas', "id": "2"},
    {"text": "two\nlines", "id": ""},
    {"text": "ünï – 中文", "id": "4"},
]


@pytest.mark.parametrize("format_name", ["csv", "jsonl", "parquet"])
def test_what_is_written_is_read_again(format_name, tmp_path):
    path = tmp_path / f"rows.{format_name}"
    with table_writer(str(path), format_name) as writer:
        for start in (0, 2):
            writer.write(pa.Table.from_pylist(ROWS[start : start + 2]))
    assert read(path, format_name) == ROWS
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_csv_of_pandas_and_of_many_blocks_is_read_as_written(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "_BLOCK_BYTES", 300)
    frame = pd.DataFrame({"text": [f'row {i}, "quoted"\nsecond line' for i in range(200)], "n": range(200)})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "b.tsv", index=False, sep="\t")
    rows = read(tmp_path / "a.csv", "csv")
    assert [row["text"] for row in rows] == list(frame["text"])
    assert [row["n"] for row in rows] == list(map(str, range(200)))
    assert len(list(read_batches(str(tmp_path / "a.csv"), "csv", BadRows()))) > 10


def test_a_csv_file_may_have_semicolons(tmp_path):
    (tmp_path / "a.csv").write_text("text;n\ngood, fine;1,5\nbad;2\n")
    assert read(tmp_path / "a.csv", "csv") == [{"text": "good, fine", "n": "1,5"}, {"text": "bad", "n": "2"}]


def test_bytes_that_are_not_utf8_are_marked_and_the_others_kept(tmp_path):
    path = tmp_path / "latin.csv"
    path.write_bytes("text,id\ngood,1\ncafé,2\nfine,3\n".encode("latin-1"))
    (table,) = read_batches(str(path), "csv", BadRows())
    texts, wrong = decoded(table["text"])
    assert texts.to_pylist() == ["good", "caf\ufffd", "fine"]
    assert wrong.tolist() == [1]
    assert decoded(table["id"])[0].to_pylist() == ["1", "2", "3"]


def test_rows_of_another_width_and_lines_that_are_no_json_are_counted(tmp_path):
    (tmp_path / "wide.csv").write_text("text,id\na,1\nb,2,3\nc,3\nd\n")
    bad = BadRows()
    assert [row["text"] for row in read(tmp_path / "wide.csv", "csv", bad)] == ["a", "c"]
    assert bad.by_reason == {"another number of fields than the header, and left out": [2, 4]}
    (tmp_path / "lines.jsonl").write_text('{"text": "a"}\n\n[1]\n{"text": "b", "extra": 1}\n{oops\n')
    bad = BadRows()
    rows = read(tmp_path / "lines.jsonl", "jsonl", bad)
    assert rows == [{"text": "a", "extra": None}, {"text": "b", "extra": 1}]
    assert bad.by_reason == {"nothing on their line, and left out": [2], "no JSON object, and left out": [3, 5]}
    assert len(bad) == 3


def test_row_numbers_count_rows_that_were_left_out_in_every_block(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "_BLOCK_BYTES", 200)
    lines = [f"text {n},{n}" + (",wide" if n % 10 == 0 else "") for n in range(1, 101)]
    (tmp_path / "a.csv").write_text("\n".join(["text,n", *lines]) + "\n")
    bad = BadRows()
    rows = read(tmp_path / "a.csv", "csv", bad)
    assert bad.left_out == list(range(10, 101, 10))
    assert bad.numbers_of(range(1, len(rows) + 1)) == [int(row["n"]) for row in rows]


def test_a_parquet_file_without_rows_is_no_rows(tmp_path):
    path = tmp_path / "none.parquet"
    pyarrow.parquet.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    (table,) = read_batches(str(path), "parquet", BadRows())
    assert (table.num_rows, table.column_names) == (0, ["text"])


def test_standard_input_and_output(tmp_path, monkeypatch):
    source, target = io.TextIOWrapper(io.BytesIO(b"text\na\nb\n")), io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdin", source)
    monkeypatch.setattr(sys, "stdout", target)
    with table_writer("-", "jsonl") as writer:
        for table in read_batches("-", "csv", BadRows()):
            writer.write(table)
    lines = target.buffer.getvalue().decode().splitlines()
    assert [json.loads(line) for line in lines] == [{"text": "a"}, {"text": "b"}]
    with pytest.raises(ConfigError, match="Parquet cannot be read from standard input"):
        list(read_batches("-", "parquet", BadRows()))


@pytest.mark.parametrize(
    ("content", "format_name", "message"),
    [
        ("", "csv", "the data is empty: it has no header"),
        ("text,text\na,b\n", "csv", "column 'text' occurs 2 times"),
        ("", "jsonl", "the data is empty: no line of it is a JSON object"),
        ("[1]\n", "jsonl", "the data is empty: no line of it is a JSON object"),
        ("no parquet", "parquet", "data file 'bad.parquet' cannot be parsed"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(content, format_name, message, tmp_path):
    path = tmp_path / f"bad.{format_name}"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read(path, format_name)
    assert "\n" not in str(caught.value)


def test_a_header_without_rows_is_no_rows(tmp_path):
    (tmp_path / "empty.csv").write_text("text,id\n")
    assert read(tmp_path / "empty.csv", "csv") == []


def test_a_failed_write_leaves_nothing(tmp_path):
    def write(format_name, error):
        with table_writer(str(tmp_path / "a"), format_name) as writer:
            writer.write(pa.Table.from_pylist(ROWS))
            raise error

    for format_name in ("csv", "jsonl", "parquet"):
        with pytest.raises(StoreError, match="No space left on device; nothing was kept of it"):
            write(format_name, OSError(28, "No space left on device"))
        with pytest.raises(KeyboardInterrupt):
            write(format_name, KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []


def test_the_format_is_that_of_the_name_or_the_given_one():
    assert [format_of(name) for name in ("a.CSV", "b.ndjson", "c.parquet", "-")] == ["csv", "jsonl", "parquet", "csv"]
    assert format_of("a.txt", "tsv") == "tsv"
    with pytest.raises(ConfigError, match=r"'a\.txt' ends in \.txt; give one of \.csv"):
        format_of("a.txt")
    with pytest.raises(ConfigError, match="format 'xlsx' is unknown"):
        format_of("a.csv", "xlsx")
