"""What costs are measured with."""

import time

import pytest
import torch

from tuneoff.engine.meter import EnergyMeter, latency, peak_operations


def package(folder, name, joules, most=1000, kind="package-0"):
    path = folder / name
    path.mkdir(exist_ok=True)
    (path / "name").write_text(kind)
    (path / "energy_uj").write_text(str(int(joules * 1e6)))
    (path / "max_energy_range_uj").write_text(str(int(most * 1e6)))


def test_energy_is_summed_over_packages_and_over_counters_that_start_again(tmp_path):
    package(tmp_path, "intel-rapl:0", 990)
    package(tmp_path, "intel-rapl:1", 5)
    package(tmp_path, "intel-rapl:0:0", 1, kind="core")  # a part of the first package: counted there
    package(tmp_path, "intel-rapl:2", 1, kind="psys")  # all of them, and more
    with EnergyMeter(tmp_path, every=60) as meter:
        package(tmp_path, "intel-rapl:0", 4)
        package(tmp_path, "intel-rapl:1", 25)
        package(tmp_path, "intel-rapl:0:0", 99, kind="core")
        package(tmp_path, "intel-rapl:2", 99, kind="psys")
    assert meter.joules == pytest.approx(14 + 20)


def test_energy_that_may_not_be_read_is_unknown(tmp_path):
    with EnergyMeter(tmp_path) as meter:
        pass
    assert meter.joules is None


def test_latency_is_the_median_of_single_answers():
    asked = []

    def answer(index):
        asked.append(index)
        time.sleep(0.3 if len(asked) == 10 else 0.002)  # one outlier

    assert 0.002 <= latency(answer, 7) < 0.1
    assert (min(asked), max(asked)) == (0, 6)


def test_peak_is_in_the_range_of_processors():
    assert 1e8 < peak_operations(torch.float32, torch.device("cpu")) < 1e15
