"""One run, from its specification to its stored record."""

import math
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from tuneoff.data.dataset import Dataset, labels_of
from tuneoff.data.other_tests import split_name, with_other_tests
from tuneoff.data.splits import parts_of
from tuneoff.deliver.card import DataFacts, ModelFacts, write_card
from tuneoff.deliver.saved import SavedModel
from tuneoff.engine.loop import Trained
from tuneoff.engine.memory import is_out_of_memory, release_memory
from tuneoff.engine.meter import latency, peak_operations, throughput
from tuneoff.engine.precision import resolve
from tuneoff.engine.resume import Checkpoint
from tuneoff.errors import DeviceError, DivergedError, NoMemoryError, TuneoffError, join_limited, one_line
from tuneoff.execute.checkpoints import checkpoint_of
from tuneoff.execute.devices import Devices
from tuneoff.execute.fit import fit
from tuneoff.execute.fitted import Fitted, timed_part
from tuneoff.execute.inputs import JobInputs
from tuneoff.machine import busy_seconds, device, host_peak_bytes, machine, peak_bytes, versions
from tuneoff.runs import DIVERGED, FAILED, OK, RunPredictions, RunRecord, RunStore, TestPredictions
from tuneoff.scoring import metrics
from tuneoff.spec.run import RunSpec
from tuneoff.strategies import GradientConfig


def run_one(
    spec: RunSpec,
    inputs: JobInputs,
    store: RunStore,
    on_progress: Callable[[float], None] = lambda share: None,
    halvings: int = 0,
    devices: Devices | None = None,
) -> RunRecord:
    """Fit, evaluate and store one run. An error is stored too, as a failed or diverged run.

    A run that was stopped goes on from its checkpoint. halvings: of the micro-batch, because an earlier process that
    ran it was killed, probably for lack of memory. devices: that train it together; None for one.
    """
    started, busy_since = time.perf_counter(), busy_seconds()
    num_devices = devices.count if devices and isinstance(spec.config, GradientConfig) else 1
    checkpoint = checkpoint_of(spec, store, num_devices)
    try:
        dataset = inputs.dataset(spec)
        fitted = _fit_in_memory(spec, dataset, inputs, on_progress, checkpoint, halvings, devices)
        scores = _scores(spec, dataset, fitted)  # by a function of the user's own too, which may fail
    except Exception as error:
        record = store.write(_unsuccessful(spec, error), history=_history(getattr(error, "trained", None)))
        checkpoint.remove()
        return record
    earlier_seconds = fitted.trained.earlier_seconds if fitted.trained else 0.0
    parts, splits = parts_of(dataset, spec.fold, spec.subset, spec.seed, spec.division), list(fitted.probabilities)
    labels = {split: parts[split].labels(dataset) for split in splits}
    predicted = {split: fitted.predicted(split) for split in splits}
    pairs = {split: (labels[split], predicted[split]) for split in splits}
    earlier_peak = fitted.trained.earlier_peak_bytes if fitted.trained else 0
    seconds = time.perf_counter() - started
    waited = max(0.0, seconds - (busy_seconds() - busy_since))
    fitted.costs |= {"run_seconds": earlier_seconds + seconds, "waited_seconds": waited}
    fitted.costs["peak_bytes"] = max(earlier_peak, peak_bytes())
    if device().type != "cpu":
        fitted.costs["host_peak_bytes"] = host_peak_bytes()
    fitted.costs["latency_seconds"] = latency(fitted.classify_one, timed_part(parts).num_examples(dataset))
    if fitted.merged and fitted.classify_sample:
        fitted.costs |= _merged_costs(fitted, timed_part(parts).num_examples(dataset))
    if fitted.costs.get("operations"):
        dtype = resolve(spec.recipe.precision, device())
        fitted.costs["peak_operations_per_second"] = num_devices * peak_operations(dtype, device())
    # after everything that is timed or counted: neither changes a number of the run
    tests = _predict_tests(spec, fitted, dataset, inputs)
    movement = _movement(fitted) if not spec.subset else {}
    record = _record(
        spec,
        num_devices,
        status=OK,
        metrics=scores,
        per_class={
            split: [asdict(scores) for scores in metrics.per_class(*pairs[split], dataset.label_names)]
            for split in splits
        },
        confusion={split: metrics.confusion(*pairs[split], dataset.num_labels).tolist() for split in splits},
        costs=fitted.costs,
        parameters=fitted.parameters,
        train_examples=parts["train"].num_examples(dataset),
        thresholds=None if fitted.thresholds is None else fitted.thresholds.tolist(),
        best_epoch=fitted.trained.best_epoch if fitted.trained else None,
        best_step=fitted.trained.best_step if fitted.trained and spec.recipe.evaluate_every else None,
        selected_options=fitted.selected_options,
        movement=movement,
        micro_batch=_micro_batch(spec, fitted.trained),
        notes=_notes(spec, fitted.trained, checkpoint),
    )
    examples = {split: parts[split].row_numbers(dataset) for split in splits}
    predictions = RunPredictions(labels, predicted, fitted.probabilities, examples) if splits else None

    def save(folder: Path) -> None:
        fitted.save(folder)
        saved = SavedModel.of_run(record, dataset.label_names, dataset.is_multilabel, dataset.is_pair)
        saved.write(folder)
        write_card(folder, ModelFacts(saved, record, DataFacts.of(dataset)))

    # of the runs of folds, the first shows the size of the model; the model that is handed over has seen all examples
    record = store.write(
        record,
        predictions,
        _history(fitted.trained),
        save if spec.save_model else None,
        keep_model=spec.fold is None,
        tests=tests,
    )
    checkpoint.remove()
    return record


