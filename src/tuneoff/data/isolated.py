"""Parse JSON and Parquet files in a process of its own, with limits of time and memory.

Both are parsed by large C++ libraries. A file that somebody wrote may crash them (a nesting of 50,000 brackets), or
hold a few kilobytes that unpack to terabytes. The child sends the table through a pipe, batch by batch; if it crashes
or goes beyond a limit, that is one line in this process. CSV needs none of that: it has neither nesting nor
compression.

Limits grow with the file, so that they stop what is out of proportion, and no file because it is large.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.json
import pyarrow.parquet

from tuneoff.errors import DataError, one_line
from tuneoff.formats import size

MAX_COLUMNS = 10_000
BATCH_ROWS = 2**16
_MAX_DEPTH = 100  # of nested lists and objects
# of memory: for the libraries, for the table, and for each byte of the file
_LIBRARY_BYTES, _TABLE_BYTES, _BYTES_PER_BYTE = 2**30, 2**29, 20
_BASE_SECONDS, _BYTES_PER_SECOND = 8, 10 * 2**20  # of the processor
_CHUNK = 2**22  # bytes of JSON that are scanned at a time
_REFUSED = 3  # exit code of the child for a file that it refuses


def read_whole(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield a JSON, JSONL or Parquet file in batches, to be kept. Raises DataError, also for too much for its size."""
    total, limit = 0, _table_limit(path)
    for batch in read_batches(path, BATCH_ROWS):
        total += batch.nbytes
        if total > limit:
            raise DataError(_too_large(path, limit))
        yield batch


def read_batches(path: Path, rows: int) -> Iterator[pa.RecordBatch]:
    """Yield a file in batches; an empty one is one batch without rows. Raises DataError, in one line.

    rows: of a batch of a Parquet file.
    """
    with _opened(path, rows) as reader:
        is_empty = True
        for batch in reader:
            is_empty = False
            yield batch
        if is_empty:
            yield pa.RecordBatch.from_pylist([], schema=reader.schema)


@contextlib.contextmanager
def _opened(path: Path, rows: int) -> Iterator[pa.RecordBatchReader]:
    """Start the child and yield what it reads. Raises DataError if it refuses the file, or ends by itself."""
    with tempfile.TemporaryFile() as errors:
        child = _start(path, rows, errors)
        assert child.stdout is not None
        output = child.stdout

        def failure(error: object = "") -> DataError:
            output.close()  # a child that is blocked on a full pipe would never end
            child.wait()
            errors.seek(0)
            return DataError(_reason(path, child.returncode, errors.read().decode(errors="replace"), error))

        try:
            yield pa.ipc.open_stream(output)
            # a stream that ends between two batches looks whole
            if child.wait() != 0:
                raise failure()
        except (pa.ArrowException, EOFError) as error:
            raise failure(error) from None
        finally:
            output.close()
            child.kill()  # if the caller has stopped reading
            child.wait()


def _start(path: Path, rows: int, errors: IO[bytes]) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tuneoff.data.isolated", str(path.resolve()), str(rows)]
    environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}  # the others reserve more than they use
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=environment)


def _reason(path: Path, code: int, errors: str, error: object) -> str:
    """Return the message for a child that sent no whole table."""
    last = (errors.strip().splitlines() or [""])[-1]
    if code == _REFUSED:
        return last
    if code == -getattr(signal, "SIGXCPU", 0):
        return (
            f"data file {path.name!r} takes more than {_seconds_limit(path)} s to parse, too long for its size; give "
            "it fewer columns, or as CSV"
        )
    if "MemoryError" in errors or "bad_alloc" in errors or "malloc" in errors or code == -getattr(signal, "SIGKILL", 0):
        return _too_large(path, _table_limit(path))
    if code < 0:
        return f"data file {path.name!r} cannot be parsed: it ends the parser by signal {-code}; give it as CSV"
    return f"data file {path.name!r} cannot be parsed: {one_line(last or error)}"


def _too_large(path: Path, limit: int) -> str:
    return (
        f"data file {path.name!r} has {size(path.stat().st_size)} and would unpack to more than {size(limit)}; give "
        "its rows as CSV if that is right"
    )


def _table_limit(path: Path) -> int:
    return _TABLE_BYTES + _BYTES_PER_BYTE * path.stat().st_size


def _seconds_limit(path: Path) -> int:
    return _BASE_SECONDS + path.stat().st_size // _BYTES_PER_SECOND


# ---- in the child


def main(file: str, rows: int) -> None:
    """Write a file to standard output as an Arrow stream; a file that is refused is a line and exit code 3."""
    path = Path(file)
    _limit_resources(path)
    try:
        parts = _parquet_parts(path, rows) if path.suffix.lower() == ".parquet" else _json_parts(path)
        with pa.ipc.new_stream(sys.stdout.buffer, next(parts)) as writer:
            for part in parts:
                writer.write(part)
        sys.stdout.buffer.flush()
    except DataError as error:
        print(f"\n{error}", file=sys.stderr)
        os._exit(_REFUSED)
    except BrokenPipeError:
        os._exit(0)
    except MemoryError as error:
        print(f"\nMemoryError {error}", file=sys.stderr)
        os._exit(1)
    except Exception as error:  # pyarrow and pandas raise many types
        print(f"\ndata file {path.name!r} cannot be parsed: {one_line(error)}", file=sys.stderr)
        os._exit(_REFUSED)
    os._exit(0)  # at once: nothing of the libraries has to be cleaned up


