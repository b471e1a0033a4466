"""What is computed once and used by many runs: folders named by a fingerprint of all that made them."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import platformdirs
import pyarrow as pa
from pydantic import BaseModel

CACHE_BYTES = 20 * 2**30  # beyond this the folders unused for longest go
_IN_USE_SECONDS = 24 * 3600  # a folder used more recently may belong to a study that is running


def cache_folder() -> Path:
    """Where the cache is: $TUNEOFF_CACHE, or the user's cache folder."""
    return Path(os.environ.get("TUNEOFF_CACHE") or platformdirs.user_cache_dir("tuneoff"))


def cached(name: str, build: Callable[[Path], None]) -> Path:
    """The cache's folder `name`; `build` fills it if it is missing. Safe among processes: one builds, others wait."""
    target = cache_folder() / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{target}.lock"):
            if not target.exists():
                unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=target.parent))
                try:
                    started = time.perf_counter()
                    build(unfinished)
                    (unfinished / "seconds").write_text(str(time.perf_counter() - started))
                    unfinished.rename(target)
                finally:
                    shutil.rmtree(unfinished, ignore_errors=True)
    os.utime(target)
    return target


def build_seconds(folder: Path) -> float:
    """How long it took to build a cached folder, whenever that was: what its first user paid, and every user saves."""
    return float((folder / "seconds").read_text())


def prune(limit: int = CACHE_BYTES) -> None:
    """Remove the folders that were unused for longest until the cache is within its limit."""
    root = cache_folder()
    if not root.exists():
        return
    with contextlib.suppress(FileNotFoundError):  # another process is at work in the cache
        folders = [folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
        folders.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
        total = 0
        for folder in folders:
            total += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            is_in_use = time.time() - folder.stat().st_mtime < _IN_USE_SECONDS
            if total > limit and not is_in_use:
                shutil.rmtree(folder, ignore_errors=True)


def fingerprint(*parts: Any) -> str:
    """16 hex digits of a sha256 over strings, numbers, JSON data, pydantic models, Arrow tables and files (Path)."""
    digest = hashlib.sha256()
    for part in parts:
        _update(digest, part)
        digest.update(b"\0")
    return digest.hexdigest()[:16]


def _update(digest: Any, part: Any) -> None:
    if isinstance(part, pa.Table):
        for name in part.column_names:
            digest.update(name.encode())
            for chunk in part[name].chunks:
                _update_array(digest, chunk)
    elif isinstance(part, Path):
        with open(part, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    elif isinstance(part, BaseModel):
        digest.update(part.model_dump_json().encode())
    else:
        digest.update(json.dumps(part, sort_keys=True).encode())


def _update_array(digest: Any, array: pa.Array) -> None:
    """Content alone, however the array was sliced: lengths and bytes of strings, values of numbers."""
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        array = array.cast(pa.large_string())
        offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
        digest.update(np.diff(offsets).tobytes())
        if len(offsets) and offsets[-1] > offsets[0]:
            digest.update(memoryview(array.buffers()[2])[offsets[0] : offsets[-1]])
    elif pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        digest.update(json.dumps(array.is_null().to_pylist() if array.null_count else []).encode())
        digest.update(array.fill_null(0).to_numpy(zero_copy_only=False).tobytes())
    else:
        digest.update(json.dumps(array.to_pylist(), default=str).encode())
