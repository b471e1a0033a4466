"""Checksums of stored files: a manifest of a folder that is written once, and seals of files that are rewritten.

The hash is xxh3_128, which is not cryptographic: it finds damage, and stops no one who alters files and checksums.
A missing checksum is no damage: a study of an earlier version has none, and a file whose writing was interrupted is
without one for a moment, so that no file ever has a wrong one.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash

from tuneoff.errors import StoreError
from tuneoff.files import write_json, write_text

MANIFEST = "checksums.json"  # in a run's folder, and in an entry of the cache
SEALS = ".checksums"  # folder next to rewritten files: for each a file NAME.sum with its size and checksum

_SUM, _COPY = ".sum", ".copy"

Checksum = tuple[int, str]  # bytes, hex digits


def checksum(path: Path) -> Checksum:
    """Return size and checksum of a file, read in blocks."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, xxhash.xxh3_128)
        return file.tell(), digest.hexdigest()


def write_manifest(folder: Path) -> None:
    """Store the checksum of every file of a folder in it, before the folder gets its final name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    _store(folder, {path.relative_to(folder).as_posix(): checksum(path) for path in files}, is_synced=False)


def read_manifest(folder: Path) -> dict[str, Checksum] | None:
    """Return the checksums of a folder's files; None for one without. Raises StoreError for a damaged manifest."""
    path = folder / MANIFEST
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): (int(size), str(digest)) for name, (size, digest) in stored["files"].items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(f"{path} cannot be read ({type(error).__name__}: {error})") from error


def manifest_problems(folder: Path, only_sizes_of: str | None = None) -> dict[str, str]:
    """Return what is wrong with the files that a folder's manifest lists, by name; nothing for one without a manifest.

    only_sizes_of: start of the names of large files whose content is not read.
    """
    try:
        listed = read_manifest(folder)
    except StoreError as error:
        return {MANIFEST: str(error)}
    problems = {}
    for name, stored in (listed or {}).items():
        is_large = only_sizes_of is not None and name.startswith(only_sizes_of)
        problems[name] = _problem(folder / name, stored, reads_content=not is_large)
    return {name: problem for name, problem in problems.items() if problem}


def update_manifest(folder: Path, removed: Iterable[str] = (), added: Iterable[str] = ()) -> None:
    """Remove names from a folder's manifest, then add files. removed: names, or with a / at the end of folders.

    Nothing is done for a folder without a manifest.
    """
    listed = read_manifest(folder)
    if listed is None:
        return
    gone = tuple(removed)
    kept = {n: c for n, c in listed.items() if not any(n == g or (g.endswith("/") and n.startswith(g)) for g in gone)}
    _store(folder, {**kept, **{name: checksum(folder / name) for name in added}}, is_synced=True)


def _store(folder: Path, files: dict[str, Checksum], is_synced: bool) -> None:
    write_json(folder / MANIFEST, {"algorithm": "xxh3_128", "files": files}, is_synced)


@contextmanager
def resealing(path: Path) -> Iterator[None]:
    """A context in which a file is written again: its checksum is removed before, and stored after."""
    seal = _seal(path)
    seal.unlink(missing_ok=True)
    yield
    seal.parent.mkdir(exist_ok=True)
    size, digest = checksum(path)
    write_text(seal, f"{size} {digest}\n")


def seal_problem(path: Path, of_copy: bool = False) -> str:
    """Return what is wrong with a file by its seal; empty for a file that is as it was written, or without a seal.

    of_copy: of its second copy instead.
    """
    seal = _seal(path)
    try:
        size, digest = seal.read_text(encoding="utf-8").split()
        return _problem(copy_of(path) if of_copy else path, (int(size), digest))
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        return f"its checksum {seal} cannot be read ({error})"


def copy_of(path: Path) -> Path:
    """Return the place of the second copy of a file that nothing else can restore, which need not exist."""
    return path.parent / SEALS / f"{path.name}{_COPY}"


def sealed_names(folder: Path) -> list[str]:
    """Return the names of the files of a folder that have seals, whether they exist or not."""
    return sorted(path.name.removesuffix(_SUM) for path in (folder / SEALS).glob(f"[!.]*{_SUM}"))


def remove_seal(path: Path) -> None:
    """Remove the checksum of a file that is about to be removed."""
    _seal(path).unlink(missing_ok=True)


def _seal(path: Path) -> Path:
    return path.parent / SEALS / f"{path.name}{_SUM}"


def _problem(path: Path, stored: Checksum, reads_content: bool = True) -> str:
    try:
        size = path.stat().st_size
        if size != stored[0]:
            return f"has {size:,} bytes instead of {stored[0]:,}"
        if reads_content and checksum(path) != stored:
            return "has changed since it was written"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return ""
