"""The run store: what a run leaves, written whole or not at all."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from tuneoff.errors import ConfigError, StoreError, unknown

OK, FAILED, DIVERGED = "ok", "failed", "diverged"

# the costs by which the verdict may choose, and what each is called
COSTS = {
    "train_seconds": "training time",
    "trainable_parameters": "trainable parameters",
    "model_bytes": "size on disk",
    "peak_bytes": "memory",
    "latency_seconds": "inference latency",
}


def check_cost(name: str) -> str:
    """The name itself, or a ConfigError that lists the right ones."""
    if name not in COSTS:
        raise ConfigError(unknown("cost", name, COSTS))
    return name


@dataclass(frozen=True)
class RunRecord:
    """What one run was, scored and cost. Everything here is JSON."""

    run_id: str
    group: str  # what the runs of all seeds share
    strategy: str
    label: str  # the strategy with its options, for people
    model: str | None
    seed: int
    status: str  # ok | failed | diverged
    error: str | None = None
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)  # split -> metric -> score
    per_class: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # split -> one row a class
    confusion: dict[str, list[list[int]]] = field(default_factory=dict)  # split -> true x predicted
    costs: dict[str, float] = field(default_factory=dict)  # seconds, bytes and rates, each named with its unit
    parameters: dict[str, int] = field(default_factory=dict)  # trainable, added, head, total
    train_examples: int | None = None
    thresholds: list[float] | None = None  # from which probability on each label is predicted, if there may be several
    best_epoch: int | None = None
    spec: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    finished_at: str = ""  # UTC, ISO 8601

    @property
    def reason(self) -> str:
        """Why it did not succeed: the last line of its error."""
        return ((self.error or "").strip().splitlines() or ["no reason was stored"])[-1]


@dataclass(frozen=True)
class Predictions:
    """What a run said of every example of the validation and test splits."""

    labels: dict[str, np.ndarray]  # split -> (N,) ids, or (N, C) of 0 and 1
    predicted: dict[str, np.ndarray]  # the same
    probabilities: dict[str, np.ndarray]  # split -> (N, C)

    def table(self) -> pa.Table:
        """Columns split, example, label, predicted, and p0, p1, ... one a class."""
        parts = []
        for split, labels in self.labels.items():
            chances = self.probabilities[split]
            columns = {
                "split": pa.array([split] * len(labels)),
                "example": np.arange(len(labels)),
                "label": _column(labels),
                "predicted": _column(self.predicted[split]),
                **{f"p{index}": chances[:, index].astype(np.float32) for index in range(chances.shape[1])},
            }
            parts.append(pa.table(columns))
        return pa.concat_tables(parts)


def _column(labels: np.ndarray) -> Any:
    """Labels as a column: numbers, or lists of 0 and 1."""
    if labels.ndim == 1:
        return labels
    return pa.FixedSizeListArray.from_arrays(pa.array(labels.ravel().astype(np.uint8)), labels.shape[1])


def stored_labels(column: pd.Series) -> np.ndarray:
    """A column of stored labels as it was before. (N,) or (N, C)."""
    return np.stack(list(column)).astype(np.int64) if column.dtype == object else column.to_numpy()


def write_json(path: Path, data: Any) -> None:
    """Write JSON whole or not at all."""
    unfinished = path.with_name(f".unfinished-{os.getpid()}-{path.name}")
    unfinished.write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")
    unfinished.rename(path)


def read_json(path: Path) -> Any:
    """Read JSON. Raises StoreError, in one line."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read ({error}); run the study again") from error


def write_table(table: pa.Table, path: Path) -> None:
    """Write Parquet whole or not at all."""
    unfinished = path.with_name(f".unfinished-{os.getpid()}-{path.name}")
    pyarrow.parquet.write_table(table, unfinished, compression="zstd")
    unfinished.rename(path)


def read_table(path: Path) -> pd.DataFrame:
    """Read Parquet. Raises StoreError, in one line."""
    try:
        return pyarrow.parquet.read_table(path).to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"{path} cannot be read ({error}); run the study again") from error


class RunStore:
    """The folder of a study's runs. A run exists when its folder has its final name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def searches(self) -> Path:
        """The folder of the searches, beside that of the runs."""
        return self.folder.parent / "searches"

    def path(self, run_id: str) -> Path:
        """Where a run is or will be."""
        return self.folder / run_id

    def is_done(self, run_id: str) -> bool:
        """Whether a run need not run again. A failed one is tried again; a diverged one would diverge again."""
        return self.path(run_id).is_dir() and self.record(run_id).status != FAILED

    def record(self, run_id: str) -> RunRecord:
        """One stored record."""
        path = self.path(run_id) / "run.json"
        try:
            return RunRecord(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise StoreError(f"run {run_id} cannot be read ({error}); remove {path.parent} to run it again") from error

    def remove_unfinished(self) -> None:
        """Clear what an interrupted study left half-written."""
        for folder in self.folder.glob(".unfinished-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def predictions(self, run_id: str, split: str) -> pd.DataFrame:
        """What a stored run said of one split."""
        table = pyarrow.parquet.read_table(self.path(run_id) / "predictions.parquet", filters=[("split", "=", split)])
        return table.to_pandas()

    def history(self, run_id: str) -> pd.DataFrame:
        """Rows per step (kind "step") and per epoch (kind "epoch"); empty where nothing trained."""
        path = self.path(run_id) / "history.parquet"
        return pd.read_parquet(path) if path.is_file() else pd.DataFrame()

    def write(
        self,
        record: RunRecord,
        predictions: Predictions | None = None,
        history: pd.DataFrame | None = None,
        save_model: Callable[[Path], None] | None = None,
    ) -> RunRecord:
        """Store a run: into a temporary folder, then renamed. Replaces a failed earlier try, and nothing else."""
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.folder / f".unfinished-{record.run_id}-{os.getpid()}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            if save_model is not None:
                (unfinished / "model").mkdir()
                save_model(unfinished / "model")
                size = sum(file.stat().st_size for file in (unfinished / "model").rglob("*") if file.is_file())
                record.costs["model_bytes"] = size
            if predictions is not None:
                pyarrow.parquet.write_table(predictions.table(), unfinished / "predictions.parquet", compression="zstd")
            if history is not None and len(history):
                history.to_parquet(unfinished / "history.parquet")
            text = json.dumps(asdict(record), indent=1, ensure_ascii=False, allow_nan=False)
            (unfinished / "run.json").write_text(text, encoding="utf-8")
            target = self.path(record.run_id)
            if target.exists():
                stored = self.record(record.run_id)
                if stored.status != FAILED:
                    return stored  # another process was faster
                shutil.rmtree(target)
            unfinished.rename(target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return record
