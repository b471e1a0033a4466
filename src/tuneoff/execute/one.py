"""One run from its spec to its stored record; or one search, trial by trial."""

import math
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from tuneoff import metrics
from tuneoff.data.carve import num_chosen
from tuneoff.data.dataset import labels_of
from tuneoff.data.load import open_dataset
from tuneoff.deliver.card import write_card
from tuneoff.engine.loop import Trained
from tuneoff.engine.meter import latency, peak_operations
from tuneoff.engine.precision import resolve
from tuneoff.errors import DivergedError, TuneoffError
from tuneoff.execute.fit import JUDGED, fit
from tuneoff.machine import device, machine, peak_bytes, versions
from tuneoff.runs import DIVERGED, FAILED, OK, Predictions, RunRecord, RunStore
from tuneoff.spec import RunSpec

Progress = Callable[[float], None]


def run_one(spec: RunSpec, store: RunStore, on_progress: Progress = lambda share: None) -> RunRecord:
    """Make one run and store it. What goes wrong is stored too: as failed, or as diverged."""
    started = time.perf_counter()
    try:
        dataset = open_dataset(spec.data_fingerprint)
        fitted = fit(spec, dataset, on_progress=on_progress)
    except Exception as error:
        status = DIVERGED if isinstance(error, DivergedError) else FAILED
        reason = str(error) if isinstance(error, TuneoffError) else traceback.format_exc()
        return store.write(_record(spec, status=status, error=reason))
    labels = {split: labels_of(dataset.splits[split]) for split in JUDGED}
    predicted = {split: fitted.predicted(split) for split in JUDGED}
    parts = {split: (labels[split], predicted[split]) for split in JUDGED}
    fitted.costs |= {"run_seconds": time.perf_counter() - started, "peak_bytes": peak_bytes()}
    fitted.costs["latency_seconds"] = latency(fitted.answer, dataset.num_examples("test"))
    if fitted.costs.get("operations"):
        dtype = resolve(spec.recipe.precision, device())
        fitted.costs["peak_operations_per_second"] = peak_operations(dtype, device())
    record = _record(
        spec,
        status=OK,
        metrics={split: metrics.evaluate(*parts[split], fitted.probabilities[split]) for split in JUDGED},
        per_class={split: metrics.per_class(*parts[split], dataset.label_names) for split in JUDGED},
        confusion={split: metrics.confusion(*parts[split], dataset.num_labels).tolist() for split in JUDGED},
        costs=fitted.costs,
        parameters=fitted.parameters,
        train_examples=num_chosen(dataset, spec.subset, spec.seed),
        thresholds=None if fitted.thresholds is None else fitted.thresholds.tolist(),
        best_epoch=fitted.trained.best_epoch if fitted.trained else None,
    )
    predictions = Predictions(labels, predicted, fitted.probabilities)

    def save(folder: Path) -> None:
        fitted.save(folder)
        write_card(folder, record, dataset)

    return store.write(record, predictions, _history(fitted.trained), save if spec.save_model else None)


def _history(trained: Trained | None) -> pd.DataFrame | None:
    if trained is None:
        return None
    steps = pd.DataFrame(trained.steps).assign(kind="step")
    return pd.concat([steps, pd.DataFrame(trained.epochs).assign(kind="epoch")], ignore_index=True)


def _record(spec: RunSpec, status: str, **found: Any) -> RunRecord:
    return RunRecord(
        run_id=spec.run_id,
        group=spec.group,
        strategy=spec.strategy.name,
        label=spec.strategy.label,
        model=spec.model,
        seed=spec.seed,
        status=status,
        spec=spec.model_dump(mode="json"),
        versions=versions(),
        machine=machine(),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        **{name: _finite(value) for name, value in found.items()},
    )


def failed_record(spec: RunSpec, why: str) -> RunRecord:
    """The record of a run that could not leave one itself."""
    return _record(spec, status=FAILED, error=why)


def _finite(value: Any) -> Any:
    """JSON has no NaN or infinity: null stands for them."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
