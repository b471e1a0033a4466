"""Copy of a study at an address such as s3://bucket/study: runs go there as they end, and come back where they lack.

A study runs in a folder of this machine, whose files are mapped into memory, renamed and locked. The copy is written by
a thread, through fsspec. A checksum is written after the file that it is about, so that a copy that was interrupted
lacks checksums, and has no wrong ones; a run without its checksums is not fetched.
"""

import contextlib
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from tuneoff.checksums import MANIFEST, SEALS, manifest_problems
from tuneoff.errors import LibraryError, StoreError, one_line
from tuneoff.execute.executor import Event
from tuneoff.formats import counted
from tuneoff.notices import notice

_LOCAL = (".lock", ".running.json", "workers.log")  # of processes of this machine


class Mirror:
    """A study's folder and its copy. A context manager: the copy is complete when it ends."""

    def __init__(self, address: str, folder: Path) -> None:
        """Raises StoreError for an address that cannot be used, LibraryError if a library for it is missing."""
        self._address, self._folder = address, folder
        self._sent: dict[str, tuple[int, int]] = {}  # size and time of files as they were sent
        self._thread = ThreadPoolExecutor(1)
        self._sending: Future[None] | None = None
        try:
            import fsspec

            self._files, self._root = fsspec.core.url_to_fs(address)
            self._files.makedirs(self._root, exist_ok=True)
        except ImportError as error:
            raise LibraryError(f"{address!r} cannot be used: {one_line(error)}") from error
        except Exception as error:  # each file system raises its own types
            raise self._error("cannot be used", error) from error

    def __enter__(self) -> Self:
        self._fetch()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Send what is left, also of a study that was stopped. Raises StoreError, unless it ends with another error."""
        self._thread.shutdown()
        try:
            self._send()
        except Exception as problem:
            if error is None:
                raise self._error("lacks results, which are in this machine's folder", problem) from problem
            notice(str(self._error("lacks results, which are in this machine's folder", problem)))

    def watched(self, on_event: Callable[[Event], None]) -> Callable[[Event], None]:
        """Return on_event that sends what a job has stored once it has ended."""

        def watch(event: Event) -> None:
            on_event(event)
            if event.kind == "done" and (self._sending is None or self._sending.done()):
                if self._sending and (problem := self._sending.exception()):
                    notice(f"{self._error('could not be written', problem)}; it is tried again")
                self._sending = self._thread.submit(self._send)

        return watch

    def _error(self, what: str, error: BaseException) -> StoreError:
        reason = one_line(error, 200)
        return StoreError(f"the copy at {self._address!r} {what} ({reason}); check the address and your access to it")

    def _remote(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    # ---- sending

    def _send(self) -> None:
        """Send files that have changed since they were sent, and remove those of runs that are gone from the folder."""
        changed = {name: state for name, state in self._states().items() if self._sent.get(name) != state}
        for name in changed:
            with contextlib.suppress(FileNotFoundError):
                self._files.rm_file(self._remote(_checksum_of(name)))
        for name in sorted(changed, key=lambda name: (_is_checksum(name), name)):
            with contextlib.suppress(FileNotFoundError):  # removed by the study in the meantime
                self._files.makedirs(self._remote(str(PurePosixPath(name).parent)), exist_ok=True)
                self._files.put_file(str(self._folder / name), self._remote(name))
                self._sent[name] = changed[name]
        for name in [name for name in self._sent if not (self._folder / name).is_file()]:  # models that are not kept
            with contextlib.suppress(FileNotFoundError):
                self._files.rm_file(self._remote(name))
            del self._sent[name]

    def _states(self) -> dict[str, tuple[int, int]]:
        """Return size and time of each file of the folder, by its name within it."""
        states = {}
        for path in self._folder.rglob("*"):
            name = path.relative_to(self._folder)
            is_temporary = any(part.startswith((".unfinished-", ".checkpoints")) for part in name.parts)
            if is_temporary or path.name in _LOCAL:
                continue
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    states[name.as_posix()] = (path.stat().st_size, path.stat().st_mtime_ns)
        return states

    # ---- fetching

    def _fetch(self) -> None:
        """Bring runs that this machine lacks, and where it has nothing of the study yet, everything."""
        try:
            self._files.invalidate_cache()
            start = len(self._root.rstrip("/")) + 1
            names = [name[start:] for name in self._files.find(self._root)]
            names = [name for name in names if name and ".." not in PurePosixPath(name).parts]
            runs: dict[str, list[str]] = {}
            for name in names:
                if name.startswith("runs/") and name.count("/") > 1:
                    runs.setdefault(name.split("/")[1], []).append(name)
            is_new = not (self._folder / "study.yaml").is_file()
            missing = {run: of for run, of in runs.items() if not (self._folder / "runs" / run).exists()}
            fetched = sum(self._fetch_run(run, of) for run, of in missing.items())
            self._note_sent(runs)
            if is_new:
                for name in [name for name in names if not name.startswith("runs/")]:
                    self._get(name, self._folder / name)
        except Exception as error:
            raise self._error("cannot be read", error) from error
        if fetched:
            notice(f"{counted(fetched, 'run')} came from {self._address}")

    def _note_sent(self, runs: dict[str, list[str]]) -> None:
        """Note the runs of this machine whose copy is whole, which need not be sent again: equal checksums of files."""
        states = self._states()
        for run, names in runs.items():
            manifest = f"runs/{run}/{MANIFEST}"
            if manifest not in names or manifest not in states:
                continue
            if self._files.cat_file(self._remote(manifest)) == (self._folder / manifest).read_bytes():
                self._sent |= {name: states[name] for name in names if name in states}

    def _fetch_run(self, run: str, names: list[str]) -> bool:
        if f"runs/{run}/{MANIFEST}" not in names or run.startswith("."):
            return False  # the copy was interrupted
        unfinished = self._folder / "runs" / f".unfinished-{run}"
        shutil.rmtree(unfinished, ignore_errors=True)
        for name in names:
            self._get(name, unfinished / name.removeprefix(f"runs/{run}/"))
        if manifest_problems(unfinished):
            shutil.rmtree(unfinished)
            notice(f"run {run} at {self._address} is damaged; it runs again")
            return False
        unfinished.rename(self._folder / "runs" / run)
        return True

    def _get(self, name: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._files.get_file(self._remote(name), str(path))


def _is_checksum(name: str) -> bool:
    return SEALS in PurePosixPath(name).parts or PurePosixPath(name).name == MANIFEST


def _checksum_of(name: str) -> str:
    """Return the name of the file that holds the checksum of a file."""
    path = PurePosixPath(name)
    if path.parts[0] == "runs":
        return str(PurePosixPath(*path.parts[:2]) / MANIFEST)
    return str(path.parent / SEALS / f"{path.name}.sum")
