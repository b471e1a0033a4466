"""Cache of results that many runs share: folders named by a fingerprint of everything that determines them.

Each holds checksums of its files, which are compared at the first use in a study.
"""

import contextlib
import hashlib
import json
import os
import secrets
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

from tuneoff.checksums import MANIFEST, manifest_problems, write_manifest
from tuneoff.errors import StoreError
from tuneoff.files import naming_full_disk
from tuneoff.machine import busy_seconds
from tuneoff.notices import notice

CACHE_BYTES = 20 * 2**30  # above this size, the least recently used folders are removed
_IN_USE_SECONDS = 24 * 3600  # a folder used more recently may belong to a study that is running

_MARKER, _UNFINISHED = ".in-use-", ".unfinished-"


def cache_folder() -> Path:
    """Return the root of the cache: $TUNEOFF_CACHE, or the user's cache folder."""
    return Path(os.environ.get("TUNEOFF_CACHE") or platformdirs.user_cache_dir("tuneoff"))


def cached_folder(name: str, build: Callable[[Path], Any]) -> Path:
    """Return the folder `name` of the cache; `build` writes its files if the folder does not exist or is damaged.

    Safe across processes. `build` gets a temporary folder, which is renamed when it is complete, so that a folder
    with its final name is never half-written, even after a crash. The temporary folder is in the cache itself,
    because a rename is atomic only within one file system. A lock per name lets one process build while the others
    wait: computing the same result in each of them would take as long and use the cores of other runs. The folder
    may appear while a process waits for the lock, hence the second check. Its modification time is the time of its
    last use, which `prune` reads.

    The files are compared with their checksums at the first use in a study (`in_use`). A folder of an earlier version
    has none and is built again: checksums of what may be damaged would certify the damage.
    """
    target = cache_folder() / name
    problem = _problem(target) if target.exists() else None
    if problem != "":
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{target}.lock"):
            problem = _problem(target) if target.exists() else None
            if problem:
                if problem != _NO_CHECKSUMS:
                    notice(f"{target} is damaged ({problem}); it is built again")
                _remove(target)
            if problem != "":
                _build(target, build)
    with contextlib.suppress(OSError):  # a cache of another user, or one that cannot be written
        os.utime(target)
    return target


def _build(target: Path, build: Callable[[Path], Any]) -> None:
    unfinished = _unfinished(target)
    try:
        with naming_full_disk(target.parent):
            started = busy_seconds()
            build(unfinished)
            if not (unfinished / "seconds").exists():  # an entry of another machine brings its own
                (unfinished / "seconds").write_text(str(busy_seconds() - started), encoding="utf-8")
            write_manifest(unfinished)
            unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    _checks.add(target)


def stored_folder(name: str, needs_checksums: bool = True) -> Path:
    """Return a folder of the cache that is there already. Raises StoreError if it is missing or damaged.

    needs_checksums: False for what cannot be built again, and may be of an earlier version.
    """
    target = cache_folder() / name
    problem = _problem(target) if target.exists() else "it is missing"
    if problem and (needs_checksums or problem != _NO_CHECKSUMS):
        raise StoreError(f"{target} cannot be used ({problem}); run the study again, or pass the data again")
    return target


class _Checks:
    """Folders whose checksums were compared: by this process, or by another one of its study."""

    def __init__(self) -> None:
        self._own: set[Path] = set()
        self.shared: Path | None = None  # a folder with an empty file for each, by its name

    def __contains__(self, folder: Path) -> bool:
        return folder in self._own or (self.shared is not None and (self.shared / folder.name).exists())

    def add(self, folder: Path) -> None:
        self._own.add(folder)
        if self.shared is not None:
            with contextlib.suppress(OSError):  # then another process compares them again
                (self.shared / folder.name).touch()

    def share(self, shared: Path) -> None:
        self.shared = shared
        for folder in self._own:
            self.add(folder)

    def clear(self) -> None:
        self._own.clear()
        self.shared = None


_checks = _Checks()
_NO_CHECKSUMS = "it has no checksums"


def _problem(folder: Path) -> str:
    """Return the first thing that is wrong with a folder; empty if nothing is, or if that was found in this study."""
    if folder in _checks:
        return ""
    if not (folder / MANIFEST).is_file():
        return _NO_CHECKSUMS
    for name, problem in manifest_problems(folder).items():
        return f"{name} {problem}"
    _checks.add(folder)
    return ""


def checks_folder() -> str | None:
    """Return the folder by which the processes of a study share what they have checked; None outside a study."""
    return str(_checks.shared) if _checks.shared else None


def share_checks(folder: str | None) -> None:
    """Use the folder of a study for what this process checks. folder: of checks_folder, in the study's process."""
    if folder is not None:
        _checks.share(Path(folder))


def is_checked(mark: str) -> bool:
    """Return True if a process of this study has checked something else that it marked so."""
    return cache_folder() / mark in _checks


def add_check(mark: str) -> None:
    """Mark something as checked, for the processes of this study."""
    _checks.add(cache_folder() / mark)


def build_seconds(folder: Path) -> float:
    """Return the seconds that it took to build a cached folder, in this study or an earlier one."""
    return float((folder / "seconds").read_text(encoding="utf-8"))


def prune(limit: int = CACHE_BYTES) -> None:
    """Remove the least recently used folders until the cache has at most `limit` bytes; and what ended processes left.

    Nothing is done in a cache that cannot be written.
    """
    root = cache_folder()
    if not root.exists():
        return
    with contextlib.suppress(OSError):  # another process may remove or rename folders at the same time
        for path in leftovers():
            shutil.rmtree(path, ignore_errors=True)
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
    doomed = _unfinished(folder)
    with contextlib.suppress(PermissionError):
        folder.rename(doomed / folder.name)
    shutil.rmtree(doomed, ignore_errors=True)


def _unfinished(target: Path) -> Path:
    """Make a temporary folder for a folder of the cache, with the permissions that the umask gives."""
    unfinished = target.with_name(f"{_UNFINISHED}{target.name}~{os.getpid()}-{secrets.token_hex(4)}")
    unfinished.mkdir()
    return unfinished


def leftovers() -> list[Path]:
    """List the temporary folders that ended processes left: no one holds the lock of what they were building."""
    return [path for path in sorted(cache_folder().glob(f"{_UNFINISHED}*")) if _is_left(path)]


def _is_left(path: Path) -> bool:
    name, is_named, _ = path.name.removeprefix(_UNFINISHED).rpartition("~")
    try:
        if not is_named:  # of an earlier version
            return time.time() - path.stat().st_mtime > _IN_USE_SECONDS
        with filelock.FileLock(path.with_name(f"{name}.lock"), timeout=0):
            return path.exists()
    except (OSError, filelock.Timeout):
        return False


@contextlib.contextmanager
def in_use() -> Iterator[None]:
    """A context of one study, in which `clear` of another process removes nothing and each folder is checked once.

    Marked by a folder with the number of a process; in a cache that cannot be written there is no mark.
    """
    name = f"{_MARKER}{os.getpid()}-{time.monotonic_ns()}"
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        marker = cache_folder() / name
        marker.mkdir()
    except OSError:
        marker = Path(tempfile.mkdtemp(prefix="tuneoff-"))
    _checks.share(marker)
    try:
        yield
    finally:
        _checks.clear()
        shutil.rmtree(marker, ignore_errors=True)


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
    for path in leftovers():
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
