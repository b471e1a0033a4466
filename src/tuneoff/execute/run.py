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
from tuneoff.engine.meter import latency, peak_operations, throughput
from tuneoff.engine.precision import resolve
from tuneoff.errors import DivergedError, TuneoffError, one_line
from tuneoff.execute.fit import Fitted, fit, timed_part
from tuneoff.execute.inputs import JobInputs
from tuneoff.machine import device, machine, peak_bytes, versions
from tuneoff.runs import DIVERGED, FAILED, OK, RunPredictions, RunRecord, RunStore, TestPredictions
from tuneoff.scoring import metrics
from tuneoff.spec.run import RunSpec


def run_one(
    spec: RunSpec, inputs: JobInputs, store: RunStore, on_progress: Callable[[float], None] = lambda share: None
) -> RunRecord:
    """Fit, evaluate and store one run. An error is stored too, as a failed or diverged run."""
    started = time.perf_counter()
    try:
        dataset = inputs.dataset(spec)
        fitted = fit(spec, dataset, inputs, on_progress=on_progress)
        scores = _scores(spec, dataset, fitted)  # by a function of the user's own too, which may fail
    except Exception as error:
        status = DIVERGED if isinstance(error, DivergedError) else FAILED
        reason = str(error) if isinstance(error, TuneoffError) else traceback.format_exc()
        return store.write(_record(spec, status=status, error=reason))
    parts, splits = parts_of(dataset, spec.fold, spec.subset, spec.seed, spec.division), list(fitted.probabilities)
    labels = {split: parts[split].labels(dataset) for split in splits}
    predicted = {split: fitted.predicted(split) for split in splits}
    pairs = {split: (labels[split], predicted[split]) for split in splits}
    fitted.costs |= {"run_seconds": time.perf_counter() - started, "peak_bytes": peak_bytes()}
    fitted.costs["latency_seconds"] = latency(fitted.classify_one, timed_part(parts).num_examples(dataset))
    if fitted.merged and fitted.classify_sample:
        fitted.costs |= _merged_costs(fitted, timed_part(parts).num_examples(dataset))
    if fitted.costs.get("operations"):
        dtype = resolve(spec.recipe.precision, device())
        fitted.costs["peak_operations_per_second"] = peak_operations(dtype, device())
    # after everything that is timed or counted: neither changes a number of the run
    tests = _predict_tests(spec, fitted, dataset, inputs)
    movement = _movement(fitted) if not spec.subset else {}
    record = _record(
        spec,
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
    )
    examples = {split: parts[split].row_numbers(dataset) for split in splits}
    predictions = RunPredictions(labels, predicted, fitted.probabilities, examples) if splits else None

    def save(folder: Path) -> None:
        fitted.save(folder)
        saved = SavedModel.of_run(record, dataset.label_names, dataset.is_multilabel, dataset.is_pair)
        saved.write(folder)
        write_card(folder, ModelFacts(saved, record, DataFacts.of(dataset)))

    # of the runs of folds, the first shows the size of the model; the model that is handed over has seen all examples
    return store.write(
        record,
        predictions,
        _history(fitted.trained),
        save if spec.save_model else None,
        keep_model=spec.fold is None,
        tests=tests,
    )


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
    for name, fingerprint in spec.tests.items():
        started, split = time.perf_counter(), split_name(name)
        fitted.probabilities[split] = fitted.predict_split(data, split)
        labels, predicted = labels_of(data.splits[split]), fitted.predicted(split)
        of_split = RunPredictions({split: labels}, {split: predicted}, {split: fitted.probabilities[split]})
        predictions[name] = TestPredictions(of_split, fingerprint, time.perf_counter() - started)
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
    if trained is None:
        return None
    steps = pd.DataFrame(trained.steps).assign(kind="step")
    evaluations = [pd.DataFrame(trained.evaluations).assign(kind="evaluation")] if trained.evaluations else []
    return pd.concat([steps, pd.DataFrame(trained.epochs).assign(kind="epoch"), *evaluations], ignore_index=True)


def _record(spec: RunSpec, status: str, **fields: Any) -> RunRecord:
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
