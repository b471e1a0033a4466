"""Jobs on GPUs: how many share one, and which one each sees. No GPU is needed."""

from dataclasses import replace

import pytest

from tests.studies import changed
from tuneoff.errors import ConfigError
from tuneoff.execute import gpu_load
from tuneoff.execute.executor import Slots
from tuneoff.execute.gpu_load import GpuLoad
from tuneoff.execute.local import LocalExecutor
from tuneoff.execute.room import gpu_places
from tuneoff.gpus import Gpu

GB = 10**9
BERT = 110_000_000  # parameters


def gpu(uuid, total, free=None, name="H100"):
    return Gpu(uuid, name, total * GB, (total if free is None else free) * GB)


@pytest.mark.parametrize(
    ("found", "count", "expected"),
    [
        ([], None, ()),
        ([gpu("a", 16)], None, ("a",)),  # a T4 is filled by one
        ([gpu("a", 80)], None, ("a",) * 4),
        ([gpu("a", 80), gpu("b", 80)], None, ("a", "b") * 4),
        ([gpu("a", 80), gpu("b", 80, free=7)], None, ("a", "b", "a", "a", "a")),  # somebody else uses b
        ([gpu("a", 80, free=1), gpu("b", 80, free=2)], None, ("b",)),  # and here both
        ([gpu("a", 16, name="T4"), gpu("b", 80)], None, ("b",) * 4),  # another kind gives other bits
        ([gpu("a", 16), gpu("b", 16)], 3, ("a", "b", "a")),
        ([gpu("a", 80), gpu("b", 80)], 1, ("a",)),
    ],
)
def test_jobs_share_gpus_by_their_memory(found, count, expected, monkeypatch):
    monkeypatch.setattr("tuneoff.gpus.gpus", lambda: found)
    assert gpu_places(BERT, count) == expected


def test_an_exclusive_gpu_takes_one_job_and_one_without_kernels_none(monkeypatch):
    def places(*found):
        monkeypatch.setattr("tuneoff.gpus.gpus", lambda: list(found))
        return gpu_places(BERT)

    monkeypatch.setattr("torch.cuda.get_arch_list", lambda: ["sm_75", "sm_80", "sm_90a", "compute_90"])
    exclusive = replace(gpu("a", 80), is_exclusive=True, capability=(9, 0))
    assert places(exclusive, replace(exclusive, uuid="b")) == ("a", "b")
    old = replace(gpu("c", 90, name="V100"), capability=(7, 0))
    assert places(old, exclusive) == ("a",)
    with pytest.raises(ConfigError, match=r"has no kernels for the GPU of this machine \(V100\); install a build"):
        places(old)


def test_a_job_gets_the_gpu_that_is_free():
    slots = Slots(workers=3, threads=1, gpus=("a", "b", "a"))
    load = GpuLoad(slots)
    assert load.seconds is None  # the user has chosen how many share one
    assert load.free_gpu({}) == "a"
    assert load.free_gpu({"1": "a"}) == "b"
    assert load.free_gpu({"1": "a", "2": "b"}) == "a"
    assert load.free_gpu({"1": "a", "2": "a"}) == "b"
    assert load.free_gpu({"1": "a", "2": "b", "3": "a"}) is None
    assert GpuLoad(Slots(workers=2, threads=1)).free_gpu({"1": "", "2": ""}) == ""
    assert slots.with_threads(1, keeps_workers=True).gpus == ("a", "b", "a")


SHARED = Slots(workers=6, threads=1, gpus=("a", "b", "a", "b", "a", "b"), measures_load=True)


@pytest.fixture
def busy(monkeypatch):
    """The share of time in which each GPU computes; looks follow each other at once."""
    shares: dict[str, float] | None = {"a": 0.3, "b": 1.0}
    monkeypatch.setattr(gpu_load, "busy_shares", lambda uuids: shares)
    monkeypatch.setattr(gpu_load, "_LOOK_SECONDS", 0.0)
    return shares


