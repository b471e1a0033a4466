"""One worker process for the studies of all tests of a process: starting one imports torch and transformers, 5 s."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tuneoff.execute.local import LocalExecutor
from tuneoff.execute.worker_process import WorkerProcess

_ROOT = Path(__file__).parents[1]
# of variables that Python and libraries read when they start
_READ_AT_START = ("CUBLAS_", "CUDA_", "HF_", "LD_", "MALLOC_", "MKL_", "OMP_", "PYTHON", "PYTORCH_", "TOKENIZERS_")


class SharedWorker(WorkerProcess):
    """A worker whose jobs have the folder and the variables of their test, which differ from test to test."""

    def __init__(self) -> None:
        self.at_start = _read_at_start()
        self.running: set[str] = set()  # jobs
        super().__init__()

    def start(self) -> None:
        """Start a process that can import the tests."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tuneoff.execute.worker_process.WORKER", "tests.shared_worker")
            patch.setenv("PYTHONPATH", os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(_ROOT)]))
            super().start()

    def submit(self, job: dict[str, Any]) -> None:
        """Start a job where the test is."""
        self.running.add(job["job_id"])
        super().submit({**job, "cwd": os.getcwd(), "environment": dict(os.environ)})

    def next_message(self) -> dict[str, Any]:
        """Wait for the next event."""
        message = super().next_message()
        if message["event"] in ("done", "stopped", "crashed"):
            self.running.discard(message["job_id"])
        elif message["event"] == "ended":
            self.running.clear()
        return message


class SharedExecutor:
    """Stands in place of LocalExecutor where a study starts one: a real one, whose worker stays for the next study.

    A study that ends by an error while jobs run ends it; and a study with other variables that libraries read when
    they start.
    """

    def __init__(self) -> None:
        self._executor: LocalExecutor | None = None
        self._is_used = False

    @contextmanager
    def __call__(self) -> Iterator[LocalExecutor]:
        if self._is_used:  # a study within a study
            with LocalExecutor() as own:
                yield own
            return
        if self._executor is not None and self._worker.at_start != _read_at_start():
            self.end()
        if self._executor is None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("tuneoff.execute.local.WorkerProcess", SharedWorker)
                self._executor = LocalExecutor()
        worker, self._is_used = self._worker, True
        try:
            yield self._executor
        except BaseException:
            if worker.running:
                self.end()
            raise
        finally:
            self._is_used = False
        if worker._process.poll() is not None:
            self.end()

    @property
    def _worker(self) -> SharedWorker:
        assert self._executor is not None
        assert isinstance(self._executor._worker, SharedWorker)
        return self._executor._worker

    def end(self) -> None:
        """End the worker."""
        if self._executor is not None:
            self._executor._worker.stop()
            self._executor = None


def _read_at_start() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(_READ_AT_START)}
