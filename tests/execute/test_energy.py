"""Energy, with counters that the tests set."""

import pytest

from tuneoff.execute.energy import EnergyMeter


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