def _fit_in_memory(
    spec: RunSpec,
    dataset: Dataset,
    inputs: JobInputs,
    on_progress: Callable[[float], None],
    checkpoint: Checkpoint,
    halvings: int,
    devices: Devices | None,
) -> Fitted:
    """Fit a run, and once more in smaller micro-batches where memory lacks elsewhere than in a step's gradient."""
    arguments: dict[str, Any] = {"on_progress": on_progress, "checkpoint": checkpoint, "devices": devices}
    try:
        return fit(spec, dataset, inputs, **arguments, halvings=halvings)
    except Exception as error:
        is_final = isinstance(error, NoMemoryError) or not isinstance(spec.config, GradientConfig)
        was_killed = isinstance(error, DeviceError) and error.was_killed
        if is_final or not (is_out_of_memory(error) or was_killed):
            raise
    release_memory()  # outside the handler, whose traceback keeps the model
    return fit(spec, dataset, inputs, **arguments, halvings=halvings + 1)


def _unsuccessful(spec: RunSpec, error: Exception) -> RunRecord:
    """Return the record of a run that failed or diverged."""
    if isinstance(error, DivergedError):
        return _record(spec, status=DIVERGED, error=str(error), divergence=_last_values(error))
    if is_out_of_memory(error) and not isinstance(error, TuneoffError):
        reason = f"out of memory ({one_line(error, 120)}); use fewer workers, a shorter max_length or a smaller encoder"
    else:
        reason = str(error) if isinstance(error, TuneoffError) else traceback.format_exc()
    return _record(spec, status=FAILED, error=reason)


def _last_values(error: DivergedError) -> dict[str, Any]:
    """Return the step at which a training diverged, and its last finite values; empty if it took no step."""
    if error.trained is None:
        return {}
    last = error.trained.steps[-1] if error.trained.steps else {}
    scores = error.trained.epochs[-1] if error.trained.epochs else {}
    last_scores = {name: value for name, value in scores.items() if name.startswith("validation_")}
    return {"step": len(error.trained.steps) + 1, "last": last, "last_validation": last_scores}


def _micro_batch(spec: RunSpec, trained: Trained | None) -> int | None:
    """Return the examples of a step that were computed at once, if lack of memory made them fewer."""
    if trained is None or not trained.halvings:
        return None
    return math.ceil(spec.recipe.batch_size / (spec.recipe.accumulation * 2**trained.halvings))


def _notes(spec: RunSpec, trained: Trained | None, checkpoint: Checkpoint) -> list[str]:
    """Write what happened to a run beside its training."""
    notes = [text for text in (checkpoint.ignored, checkpoint.failure) if text]
    if trained and trained.adds_in_any_order:
        notes.append("an operation of this strategy adds in any order on a GPU: the same seed gives other last digits")
    if trained and trained.graph_error:
        notes.append(f"CUDA graphs were not used to the end: {trained.graph_error}")
    size = _micro_batch(spec, trained)
    if trained and size:
        steps = join_limited(sorted(set(trained.memory_steps)))
        cause = f"out of memory at step {steps}" if steps else "an earlier process was killed or out of memory"
        batch = spec.recipe.batch_size
        notes.append(f"{cause}: steps were computed in micro-batches of {size}, the batch stayed {batch}")
    return notes


