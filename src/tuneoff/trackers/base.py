"""A study as trackers store it: parameters, curves and scores of each run, the verdict, the leaderboard and files.

A tracker is a function that stores it, called when the study has finished: it reads stored records, so that it disturbs
no run and the time of none. It stores only what it does not hold yet, by the id of a run and the time when it finished.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from tuneoff.cache import fingerprint
from tuneoff.comparison.result import Comparison
from tuneoff.runs import OK, RunRecord, RunStore

RUN_ID, STAMP = "tuneoff.run_id", "tuneoff.stamp"  # what a stored run is recognized by


@dataclass(frozen=True)
class Point:
    """Values of a run's curves at one training step."""

    step: int
    values: dict[str, float]


@dataclass(frozen=True)
class TrackedRun:
    """One run: parameters, curves, and scores at the end."""

    run_id: str
    name: str  # "lora seed 0"
    params: dict[str, str | int | float | bool]
    curves: tuple[Point, ...]  # by step
    scores: dict[str, float]  # final/test/accuracy, final/validation/accuracy, costs/train_seconds, ...
    error: str | None  # of a failed run
    stamp: str  # changes if the run is trained again
    finished_at: float  # seconds since 1970
    seconds: float  # that it took


@dataclass(frozen=True)
class TrackedStudy:
    """A study with its runs."""

    name: str
    folder: Path
    runs: tuple[TrackedRun, ...]
    params: dict[str, str | int | float | bool]
    scores: dict[str, float]
    verdict: str
    leaderboard: pd.DataFrame
    leaderboard_markdown: str
    report: str  # in Markdown
    files: dict[str, Path]  # name -> the report's files
    model: Path | None  # folder of the recommended strategy's model
    stamp: str  # changes with the verdict and the runs

    @property
    def id(self) -> str:
        """Id of the study among the runs of a tracker."""
        return f"study-{self.name}"


class Tracker(Protocol):
    """Stores a study where it is not stored yet, and returns the place in words."""

    def __call__(self, study: TrackedStudy, options: Any) -> str: ...


def tracked_study(comparison: Comparison, folder: Path) -> TrackedStudy:
    """Collect what trackers store from a comparison and the files of its report."""
    records = [*comparison.records, *comparison.subset_records, *comparison.failures]
    records += [comparison.final] if comparison.final else []
    models = {record.model for record in records if record.model}
    store = RunStore(folder / "runs")
    runs = tuple(_tracked_run(record, store, with_model=len(models) > 1) for record in records)
    report = (folder / "report.md").read_text(encoding="utf-8")
    verdict, model = comparison.verdict, Path(comparison.model_folder) if comparison.model_folder else None
    figures = {f"figures/{path.name}": path for path in sorted((folder / "figures").glob("*.png"))}
    return TrackedStudy(
        name=comparison.name,
        folder=folder,
        runs=runs,
        params={
            "metric": comparison.metric,
            "data": comparison.data.name,
            "data_fingerprint": comparison.data.fingerprint,
            "recommended": (comparison.names.get(verdict.recommended or "") if verdict else None) or "none",
        },
        scores=_numbers(
            {
                f"verdict/{name}": getattr(verdict, name)
                for name in ("expected_loss", "loss_bound", "corrected_score", "margin")
                if verdict and getattr(verdict, name) is not None
            }
        ),
        verdict=verdict.text if verdict else "No run succeeded.",
        leaderboard=comparison.leaderboard,
        leaderboard_markdown=(folder / "tables" / "leaderboard.md").read_text(encoding="utf-8") if verdict else "",
        report=report,
        files={"report/index.html": folder / "report" / "index.html", "report.md": folder / "report.md", **figures},
        model=model if model and model.is_dir() else None,
        stamp=fingerprint(report, [f"{run.run_id} {run.stamp}" for run in runs]),
    )


def _tracked_run(record: RunRecord, store: RunStore, with_model: bool) -> TrackedRun:
    subset = f" on {subset_label(record.spec['subset'])}" if record.is_subset else ""
    place = f" on {record.model}" if with_model and record.model else ""
    finished = datetime.fromisoformat(record.finished_at).timestamp() if record.finished_at else 0.0
    scores = {f"final/{split}/{name}": v for split, values in record.metrics.items() for name, v in values.items()}
    costs = {f"costs/{name}": value for name, value in record.costs.items()}
    return TrackedRun(
        run_id=record.run_id,
        name=f"{record.label}{subset}{place} {record.repeat}",
        params=_params(record),
        curves=curves(store.history(record.run_id)) if record.status == OK else (),
        scores=_numbers(scores | costs),
        error=None if record.status == OK else f"{record.status}: {record.reason}",
        stamp=f"{record.status} {record.finished_at}".strip(),
        finished_at=finished,
        seconds=record.costs.get("run_seconds", 0.0),
    )


def subset_label(subset: Mapping[str, Any]) -> str:
    """Return a subset of train in words."""
    return f"{100 * subset['fraction']:g} %" if subset.get("fraction") else f"{subset.get('per_class')} per class"


def _params(record: RunRecord) -> dict[str, str | int | float | bool]:
    """Return everything that determined a run, by dotted names."""
    spec = record.spec
    strategy = next(iter((spec.get("strategy") or {}).values()), None) or {}
    options = {**strategy, **(spec.get("searched_options") or {}), **record.selected_options}
    nested = {
        "strategy": record.strategy,
        "label": record.label,
        "group": record.group,
        "encoder": record.model,
        "seed": record.seed,
        "options": options,
        "recipe": spec.get("recipe"),
        "subset": spec.get("subset"),
        "fold": spec.get("fold"),
        "seeds": record.sources,
        "metric": spec.get("metric"),
        "data_fingerprint": spec.get("data_fingerprint"),
        "model_fingerprint": spec.get("model_fingerprint"),
        "train_examples": record.train_examples,
        "best_epoch": record.best_epoch,
        "parameters": record.parameters,
        "versions": record.versions,
    }
    return dict(_flat("", nested))


def _flat(prefix: str, value: Any) -> list[tuple[str, str | int | float | bool]]:
    if isinstance(value, Mapping):
        return [pair for key, inner in value.items() for pair in _flat(f"{prefix}.{key}" if prefix else key, inner)]
    if value is None:
        return []
    return [(prefix, value if isinstance(value, (str, int, float, bool)) else ", ".join(map(str, value)))]


def curves(history: pd.DataFrame) -> tuple[Point, ...]:
    """Return the curves of a history, by step. An epoch's scores stand at its last step."""
    if history.empty:
        return ()
    steps, epochs = history[history.kind == "step"], history[history.kind == "epoch"]
    last_step = steps.groupby("epoch")["step"].max()
    points = []
    for row in steps.to_dict("records"):
        values = {"train/loss": row["loss"], "train/learning_rate": row.get("learning_rate"), "epoch": row["epoch"]}
        points.append(Point(int(row["step"]), _numbers(values)))
    metrics = [str(name).removeprefix("validation_") for name in history.columns if "validation_" in str(name)]
    for row in epochs.to_dict("records"):
        scores = {f"validation/{metric}": row[f"validation_{metric}"] for metric in metrics}
        points.append(Point(int(last_step.get(row["epoch"], row["epoch"])), _numbers(scores)))
    return tuple(sorted(points, key=lambda point: point.step))


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite values as plain floats."""
    return {name: float(v) for name, v in values.items() if v is not None and abs(float(v)) < float("inf")}
