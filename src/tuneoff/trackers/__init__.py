"""The table of trackers. To add one, write its file, its options in track.py, and a row here."""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from tuneoff.comparison.result import Comparison
from tuneoff.errors import one_line
from tuneoff.track import TrackerOptions
from tuneoff.trackers.base import Tracker, tracked_study
from tuneoff.trackers.mlflow import store_in_mlflow
from tuneoff.trackers.tensorboard import store_in_tensorboard
from tuneoff.trackers.trackio import store_in_trackio
from tuneoff.trackers.wandb import store_in_wandb

# their libraries are imported when they store something
TRACKERS: dict[str, Tracker] = {
    "mlflow": store_in_mlflow,
    "tensorboard": store_in_tensorboard,
    "wandb": store_in_wandb,
    "trackio": store_in_trackio,
}
_PASSWORD = re.compile(r"//[^/@\s]+@")  # in an address, with its user


@dataclass(frozen=True)
class Tracked:
    """What became of a study in one tracker."""

    tracker: str
    place: str = ""  # where it is stored
    error: str = ""  # empty if it is stored

    @property
    def text(self) -> str:
        """One line for the screen."""
        if self.error:
            return f"{self.tracker}: the study is not stored there ({self.error}); nothing else is affected"
        return f"{self.tracker}: stored in {self.place}"


def track(comparison: Comparison, folder: Path, trackers: Mapping[str, TrackerOptions]) -> Iterator[Tracked]:
    """Store a finished study in each tracker. An error of one is its result: it harms neither the study nor the others.

    folder: of the study, with its report.
    """
    if not trackers:
        return
    study = tracked_study(comparison, folder)
    for name, options in trackers.items():
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # messages of the libraries
                place = TRACKERS[name](study, options)
            yield Tracked(name, place)
        except Exception as error:  # of any kind: a server that is down, a full disk, a library that changed
            yield Tracked(name, error=one_line(_PASSWORD.sub("//", str(error)) or type(error).__name__, limit=160))
