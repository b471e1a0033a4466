"""GPUs by NVIDIA's driver, whose library the tests stand in for: no GPU is needed."""

import time
import types

import pynvml
import pytest

from tuneoff import gpus
from tuneoff.execute import gpu_load
from tuneoff.execute.gpu_load import GpuLoad, stored_share
from tuneoff.gpus import Gpu, gpu_joules, reading_load

GB = 10**9


class Driver:
    """The driver's library with some GPUs: (uuid, name, total and free bytes, millijoules)."""

    def __init__(self, *described):
        self.described = list(described)
        self.is_open = False

    def library(self):
        def of(field):
            return lambda handle: self.described[handle][field]

        def open_library():
            self.is_open = True

        def close():
            self.is_open = False

        def by_uuid(uuid):
            assert uuid.startswith("MIG-")
            self.described.append((uuid, "H200 MIG 1g.18gb", 18 * GB, 18 * GB, 0))
            return len(self.described) - 1

        def refuse(_):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

        count = len(self.described)
        return {
            "nvmlInit": open_library,
            "nvmlShutdown": close,
            "nvmlDeviceGetCount": lambda: count,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetHandleByUUID": by_uuid,
            "nvmlDeviceGetUUID": of(0),
            "nvmlDeviceGetName": of(1),
            "nvmlDeviceGetMemoryInfo": lambda handle: types.SimpleNamespace(
                total=self.described[handle][2], free=self.described[handle][3]
            ),
            "nvmlDeviceGetTotalEnergyConsumption": of(4),
            "nvmlDeviceGetCudaComputeCapability": refuse,
            "nvmlDeviceGetComputeMode": refuse,
            "nvmlDeviceGetMigMode": refuse,
        }


@pytest.fixture
def install(monkeypatch):
    """A function that installs a driver with some GPUs."""
    monkeypatch.setattr(gpus, "has_gpu_node", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)

    def with_gpus(*described):
        driver = Driver(*described)
        for name, function in driver.library().items():
            monkeypatch.setattr(pynvml, name, function)
        return driver

    return with_gpus


A = ("GPU-aaaa", "H100", 80 * GB, 79 * GB, 5_000)
B = ("GPU-bbbb", b"H100", 80 * GB, 10 * GB, 7_500)  # earlier versions of the library return bytes
T4 = ("GPU-cccc", "T4", 16 * GB, 15 * GB, 100)


def test_gpus_are_listed_and_the_library_is_closed(install):
    driver = install(A, B)
    assert gpus.gpus() == [Gpu("GPU-aaaa", "H100", 80 * GB, 79 * GB), Gpu("GPU-bbbb", "H100", 80 * GB, 10 * GB)]
    assert not driver.is_open
    assert gpu_joules() == 12.5


def test_a_gpu_whose_memory_cannot_be_asked_for_is_not_listed(install, monkeypatch):
    """In a container with MIG, and where memory is shared with the processor."""
    install(A)

    def refuse(_):
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", refuse)
    assert gpus.gpus() == []


def test_a_divided_gpu_is_its_instances(install, monkeypatch):
    driver = install(A, B)
    driver.described += [
        ("MIG-1", "H100 MIG 1g.10gb", 10 * GB, 9 * GB, 0),
        ("MIG-2", "H100 MIG 1g.10gb", 10 * GB, 8 * GB, 0),
    ]

    def instance(_, index):
        if index > 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return 2 + index

    monkeypatch.setattr(pynvml, "nvmlDeviceGetMigMode", lambda handle: (int(handle == 0), 0))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMaxMigDeviceCount", lambda _: 7)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMigDeviceHandleByIndex", instance)
    assert [gpu.uuid for gpu in gpus.gpus()] == ["MIG-1", "MIG-2", "GPU-bbbb"]


def test_capability_and_mode_are_told(install, monkeypatch):
    install(A)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCudaComputeCapability", lambda _: (9, 0))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeMode", lambda _: pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS)
    assert gpus.gpus() == [Gpu("GPU-aaaa", "H100", 80 * GB, 79 * GB, (9, 0), is_exclusive=True)]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("1", ["GPU-bbbb"]),
        ("1,0", ["GPU-bbbb", "GPU-aaaa"]),
        ("GPU-aa", ["GPU-aaaa"]),
        ("MIG-1", ["MIG-1"]),
        ("", []),
        ("0,-1,1", ["GPU-aaaa"]),  # as CUDA: nothing after an unknown name
        ("7", []),
    ],
)
def test_the_mask_of_cuda_is_followed(install, visible, expected, monkeypatch):
    install(A, B)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.uuid for gpu in gpus.gpus()] == expected


