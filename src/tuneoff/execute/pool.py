"""The process that makes runs, and what it says. It is started early: what it imports takes seconds.

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

WORKER = "tuneoff.execute.worker"
_ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",  # tokens come from the cache
    # glibc then keeps what a step frees for the next instead of giving it back to the system: docs/log.md
    "MALLOC_MMAP_THRESHOLD_": str(2**25),  # the largest it takes
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
}


class Pool:
    """A worker process: it takes jobs, makes each in a process of its own, and says how they go."""

    def __init__(self) -> None:
        self.is_ready = False  # whether the worker has said so, and lives
        self._messages: queue.Queue[dict[str, Any]] = queue.Queue()
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115  closed in stop
        self._listeners: list[threading.Thread] = []
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the worker, or start it again. It says "ready" once it has imported what runs need."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env=_ENVIRONMENT | dict(os.environ),
            # Ctrl-C reaches us alone, and we stop the worker
            start_new_session=True,
        )
        listener = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._listeners.append(listener)
        listener.start()

    def _listen(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdout is not None
        with process:  # closes its pipes
            for line in process.stdout:
                self._messages.put(json.loads(line))
        self._messages.put({"event": "ended", "code": process.returncode})

    def give(self, job: dict[str, Any]) -> None:
        """Have a job done, now. As many as are given run at once."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):  # it has died; next_message says so
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()

    def next_message(self) -> dict[str, Any]:
        """Wait for the next thing that is said: ready, ended, or of a run progress, done or crashed."""
        return self._messages.get()

    def complaint(self) -> str:
        """The last line that the worker itself wrote to standard error."""
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def stop(self) -> None:
        """End the worker and what it is doing. More than once does no harm."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # with the runs
        for listener in self._listeners:
            listener.join()
        self._complaints.close()
