"""Several devices of a Ray cluster that train one job: Ray Train starts a process for each, on one machine or several.

A job on several devices is a Ray task too, which holds no cores itself. It asks Ray Train's TorchTrainer for as many
workers as the job has devices; Ray places them and starts torch's process group. Each worker brings what the job reads
to its machine, by that machine's agent, as any job does. The first worker runs the job, and the others take their part
of each training (fit_model.take_part). What the first worker stores comes back through the watcher, because a worker of
Ray Train returns numbers only.

If a worker dies, Ray Train ends the others, and the job is submitted again like one whose machine died.
"""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import ray

from tuneoff.engine.devices import DeviceGroup
from tuneoff.errors import DeviceError, DivergedError, one_line
from tuneoff.execute.local import LOST
from tuneoff.execute.node import Inputs, Origin, Task, agent_with, pack_run, store_of
from tuneoff.runs import StudyStore
from tuneoff.spec.run import Job

_TIMEOUT_SECONDS = 2 * 24 * 3600  # of a wait for the first device, which may validate for long


def run_on_devices(origin: Origin, inputs: Inputs, task: Task, watcher: Any) -> dict[str, Any]:
    """Run a job on several devices. Returns its record, as Agent.run does."""
    # read by Ray Train: names of files are relative to the folder in which the cluster was started, as for other jobs
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    def device() -> None:
        _run_device(agent_with(origin, inputs), task, watcher)

    message, folder = task.message, tempfile.mkdtemp(prefix="tuneoff-train-")
    places: dict[str, Any] = {
        "num_workers": message["devices"],
        "use_gpu": "GPU" in message["resources"],
        "resources_per_worker": message["resources"],
        "label_selector": message["selector"],
    }
    trainer = TorchTrainer(
        device,
        torch_config=_torch_config(),
        scaling_config=ScalingConfig(**places),
        run_config=RunConfig(name=task.job_id, storage_path=folder, failure_config=FailureConfig(max_failures=0)),
    )
    reason = "its devices ended without a result"
    try:
        trainer.fit()
    except Exception as error:  # Ray Train raises many types
        reason = f"one of its {message['devices']} devices failed ({one_line(error, 300)})"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result: dict[str, Any] | None = ray.get(watcher.result.remote(task.job_id))
    return result or {"crash": reason, "code": LOST}


def _torch_config() -> Any:
    """Return Ray Train's configuration of torch's process group: gloo on CPUs, nccl on GPUs."""
    from ray.train.torch import TorchConfig

    default: Any = TorchConfig().backend_cls

    class Backend(default):
        def on_start(self, worker_group: Any, backend_config: Any) -> None:
            worker_group.execute(use_network_of_cluster)
            super().on_start(worker_group, backend_config)

    class Config(TorchConfig):
        @property
        def backend_cls(self) -> Any:
            return Backend

    return Config(timeout_s=_TIMEOUT_SECONDS)


def use_network_of_cluster() -> None:
    """Let gloo use the network by which Ray knows this machine, unless the user has chosen one.

    It takes the address of the machine's own name, which on Debian is 127.0.1.1: no other machine reaches that.
    """
    address = ray.util.get_node_ip_address()
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address == address for one in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)


class _Lost(BaseException):
    """The devices of this job cannot go on together. No Exception, so that no run or trial is stored as failed."""


class RayDevices:
    """Devices that Ray Train has started for a job. An error that only one of them has ends their use."""

    def __init__(self, group: DeviceGroup) -> None:
        self.count, self._group = group.count, group
        self.is_broken = False

    @contextlib.contextmanager
    def training(self, announcement: Mapping[str, Any]) -> Iterator[DeviceGroup]:
        """Train with the other devices."""
        if self.is_broken:
            raise _Lost
        try:
            self._group.from_first(lambda: announcement)
            yield self._group
        except DivergedError:  # all have it, in the same step
            raise
        except BaseException as error:
            self.is_broken = True
            if isinstance(error, DeviceError):
                raise _Lost from error
            raise


def _run_device(agent: Any, task: Task, watcher: Any) -> None:
    """Run a job as its first device, or take part in its trainings as another one. A worker of Ray Train."""
    surroundings = ray.get(agent.surroundings.remote())
    os.environ.update(surroundings["environment"])
    import torch
    from ray.train.torch import get_device

    from tuneoff.cache import share_checks
    from tuneoff.execute.fit_model import take_part
    from tuneoff.execute.inputs import CachedInputs

    share_checks(surroundings["checks"])
    torch.set_num_threads(task.message["threads"])
    if torch.cuda.is_available():  # Ray shows all GPUs of a machine to each of its workers
        torch.cuda.set_device(get_device())
    group = DeviceGroup()
    if not group.is_first:
        take_part(group, CachedInputs())
        return
    folder = Path(tempfile.mkdtemp(prefix="tuneoff-devices-"))
    try:
        devices = RayDevices(group)
        result = _run_first(devices, store_of(folder, task), task, watcher)
        ray.get(watcher.end.remote(task.job_id, result))
        if devices.is_broken:  # the others wait for a step: Ray Train ends them
            raise DeviceError("the job ended, and its devices did not")
        group.from_first(lambda: None)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_first(devices: RayDevices, store: StudyStore, task: Task, watcher: Any) -> dict[str, Any]:
    """Run a job, and return its record. The watcher is told of the start, of progress, and of each trial of a search.

    Raises DeviceError if the job cannot go on because of another device.
    """
    from tuneoff.execute.inputs import CachedInputs
    from tuneoff.execute.job import run_job

    message, job_id, last = task.message, task.job_id, 0.0
    job = Job.model_validate(message["job"])

    def report(share: float) -> None:
        nonlocal last
        if time.monotonic() - last > message["report_seconds"]:
            last = time.monotonic()
            watcher.progress.remote(job_id, share)
            if job.is_search and store.searches.path(job_id).is_file():
                watcher.trial.remote(job_id, asdict(store.searches.read(job_id)))

    watcher.started.remote(job_id, ray.get_runtime_context().get_node_id())
    try:
        run_job(job, CachedInputs(), store, report, message["halvings"], devices)
    except _Lost as error:
        if job.is_search and store.searches.path(job_id).is_file():
            ray.get(watcher.trial.remote(job_id, asdict(store.searches.read(job_id))))
        raise DeviceError(f"another device of the job is gone ({one_line(error.__cause__ or error, 150)})") from error
    return {"crash": "", "code": 0, **pack_run(store, task)}
