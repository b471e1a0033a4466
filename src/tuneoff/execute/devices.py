"""Several devices of this machine that train one run: a process each, started by the process of the job.

The process of the job is the first device. It does everything that a job does, and announces each training to the other
processes, which load the same data and the same encoder from the cache and take their part of every step
(engine/devices.py). They meet in a process group of torch: gloo on CPUs, nccl on GPUs. On a Ray cluster Ray Train
starts the processes and the group (cluster_devices.py); what they do is the same.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, Protocol, Self

import torch
from torch import distributed as dist

from tuneoff.cache import checks_folder, share_checks
from tuneoff.engine.devices import DeviceGroup
from tuneoff.errors import DeviceError, TuneoffError, one_line

# of a wait for the first device, which may validate for long; a process that dies is noticed at once
_TIMEOUT = timedelta(days=2)
_POLL_SECONDS = 0.05
_END_SECONDS = 5.0  # that a process may take to end
_WATCH_SECONDS = 1.0  # between two looks at the processes
_NOTICE_SECONDS = 30.0  # in which a training may notice by itself that one has died


class Devices(Protocol):
    """Devices on which the first one, this process, can train together with others."""

    count: int

    def training(self, announcement: Mapping[str, Any]) -> AbstractContextManager[DeviceGroup]:
        """Return a context of one training, in which the others take part. announcement: for fit_model.take_part."""


class LocalDevices:
    """Devices of this machine. A context manager: processes start with the first training and end with the context."""

    def __init__(self, count: int, threads: int) -> None:
        """threads: of each device."""
        self.count, self._threads = count, threads
        self._processes: list[subprocess.Popen[bytes]] = []  # of the other devices
        self._group: DeviceGroup | None = None
        self._store: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._group is not None:
            with contextlib.suppress(Exception):  # of processes that are gone
                self._group.from_first(lambda: None)
        self._end(seconds=_END_SECONDS)

    @contextlib.contextmanager
    def training(self, announcement: Mapping[str, Any]) -> Iterator[DeviceGroup]:
        """Train with the other processes, which are started if they do not run. After an error they end.

        Raises DeviceError if one of them died.
        """
        is_over = threading.Event()
        try:
            if self._group is None:
                self._start()
            assert self._group is not None
            if torch.cuda.is_available():
                threading.Thread(target=self._watch, args=(is_over,), daemon=True).start()
            self._group.from_first(lambda: announcement)
            yield self._group
        except BaseException as error:  # the others may wait for a step that is not made
            lost = self._lost(_END_SECONDS) if isinstance(error, DeviceError) else None
            self._end(seconds=0.0)
            if lost:
                raise lost from error
            raise
        finally:
            is_over.set()

    def _watch(self, is_over: threading.Event) -> None:
        """End this process if another device's ends and the training does not notice.

        nccl notices no process that has died: this one would wait for the GPU, where Python handles no signal. gloo
        raises.
        """
        while not is_over.wait(_WATCH_SECONDS):
            if any(process.poll() is not None for process in self._processes):
                if not is_over.wait(_NOTICE_SECONDS):
                    print(self._lost(0.0), file=sys.stderr, flush=True)
                    os._exit(1)
                return

    def _start(self) -> None:
        self._store = dist.TCPStore("127.0.0.1", 0, self.count, is_master=True, wait_for_workers=False)
        if sys.platform == "linux":  # gloo else looks for the address of this machine's name
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        for rank in range(1, self.count):
            message = {"rank": rank, "count": self.count, "port": self._store.port, "threads": self._threads}
            message["checks"] = checks_folder()
            command = [sys.executable, "-m", "tuneoff.execute.worker", "--device", json.dumps(message)]
            self._processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))
        while not self._store.check([f"ready-{rank}" for rank in range(1, self.count)]):
            if lost := self._lost(0.0):
                raise lost
            time.sleep(_POLL_SECONDS)
        self._group = _join(self._store, 0, self.count)

    def _lost(self, seconds: float) -> DeviceError | None:
        """Return why a device ended, if one does within some seconds."""
        until = time.monotonic() + seconds
        while all(process.poll() is None for process in self._processes) and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
        codes = {rank: process.poll() for rank, process in enumerate(self._processes, start=1)}
        ended = {rank: code for rank, code in codes.items() if code is not None}
        killed = [rank for rank, code in ended.items() if code < 0]
        if killed:
            return DeviceError(
                f"device {killed[0] + 1} of {self.count}: its process was killed, probably out of memory; try fewer "
                "workers, fewer devices or a smaller batch_size",
                was_killed=True,
            )
        if not ended:
            return None
        if self._store.check(["failure"]):
            return DeviceError(self._store.get("failure").decode())
        rank, code = next(iter(ended.items()))
        return DeviceError(f"device {rank + 1} of {self.count}: its process ended with code {code}; see workers.log")

    def _end(self, seconds: float) -> None:
        """End the other processes, by force if they do not end by themselves within some seconds."""
        until = time.monotonic() + seconds
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - time.monotonic()))
            process.kill()
            process.wait()
        if self._group is not None:
            with contextlib.suppress(Exception):  # whose connections are gone
                dist.destroy_process_group()
        self._processes, self._group, self._store = [], None, None


def run_device(message: Mapping[str, Any]) -> int:
    """Take part in the trainings of a job as one of its devices, in a process of its own. Returns the exit code."""
    from tuneoff.execute.fit_model import take_part
    from tuneoff.execute.inputs import CachedInputs

    rank, count = message["rank"], message["count"]
    share_checks(message["checks"])
    torch.set_num_threads(message["threads"])
    store = dist.TCPStore("127.0.0.1", message["port"], count, is_master=False)
    store.set(f"ready-{rank}", "")
    try:
        take_part(_join(store, rank, count), CachedInputs())
    except DeviceError:  # another one is gone
        return 1
    except Exception as error:  # for the first device, which tells the user
        text = str(error) if isinstance(error, TuneoffError) else f"{type(error).__name__}: {error}"
        with contextlib.suppress(Exception):  # the first device is gone
            store.set("failure", f"device {rank + 1} of {count}: {one_line(text)}")
        traceback.print_exc()
        return 1
    dist.destroy_process_group()
    return 0


def _join(store: Any, rank: int, count: int) -> DeviceGroup:
    """Enter the process group of a job, on the GPU with the number of this device if there are GPUs."""
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
        backend = "nccl"
    # of the group alone: other keys are in the store too
    group_store = dist.PrefixStore("group", store)
    dist.init_process_group(backend, store=group_store, rank=rank, world_size=count, timeout=_TIMEOUT)
    return DeviceGroup()
