"""Rows of a comparison that no run of the study made: predictions from files, scored like those of a run."""

from dataclasses import dataclass

import numpy as np

from tuneoff.comparison.errors import Predictions
from tuneoff.comparison.rows import EXTERNAL
from tuneoff.costs import stated_costs
from tuneoff.data.dataset import labels_of
from tuneoff.data.predictions import TestPredictions, match_predictions
from tuneoff.runs import OK, RunRecord, StudyStore
from tuneoff.scoring import metrics
from tuneoff.spec.stated import PredictionsSpec
from tuneoff.spec.study import StudySpec


@dataclass(frozen=True)
class External:
    """Predictions from a file, as a run without a seed, a model or anything on validation."""

    record: RunRecord
    predictions: Predictions  # on test
    note: str  # for readers; may be empty


def load_external(study: StudySpec, store: StudyStore, options: metrics.MetricOptions, metric: str) -> list[External]:
    """Read and score the stored predictions that a study names.

    Raises StoreError if they or the test split are not stored, DataError if they do not fit the test split.
    """
    if not study.predictions:
        return []
    test, rows = store.test_table(), []
    for entry in study.predictions:
        table = store.read_predictions(entry.name)
        matched = match_predictions(entry.name, table, test, options.label_names, study.data, metric)
        rows.append(_external(entry, matched, labels_of(test), stated_costs(entry.cost, study.rates), options))
    return rows


def _external(
    entry: PredictionsSpec,
    matched: TestPredictions,
    labels: np.ndarray,
    costs: dict[str, float],
    options: metrics.MetricOptions,
) -> External:
    num_labels = len(options.label_names)
    has_probabilities = matched.probabilities is not None
    probabilities = metrics.as_rows(matched.predicted, num_labels).astype(np.float64)
    probabilities = probabilities if matched.probabilities is None else matched.probabilities
    scores = metrics.evaluate(labels, matched.predicted, probabilities, options)
    if not has_probabilities:
        scores = {name: score for name, score in scores.items() if not metrics.needs_probabilities(name)}
    group = f"{EXTERNAL}-{entry.name}"
    record = RunRecord(
        run_id=group,
        group=group,
        strategy=EXTERNAL,
        label=entry.name,
        model=None,
        seed=0,
        status=OK,
        metrics={"test": scores},
        confusion={"test": metrics.confusion(labels, matched.predicted, num_labels).tolist()},
        costs=costs,
    )
    predictions = Predictions(matched.predicted[None], probabilities[None], has_probabilities)
    return External(record, predictions, _note(entry.name, matched.num_left_out))


def _note(name: str, num_left_out: int) -> str:
    if not num_left_out:
        return ""
    phrase = "row matches no test example and is" if num_left_out == 1 else "rows match no test example and are"
    return f"{name}: {num_left_out:,} {phrase} left out."
