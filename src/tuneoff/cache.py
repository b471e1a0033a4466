"""Cache of results that many runs share: folders named by a fingerprint of everything that determines them."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import platformdirs
import psutil
import pyarrow as pa
from pydantic import BaseModel

CACHE_BYTES = 20 * 2**30  # above this size, the least recently used folders are removed
_IN_USE_SECONDS = 24 * 3600  # a folder used more recently may belong to a study that is running

_MARKER = ".in-use-"


def cache_folder() -> Path:
    """Return the root of the cache: $TUNEOFF_CACHE, or the user's cache folder."""
    return Path(os.environ.get("TUNEOFF_CACHE") or platformdirs.user_cache_dir("tuneoff"))


def cached_folder(name: str, build: Callable[[Path], Any]) -> Path:
    """Return the folder `name` of the cache; `build` writes its files if the folder does not exist.

    Safe across processes. `build` gets a temporary folder, which is renamed when it is complete, so that a folder
    with its final name is never half-written, even after a crash. The temporary folder is in the cache itself,
    because a rename is atomic only within one file system. A lock per name lets one process build while the others
    wait: computing the same result in each of them would take as long and use the cores of other runs. The folder
    may appear while a process waits for the lock, hence the second check. Its modification time is the time of its
    last use, which `prune` reads.
    """
    target = cache_folder() / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{target}.lock"):
            if not target.exists():
                unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=target.parent))
                try:
                    started = time.perf_counter()
                    build(unfinished)
                    if not (unfinished / "seconds").exists():  # an entry of another machine brings its own
                        seconds = str(time.perf_counter() - started)
                        (unfinished / "seconds").write_text(seconds, encoding="utf-8")
                    unfinished.rename(target)
                finally:
                    shutil.rmtree(unfinished, ignore_errors=True)
    os.utime(target)
    return target


def build_seconds(folder: Path) -> float:
    """Return the seconds that it took to build a cached folder, in this study or an earlier one."""
    return float((folder / "seconds").read_text(encoding="utf-8"))


def prune(limit: int = CACHE_BYTES) -> None:
    """Remove the least recently used folders until the cache has at most `limit` bytes."""
    root = cache_folder()
    if not root.exists():
        return
    with contextlib.suppress(FileNotFoundError):  # another process may remove or rename folders at the same time
        folders = [folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
        folders.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
        total_bytes = 0
        for folder in folders:
            total_bytes += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            is_in_use = time.time() - folder.stat().st_mtime < _IN_USE_SECONDS
            if total_bytes > limit and not is_in_use:
                _remove(folder)


def _remove(folder: Path) -> None:
    """Remove a folder, or on Windows, where a mapped file cannot be removed, leave it whole if it is in use.

    Renamed first, so that no folder with its final name lacks files.
    """
    doomed = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder.parent))
    with contextlib.suppress(PermissionError):
        folder.rename(doomed / folder.name)
    shutil.rmtree(doomed, ignore_errors=True)


@contextlib.contextmanager
def in_use() -> Iterator[None]:
    """A context in which `clear` of another process removes nothing, marked by a file with the number of a process."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    marker = cache_folder() / f"{_MARKER}{os.getpid()}-{time.monotonic_ns()}"
    marker.touch()
    try:
        yield
    finally:
        marker.unlink(missing_ok=True)


def is_in_use() -> bool:
    """Return True if a study of a process that is alive uses the cache."""
    numbers = [path.name.removeprefix(_MARKER).partition("-")[0] for path in cache_folder().glob(f"{_MARKER}*")]
    return any(number.isdigit() and psutil.pid_exists(int(number)) for number in numbers)


def sizes_by_kind() -> dict[str, tuple[int, int]]:
    """Return the number of entries and the bytes of each kind that can be built again."""
    sizes: dict[str, tuple[int, int]] = {}
    for folder in _clearable():
        kind = folder.name.partition("-")[0]
        count, total = sizes.get(kind, (0, 0))
        sizes[kind] = (count + 1, total + sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()))
    return sizes


def clear() -> None:
    """Remove every entry that can be built again, with its lock file; what is left of ended processes too."""
    for folder in _clearable():
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_name(f"{folder.name}.lock").unlink(missing_ok=True)
    for path in cache_folder().glob(".unfinished-*"):
        if time.time() - path.stat().st_mtime > _IN_USE_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def _clearable() -> list[Path]:
    """List the entries but those of data that were passed in memory, which a stored study may read again."""
    folders = [path for path in cache_folder().glob("*-*") if path.is_dir() and not path.is_symlink()]
    return sorted(path for path in folders if not path.name.startswith((".", "memory-")))


def fingerprint(*parts: Any) -> str:
    """Return 16 hex digits of the SHA-256 of some parts, each followed by a zero byte.

    parts: strings, numbers, JSON data, pydantic models, Arrow tables, or files (Path, hashed by content).
    """
    digest = hashlib.sha256()
    for part in parts:
        _update(digest, part)
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def _update(digest: Any, part: Any) -> None:
    if isinstance(part, pa.Table):
        for name in part.column_names:
            digest.update(name.encode())
            _update_column(digest, part[name])
    elif isinstance(part, Path):
        with open(part, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    elif isinstance(part, BaseModel):
        digest.update(part.model_dump_json().encode())
    else:
        digest.update(json.dumps(part, sort_keys=True).encode())


def _update_column(digest: Any, column: pa.ChunkedArray) -> None:
    """Hash only the content, independent of slicing and chunks: lengths and bytes of strings, values of numbers.

    Chunk after chunk, because one array of all of them would be a copy.
    """
    chunks = [chunk for chunk in column.chunks if len(chunk)]
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        strings = [_string_parts(chunk) for chunk in chunks]
        for lengths, _ in strings:
            digest.update(lengths.tobytes())
        for _, content in strings:
            digest.update(content)
    elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        digest.update(json.dumps(column.is_null().to_pylist() if column.null_count else []).encode())
        for chunk in chunks:
            digest.update(chunk.fill_null(0).to_numpy(zero_copy_only=False).tobytes())
    else:
        digest.update(json.dumps(column.to_pylist(), default=str).encode())


def _string_parts(array: pa.Array) -> tuple[np.ndarray, memoryview]:
    """Return the lengths of strings, and their bytes end to end."""
    array = array.cast(pa.large_string())
    offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
    content = memoryview(array.buffers()[2] or b"")
    return np.diff(offsets), content[offsets[0] : offsets[-1]]
