"""Measurements of latency, peak speed and energy, with a clock and counters that the tests set."""

import pytest
import torch

from tuneoff.engine import meter
from tuneoff.engine.meter import EnergyMeter, latency, peak_operations


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


def write_package(folder, name, joules, counter_range=1000, kind="package-0"):
    path = folder / name
    path.mkdir(exist_ok=True)
    (path / "name").write_text(kind)
    (path / "energy_uj").write_text(str(int(joules * 1e6)))
    (path / "max_energy_range_uj").write_text(str(int(counter_range * 1e6)))


def test_energy_is_summed_over_packages_and_over_counters_that_wrap_around(tmp_path):
    write_package(tmp_path, "intel-rapl:0", 990)
    write_package(tmp_path, "intel-rapl:1", 5)
    write_package(tmp_path, "intel-rapl:0:0", 1, kind="core")  # a part of the first package, counted there
    write_package(tmp_path, "intel-rapl:2", 1, kind="psys")  # the platform, which includes the packages
    with EnergyMeter(tmp_path, sample_seconds=60) as energy:
        write_package(tmp_path, "intel-rapl:0", 4)
        write_package(tmp_path, "intel-rapl:1", 25)
        write_package(tmp_path, "intel-rapl:0:0", 99, kind="core")
        write_package(tmp_path, "intel-rapl:2", 99, kind="psys")
    assert energy.joules == pytest.approx(14 + 20)


def test_energy_is_none_without_readable_counters(tmp_path):
    with EnergyMeter(tmp_path) as energy:
        pass
    assert energy.joules is None


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