@pytest.mark.parametrize(("order", "expected"), [("", []), ("PCI_BUS_ID", ["GPU-cccc"])])
def test_numbers_of_gpus_of_several_kinds_are_those_of_cuda_in_one_order_only(install, order, expected, monkeypatch):
    install(A, T4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    assert [gpu.uuid for gpu in gpus.gpus()] == expected


def test_without_a_driver_there_are_no_gpus(install, monkeypatch):
    install(A)

    def missing():
        raise pynvml.NVMLError_LibraryNotFound

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    assert gpus.gpus() == []
    assert gpu_joules() is None


def test_gpus_that_count_no_energy_have_none(install, monkeypatch):
    install(A)

    def unsupported(handle):
        raise pynvml.NVMLError_NotSupported

    monkeypatch.setattr(pynvml, "nvmlDeviceGetTotalEnergyConsumption", unsupported)
    assert gpu_joules() is None


@pytest.fixture
def load(install, monkeypatch):
    """A function that sets the load of two GPUs, in per cent."""
    install(A, B)

    def of(*percents):
        by_uuid = dict(zip(("GPU-aaaa", "GPU-bbbb"), percents, strict=True))
        monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda uuid: uuid)
        rates = {uuid: types.SimpleNamespace(gpu=percent) for uuid, percent in by_uuid.items()}
        monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", rates.__getitem__)

    return of


def test_the_load_of_gpus_is_read(load, monkeypatch):
    load(30, 90)
    with reading_load(["GPU-bbbb", "GPU-aaaa"]) as read:
        assert read() == pytest.approx(1.2)
    with reading_load(["GPU-aaaa"]) as read:
        assert read() == pytest.approx(0.3)

    def unsupported(handle):
        raise pynvml.NVMLError_NotSupported

    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", unsupported)  # as of an instance
    with reading_load(["GPU-aaaa"]) as read:
        assert read() is None


def measure_load(num_running, uuids=("GPU-aaaa", "GPU-bbbb"), load=None):
    """Measure for a while."""
    with (load or GpuLoad()).measuring(uuids, 1000, num_running):
        time.sleep(0.3)


def test_the_share_of_a_gpu_that_a_job_takes_is_stored(load, monkeypatch, tmp_path):
    monkeypatch.setenv("TUNEOFF_CACHE", str(tmp_path))
    monkeypatch.setattr(gpu_load, "_MIN_JOB_SECONDS", 0.05)
    monkeypatch.setattr(gpu_load, "_SAMPLE_SECONDS", 0.001)
    assert stored_share("H100", 1000) is None
    load(30, 90)
    measure_load(lambda: 8)
    assert stored_share("H100", 1000) == pytest.approx(0.15)
    assert stored_share("H100", 2000) is None
    assert stored_share("H200", 1000) is None
    load(0, 0)
    measure_load(lambda: 0)  # no job has used them
    assert stored_share("H100", 1000) == pytest.approx(0.15)
    monkeypatch.setattr(gpu_load, "_MIN_JOB_SECONDS", 60.0)
    measure_load(lambda: 8)  # too short to tell
    assert stored_share("H100", 1000) == pytest.approx(0.15)
    for damaged in ("damaged", "[1, 2]", '{"H100, 1.0e+03 parameters": 7}'):
        (tmp_path / "gpu_shares.json").write_text(damaged)
        assert stored_share("H100", 1000) is None
    (tmp_path / "gpu_shares.json").unlink()
    (tmp_path / "gpu_shares.json").mkdir()  # cannot be written: the study ends all the same
    monkeypatch.setattr(gpu_load, "_MIN_JOB_SECONDS", 0.05)
    load(30, 90)
    measure_load(lambda: 8)


def test_all_calls_of_a_study_count(load, monkeypatch, tmp_path):
    monkeypatch.setenv("TUNEOFF_CACHE", str(tmp_path))
    monkeypatch.setattr(gpu_load, "_MIN_JOB_SECONDS", 0.05)
    monkeypatch.setattr(gpu_load, "_SAMPLE_SECONDS", 0.001)
    study = GpuLoad()
    load(40, 40)
    measure_load(lambda: 8, load=study)  # 0.1 of a GPU each
    load(60, 0)
    measure_load(lambda: 1, load=study)  # the run on all examples, alone
    assert 0.1 < (stored_share("H100", 1000) or 0.0) < 0.25


def test_without_gpus_no_load_is_measured(monkeypatch, tmp_path):
    monkeypatch.setenv("TUNEOFF_CACHE", str(tmp_path))
    monkeypatch.setattr(gpu_load, "_MIN_JOB_SECONDS", 0.0)
    measure_load(lambda: 1, uuids=())
    assert not (tmp_path / "gpu_shares.json").exists()
