"""Room for jobs on this machine: how many run at once by cores, memory and GPUs.

Nothing slow is imported at the top, as in local.py.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from typing import TYPE_CHECKING

import psutil

from tuneoff.errors import ConfigError
from tuneoff.formats import counted, size
from tuneoff.machine import cores, has_gpu

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tuneoff.execute.estimate import Estimate
    from tuneoff.execute.executor import Slots
    from tuneoff.gpus import Gpu

# upper bound per parameter: weights, gradient, two moments and the best epoch's weights (4 bytes each), activations
_BYTES_PER_PARAMETER = 40
_BYTES_PER_WORKER = 1.5 * 2**30
_BYTES_OF_GRAPHS = 4  # per parameter, of a GPU: the gradients of CUDA graphs are in a memory of their own
# estimated, where none was measured: memory of a GPU for each of the jobs that share it, and how many at most
_GPU_BYTES_OF_JOB = 20 * 10**9
_MOST_JOBS_OF_GPU = 4
_MOST_BY_LOAD = 2  # times as many: the next study may have longer texts, and other strategies
_BUSY_SHARE = 0.9  # of the time, for which a GPU gets jobs; more of them would only wait for each other


def num_workers(num_jobs: int, largest_model: int, requested: int | None = None, devices: int = 1) -> int:
    """Return the number of jobs to run at once: as requested, else one per core as far as memory allows.

    On a machine with GPUs there are as many as the GPUs hold (gpu_places), and more than one for each GPU only as far
    as the memory of the host allows; or one where each takes several devices.
    largest_model: parameters. devices: of each job; on a CPU each takes a core and the memory of a job.
    """
    if requested is not None:
        return max(1, min(requested, num_jobs))
    fitting = int(psutil.virtual_memory().available // bytes_of_job(largest_model))
    if has_gpu():
        if devices > 1:
            return 1
        places = gpu_places(largest_model)
        return max(1, min(len(places), cores(), num_jobs, max(fitting, len(set(places)))))
    return max(1, min(cores() // devices, fitting // devices, num_jobs))


def gpu_places(largest_model: int, count: int | None = None) -> tuple[str, ...]:
    """Return the GPU of each job at once, in turns; empty where the GPUs cannot be told apart, or there is none.

    The GPUs are those of one kind, because another kind gives other bits: of the kind with the most memory in total. A
    run of a small encoder keeps a large GPU busy for a part of its time, so that as many share it as keep it busy, by
    the share that a job took in the last study on such a GPU with an encoder of this size (gpu_load.py); before the
    first one, one per 20 GB of memory, at most four. By its load at most twice as many share it as by its memory, and
    in any case no more than its free memory holds. Where MPS runs, CUDA uses it by itself, and they compute at once and
    not in turns.
    largest_model: parameters. count: of the jobs; None: as many as the GPUs hold.
    """
    from tuneoff.gpus import gpus

    found = _with_kernels(gpus())
    total = Counter[str]()
    for gpu in found:
        total[gpu.name] += gpu.total_bytes
    alike = [gpu for gpu in found if gpu.name == max(total, key=total.__getitem__)]
    needed = bytes_of_job(largest_model) + _BYTES_OF_GRAPHS * largest_model
    fitting = {gpu: int(min(_jobs_that_fill(gpu, largest_model), gpu.free_bytes // needed)) for gpu in alike}
    if alike and not any(fitting.values()):  # taken by others: the least of them
        fitting[max(alike, key=lambda gpu: gpu.free_bytes)] = 1
    turns = [gpu.uuid for turn in range(max(fitting.values(), default=0)) for gpu in alike if fitting[gpu] > turn]
    if count is None or not turns:
        return tuple(turns)
    return tuple(itertools.islice(itertools.cycle(turns), count))


def _jobs_that_fill(gpu: Gpu, largest_model: int) -> int:
    """Return how many jobs keep a GPU busy; at least 1."""
    from tuneoff.execute.gpu_load import stored_share

    if gpu.is_exclusive:
        return 1
    by_memory = int(min(_MOST_JOBS_OF_GPU, max(1, gpu.total_bytes // _GPU_BYTES_OF_JOB)))
    if share := stored_share(gpu.name, largest_model):
        return max(1, min(round(_BUSY_SHARE / share), _MOST_BY_LOAD * by_memory))
    return by_memory


def _with_kernels(found: list[Gpu]) -> list[Gpu]:
    """Leave out the GPUs for which this build of torch has no kernels, which it says only when it computes.

    Raises ConfigError if there are none for any of them.
    """
    if not any(gpu.capability for gpu in found):
        return found
    import torch

    oldest = min((int(n) for arch in torch.cuda.get_arch_list() for n in re.findall(r"^sm_(\d+)", arch)), default=0)
    usable = [gpu for gpu in found if gpu.capability is None or 10 * gpu.capability[0] + gpu.capability[1] >= oldest]
    if not usable:
        raise ConfigError(
            f"torch {torch.__version__} has no kernels for the GPU of this machine ({found[0].name}); install a build "
            "for an older CUDA, or set CUDA_VISIBLE_DEVICES= (to nothing) to compute on the CPU"
        )
    return usable


def jobs_of_gpu(largest_model: int) -> int:
    """Return how many jobs share a GPU of this machine: of several GPUs, on that with the fewest; at least 1."""
    return max(1, min(Counter(gpu_places(largest_model)).values(), default=1))


def bytes_of_job(largest_model: int) -> float:
    """Return an upper bound of the memory of a job. largest_model: parameters."""
    return _BYTES_PER_WORKER + _BYTES_PER_PARAMETER * largest_model


def memory_warnings(grid: Iterable[Estimate]) -> list[str]:
    """Say which strategies without an encoder may need more memory than is free on this machine.

    Jobs with an encoder run as many at once as memory allows, in smaller parts where it lacks.
    """
    free = psutil.virtual_memory().available
    needed = dict[str, float]()
    for e in grid:
        if e.job.run.model is None:
            needed[e.job.run.strategy.label] = max(e.memory_bytes, needed.get(e.job.run.strategy.label, 0.0))
    return [
        f"{label} may need about {size(most)} of memory for the training texts, and {size(free)} are free: the system "
        "may end its runs; leave it out (--no-baselines) or use fewer texts (--limit train=N)"
        for label, most in needed.items()
        if most > free
    ]


def local_slots(num_jobs: int, largest_model: int, requested: int | None = None, devices: int = 1) -> Slots:
    """Return the jobs at once on this machine, and the threads of each: its cores, divided equally.

    Raises ConfigError for more devices than this machine has.
    """
    from tuneoff.execute.executor import Slots

    if devices > 1:
        _check_devices(devices)
    workers = num_workers(num_jobs, largest_model, requested, devices)
    places = gpu_places(largest_model, workers) if has_gpu() and devices == 1 else ()
    threads = max(1, cores() // (workers * devices))
    return Slots(workers, threads, cores=cores(), gpus=places, devices=devices)


def _check_devices(devices: int) -> None:
    """Raise ConfigError for more devices than this machine has: GPUs, or cores without one."""
    count, kind = cores(), "core"
    if has_gpu():
        import torch

        count, kind = torch.cuda.device_count(), "GPU"
    if devices > count:
        raise ConfigError(
            f"devices {devices} are more than this machine has ({counted(count, kind)}); use at most {count}, or a "
            "cluster (--on)"
        )
