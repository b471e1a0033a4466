"""Trackers that a study may also be stored in: their options, and whether their libraries are installed."""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from tuneoff.errors import ConfigError, LibraryError, unknown
from tuneoff.validation import validated


class TrackerOptions(BaseModel):
    """Options of one tracker."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MlflowOptions(TrackerOptions):
    """MLflow: a parent run for the study, and a nested run for each of its runs."""

    uri: str | None = Field(
        None, description="server or database; by default MLFLOW_TRACKING_URI, else sqlite:///mlflow.db"
    )
    experiment: str | None = Field(None, description="by default the study's name")

    @field_validator("uri")
    @classmethod
    def _has_no_password(cls, given: str | None) -> str | None:
        if given and urlsplit(given).password:  # study.yaml and the report show the options
            raise ConfigError(
                "mlflow: the uri holds a password, which the report would show; set MLFLOW_TRACKING_URI in the "
                "environment and leave out uri, or use MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        return given


class TensorboardOptions(TrackerOptions):
    """TensorBoard: a folder with a subfolder for each run."""

    folder: str | None = Field(None, description="by default tensorboard in the study's folder")


class WandbOptions(TrackerOptions):
    """Weights & Biases: a group of runs."""

    project: str = Field("tuneoff", min_length=1)
    mode: Literal["offline", "online"] = Field("offline", description="online sends everything to the server")
    folder: str | None = Field(None, description="of local files; by default the study's folder")


class TrackioOptions(TrackerOptions):
    """trackio: a group of runs in a local project."""

    project: str = Field("tuneoff", min_length=1)
    folder: str | None = Field(None, description="by default trackio's own: TRACKIO_DIR, else in the hub's cache")


TRACKER_OPTIONS: dict[str, type[TrackerOptions]] = {
    "mlflow": MlflowOptions,
    "tensorboard": TensorboardOptions,
    "wandb": WandbOptions,
    "trackio": TrackioOptions,
}


def parse_track(given: Any) -> dict[str, TrackerOptions]:
    """Parse trackers: "mlflow", {mlflow: {uri: ...}}, "mlflow:uri=...", or a list of these."""
    entries = given if isinstance(given, (list, tuple)) else [] if given is None else [given]
    parsed: dict[str, TrackerOptions] = {}
    for entry in entries:
        if not isinstance(entry, (str, Mapping)):
            raise ConfigError(f"tracker {entry!r} is neither a name nor name: {{options}}; write mlflow")
        for name, options in (_split(entry) if isinstance(entry, str) else entry).items():
            if name not in TRACKER_OPTIONS:
                raise ConfigError(unknown("tracker", name, TRACKER_OPTIONS))
            plain = options.model_dump() if isinstance(options, TrackerOptions) else options or {}
            parsed[name] = validated(TRACKER_OPTIONS[name], plain, f"tracker {name}")
    return parsed


def _split(entry: str) -> dict[str, dict[str, str]]:
    """Split name:option=value:option=value; a value may hold colons, as an address does."""
    name, *pairs = re.split(r":(?=\w+=)", entry.strip())
    return {name: dict(pair.split("=", 1) for pair in pairs)}


def dump_track(track: Mapping[str, TrackerOptions]) -> dict[str, dict[str, Any]]:
    """Return trackers as plain data, without options that are not set."""
    return {name: options.model_dump(mode="json", exclude_defaults=True) for name, options in track.items()}


def check_installed(track: Mapping[str, TrackerOptions]) -> None:
    """Raise LibraryError for a tracker whose library is not installed. Nothing is imported."""
    for name in track:
        if find_spec(name) is None:
            raise LibraryError(f"tracker {name} is not installed; install it with: pip install 'tuneoff[{name}]'")