def _scores(spec: RunSpec, dataset: Dataset, fitted: Fitted) -> dict[str, dict[str, float]]:
    """Return every metric on each split that the run predicts."""
    parts = parts_of(dataset, spec.fold, spec.subset, spec.seed, spec.division)
    options = spec.selection(dataset.label_names, dataset.is_multilabel).options
    return {
        split: metrics.evaluate(parts[split].labels(dataset), fitted.predicted(split), by_class, options)
        for split, by_class in fitted.probabilities.items()
    }


def _predict_tests(spec: RunSpec, fitted: Fitted, dataset: Dataset, inputs: JobInputs) -> dict[str, TestPredictions]:
    """Predict the test sets from elsewhere that a run names."""
    if not spec.tests:
        return {}
    assert fitted.predict_split is not None
    data, predictions = with_other_tests(dataset, inputs.other_tests(spec)), {}
    for name, of_test in spec.tests.items():
        started, split = time.perf_counter(), split_name(name)
        fitted.probabilities[split] = fitted.predict_split(data, split)
        labels, predicted = labels_of(data.splits[split]), fitted.predicted(split)
        of_split = RunPredictions({split: labels}, {split: predicted}, {split: fitted.probabilities[split]})
        predictions[name] = TestPredictions(of_split, of_test, time.perf_counter() - started)
    return predictions


def predict_tests(spec: RunSpec, names: Sequence[str], inputs: JobInputs, store: RunStore) -> None:
    """Predict test sets from elsewhere with the stored model of a run; its record and its model stay as they are."""
    from tuneoff.deliver.classifier import load_classifier

    classifier, tables = load_classifier([store.path(spec.run_id) / "model"]), inputs.other_tests(spec)
    for name in names:
        started, split = time.perf_counter(), split_name(name)
        probabilities = classifier.predict_proba(tables[name])
        predicted = classifier.labels_from(probabilities)
        of_split = RunPredictions({split: labels_of(tables[name])}, {split: predicted}, {split: probabilities})
        predictions = TestPredictions(of_split, spec.tests[name], time.perf_counter() - started)
        store.write_tests(store.path(spec.run_id), {name: predictions})


def _merged_costs(fitted: Fitted, num_examples: int) -> dict[str, float]:
    """Measure inference with the added weights apart, and merged into the encoder's own; nothing if they cannot be."""
    assert fitted.merged
    assert fitted.classify_sample
    apart = throughput(fitted.classify_sample)
    try:
        with fitted.merged():
            return {
                "merged_latency_seconds": latency(fitted.classify_one, num_examples),
                "unmerged_sample_per_second": apart,
                "merged_sample_per_second": throughput(fitted.classify_sample),
            }
    except (NotImplementedError, ValueError, RuntimeError):  # as in deliver/layouts.py: peft cannot merge this method
        return {}


def _movement(fitted: Fitted) -> dict[str, Any]:
    """Measure how far training moved the encoder; an error costs this measurement, and not the run."""
    if fitted.measure_movement is None:
        return {}
    try:
        return fitted.measure_movement()
    except Exception as error:  # the run has its scores and its model
        return {"error": one_line(error)}


def _history(trained: Trained | None) -> pd.DataFrame | None:
    if trained is None or not trained.steps:
        return None
    steps = pd.DataFrame(trained.steps).assign(kind="step")
    evaluations = [pd.DataFrame(trained.evaluations).assign(kind="evaluation")] if trained.evaluations else []
    return pd.concat([steps, pd.DataFrame(trained.epochs).assign(kind="epoch"), *evaluations], ignore_index=True)


def _record(spec: RunSpec, num_devices: int = 1, *, status: str, **fields: Any) -> RunRecord:
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
        machine=machine() | ({"devices": num_devices} if num_devices > 1 else {}),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        **{name: _without_nan(value) for name, value in fields.items()},
    )


def failed_record(spec: RunSpec, reason: str) -> RunRecord:
    """Return the record of a run whose process died."""
    return _record(spec, status=FAILED, error=reason)


def _without_nan(value: Any) -> Any:
    """Replace NaN and infinity, which JSON cannot hold, by null."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
