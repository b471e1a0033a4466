"""One worker process for the studies of all tests of a process: starting one imports torch and transformers, 5 s."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuneoff.execute.local import LocalExecutor


class SharedExecutor:
    """Stands in place of LocalExecutor where a study starts one: a real one, whose worker stays for the next study.

    A study that ends by an error ends it, because its jobs may still run; and a study in another environment, which
    the worker would not know.
    """

    def __init__(self) -> None:
        self._executor: LocalExecutor | None = None
        self._environment: dict[str, str] = {}
        self._is_used = False

    @contextmanager
    def __call__(self) -> Iterator[LocalExecutor]:
        if self._is_used:  # a study within a study
            with LocalExecutor() as own:
                yield own
            return
        # the worker stays in the folder that it was started in
        environment = {n: v for n, v in os.environ.items() if n != "PYTEST_CURRENT_TEST"} | {"cwd": str(Path.cwd())}
        if self._environment != environment:
            self.end()
        if self._executor is None:
            self._executor, self._environment = LocalExecutor(), environment
        self._is_used = True
        try:
            yield self._executor
        except BaseException:
            self.end()
            raise
        finally:
            self._is_used = False
        if self._executor._worker._process.poll() is not None:
            self.end()

    def end(self) -> None:
        """End the worker."""
        if self._executor is not None:
            self._executor._worker.stop()
            self._executor = None
