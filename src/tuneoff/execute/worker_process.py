"""Handle of the worker process, which runs jobs. It is started early, because its imports take seconds.

Nothing slow is imported here, so that the command line can start it before anything else.
"""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from typing import Any, Self

import psutil

WORKER = "tuneoff.execute.worker"
_ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",  # tokens come from the cache
    # glibc then keeps memory that a step frees for the next one instead of returning it to the system: docs/log.md
    "MALLOC_MMAP_THRESHOLD_": str(2**25),  # the largest value that it accepts
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    # asking whether there is a GPU would start CUDA, which no forked job could use then; the driver's library is asked
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # the same bits from cuBLAS: engine/precision.py
}


class WorkerProcess:
    """A worker process. It runs each job in a child of its own and reports events as JSON lines."""

    def __init__(self) -> None:
        self.is_ready = False  # it has reported "ready" and not ended since
        self._messages: queue.Queue[dict[str, Any]] = queue.Queue()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed in stop
        self._listeners: list[threading.Thread] = []
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process, or start it again. It reports "ready" after its imports."""
        self._stderr.seek(0)
        self._stderr.truncate()
        self._process = subprocess.Popen(
            [sys.executable, "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=_ENVIRONMENT | dict(os.environ),
            # Ctrl-C reaches this process alone, which then stops the worker; the flag is Windows' word for it
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        listener = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._listeners.append(listener)
        listener.start()

    def _listen(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        # closes its pipes; a job that it did not read is still in the buffer, and closing would write it
        with contextlib.suppress(OSError), process:
            for line in process.stdout:
                self._messages.put(json.loads(line))
        self._messages.put({"event": "ended", "code": process.returncode})

    def submit(self, job: dict[str, Any]) -> None:
        """Start a job now, in addition to those that are running."""
        self._send(job)

    def request_stop(self) -> None:
        """Ask the running jobs to end with the step that they are in; each then reports "stopped"."""
        self._send({"stop": True})

    def kill(self, job_id: str) -> None:
        """Kill a job, if it runs. It is then reported as crashed."""
        self._send({"kill": job_id})

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it has died; next_message reports that
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def next_message(self) -> dict[str, Any]:
        """Wait for the next event: ready, ended, or a job's progress, done, stopped or crashed."""
        return self._messages.get()

    def last_stderr_line(self) -> str:
        """Return the last line that the worker itself wrote to standard error; empty if it wrote nothing."""
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def stop(self) -> None:
        """End the worker and its jobs. Safe to call more than once."""
        _kill_with_jobs(self._process.pid)
        for listener in self._listeners:
            listener.join()
        self._stderr.close()


def _kill_with_jobs(process_id: int) -> None:
    """Kill the worker and its jobs: its process group, or on Windows, which has none, its children."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process_id, signal.SIGKILL)
        return
    with contextlib.suppress(psutil.NoSuchProcess):
        worker = psutil.Process(process_id)
        for process in [worker, *worker.children(recursive=True)]:
            process.kill()
