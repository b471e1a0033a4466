"""Settings of the property-based tests: a few seconds each by default, as many examples as TUNEOFF_EXAMPLES in a soak."""

import atexit
import functools
import os
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("TUNEOFF_EXAMPLES", "40"))
_COUNT = os.environ.get("TUNEOFF_COUNT")  # file for the number of examples that were tried

# no database: every run of the tests draws the same examples, a soak others
_settings = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=EXAMPLES <= 100,
    suppress_health_check=list(HealthCheck),
)
_tried: list[None] = []  # one for each example


def quick(test: Any) -> Any:
    """Run a test of hypothesis with these settings, and count its examples."""
    inner = test.hypothesis.inner_test

    @functools.wraps(inner)
    def counted(*arguments: Any, **named: Any) -> Any:
        _tried.append(None)
        return inner(*arguments, **named)

    test.hypothesis.inner_test = counted
    return _settings(test)


def _write_count(process: int, path: Path) -> None:
    if os.getpid() == process:  # no child that it has forked
        path.write_text(str(len(_tried)))


if _COUNT:
    atexit.register(_write_count, os.getpid(), Path(_COUNT))