def test_a_gpu_gets_another_job_where_those_that_train_leave_it_idle(busy):
    load, used = GpuLoad(SHARED), {"1": "a", "2": "b"}
    assert load.free_gpu({}) == "a"
    assert load.free_gpu({"1": "a"}) == "b"
    for _ in range(4):
        load.look(used, {"1", "2"})
        assert load.free_gpu(used) is None
    load.look(used, {"1", "2"})
    assert load.free_gpu(used) == "a"
    used["3"] = "a"
    for _ in range(9):
        load.look(used, {"1", "2"})  # the third loads its model: that a is idle says nothing
        assert load.free_gpu(used) is None
    busy["a"] = 0.7
    for _ in range(5):
        load.look(used, {"1", "2", "3"})
    assert load.free_gpu(used) == "a"
    used["4"] = "a"
    for _ in range(9):
        load.look(used, {"1", "2", "3", "4"})
    assert load.free_gpu(used) is None  # memory sets the most
    assert load.seconds is not None  # of b, which is full
    busy["b"] = 0.1
    for _ in range(9):
        load.look(used, {"1", "2", "3", "4"})
    assert load.free_gpu(used) == "b"


def test_a_gpu_whose_load_is_not_told_gets_as_many_as_memory_allows(busy, monkeypatch):
    monkeypatch.setattr(gpu_load, "busy_shares", lambda uuids: None)
    load = GpuLoad(SHARED)
    load.look({"1": "a", "2": "b"}, set())
    assert load.seconds is None
    assert load.free_gpu({"1": "a", "2": "b"}) == "a"


@pytest.mark.slow
@pytest.mark.parametrize(("share", "most"), [(0.0, 2), (1.0, 1)])
def test_jobs_share_a_gpu_while_it_is_idle(share, most, small, monkeypatch):
    monkeypatch.setattr(gpu_load, "busy_shares", lambda uuids: dict.fromkeys(uuids, share))
    monkeypatch.setattr(gpu_load, "_LOOK_SECONDS", 0.01)
    running, at_once = set(), []

    def on_event(event):
        if event.kind == "started":
            running.add(event.job.job_id)
        elif event.kind == "done":
            running.discard(event.job.job_id)
        at_once.append(len(running))

    class OneGpu(LocalExecutor):
        """The local executor on a GPU that holds two jobs."""

        def slots(self, num_jobs, largest_model, requested=None, devices=1):
            return Slots(workers=2, threads=1, gpus=("GPU-a", "GPU-a"), measures_load=True)

    recipe = {"epochs": 60, "max_length": 16}
    study = changed(small, strategies=["full:learning_rate=0.01"], seeds=range(3), recipe=recipe)
    with OneGpu() as executor:
        study.run(on_event, executor=executor)
    assert max(at_once) == most


@pytest.mark.slow
def test_each_job_sees_its_own_gpu_alone(small, tmp_path, monkeypatch):
    (tmp_path / "seen.py").write_text(
        "import os\nfrom pathlib import Path\n"
        "def gpu(labels, predicted, probabilities):\n"
        "    with Path(__file__).with_name('seen.txt').open('a') as file:\n"
        "        print(os.environ.get('CUDA_VISIBLE_DEVICES'), file=file)\n"
        "    return 1.0\n"
    )
    monkeypatch.chdir(tmp_path)

    class TwoGpus(LocalExecutor):
        """The local executor with two jobs at once, each on a GPU."""

        def slots(self, num_jobs, largest_model, requested=None, devices=1):
            return Slots(workers=2, threads=1, gpus=("GPU-a", "GPU-b"))

    with TwoGpus() as executor:
        changed(small, metric="seen:gpu").run(executor=executor)
    seen = (tmp_path / "seen.txt").read_text().split()
    assert {"GPU-a", "GPU-b"} <= set(seen) <= {"GPU-a", "GPU-b", "None"}  # None: the study's own process
