"""Costs that follow from seconds and rates: money, energy and CO2."""

import pytest

from tests.stored import stored_study
from tuneoff.costs import COSTS, RATE_OPTIONS, Rates, rated_costs, stated_costs
from tuneoff.runs import Session

SECONDS = {"fit_seconds": 1800.0, "latency_seconds": 0.036}


def test_rates_turn_seconds_into_money_energy_and_co2():
    rates = Rates(usd_per_hour=0.5, watts=100, grams_per_kwh=400)
    expected = {"usd": 0.25, "usd_per_million": 5.0, "fit_joules": 180_000.0, "co2_grams": 20.0}
    assert rated_costs(SECONDS, rates, None) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rates", "measured_watts", "keys"),
    [
        (Rates(), None, set()),
        (Rates(usd_per_hour=0), None, {"usd", "usd_per_million"}),
        (Rates(grams_per_kwh=400), None, set()),
        (Rates(grams_per_kwh=400), 50.0, {"fit_joules", "co2_grams"}),
        (Rates(watts=50), None, {"fit_joules"}),
    ],
)
def test_a_cost_without_its_rate_is_left_out(rates, measured_watts, keys):
    assert set(rated_costs(SECONDS, rates, measured_watts)) == keys


def test_stated_watts_come_before_measured_ones():
    assert rated_costs(SECONDS, Rates(watts=10), 50.0)["fit_joules"] == 18_000.0


def test_a_model_without_a_latency_has_no_price_of_predictions():
    assert set(rated_costs({"fit_seconds": 1.0}, Rates(usd_per_hour=1), None)) == {"usd"}


@pytest.mark.parametrize(
    ("stated", "rates", "costs"),
    [
        ({}, Rates(usd_per_hour=1), {}),
        ({"seconds": 0.5}, Rates(), {"fit_seconds": 0, "latency_seconds": 0.5}),
        ({"usd": 0.002}, Rates(), {"fit_seconds": 0, "usd_per_million": 2000}),
        ({"usd": 0.002}, Rates(usd_per_hour=1), {"fit_seconds": 0, "usd": 0, "usd_per_million": 2000}),
        ({"training_seconds": 60, "training_usd": 3}, Rates(), {"fit_seconds": 60, "usd": 3}),
    ],
)
def test_training_of_predictions_from_a_file_costs_nothing_unless_stated(stated, rates, costs):
    assert stated_costs(stated, rates) == pytest.approx(costs)


def test_every_rate_has_an_option_and_every_cost_a_rate_that_exists():
    assert set(RATE_OPTIONS) == set(Rates.model_fields)
    assert {cost.rate for cost in COSTS.values() if cost.rate} == set(Rates.model_fields)


def test_measured_power_is_shared_by_the_runs_at_once(tmp_path):
    study = stored_study(tmp_path / "s", [("full", "full", 0.9), ("lora", "lora", 0.7)])
    row = study.comparison().rows[0]  # 7200 J in 60 s with 2 at once
    assert row.costs["fit_joules"] == pytest.approx(row.costs["fit_seconds"] * 60)
    study.store.add_session(Session(runs=0, workers=2, threads=1, joules=None, seconds=1000.0))
    assert study.comparison().rows[0].costs == row.costs
