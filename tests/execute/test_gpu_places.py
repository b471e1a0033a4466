"""Jobs on GPUs: how many share one, and which one each sees. No GPU is needed."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest

from tests.studies import changed
from tuneoff.errors import ConfigError
from tuneoff.execute import gpu_load
from tuneoff.execute.executor import Slots
from tuneoff.execute.local import LocalExecutor
from tuneoff.execute.room import gpu_places, num_workers
from tuneoff.files import read_json, write_json
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


@pytest.mark.parametrize(
    ("share", "found", "expected"),
    [
        (0.11, [gpu("a", 80)], ("a",) * 8),  # where an estimate would give four
        (0.24, [gpu("a", 80)], ("a",) * 4),  # four that keep it busy stay four
        (0.97, [gpu("a", 80)], ("a",)),
        (0.02, [gpu("a", 80)], ("a",) * 8),  # of a study of heads: no more than twice the estimate
        (0.11, [gpu("a", 16)], ("a",) * 2),  # no more than its memory holds
        (0.45, [gpu("a", 80), gpu("b", 80, free=7)], ("a", "b", "a")),
    ],
)
def test_jobs_share_gpus_by_the_load_that_was_measured(share, found, expected, monkeypatch, tmp_path):
    monkeypatch.setenv("TUNEOFF_CACHE", str(tmp_path))
    write_json(tmp_path / "gpu_shares.json", {"H100, 1.1e+08 parameters": share})
    monkeypatch.setattr("tuneoff.gpus.gpus", lambda: found)
    assert gpu_places(BERT) == expected


def test_the_memory_of_the_host_limits_jobs_that_share_a_gpu(monkeypatch):
    monkeypatch.setattr("tuneoff.gpus.gpus", lambda: [gpu("a", 80), gpu("b", 80)])
    monkeypatch.setattr("tuneoff.execute.room.has_gpu", lambda: True)
    monkeypatch.setattr("tuneoff.execute.room.cores", lambda: 16)
    for free, expected in ((200, 8), (20, 3), (1, 2)):
        monkeypatch.setattr("psutil.virtual_memory", lambda free=free: SimpleNamespace(available=free * GB))
        assert num_workers(20, BERT) == expected


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
    assert slots.free_gpu([]) == "a"
    assert slots.free_gpu(["a"]) == "a"
    assert slots.free_gpu(["a", "a"]) == "b"
    assert slots.free_gpu(["b"]) == "a"
    assert slots.free_gpu(["a", "b", "a"]) == ""
    assert Slots(workers=2, threads=1).free_gpu([]) == ""
    assert slots.with_threads(1, keeps_workers=True).gpus == ("a", "b", "a")


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

    monkeypatch.setenv("TUNEOFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(gpu_load, "reading_load", lambda uuids: nullcontext(lambda: 0.3))
    monkeypatch.setattr(gpu_load, "gpus", lambda: [gpu("GPU-a", 80), gpu("GPU-c", 80, name="T4")])
    monkeypatch.setattr(gpu_load, "_MIN_JOB_SECONDS", 0.01)
    monkeypatch.setattr(gpu_load, "_SAMPLE_SECONDS", 0.005)
    with TwoGpus() as executor:
        changed(small, metric="seen:gpu").run(executor=executor)
    shares = read_json(tmp_path / "cache" / "gpu_shares.json")
    assert shares == {
        "H100, 0.0e+00 parameters": pytest.approx(0.3)
    }  # of the job with an encoder, not of TF-IDF beside it
    seen = (tmp_path / "seen.txt").read_text().split()
    assert {"GPU-a", "GPU-b"} <= set(seen) <= {"GPU-a", "GPU-b", "None"}  # None: the study's own process
