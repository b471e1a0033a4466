"""Read and write tables of any number of rows in constant memory, batch by batch: CSV, TSV, JSONL and Parquet.

Rows that cannot be read are counted with their numbers, and the others are not lost.
"""

import bisect
import csv
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from tuneoff.data import isolated
from tuneoff.data.sources import find_separator
from tuneoff.errors import ConfigError, DataError, StoreError, one_line

STANDARD = "-"  # name of standard input and of standard output
FORMATS = ("csv", "tsv", "jsonl", "parquet")
BATCH_ROWS = 8192
_MAX_HEADER_BYTES = 2**20
_MAX_LINE_BYTES = 64 * 2**20  # of JSON lines
_BLOCK_BYTES = 4 * 2**20  # of a CSV file at a time; a row may not be longer
PLAIN_TSV = "plain tsv"  # without quotes, for values that need none
_DELIMITERS = {"csv": ",", "tsv": "\t"}  # of what is written; a .csv file that is read may have others


@dataclass
class BadRows:
    """Numbers of the rows that could not be used, by reason; the first row of the data is 1."""

    by_reason: dict[str, list[int]] = field(default_factory=dict)
    left_out: list[int] = field(default_factory=list)  # those of them that are in no batch

    def add(self, reason: str, rows: Any) -> None:
        """Count some rows."""
        if len(rows):
            self.by_reason.setdefault(reason, []).extend(int(row) for row in rows)

    def leave_out(self, reason: str, row: int) -> None:
        """Count a row that is in no batch."""
        self.add(f"{reason}, and left out", [row])
        bisect.insort(self.left_out, row)

    def numbers_of(self, positions: Iterable[int]) -> list[int]:
        """Return the row numbers of places in the batches, both from 1: rows that were left out count too.

        >>> BadRows(left_out=[2, 3]).numbers_of([1, 2, 3])
        [1, 4, 5]
        """
        numbers = []
        for number in map(int, positions):
            for row in self.left_out:
                number += row <= number
            numbers.append(number)
        return numbers

    def __len__(self) -> int:
        return sum(map(len, self.by_reason.values()))


def format_of(name: str, given: str | None = None) -> str:
    """Return the format of a file from its name, or the given one. Raises ConfigError."""
    if given is not None and given not in FORMATS:
        raise ConfigError(f"format {given!r} is unknown; choose from {', '.join(FORMATS)}")
    suffix = Path(name).suffix.lower().removeprefix(".")
    suffix = {"ndjson": "jsonl", "json": "jsonl"}.get(suffix, suffix)
    if given is None and name == STANDARD:
        return "csv"
    if given is None and suffix not in FORMATS:
        raise ConfigError(
            f"file {Path(name).name!r} ends in {Path(name).suffix or 'nothing'}; give one of "
            f"{', '.join(f'.{known}' for known in FORMATS)}, or name the format"
        )
    return given or suffix


def read_batches(name: str, format_name: str, bad: BadRows) -> Iterator[pa.Table]:
    """Yield the rows of a file, or of standard input ("-"), in order. Columns of CSV and TSV are strings as written.

    A column of strings may hold invalid UTF-8: then it is of bytes, see decoded(). Raises DataError, in one line.
    """
    if name != STANDARD and not Path(name).is_file():
        raise DataError(f"data file {name!r} does not exist")
    try:
        if format_name == "parquet":
            if name == STANDARD:
                raise ConfigError("Parquet cannot be read from standard input, because its index is at the end")
            for batch in isolated.read_batches(Path(name), BATCH_ROWS):
                yield pa.Table.from_batches([batch])
            return
        with _binary_input(name) as stream:
            if format_name == "jsonl":
                yield from _json_batches(stream, bad)
            else:
                is_file = format_name == "csv" and name != STANDARD
                separator = find_separator(Path(name)) if is_file else _DELIMITERS[format_name]
                yield from _csv_batches(stream, separator, bad)
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError, csv.Error) as error:
        if isinstance(error, (DataError, ConfigError, StoreError, BrokenPipeError)):
            raise
        what = "standard input" if name == STANDARD else f"data file {Path(name).name!r}"
        raise DataError(f"{what} cannot be read: {one_line(error)}") from error


@contextmanager
def _binary_input(name: str) -> Iterator[IO[bytes]]:
    if name == STANDARD:
        yield sys.stdin.buffer
        return
    with open(name, "rb") as file:
        yield file


