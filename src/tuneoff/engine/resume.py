"""Checkpoints within a training: its whole state (training_state.py) in one file, from which a stopped run goes on.

One safetensors file, with the numbers that are no tensors as JSON in its header, so that reading it runs no code, and
that one rename replaces it as a whole. It is not flushed to the disk at once: after a power failure its checksums tell
a torn file, which is ignored, and the run starts anew.

Trade-off: a write takes about a second per 300 MB. It is due after a minute, or later, so that it takes less than a
hundredth of the time; a state of four copies of the trained weights is then at most a few minutes old.
"""

import contextlib
import json
import math
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from tuneoff.engine.training_state import State
from tuneoff.errors import ConfigError, StopRequested
from tuneoff.signals import stops_call

SECONDS_VARIABLE = "TUNEOFF_CHECKPOINT_SECONDS"
_SECONDS = 60.0
_WRITES_SHARE = 0.01  # of the time, at most
_BYTES_PER_SECOND = 3e8  # of the first write; the next ones are measured


@dataclass
class Checkpoint:
    """The checkpoint of one training: a file, and when it is written.

    key: settings and versions on which the bits of the training depend; a checkpoint with another key is ignored.
    """

    path: Path
    key: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None  # between two writes; None: a minute, or more where a write takes long
    ignored: str = ""  # why a stored checkpoint was not used
    failure: str = ""  # why the last write failed
    stop_signal: int = 0  # the signal that asked to stop; 0 for none

    def __post_init__(self) -> None:
        self._last = time.perf_counter()
        self._interval = _SECONDS if self.seconds is None else self.seconds
        self._is_first = True

    def is_due(self) -> bool:
        """Return True if it is time to write, or a signal asked to stop."""
        return bool(self.stop_signal) or time.perf_counter() - self._last >= self._interval

    def write(self, make_state: Callable[[], State]) -> None:
        """Write the state; a full disk is noted, and the training goes on. Raises StopRequested if a signal asked to.

        The first write is put off where it would take more than its share of the time until then.
        """
        started, state = time.perf_counter(), make_state()
        size = sum(tensor.numel() * tensor.element_size() for tensor in state.tensors.values())
        if self.seconds is None and self._is_first and not self.stop_signal:
            self._is_first = False
            self._interval = usual_interval(size)
            if self._interval > started - self._last:
                return
        self.write_state(state)
        self._last = time.perf_counter()
        if self.seconds is None:
            self._interval = max(_SECONDS, (self._last - started) / _WRITES_SHARE)
        if self.stop_signal:
            raise StopRequested(self.stop_signal)

    def write_state(self, state: State) -> None:
        """Write a state at once; a full disk is noted."""
        try:
            self._write(state)
            self.failure = ""
        except OSError as error:
            self.failure = f"no checkpoint could be written: {error.strerror or error}"

    def _write(self, state: State) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_name(f".unfinished-{os.getpid()}-{self.path.name}")
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
        numbers = json.dumps({"key": dict(self.key), **state.numbers})
        sums = {name: _checksum(tensor) for name, tensor in tensors.items()}
        metadata = {"numbers": numbers, "sums": json.dumps(sums), "numbers_sum": str(zlib.crc32(numbers.encode()))}
        try:
            save_file(tensors, unfinished, metadata)
            unfinished.replace(self.path)
        except Exception as error:  # safetensors has an error of its own for a full disk
            raise error if isinstance(error, OSError) else OSError(str(error)) from error
        finally:
            unfinished.unlink(missing_ok=True)

    def read(self) -> State | None:
        """Read the stored state; None without one, or if it is damaged or of another key (`ignored` has the reason)."""
        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, "pt") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            numbers, sums = json.loads(metadata["numbers"]), json.loads(metadata["sums"])
            is_whole = zlib.crc32(metadata["numbers"].encode()) == int(metadata["numbers_sum"])
            is_whole = is_whole and sums == {name: _checksum(tensor) for name, tensor in tensors.items()}
        except Exception as error:  # safetensors and json raise many types
            self.ignored = f"the checkpoint is damaged ({type(error).__name__}) and was ignored"
            return None
        if not is_whole:
            self.ignored = "the checkpoint is damaged (checksum) and was ignored"
            return None
        stored = numbers.pop("key")
        now = json.loads(json.dumps(dict(self.key)))
        differences = [
            f"{name} {stored.get(name)}, now {now.get(name)}" for name in now if stored.get(name) != now[name]
        ]
        if differences or stored.keys() != now.keys():
            self.ignored = f"the checkpoint of other settings was ignored ({', '.join(differences)})"
            return None
        return State(tensors, numbers)

    def remove(self) -> None:
        """Remove the file, and its folder if that is empty."""
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """A context in which a signal to stop is noted, for the training to end with the step that it is in."""

        def note(number: int, _: Any) -> None:
            self.stop_signal = number

        with stops_call(note):
            yield


def usual_interval(size: float) -> float:
    """Return the seconds between checkpoints that are expected before the first one is written. size: in bytes."""
    return max(_SECONDS, size / _BYTES_PER_SECOND / _WRITES_SHARE)


def checkpoint_seconds() -> float | None:
    """Return the seconds between two checkpoints from the environment; None: the default; infinity: never.

    Raises ConfigError for anything but a number or none.
    """
    text = os.environ.get(SECONDS_VARIABLE, "").strip().lower()
    if not text:
        return None
    if text == "none":
        return math.inf
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ConfigError(f"{SECONDS_VARIABLE}={text!r} is not a number of seconds; write e.g. 60, or none")
    return seconds


def _checksum(tensor: Tensor) -> int:
    """Return the CRC-32 of a tensor's bytes (7 GB/s; it detects damage, not intent)."""
    flat = tensor.reshape(-1)
    return zlib.crc32(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
