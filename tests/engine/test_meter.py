"""Measurements of latency and peak speed, with a clock that the tests set."""

import pytest
import torch

from tuneoff.engine import meter
from tuneoff.engine.meter import latency, peak_operations


class Clock:
    """Replaces the module time: time passes only by advance(), or between two readings by the next of `intervals`."""

    def __init__(self, intervals=()):
        self.now, self.intervals = 100.0, iter(intervals)
        self.num_readings = 0

    def perf_counter(self):
        self.num_readings += 1
        if self.num_readings % 2 == 0:
            self.advance(next(self.intervals, 0.0))
        return self.now

    def advance(self, seconds):
        self.now += seconds


def test_latency_is_the_median_over_examples_of_the_fastest_repeat(monkeypatch):
    clock, calls = Clock(), []
    monkeypatch.setattr(meter, "time", clock)

    def classify(index):
        calls.append(index)
        is_first_call = calls.count(index) == 1
        clock.advance(1000 if is_first_call else index)  # the first is slow, as if another run took the core

    assert latency(classify, 101) == pytest.approx((47 + 52) / 2)  # the middle two of 20 indices from 0 to 100
    assert (min(calls), max(calls), len(calls)) == (0, 100, 60)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_peak_is_the_operations_of_a_product_over_the_fastest_time(dtype, monkeypatch):
    monkeypatch.setattr(meter, "time", Clock(intervals=[2.0, 1.0, 0.25, 3.0, 0.5, 1.0, 1.0, 1.0, 1.0, 4.0]))
    measured = peak_operations.__wrapped__(dtype, torch.device("cpu"))  # without the cache
    assert measured == 1024 * 1024 * (1024 + 1024) / 0.25  # as many multiplications as additions