def _csv_batches(file: IO[bytes], separator: str, bad: BadRows) -> Iterator[pa.Table]:
    names = _header(file, separator)
    if not names:
        raise DataError("the data is empty: it has no header")
    if len(names) > isolated.MAX_COLUMNS:
        raise DataError(f"the data has {len(names):,} columns, and at most {isolated.MAX_COLUMNS:,} are read")
    column, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise DataError(f"column {column!r} occurs {count} times; rename one of them")

    def skip(row: Any) -> str:
        bad.leave_out("another number of fields than the header", row.number)
        return "skip"

    parse = pyarrow.csv.ParseOptions(
        delimiter=separator,
        # tabs: GLUE's TSV files hold quotes that are text (data/sources.py)
        newlines_in_values=separator != "\t",
        quote_char='"' if separator != "\t" else False,
        invalid_row_handler=skip,
    )
    # bytes: pyarrow would stop at the first text that is not UTF-8
    convert = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.large_binary()), strings_can_be_null=False, check_utf8=False
    )
    read = pyarrow.csv.ReadOptions(column_names=names, block_size=_BLOCK_BYTES, use_threads=False)
    try:
        with _undecodable_rows() as undecodable:  # it parses the first block
            reader = pyarrow.csv.open_csv(file, read_options=read, parse_options=parse, convert_options=convert)
    except pa.ArrowInvalid as error:
        if "Empty CSV file" in str(error):
            yield pa.table({name: pa.array([], pa.large_string()) for name in names})
            return
        raise
    with reader:
        while True:
            if undecodable:
                raise DataError("a row is not UTF-8 and has another number of fields than the header; correct it")
            with _undecodable_rows() as undecodable:
                batch = next(reader, None)
            if batch is None and not undecodable:
                return
            if batch is None:
                continue
            yield pa.table({name: as_strings(column) for name, column in zip(names, batch.columns, strict=True)})


@contextmanager
def _undecodable_rows() -> Iterator[list[Any]]:
    """A context that collects the rows that pyarrow cannot pass on because they are not UTF-8, which it prints."""
    rows: list[Any] = []
    previous = sys.unraisablehook

    def collect(raised: Any) -> None:
        rows.append(raised.exc_value) if isinstance(raised.exc_value, UnicodeDecodeError) else previous(raised)

    sys.unraisablehook = collect
    try:
        yield rows
    finally:
        sys.unraisablehook = previous


def _header(file: IO[bytes], delimiter: str) -> list[str]:
    """Read the names of the columns, which may hold line breaks inside quotes."""
    text, num_quotes = "", 0
    while line := file.readline(_MAX_HEADER_BYTES).decode("utf-8-sig" if not text else "utf-8"):
        text += line
        num_quotes += line.count('"')
        if num_quotes % 2 == 0:
            break
        if len(text) >= _MAX_HEADER_BYTES:
            raise DataError("the header has a megabyte or more, or a quote in it is not closed; correct the file")
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    return rows[0] if rows else []


def as_strings(column: pa.Array) -> pa.Array:
    """Return a column of bytes as strings, if all of it is UTF-8."""
    try:
        return column.cast(pa.large_string())
    except pa.ArrowInvalid:
        return column


