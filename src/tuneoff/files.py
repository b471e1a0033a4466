"""Read and write files. Writes are atomic: to a temporary name, then renamed. A full disk is named."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet

from tuneoff.errors import StoreError

if TYPE_CHECKING:
    import pandas as pd  # slow to import: the command line reads no table

# devices, with any suffix, and names that end in a dot or space
_REFUSED_BY_WINDOWS = re.compile(r"((con|prn|aux|nul|com\d|lpt\d)(\..*)?|.*[. ])", re.IGNORECASE)
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
# of libraries that raise errors of their own, as safetensors and numpy do
_FULL_TEXT = re.compile(
    r"No space left on device|Disk quota exceeded|os error (28|122)\b|\d+ requested and \d+ written"
)


def check_new_name(name: str) -> None:
    """Raise StoreError for the name of a new file or folder that Windows refuses, so that results can be moved there.

    Other characters are refused by the patterns of names.
    """
    if _REFUSED_BY_WINDOWS.fullmatch(name):
        raise StoreError(f"{name!r} cannot be the name of a file on Windows; choose another name")


def write_json(path: Path, data: Any, is_synced: bool = True) -> None:
    """Write a JSON file. is_synced: as in write_text."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False), is_synced)


def write_text(path: Path, text: str, is_synced: bool = True) -> None:
    """Write a text file. is_synced: False for a file that is made from others and need not survive a power failure."""
    content = text.encode("utf-8")
    _write_atomically(path, lambda unfinished: unfinished.write_bytes(content), is_synced)


def write_bytes(path: Path, content: bytes, is_synced: bool = True) -> None:
    """Write a file. is_synced: as in write_text."""
    _write_atomically(path, lambda unfinished: unfinished.write_bytes(content), is_synced)


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


def _write_atomically(path: Path, write: Callable[[Path], Any], is_synced: bool = True) -> None:
    unfinished = path.with_name(f".unfinished-{os.getpid()}-{path.name}")
    try:
        with naming_full_disk(path.parent):
            write(unfinished)
            if is_synced:
                sync(unfinished)
            unfinished.replace(path)  # Windows renames over no file
            if is_synced:
                sync_folder(path.parent)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Wait until a file is on disk: a rename may otherwise get there before the content does."""
    with open(path, "rb+") as file:  # Windows syncs no file that is open for reading
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk, where folders can be opened."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    with suppress(OSError):  # some network file systems sync no folders
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def preallocate(path: Path, num_bytes: int) -> None:
    """Reserve the disk space of a file that will be written through a memory map.

    On a full disk a write through a memory map kills the process (SIGBUS); this raises an OSError before.
    """
    with open(path, "rb+") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, num_bytes)
            return
        file.seek(0, os.SEEK_END)
        block = bytes(2**20)
        while (missing := num_bytes - file.tell()) > 0:
            file.write(block[:missing])


def is_full_disk(error: BaseException) -> bool:
    """Return True for an error that says that there is no space left on a disk, or in a quota."""
    return (isinstance(error, OSError) and error.errno in _FULL) or bool(_FULL_TEXT.search(str(error)))


def full_disk_text(place: Path) -> str:
    """Write the message for a full disk that holds a file or folder, which need not exist."""
    folder = next((path for path in (place, *place.absolute().parents) if path.is_dir()), Path("/"))
    free = shutil.disk_usage(folder).free / 1e6
    return f"the disk is full ({place}, {free:.1f} MB free); free some space and run again: what is stored is kept"


@contextmanager
def naming_full_disk(place: Path) -> Iterator[None]:
    """A context in which an error of a full disk becomes a StoreError with the place and the space that is left."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        if not is_full_disk(error):
            raise
        raise StoreError(full_disk_text(place)) from error
