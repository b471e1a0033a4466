"""Orphans of stored studies: runs and searches that their study no longer lists, and what stopped processes left.

Read without pyarrow, so that the command line can list studies at once.
"""

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock
import psutil

_UNFINISHED = re.compile(r"\.unfinished-(?:(\d+)-.*|.*-(\d+))")  # of a file, of a run; the number is of the process


@dataclass(frozen=True)
class Orphan:
    """A file or folder in a study's folder that no report reads."""

    kind: str  # run | search | unfinished
    path: Path

    @property
    def size_bytes(self) -> int:
        """Size on disk."""
        files = self.path.rglob("*") if self.path.is_dir() else [self.path]
        return sum(file.stat().st_size for file in files if file.is_file())


@dataclass(frozen=True)
class StoredStudy:
    """A study's folder: its listed runs that are stored, and its orphans."""

    folder: Path
    num_runs: int
    orphans: tuple[Orphan, ...]


def stored_studies(root: Path) -> list[StoredStudy]:
    """Return the studies in the folders of a results folder; those over several datasets have a folder for each."""
    files = [*root.glob("*/study.yaml"), *root.glob("*/*/study.yaml")]
    return [stored_study(path.parent) for path in sorted(files)]


def stored_study(folder: Path) -> StoredStudy:
    """Count the runs of a study and find its orphans."""
    listed = _listed(folder)
    runs = [path for path in sorted((folder / "runs").glob("*")) if path.is_dir() and not path.name.startswith(".")]
    searches = sorted((folder / "searches").glob("search-*.json"))
    orphans = [Orphan("unfinished", path) for path in _unfinished(folder)]
    if listed is not None:
        described = (folder / "data.json").stat().st_mtime
        # a search that is newer than the list belongs to a study that was stopped before its runs
        old = [path for path in searches if path.stat().st_mtime < described]
        orphans += [Orphan("run", path) for path in runs if path.name not in listed]
        orphans += [Orphan("search", path) for path in old if path.stem not in listed]
    num_runs = len(runs) if listed is None else sum(path.name in listed for path in runs)
    return StoredStudy(folder, num_runs, tuple(orphans))


def remove_orphans(study: StoredStudy) -> bool:
    """Remove the orphans of a study that still are orphans, and its lock file. False if another process runs it."""
    from tuneoff.checksums import remove_seal

    try:
        with filelock.FileLock(study.folder / ".lock", timeout=0):
            for orphan in set(study.orphans) & set(stored_study(study.folder).orphans):
                if orphan.path.is_dir():
                    shutil.rmtree(orphan.path)
                else:
                    remove_seal(orphan.path)  # first: a checksum without its file is damage
                    orphan.path.unlink(missing_ok=True)
            with contextlib.suppress(PermissionError):  # Windows removes no open file
                (study.folder / ".lock").unlink(missing_ok=True)
            return True
    except filelock.Timeout:
        return False


def _listed(folder: Path) -> set[str] | None:
    """Return the ids of the runs and searches that data.json lists; None if it is missing or damaged."""
    try:
        stored = json.loads((folder / "data.json").read_text(encoding="utf-8"))
        return {*stored["runs"], *stored.get("searches", ()), *stored.get("final", ())}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _unfinished(folder: Path) -> Iterator[Path]:
    """Yield temporary files and folders whose process has ended."""
    places = [folder, *(folder / name for name in ("runs", "searches", "report", ".checksums", "searches/.checksums"))]
    for place in places:
        for path in sorted(place.glob(".unfinished-*")):
            match = _UNFINISHED.fullmatch(path.name)
            if match and not psutil.pid_exists(int(match[1] or match[2])):
                yield path
