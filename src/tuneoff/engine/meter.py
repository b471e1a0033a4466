"""Measurements: latency and throughput of inference, and the peak speed of matrix products."""

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch

_LATENCY_EXAMPLES = 20  # spread evenly over the split
_LATENCY_REPEATS = 3  # per example
# rows and columns of the matrices whose product measures the peak: on a GPU a smaller one takes less than its start
_MATRIX_SIZE, _GPU_MATRIX_SIZE = 1024, 8192


def latency(classify: Callable[[int], Any], num_examples: int) -> float:
    """Seconds to classify one text, in a batch of one: the median over examples of a split.

    Each example is classified several times and the fastest time counts, because other runs may use the machine at the
    same time. classify: classifies the example with an index, starting from its text.
    """
    fastest = []
    for index in np.linspace(0, num_examples - 1, _LATENCY_EXAMPLES).astype(int):
        seconds = []
        for _ in range(_LATENCY_REPEATS):
            started = time.perf_counter()
            classify(int(index))
            _wait_for_gpu()
            seconds.append(time.perf_counter() - started)
        fastest.append(min(seconds))
    return float(np.median(fastest))


def throughput(classify: Callable[[], int]) -> float:
    """Texts per second of classifying some in batches: the faster of two times. classify: returns their number."""
    speeds = []
    for _ in range(2):
        started = time.perf_counter()
        count = classify()
        _wait_for_gpu()
        speeds.append(count / (time.perf_counter() - started))
    return max(speeds)


@cache
def peak_operations(dtype: torch.dtype, device: torch.device) -> float:
    """Operations per second of a large matrix product on all threads of this process: the fastest of ten.

    A product of two (n, n) matrices has 2 n ** 3 operations. Other processes on the machine lower the result.
    """
    if device.type == "cuda":
        return 2 * _GPU_MATRIX_SIZE**3 / _gpu_product_seconds(dtype, device)
    matrix = torch.ones(_MATRIX_SIZE, _MATRIX_SIZE, dtype=dtype, device=device)
    best_seconds = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        matrix @ matrix
        best_seconds = min(best_seconds, time.perf_counter() - started)
    return 2 * _MATRIX_SIZE**3 / best_seconds


def _gpu_product_seconds(dtype: torch.dtype, device: torch.device) -> float:
    """Return the seconds of a product of random matrices by the GPU's own clock: the fastest of ten after warm-up.

    Random numbers, because products of equal ones use less power and so run at a higher clock.
    """
    matrix = torch.randn(_GPU_MATRIX_SIZE, _GPU_MATRIX_SIZE, device=device).to(dtype)
    seconds = []
    for _ in range(13):
        started, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        started.record()
        matrix @ matrix
        ended.record()
        torch.cuda.synchronize()
        seconds.append(started.elapsed_time(ended) / 1000)  # of milliseconds
    return min(seconds[3:])


def _wait_for_gpu() -> None:
    # GPU kernels run asynchronously: without waiting, only their start is measured. A job that uses no GPU starts none
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
