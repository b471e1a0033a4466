"""Tests of executors start worker processes of their own."""

import pytest

from tests.workers import LocalExecutor


@pytest.fixture(scope="module", autouse=True)
def _own_workers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tuneoff.study.LocalExecutor", LocalExecutor)
        patch.setattr("tuneoff.execute.local.LocalExecutor", LocalExecutor)
        yield
