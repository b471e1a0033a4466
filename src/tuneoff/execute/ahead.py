"""Imports ahead: the libraries of the comparison and the report are imported on the first core that has no job left.

They take two seconds, for which a user would wait after the last job; earlier they would disturb the times of jobs.
"""

import contextlib
import importlib
import threading
from collections.abc import Callable, Sequence

from tuneoff.execute.executor import Event


class ImportsAhead:
    """Imports modules in a thread, once, when fewer jobs are left than run at once."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules, self._thread = modules, threading.Thread(target=self._import, daemon=True)
        self._is_started = False

    def _import(self) -> None:
        # the import that needs the module raises again; at the end of the process none does
        with contextlib.suppress(Exception):
            for module in self._modules:
                importlib.import_module(module)

    def watched(self, on_event: Callable[[Event], None], num_jobs: int, workers: int) -> Callable[[Event], None]:
        """Return on_event, for some jobs, that starts the imports when a worker has nothing left to do."""
        num_left = num_jobs

        def watch(event: Event) -> None:
            nonlocal num_left
            num_left -= event.kind == "done"
            if num_left < workers and not self._is_started:
                self._is_started = True
                self._thread.start()
            on_event(event)

        return watch
