"""Claim of a study by the process that runs it: a lock of the system, and a file that says which process it is.

The lock, `.lock`, decides on one machine, and ends with its process. File systems of several machines may not lock
between them: there the file, `.running.json`, decides, whose creation is atomic on NFS too. It names machine, process
and the process' start time, so that the file of an ended process of this machine is known to be stale.
"""

import contextlib
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import psutil

from tuneoff.errors import StoreError


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """A context in which no other process runs the study in a folder. Raises StoreError, which names the process.

    A folder in which nothing was stored is removed at the end: of a study that was refused.
    """
    try:
        with filelock.FileLock(folder / ".lock", timeout=0), _removed_if_empty(folder), _claim_file(folder):
            yield
    except filelock.Timeout:
        raise StoreError(_message(folder, _read(folder / ".running.json"))) from None


@contextlib.contextmanager
def _removed_if_empty(folder: Path) -> Iterator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it is gone; Windows removes no file that is open
            if [path.name for path in folder.iterdir()] == [".lock"]:
                (folder / ".lock").unlink()
                folder.rmdir()


@contextlib.contextmanager
def _claim_file(folder: Path) -> Iterator[None]:
    path = folder / ".running.json"
    stored = _read(path)
    if stored is not None and _is_alive(stored):
        raise StoreError(_message(folder, stored))
    path.unlink(missing_ok=True)  # of an ended process
    own = {"host": platform.node(), "process": os.getpid(), "started": psutil.Process().create_time()}
    try:
        with open(path, "x", encoding="utf-8") as file:
            json.dump({**own, "since": time.strftime("%Y-%m-%d %H:%M")}, file)
    except FileExistsError:  # another machine was faster
        raise StoreError(_message(folder, _read(path))) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    """Read a claim; None if there is none, or if it is damaged."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return stored if isinstance(stored, dict) else None
    except (OSError, ValueError):
        return None


def _is_alive(claim: dict[str, Any]) -> bool:
    """Return True if the process of a claim lives. A process of another machine counts as alive: no one can tell."""
    if claim.get("host") != platform.node():
        return True
    try:
        started = psutil.Process(int(claim.get("process", 0))).create_time()
    except (psutil.Error, ValueError, TypeError):
        return False
    return started == claim.get("started") and claim.get("process") != os.getpid()


def _message(folder: Path, claim: dict[str, Any] | None) -> str:
    if claim is None:
        return f"another process is running the study in {folder}; wait for it or stop it"
    host = "" if claim.get("host") == platform.node() else f" on {claim.get('host')}"
    text = f"process {claim.get('process')}{host} is running the study in {folder} since {claim.get('since')}"
    remedy = f", or remove {folder / '.running.json'} if that machine no longer runs it" if host else ""
    return f"{text}; wait for it or stop it{remedy}"
