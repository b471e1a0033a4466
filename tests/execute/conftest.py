"""What tests of executors use: worker processes of their own, and a Ray cluster of two machines in name."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import SECONDS
from tests.workers import LocalExecutor
from tuneoff.compat_ray import outlive_raylet

outlive_raylet()  # as a study does before it imports Ray, which tests import first


@pytest.fixture(scope="module")
def own_workers():
    """Every study starts a worker process of its own, as it does outside tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tuneoff.study.LocalExecutor", LocalExecutor)
        patch.setattr("tuneoff.execute.local.LocalExecutor", LocalExecutor)
        yield


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A head and another machine, one core each, whose caches are empty."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")]))
    options: dict[str, Any] = {
        "num_cpus": 1,
        "memory": 8 * 2**30,
        "object_store_memory": 10**8,
        "include_dashboard": False,
    }
    ray = pytest.importorskip("ray")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    started = cluster_utils.Cluster()
    for number in range(2):
        variables = {
            "TUNEOFF_CACHE": str(tmp_path / f"cache {number}"),
            "TMPDIR": str(tmp_path / f"temp {number}"),
            "RAY_worker_niceness": "0",  # Ray's 15 lets other tests take the cores
            SECONDS: "0.2",
        }
        Path(variables["TMPDIR"]).mkdir()
        started.add_node(**options, env_vars=variables)
    yield started
    ray.shutdown()
    started.shutdown()
