"""What the worker process does before it forks: it starts no CUDA, and imports what its children would import again."""

import subprocess
import sys

import pytest

from tuneoff.engine.precision import CUBLAS_WORKSPACE
from tuneoff.execute.worker_process import _ENVIRONMENT

IMPORTS = """
import torch
touched = []
def note(name):
    return lambda *_, **__: touched.append(name) or 0
for name in ("init", "_lazy_init", "is_available", "device_count", "current_device", "get_device_capability",
             "get_device_name", "get_device_properties", "set_device", "synchronize", "mem_get_info"):
    setattr(torch.cuda, name, note(name))
for name in filter(torch._C.__dict__.__contains__, ("_cuda_init", "_cuda_getDeviceCount", "_cuda_getDevice")):
    setattr(torch._C, name, note(name))
from tuneoff.execute import worker
worker._import_libraries()
import tuneoff.execute.run, tuneoff.execute.search, transformers
print(touched, torch.cuda._initialized)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks are Linux's")
def test_the_imports_before_a_fork_do_not_touch_cuda():
    finished = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=False)
    assert finished.stdout.splitlines()[-1:] == ["[] False"], finished.stderr


STORED = """
import sys
from pathlib import Path
from sklearn.dummy import DummyClassifier
from tuneoff.execute import worker
worker._import_libraries()
before = set(sys.modules)
from tuneoff.skops_file import save_skops
save_skops(DummyClassifier().fit([[0], [1]], [0, 1]), Path(sys.argv[1]))
print(sorted(name for name in set(sys.modules) - before if not name.startswith("encodings")))
"""


def test_a_classifier_is_stored_without_imports(tmp_path):
    command = [sys.executable, "-c", STORED, str(tmp_path / "classifier.skops")]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.stdout.splitlines()[-1:] == ["[]"], finished.stderr


STARTED = """
import sys
import torch
torch.cuda.is_initialized = lambda: True  # as a library that starts CUDA when it is imported
from tuneoff.execute import worker
worker._ForkedChildren = lambda: sys.exit("forks")
worker._SpawnedChildren = lambda: sys.exit("starts processes")
worker.main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks are Linux's")
def test_jobs_are_new_processes_where_a_library_has_started_cuda():
    finished = subprocess.run([sys.executable, "-c", STARTED], capture_output=True, text=True, check=False)
    assert finished.stderr.splitlines()[-1:] == ["starts processes"]


BITSANDBYTES = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tuneoff.execute import worker
worker._import_libraries()
import peft
print((Path(sys.argv[1]) / "imported").exists())
"""


def test_bitsandbytes_whose_import_starts_cuda_is_not_imported(tmp_path):
    (tmp_path / "bitsandbytes.py").write_text("from pathlib import Path\nPath(__file__).with_name('imported').touch()")
    command = [sys.executable, "-c", BITSANDBYTES, str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.stdout.splitlines()[-1:] == ["False"], finished.stderr


def test_the_worker_asks_the_driver_for_gpus_and_cublas_for_the_same_bits():
    assert _ENVIRONMENT["PYTORCH_NVML_BASED_CUDA_CHECK"] == "1"
    assert _ENVIRONMENT["CUBLAS_WORKSPACE_CONFIG"] == CUBLAS_WORKSPACE
