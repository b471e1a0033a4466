"""Checkpoints of a cluster's runs, each kept on another machine than the one that trains.

A machine that dies takes its files along. So the agent of a machine sends the checkpoint of each run that trains there
to the agent of the next machine, whenever it has been written anew, in parts; that one keeps the last whole one in a
file. A run that is tried again fetches it, wherever it runs. The state at the end of a search's best trial is kept by
the machine of the search, for the run with its options (checkpoints.py). Nothing of this passes through the study's own
process, which knows the places only.

Gemini (Wang et al., SOSP 2023) keeps checkpoints in the memory of other machines for the same reason.
"""

import contextlib
import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ray

from tuneoff.errors import one_line

_PART_BYTES = 2**24
_PART_SECONDS = 60.0  # that the other machine may take for one
_SENDING_SHARE = 0.05  # of the time in which a checkpoint is on its way, at most
_RETRY_SECONDS = 60.0  # after it could not be sent
_FREE_BYTES = 2**30  # that checkpoints leave on the disk of a machine that keeps them


class Place(NamedTuple):
    """Where a checkpoint is kept."""

    node: str  # Ray's id of the machine
    name: str
    share: float  # of the run's training that was done when it was written


@dataclass(frozen=True)
class Keeper:
    """The checkpoints that one machine keeps, in a folder."""

    folder: Path

    def add(self, name: str, offset: int, part: bytes, size: int) -> None:
        """Add a part of a checkpoint, which replaces an earlier one once it is whole. size: of all parts, in bytes.

        Raises OSError without enough room on the disk, ValueError for a part that does not follow the last one.
        """
        self.folder.mkdir(exist_ok=True)
        unfinished = self.folder / f".unfinished-{name}"
        if not offset and shutil.disk_usage(self.folder).free < size + _FREE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        try:
            with unfinished.open("ab" if offset else "wb") as file:
                if file.tell() != offset:
                    raise ValueError(f"{name}: a part at {offset} follows {file.tell()} bytes")
                file.write(part)
                is_whole = file.tell() == size
        except (OSError, ValueError):
            unfinished.unlink(missing_ok=True)
            raise
        if is_whole:
            unfinished.replace(self.folder / name)

    def adopt(self, path: Path) -> str:
        """Keep a file of this machine. Returns its name."""
        self.folder.mkdir(exist_ok=True)
        path.replace(self.folder / path.name)
        return path.name

    def part(self, name: str, offset: int) -> tuple[int, bytes]:
        """Return a number of the checkpoint, another one after it was replaced, and a part of it.

        The part is empty after the last one, and if there is no such checkpoint.
        """
        try:
            with (self.folder / name).open("rb") as file:
                file.seek(offset)
                return os.fstat(file.fileno()).st_mtime_ns, file.read(_PART_BYTES)
        except FileNotFoundError:
            return 0, b""

    def forget(self, name: str) -> None:
        """Remove a checkpoint."""
        for path in (self.folder / name, self.folder / f".unfinished-{name}"):
            path.unlink(missing_ok=True)


class Courier:
    """Sends the checkpoint of a run that trains on this machine to the next machine."""

    def __init__(
        self, run_id: str, path: Path, agent_of: Callable[[str], Any], watcher: Any, fetched: Place | None
    ) -> None:
        """path: of the checkpoint. agent_of: returns the agent of a machine; raises ValueError if there is none.

        watcher: actor that knows the next machine, and is told where a checkpoint is. fetched: what is at the path now.
        """
        self._node = ray.get_runtime_context().get_node_id()
        self._run_id, self._path, self._agent_of, self._watcher = run_id, path, agent_of, watcher
        self._name = f"{run_id}-{self._node[:8]}"  # a copy of the run may train on another machine
        self._written, self._share, self._next = 0, 0.0, 0.0
        self._is_sent = True
        if fetched:
            self._share = fetched.share
            self._note()
            # one that this machine keeps would be lost with it; a trained run has no step left to lose
            self._is_sent = fetched.node != self._node or fetched.share == 1
        self._thread: threading.Thread | None = None
        self._is_over = False

    def look(self, share: float) -> None:
        """Begin to send the checkpoint if there is a new one and it is time. share: of the run that is done."""
        if self._note():
            self._share, self._is_sent = share, False
        is_busy = self._thread is not None and self._thread.is_alive()
        if not self._is_sent and not is_busy and time.monotonic() >= self._next:
            self._is_sent = True
            self._thread = threading.Thread(target=self._send, args=(self._share,), daemon=True)
            self._thread.start()

    def _note(self) -> bool:
        """Return True if the checkpoint was written since the last call."""
        try:
            written = self._path.stat().st_mtime_ns
        except OSError:  # none yet, or the run has ended
            return False
        is_new, self._written = written != self._written, written
        return is_new

    def end(self) -> None:
        """End with the job: what is on its way stops at its next part."""
        self._is_over = True

    def _send(self, share: float) -> None:
        started, is_kept = time.monotonic(), False
        with machines_may_be_gone(), self._path.open("rb") as file:
            node = ray.get(self._watcher.next_machine.remote(self._node), timeout=_PART_SECONDS)
            agent, size = self._agent_of(node), os.fstat(file.fileno()).st_size
            for offset in range(0, size, _PART_BYTES):
                if self._is_over:
                    return
                part = file.read(_PART_BYTES)
                try:
                    ray.get(agent.keep.remote(self._name, offset, part, size), timeout=_PART_SECONDS)
                except ray.exceptions.RayTaskError as error:
                    if isinstance(error.cause, OSError):
                        self._watcher.not_kept.remote(node, one_line(error.cause))
                    raise
            self._watcher.kept.remote(self._run_id, Place(node, self._name, share))
            is_kept = True
        now = time.monotonic()
        self._next = now + ((now - started) * (1 / _SENDING_SHARE - 1) if is_kept else _RETRY_SECONDS)
        if not is_kept:
            self._is_sent = False


def fetch(place: Place, path: Path, agent_of: Callable[[str], Any], should_stop: Callable[[], bool]) -> bool:
    """Write a kept checkpoint to a path. Returns False if it or its machine is gone: the run starts anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished, whole = path.with_name(f".unfinished-{path.name}"), False
    with machines_may_be_gone(), unfinished.open("wb") as file:
        agent, last = agent_of(place.node), 0
        while not should_stop():
            number, part = ray.get(agent.kept.remote(place.name, file.tell()), timeout=_PART_SECONDS)
            if file.tell() and number != last:  # it was replaced, and this part is of the new one
                file.seek(0)
                file.truncate()
                continue
            last = number
            if not part:
                whole = file.tell() > 0
                break
            file.write(part)
    if whole:
        unfinished.replace(path)
    else:
        unfinished.unlink(missing_ok=True)
    return whole


@contextlib.contextmanager
def machines_may_be_gone() -> Iterator[None]:
    """A context in which what fails because another machine is gone, or a disk is full, is left undone."""
    with contextlib.suppress(ray.exceptions.RayError, ValueError, OSError):
        yield