def _limit_resources(path: Path) -> None:
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    memory = _mapped_bytes() + _LIBRARY_BYTES + _table_limit(path) + path.stat().st_size  # the file is mapped
    for kind, limit in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CPU, _seconds_limit(path))):
        _, hard = resource.getrlimit(kind)
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (limit, hard))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _mapped_bytes() -> int:
    """Return the memory that this process has reserved so far, mostly code of libraries (Linux)."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _parquet_parts(path: Path, rows: int) -> Iterator[pa.Schema | pa.RecordBatch]:
    file = pyarrow.parquet.ParquetFile(path, memory_map=True)
    _check_columns(path, len(file.schema_arrow))
    schema = pa.schema([pa.field(field.name, _decoded_type(field.type)) for field in file.schema_arrow])
    yield schema
    for batch in file.iter_batches(rows, use_threads=False):
        # categories are decoded here, where memory is limited: one of them may be a megabyte
        columns = [
            column.dictionary_decode() if pa.types.is_dictionary(column.type) else column for column in batch.columns
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _decoded_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _json_parts(path: Path) -> Iterator[pa.Schema | pa.Table]:
    is_array = _check_json(path)
    if is_array:
        import pandas as pd  # slow to import, and used only for arrays

        frame = pd.read_json(path)
        if not isinstance(frame.columns, pd.Index) or not all(isinstance(name, str) for name in frame.columns):
            raise DataError(f"data file {path.name!r} holds an array of other things than objects; give one of objects")
        table = pa.Table.from_pandas(frame, preserve_index=False)
    else:
        # a single block, because types are inferred from the first block
        options = pyarrow.json.ReadOptions(block_size=max(1, min(path.stat().st_size, 2**31 - 1)), use_threads=False)
        table = pyarrow.json.read_json(path, read_options=options)
    _check_columns(path, table.num_columns)
    yield table.schema
    yield from table.to_batches(BATCH_ROWS)


def _check_columns(path: Path, count: int) -> None:
    if count > MAX_COLUMNS:
        raise DataError(
            f"data file {path.name!r} has {count:,} columns, and at most {MAX_COLUMNS:,} are read; keep those of the "
            "texts and labels"
        )


def _check_json(path: Path) -> bool:
    """Check the nesting of a file, and that it holds objects, or one array. Returns True for an array.

    pyarrow crashes where it does not.
    """
    depth, is_in_string, is_escaped, first = 0, False, False, b""
    with open(path, "rb") as file:
        if file.read(3) != b"\xef\xbb\xbf":
            file.seek(0)
        line = 1
        while chunk := file.read(_CHUNK):
            scan = _scan(np.frombuffer(chunk, np.uint8), depth, is_in_string, is_escaped)
            first = first or scan.first
            if scan.outside is not None:
                number = line + chunk[: scan.outside].count(b"\n")
                raise DataError(
                    f"data file {path.name!r}: line {number} holds no JSON object; give one per line, or an array"
                )
            if scan.largest_depth > _MAX_DEPTH:
                raise DataError(
                    f"data file {path.name!r} nests lists or objects more than {_MAX_DEPTH} deep; flatten them"
                )
            depth, is_in_string, is_escaped = scan.depth, scan.is_in_string, scan.is_escaped
            line += chunk.count(b"\n")
    if not first:
        raise DataError(f"data file {path.name!r} is empty")
    return first == b"["


@dataclass(frozen=True)
class _Scan:
    """Brackets of a piece of JSON outside strings."""

    depth: int  # at its end
    largest_depth: int
    is_in_string: bool  # at its end
    is_escaped: bool  # the byte that follows is escaped
    first: bytes  # byte that is no white space
    outside: int | None  # position of the first token where no bracket is open: null, a number, a closing bracket


def _scan(content: np.ndarray, depth: int, is_in_string: bool, is_escaped: bool) -> _Scan:
    """Scan a piece of JSON. depth, is_in_string, is_escaped: at the end of the piece before."""
    is_backslash = content == ord("\\")
    escapes = _escaped(is_backslash, is_escaped) if is_escaped or is_backslash.any() else None
    is_quote = content == ord('"')
    if escapes is not None:
        is_quote &= ~escapes[:-1]
    is_inside = (np.cumsum(is_quote) + is_in_string) % 2 == 1  # an opening quote is inside, a closing one is not
    depths = depth + np.cumsum(np.where(is_inside, 0, _STEP[content]), dtype=np.int64)
    is_token = ~_IS_SPACE[content]
    is_outside = is_token & ((depths < 0) | ((depths == 0) & (_STEP[content] == 0)))
    positions = np.flatnonzero(is_outside)
    return _Scan(
        depth=int(depths[-1]),
        largest_depth=int(depths.max()),
        is_in_string=bool(is_inside[-1]),
        is_escaped=bool(escapes is not None and escapes[-1]),
        first=content[is_token][:1].tobytes(),
        outside=int(positions[0]) if len(positions) else None,
    )


_STEP = np.zeros(256, np.int8)
_STEP[[ord("{"), ord("[")]], _STEP[[ord("}"), ord("]")]] = 1, -1
_IS_SPACE = np.zeros(256, bool)
_IS_SPACE[[ord(" "), ord("\t"), ord("\r"), ord("\n")]] = True


def _escaped(is_backslash: np.ndarray, is_escaped: bool) -> np.ndarray:
    """Mask of the bytes after an odd number of backslashes, and of the byte after the last one. (N,) -> (N + 1,)."""
    positions = np.arange(len(is_backslash))
    last_other = np.maximum.accumulate(np.where(is_backslash, -1, positions))
    run = positions - last_other  # length of the run of backslashes that ends at each byte; 0 at others
    run[last_other < 0] += is_escaped  # a run that has begun in the piece before
    return np.concatenate([[is_escaped], run % 2 == 1])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
