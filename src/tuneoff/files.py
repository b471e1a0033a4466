"""Read and write JSON and Parquet. Writes are atomic: to a temporary name, then renamed."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet

from tuneoff.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd  # slow to import: the command line reads no table

# devices, with any suffix, and names that end in a dot or space
_REFUSED_BY_WINDOWS = re.compile(r"((con|prn|aux|nul|com\d|lpt\d)(\..*)?|.*[. ])", re.IGNORECASE)


def check_new_name(name: str) -> None:
    """Raise StoreError for the name of a new file or folder that Windows refuses, so that results can be moved there.

    Other characters are refused by the patterns of names.
    """
    if _REFUSED_BY_WINDOWS.fullmatch(name):
        raise StoreError(f"{name!r} cannot be the name of a file on Windows; choose another name")


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file."""
    text = json.dumps(data, indent=1, ensure_ascii=False)
    _write_atomically(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises StoreError if it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path} cannot be read ({error}); run the study again") from error


def write_table(table: pa.Table, path: Path) -> None:
    """Write a Parquet file."""
    _write_atomically(path, lambda unfinished: pyarrow.parquet.write_table(table, unfinished, compression="zstd"))


def read_table(path: Path) -> "pd.DataFrame":
    """Read a Parquet file. Raises StoreError if it is missing or broken."""
    return read_arrow(path).to_pandas()


def read_arrow(path: Path) -> pa.Table:
    """Read a Parquet file as an Arrow table. Raises StoreError if it is missing or broken."""
    try:
        return pyarrow.parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path} cannot be read ({error}); run the study again") from error


def _write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    unfinished = path.with_name(f".unfinished-{os.getpid()}-{path.name}")
    write(unfinished)
    unfinished.replace(path)  # Windows renames over no file
