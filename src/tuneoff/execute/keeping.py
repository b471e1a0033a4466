"""Checkpoints of a cluster's runs, each kept on another machine than the one that trains.

A machine that dies takes its files along. So the agent of a machine sends the checkpoint of each run that trains there
to the agent of the next machine, whenever it has been written anew, in parts; that one keeps the last whole one in a
file. A run that is tried again fetches it, wherever it runs. The state at the end of a search's best trial is kept by
the machine of the search, for the run with its options (checkpoints.py). Nothing of this passes through the study's own
process, which knows the places only.

Gemini (Wang et al., SOSP 2023) keeps checkpoints in the memory of other machines for the same reason.
"""

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ray

_PART_BYTES = 2**24
_PART_SECONDS = 60.0  # that the other machine may take for one
_SENDING_SHARE = 0.05  # of the time in which a checkpoint is on its way, at most


class Place(NamedTuple):
    """Where a checkpoint is kept."""

    node: str  # Ray's id of the machine
    name: str


@dataclass(frozen=True)
class Keeper:
    """The checkpoints that one machine keeps, in a folder."""

    folder: Path

    def add(self, name: str, offset: int, part: bytes, size: int) -> None:
        """Add a part of a checkpoint, which replaces an earlier one once it is whole. size: of all parts, in bytes."""
        self.folder.mkdir(exist_ok=True)
        unfinished = self.folder / f".unfinished-{name}"
        with unfinished.open("ab" if offset else "wb") as file:
            file.write(part)
            is_whole = file.tell() == size
        if is_whole:
            unfinished.replace(self.folder / name)

    def adopt(self, path: Path) -> str:
        """Keep a file of this machine. Returns its name."""
        self.folder.mkdir(exist_ok=True)
        path.replace(self.folder / path.name)
        return path.name

    def part(self, name: str, offset: int) -> bytes:
        """Return a part of a checkpoint; empty after the last one, or if there is no such checkpoint."""
        try:
            with (self.folder / name).open("rb") as file:
                file.seek(offset)
                return file.read(_PART_BYTES)
        except FileNotFoundError:
            return b""

    def forget(self, name: str) -> None:
        """Remove a checkpoint."""
        for path in (self.folder / name, self.folder / f".unfinished-{name}"):
            path.unlink(missing_ok=True)


class Courier:
    """Sends the checkpoint of a run that trains on this machine to the next machine."""

    def __init__(self, run_id: str, path: Path, agent_of: Callable[[str], Any], watcher: Any) -> None:
        """path: of the checkpoint. agent_of: returns the agent of a machine; raises ValueError if there is none.

        watcher: actor that knows the next machine, and is told where a checkpoint is.
        """
        self._node = ray.get_runtime_context().get_node_id()
        self._run_id, self._path, self._agent_of, self._watcher = run_id, path, agent_of, watcher
        self._name = f"{run_id}-{self._node[:8]}"  # a copy of the run may train on another machine
        self._sent, self._next = 0, 0.0
        self._place: Place | None = None
        self._thread: threading.Thread | None = None
        self._is_over = False

    def look(self, share: float) -> None:
        """Begin to send the checkpoint if there is a new one and it is time. share: of the run that is done."""
        if time.monotonic() < self._next or (self._thread and self._thread.is_alive()) or not self._path.is_file():
            return
        written = self._path.stat().st_mtime_ns
        if written != self._sent:
            self._sent = written
            self._thread = threading.Thread(target=self._send, args=(share,), daemon=True)
            self._thread.start()

    def end(self, earlier: Place | None) -> None:
        """End with the run, whose checkpoints are of no use any more. earlier: that it went on from."""
        self._is_over = True
        if self._thread:
            self._thread.join()
        for place in filter(None, (self._place, earlier)):
            with contextlib.suppress(ValueError):  # its machine is gone
                self._agent_of(place.node).forget.remote(place.name)

    def _send(self, share: float) -> None:
        started = time.monotonic()
        with _machines_may_be_gone():
            node = ray.get(self._watcher.next_machine.remote(self._node), timeout=_PART_SECONDS)
            agent, place = self._agent_of(node), Place(node, self._name)
            with self._path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                self._place = place
                for offset in range(0, size, _PART_BYTES):
                    if self._is_over:
                        return
                    ray.get(agent.keep.remote(self._name, offset, file.read(_PART_BYTES), size), timeout=_PART_SECONDS)
            self._watcher.kept.remote(self._run_id, place, share)
        now = time.monotonic()
        self._next = now + (now - started) * (1 / _SENDING_SHARE - 1)


def fetch(place: Place, path: Path, agent_of: Callable[[str], Any]) -> None:
    """Write a kept checkpoint to a path. If it or its machine is gone, nothing is written: the run starts anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished, offset = path.with_name(f".unfinished-{path.name}"), 0
    with _machines_may_be_gone(), unfinished.open("wb") as file:
        agent = agent_of(place.node)
        while part := ray.get(agent.kept.remote(place.name, offset), timeout=_PART_SECONDS):
            offset += file.write(part)
        if offset:
            unfinished.replace(path)
    unfinished.unlink(missing_ok=True)
    if not path.is_file():
        shutil.rmtree(path.parent, ignore_errors=True)


@contextlib.contextmanager
def _machines_may_be_gone() -> Iterator[None]:
    """A context in which what fails because another machine is gone, or a disk is full, is left undone."""
    with contextlib.suppress(ray.exceptions.RayError, ValueError, OSError):
        yield