def decoded(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Return a column as strings, with a mark for what is not UTF-8, and the indices of those rows."""
    if _is_view(column.type) or pa.types.is_fixed_size_binary(column.type):
        column = column.cast(pa.large_binary())
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            column = column.cast(pa.large_binary())
    if not (pa.types.is_large_binary(column.type) or pa.types.is_binary(column.type)):
        return column, np.empty(0, np.int64)
    texts, wrong = [], []
    for index, value in enumerate(column.to_pylist()):
        try:
            texts.append(value if value is None else value.decode())
        except UnicodeDecodeError:
            texts.append(value.decode(errors="replace"))
            wrong.append(index)
    return pa.chunked_array([pa.array(texts, pa.large_string())]), np.array(wrong, np.int64)


def _is_view(kind: pa.DataType) -> bool:
    return pa.types.is_string_view(kind) or pa.types.is_binary_view(kind)


def _json_batches(file: IO[bytes], bad: BadRows) -> Iterator[pa.Table]:
    rows: list[dict[str, Any]] = []
    has_rows = False
    for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE_BYTES), b""), start=1):
        if len(line) == _MAX_LINE_BYTES:
            raise DataError(f"line {number} has {_MAX_LINE_BYTES:,} bytes or more; shorten its texts")
        if not line.strip():
            bad.leave_out("nothing on their line", number)
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # nested too deep
            row = None
        if b"\\ud" in line.lower() and not _is_encodable(row):
            bad.leave_out("half of a surrogate pair, which is no character", number)
        elif isinstance(row, dict):
            rows.append(row)
            has_rows = True
        else:
            bad.leave_out("no JSON object", number)
        if len(rows) == BATCH_ROWS:
            yield _table_of(rows)
            rows = []
    if rows:
        yield _table_of(rows)
    if not has_rows:
        raise DataError("the data is empty: no line of it is a JSON object")


def _is_encodable(row: Any) -> bool:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _table_of(rows: list[dict[str, Any]]) -> pa.Table:
    """Return JSON objects as a table, with every key of any of them."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})


class TableWriter(Protocol):
    """Writes tables of one schema."""

    def write(self, table: pa.Table) -> None:
        """Append rows."""

    def close(self) -> None:
        """Finish the file."""


class _ArrowWriter:
    """Writes CSV, TSV or Parquet; the schema is that of the first table."""

    def __init__(self, file: Any, format_name: str) -> None:
        self._file, self._format = file, format_name
        self._writer: Any = None
        self._schema = pa.schema([])

    def write(self, table: pa.Table) -> None:
        table = table if self._format == "parquet" else _flat(table)
        if self._writer is None:
            self._writer = self._open(table.schema)
            self._schema = table.schema
        self._writer.write_table(_in_schema(table, self._schema))

    def _open(self, schema: pa.Schema) -> Any:
        if self._format == "parquet":
            return pyarrow.parquet.ParquetWriter(self._file, schema, compression="zstd")
        if self._format == PLAIN_TSV:
            self._file.write(("\t".join(schema.names) + "\n").encode())
            options = pyarrow.csv.WriteOptions(delimiter="\t", quoting_style="none", include_header=False)
        else:
            options = pyarrow.csv.WriteOptions(delimiter=_DELIMITERS[self._format])
        return pyarrow.csv.CSVWriter(self._file, schema, write_options=options)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _in_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with the columns of the first batch; JSON lines may leave out keys."""
    columns = {
        column.name: table[column.name].cast(column.type)
        if column.name in table.column_names
        else pa.nulls(table.num_rows, column.type)
        for column in schema
    }
    return pa.table(columns, schema=schema)


def _flat(table: pa.Table) -> pa.Table:
    """Return a table with lists joined by "|", which CSV can hold."""
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
        columns[name] = pc.binary_join(column, "|") if is_list else column
    return pa.table(columns)


class _JsonWriter:
    """Writes JSON lines."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, table: pa.Table) -> None:
        lines = [json.dumps(row, ensure_ascii=False, default=str) for row in table.to_pylist()]
        self._file.write("".join(f"{line}\n" for line in lines).encode())

    def close(self) -> None:
        self._file.flush()


@contextmanager
def table_writer(name: str, format_name: str) -> Iterator[TableWriter]:
    """Write a file, or standard output ("-"), batch by batch. A file has its name only when it is whole.

    Raises StoreError, in one line, for a file that cannot be written; then nothing is left of it.
    """
    if name == STANDARD:
        with _closing(_writer(sys.stdout.buffer, format_name)) as writer:
            yield writer
        return
    path = Path(name)
    unfinished = path.with_name(f".unfinished-{os.getpid()}-{path.name}")
    try:
        with open(unfinished, "wb") as file, _closing(_writer(file, format_name)) as writer:
            yield writer
        os.replace(unfinished, path)
    except OSError as error:
        if isinstance(error, (DataError, StoreError)):
            raise
        reason = error.strerror or one_line(error)
        raise StoreError(f"{path} cannot be written: {reason}; nothing was kept of it") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _writer(file: IO[bytes], format_name: str) -> TableWriter:
    return _JsonWriter(file) if format_name == "jsonl" else _ArrowWriter(file, format_name)


@contextmanager
def _closing(writer: TableWriter) -> Iterator[TableWriter]:
    try:
        yield writer
    except BaseException:
        with suppress(Exception):  # the file is removed; pyarrow's writer would finish it later, when it is closed
            writer.close()
        raise
    writer.close()
