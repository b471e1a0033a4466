"""Tables and arrays that are too large for memory: written to a file of the cache without a name, and mapped.

The system drops pages of a mapped file whenever it needs memory, and reads them again; so a process may hold more than
the machine has. What is smaller than LARGE_BYTES stays in memory, because a file would only take time.
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from tuneoff.cache import cache_folder
from tuneoff.files import naming_full_disk

LARGE_BYTES = 2**28


def table_of(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """Return batches as a table, in memory or mapped. Raises StoreError on a full disk."""
    held, size, rest = [], 0, iter(batches)
    for batch in rest:
        held.append(batch)
        size += batch.nbytes
        if size > LARGE_BYTES:
            mapped = _written(lambda file: _write_batches(file, chain(held, rest), schema))
            return pa.ipc.open_file(pa.py_buffer(mapped)).read_all()
    return pa.Table.from_batches(held, schema)


def array_of(blocks: Iterable[np.ndarray], dtype: Any) -> np.ndarray:
    """Return blocks end to end, in memory or mapped. blocks: of one dimension. Raises StoreError on a full disk."""
    held, size, rest = [np.empty(0, dtype)], 0, iter(blocks)
    for block in rest:
        held.append(block.astype(dtype, copy=False))
        size += held[-1].nbytes
        if size > LARGE_BYTES:
            return _written(lambda file: _write_blocks(file, chain(held, rest), dtype)).view(dtype)
    return np.concatenate(held)


def taken(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """Return some rows of a table, in memory or mapped. rows: ascending."""
    assert (np.diff(rows) > 0).all()
    if table.nbytes <= LARGE_BYTES:
        return table.take(pa.array(rows))

    def parts() -> Iterator[pa.RecordBatch]:
        end = 0
        for batch in table.to_batches():
            start, end = end, end + batch.num_rows
            first, last = np.searchsorted(rows, [start, end])
            yield batch.take(pa.array(rows[first:last] - start))

    return table_of(parts(), table.schema)


def kept(table: pa.Table, is_kept: np.ndarray) -> pa.Table:
    """Return the rows of a table for which a mask is true, in memory or mapped. is_kept: (N,) bool."""
    return table if is_kept.all() else taken(table, np.flatnonzero(is_kept))


def _written(write: Callable[[IO[bytes]], None]) -> np.ndarray:
    """Return what is written to a file as bytes, mapped. The file has no name, and ends with the last use of them.

    It is in the cache, or in the folder of temporary files where the cache cannot be written.
    """
    folder = cache_folder()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        folder = Path(tempfile.gettempdir())
    with naming_full_disk(folder), tempfile.TemporaryFile(dir=folder) as file:
        write(file)
        file.flush()
        return np.memmap(file, np.uint8, "r")


def _write_batches(file: IO[bytes], batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
    with pa.ipc.new_file(file, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _write_blocks(file: IO[bytes], blocks: Iterable[np.ndarray], dtype: Any) -> None:
    for block in blocks:
        file.write(block.astype(dtype, copy=False).tobytes())
