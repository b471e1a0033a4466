"""The costs of a run, one row each: its name, its unit, and how reports show it.

A run measures most costs under these keys (execute/fit_model.py, execute/run.py); comparison/assemble.py averages them
over seeds and derives the others. The verdict, the leaderboard, the compute section, the cost charts and the help of
--cost are made from this table: a new cost is a row here and the line that measures it.

Money, energy and CO2 follow from seconds and from the rates of a study, so that another price needs no new runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from tuneoff.errors import ConfigError, short_repr, unknown
from tuneoff.tables import BYTES, COUNT, ENERGY, GRAMS, MONEY, OPERATIONS, SECONDS, SHARE, Format

Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# costs that a study may state of predictions from a file: of one prediction, and of training once
StatedCost = Literal["seconds", "usd", "training_seconds", "training_usd"]


class Rates(BaseModel):
    """Prices and emissions that turn seconds into money and CO2. A cost whose rate is not stated is not shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    usd_per_hour: Rate | None = Field(None, description="price of this machine in US dollars an hour")
    watts: Rate | None = Field(
        None, description="power of the machine while one run trains; by default as its processors measure it"
    )
    grams_per_kwh: Rate | None = Field(None, description="CO2 of the electricity in grams per kWh")


# options of the command line that state the rates
RATE_OPTIONS = {"usd_per_hour": "--price-per-hour", "watts": "--watts", "grams_per_kwh": "--grams-per-kwh"}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One cost. Its key in COSTS ends in its base unit."""

    name: str  # in sentences and menus
    column: str  # heading in tables
    format: Format
    axis: str = ""  # title of a chart's axis, with the unit of the axis
    axis_factor: float = 1.0  # from the base unit to the axis' unit
    is_choosable: bool = False  # the verdict may choose by it (--cost); it needs an axis
    phase: str = ""  # the phase of a run that it is the time of
    part: str = ""  # the part of the training steps that it is the time of
    is_inference: bool = False  # of predicting, next to the latency
    rate: str = ""  # the field of Rates that it is computed with; without a value for any row, it is not shown


COSTS: dict[str, Cost] = {
    # training and the frozen blocks' one pass that it needs: a run on its own would pay for both
    "fit_seconds": Cost(
        name="training time", column="training", format=SECONDS, axis="training seconds", is_choosable=True
    ),
    "peak_bytes": Cost(
        name="memory", column="memory", format=BYTES, axis="peak memory, MB", axis_factor=1e-6, is_choosable=True
    ),
    "host_peak_bytes": Cost(name="memory of the host beside a GPU", column="host memory", format=BYTES),
    "model_bytes": Cost(
        name="size on disk", column="model", format=BYTES, axis="size on disk, MB", axis_factor=1e-6, is_choosable=True
    ),
    "latency_seconds": Cost(
        name="inference latency",
        column="latency",
        format=SECONDS,
        axis="milliseconds to classify one text",
        axis_factor=1e3,
        is_choosable=True,
    ),
    "trainable_parameters": Cost(
        name="trainable parameters", column="trainable", format=COUNT, axis="trainable parameters", is_choosable=True
    ),
    "usd": Cost(
        name="money for training",
        column="training USD",
        format=MONEY,
        axis="US dollars to train once",
        is_choosable=True,
        rate="usd_per_hour",
    ),
    # at the latency of one text at a time: batches, or several requests at once, would be cheaper
    "usd_per_million": Cost(
        name="money for a million predictions",
        column="USD per million",
        format=MONEY,
        axis="US dollars for a million predictions",
        is_choosable=True,
        rate="usd_per_hour",
    ),
    "co2_grams": Cost(
        name="CO2 of training",
        column="CO2",
        format=GRAMS,
        axis="grams of CO2 to train once",
        is_choosable=True,
        rate="grams_per_kwh",
    ),
    "fit_joules": Cost(name="energy of training", column="energy", format=ENERGY, rate="watts"),
    "tokenize_seconds": Cost(name="tokenization time", column="tokenize", format=SECONDS, phase="tokenization"),
    "prefix_seconds": Cost(
        name="time of the frozen blocks", column="frozen blocks", format=SECONDS, phase="frozen blocks"
    ),
    "train_seconds": Cost(name="time of the training steps", column="train", format=SECONDS, phase="training steps"),
    "data_seconds": Cost(name="time of drawing and packing batches", column="data", format=SECONDS, part="data"),
    "forward_seconds": Cost(name="time of the forward pass", column="forward", format=SECONDS, part="forward"),
    "backward_seconds": Cost(name="time of the backward pass", column="backward", format=SECONDS, part="backward"),
    "optimizer_seconds": Cost(name="time of the optimizer", column="optimizer", format=SECONDS, part="optimizer"),
    "evaluate_seconds": Cost(name="evaluation time", column="evaluate", format=SECONDS, phase="evaluation"),
    "run_seconds": Cost(name="time of the whole run", column="whole run", format=SECONDS),
    # in which other work had the processor: part of the whole run's time, and of no other one
    "waited_seconds": Cost(name="time of waiting for a processor", column="waited", format=SECONDS),
    "examples_per_second": Cost(name="training throughput in examples", column="examples/s", format=COUNT),
    "tokens_per_second": Cost(name="training throughput in tokens", column="tokens/s", format=COUNT),
    "predictions_per_second": Cost(
        name="inference throughput in texts", column="texts/s", format=COUNT, is_inference=True
    ),
    # of LoRA and other methods whose update can be merged into the encoder's weights; measured on a few texts
    "merged_latency_seconds": Cost(
        name="inference latency, merged", column="latency, merged", format=SECONDS, is_inference=True
    ),
    "unmerged_sample_per_second": Cost(
        name="inference throughput of a sample, not merged", column="sample texts/s", format=COUNT, is_inference=True
    ),
    "merged_sample_per_second": Cost(
        name="inference throughput of a sample, merged",
        column="sample texts/s, merged",
        format=COUNT,
        is_inference=True,
    ),
    "operations": Cost(name="training operations", column="operations", format=OPERATIONS),
    "peak_share": Cost(name="share of the peak speed", column="of peak", format=SHARE),
}
DEFAULT_COST = "fit_seconds"
# keys of earlier versions, in stored studies and runs
_RENAMED_CHOICES = {"train_seconds": "fit_seconds"}
_RENAMED_KEYS = {"encode_seconds": "tokenize_seconds"}


def choosable_costs() -> dict[str, Cost]:
    """Return the costs that the verdict may choose by; iterating gives their keys, `name` is for sentences and help."""
    return {key: cost for key, cost in COSTS.items() if cost.is_choosable}


def check_cost(name: str) -> str:
    """Return the key of a cost that the verdict may choose by. Raises ConfigError, listing the valid ones."""
    name = _RENAMED_CHOICES.get(name, name) if isinstance(name, str) else short_repr(name)
    if name not in choosable_costs():
        raise ConfigError(unknown("cost", name, choosable_costs()))
    return name


def check_is_stated(cost: str, rates: Rates) -> None:
    """Raise ConfigError if a cost needs a rate that is not stated."""
    rate = COSTS[cost].rate
    if rate and getattr(rates, rate) is None:
        raise ConfigError(f"cost {cost} needs rates.{rate}; state it in the study, or with {RATE_OPTIONS[rate]}")


def rated_costs(costs: Mapping[str, float], rates: Rates, measured_watts: float | None) -> dict[str, float]:
    """Return the costs of a strategy that follow from its seconds and the rates.

    measured_watts: power of one run; None if the machine does not show it. Stated watts come first.
    """
    rated = {}
    if rates.usd_per_hour is not None:
        rated["usd"] = costs["fit_seconds"] / 3600 * rates.usd_per_hour
        if "latency_seconds" in costs:
            rated["usd_per_million"] = 1e6 * costs["latency_seconds"] / 3600 * rates.usd_per_hour
    watts = measured_watts if rates.watts is None else rates.watts
    if watts is not None:
        rated["fit_joules"] = costs["fit_seconds"] * watts
        if rates.grams_per_kwh is not None:
            rated["co2_grams"] = rated["fit_joules"] / 3.6e6 * rates.grams_per_kwh
    return rated


def stated_costs(stated: Mapping[StatedCost, float], rates: Rates) -> dict[str, float]:
    """Return the costs of predictions from a file. Training costs 0 unless stated, if anything is stated.

    Money is left out if neither the study nor the predictions have any.
    """
    costs = {"fit_seconds": stated.get("training_seconds", 0.0)} if stated else {}
    if "training_usd" in stated or (stated and rates.usd_per_hour is not None):
        costs["usd"] = stated.get("training_usd", 0.0)
    if "seconds" in stated:
        costs["latency_seconds"] = stated["seconds"]
    if "usd" in stated:
        costs["usd_per_million"] = 1e6 * stated["usd"]
    return costs


def current_keys(costs: Mapping[str, float]) -> dict[str, float]:
    """Return the costs of a stored run under today's keys."""
    return {_RENAMED_KEYS.get(key, key): value for key, value in costs.items()}
