"""Runs of each strategy as groups: their records, predictions and scores on test.

With folds, the runs of a strategy on all folds together predict every labelled example once. They are scored as one
run over all examples, S = 1.

# N test examples  S seeds  R resamples  C classes
"""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tuneoff.comparison.errors import Predictions
from tuneoff.comparison.external import External
from tuneoff.comparison.rows import EXTERNAL, is_seeded
from tuneoff.runs import RunRecord, RunStore, stored_labels
from tuneoff.scoring import stats
from tuneoff.scoring.decision import JointScores, joint_scores
from tuneoff.scoring.metrics import (
    MetricOptions,
    direction,
    evaluate,
)


@dataclass(frozen=True)
class Groups:
    """Successful runs grouped over seeds or folds, best group first, with their predictions and scores on test."""

    records: dict[str, list[RunRecord]]  # group -> runs, seeds or folds ascending
    labels: np.ndarray  # (N,) ids, or multi-label (N, C) of 0 and 1
    predictions: dict[str, Predictions]
    scores: dict[str, stats.RunScores]
    options: MetricOptions

    @property
    def seed_variance(self) -> stats.SeedVariance | None:
        """Seed-to-seed variance, pooled over the groups."""
        return stats.pooled_seed_variance(list(self.scores.values()))

    def joint(self, metric: str, num_examples: int) -> JointScores:
        """Joint distribution of the true scores of the groups, in their order."""
        return joint_scores(list(self.scores.values()), direction(metric), num_examples, self.seed_variance)


def load_groups(
    records: Sequence[RunRecord],
    store: RunStore,
    metric: str,
    options: MetricOptions,
    external: Sequence[External] = (),
    are_subsets: bool = False,
) -> Groups:
    """Group runs over seeds and score them, and external predictions like runs.

    are_subsets: each seed drew its own subset of train, so that the seed changes every strategy's score.
    """
    by_group: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        by_group[record.group].append(record)
    for members in by_group.values():
        members.sort(key=lambda record: record.seed)
    labels, predictions, folds = load_predictions(by_group, store, len(options.label_names))
    by_group |= {row.record.group: [row.record] for row in external}
    predictions |= {row.record.group: row.predictions for row in external}
    scores = score_runs(by_group, labels, predictions, metric, options, are_subsets, folds)
    return Groups(
        records={group: by_group[group] for group in scores},
        labels=labels,
        predictions={group: predictions[group] for group in scores},
        scores=scores,
        options=options,
    )


def load_predictions(
    by_group: Mapping[str, list[RunRecord]], store: RunStore, num_labels: int
) -> tuple[np.ndarray, dict[str, Predictions], np.ndarray | None]:
    """Read the labels of test, (N,) or (N, C), the predictions of each group, and the fold of each example.

    Seeds are in order, and examples too. Folds together are one run, S = 1. Without folds there are no ids of folds.
    """
    labels, predictions, folds = np.empty(0, int), {}, None
    for group, members in by_group.items():
        labels, predictions[group], of_group = read_predictions(members, store, "test", num_labels)
        folds = folds if of_group is None else of_group
    return labels, predictions, folds


def read_predictions(
    members: Sequence[RunRecord], store: RunStore, split: str, num_labels: int
) -> tuple[np.ndarray, Predictions, np.ndarray | None]:
    """Read labels, predictions and folds of the runs of one group on a split: load_predictions."""
    tables, folds = [store.predictions(record.run_id, split) for record in members], None
    if members[0].spec.get("fold"):
        joined = pd.concat([table.assign(fold=r.seed) for table, r in zip(tables, members, strict=True)])
        tables = [joined.sort_values("example", kind="stable", ignore_index=True)]
        folds = tables[0]["fold"].to_numpy()
    predictions = Predictions(
        np.stack([stored_labels(table["predicted"]) for table in tables]),
        np.stack([table[[f"p{i}" for i in range(num_labels)]].to_numpy(np.float64) for table in tables]),
    )
    return stored_labels(tables[0]["label"]), predictions, folds


def scored_examples(records: Sequence[RunRecord], store: RunStore) -> np.ndarray:
    """Return the rows of the examples that the folds of each group predict, ascending. (N,)."""
    members = [record for record in records if record.group == records[0].group]
    rows = [store.predictions(record.run_id, "test")["example"].to_numpy() for record in members]
    return np.sort(np.concatenate(rows))


def score_runs(
    by_group: Mapping[str, list[RunRecord]],
    labels: np.ndarray,
    predictions: Mapping[str, Predictions],
    metric: str,
    options: MetricOptions,
    are_subsets: bool,
    folds: np.ndarray | None,
) -> dict[str, stats.RunScores]:
    """Return the scores of each group on test and on resamples of it, the same ones for all runs. Best group first."""
    if not by_group:
        return {}
    resampled = stats.resampled_scores(
        metric,
        labels,
        [run for group in predictions.values() for run in group.predicted],
        [run for group in predictions.values() for run in group.probabilities],
        seed=0,
        positive=options.positive,
    )
    has_sources = any(record.sources for members in by_group.values() for record in members)
    parts = np.split(resampled, np.cumsum([len(group.predicted) for group in predictions.values()])[:-1])
    unit = stats.unit_of(metric, resampled, len(labels))
    scores = {
        group: stats.RunScores(
            np.array([of_run[metric] for of_run in metrics_of(members, runs, labels, options)]),
            part if folds is None or members[0].strategy == EXTERNAL else stats.widened_for_folds(part, len(labels)),
            tuple(_seed(record) for record in members) if folds is None else (0,),
            are_subsets or _is_seeded(members[0], has_sources),
            None if members[0].strategy == EXTERNAL else folds,
            unit,
            stats.deciding_examples(metric, labels, runs.predicted, options.positive),
            None if folds is None or members[0].strategy == EXTERNAL else ~runs.is_wrong(labels)[0],
        )
        for (group, members), runs, part in zip(by_group.items(), predictions.values(), parts, strict=True)
    }
    return dict(sorted(scores.items(), key=lambda item: -direction(metric) * item[1].scores.mean()))


def seeds_of_sources(members: Sequence[RunRecord]) -> dict[str, int]:
    """Count the seeds of each source of randomness that varies apart."""
    return {source: len({record.sources[source] for record in members}) for source in members[0].sources}


def _seed(record: RunRecord) -> object:
    """Return the seed of a run; where sources of randomness vary apart, pairs of source and seed."""
    return tuple(record.sources.items()) or record.seed


def _is_seeded(record: RunRecord, has_sources: bool) -> bool:
    """Return True if another seed would change a run. has_sources: sources of randomness vary apart in the study."""
    return bool(record.sources) if has_sources else is_seeded(record.strategy)


def aligned_runs(better: stats.RunScores, worse: stats.RunScores) -> list[tuple[int, int]]:
    """Return which runs of two groups to compare: those with equal seeds, or without equal seeds every combination."""
    combinations = list(itertools.product(range(len(better.seeds)), range(len(worse.seeds))))
    equal_seeds = [(i, j) for i, j in combinations if better.seeds[i] == worse.seeds[j]]
    return equal_seeds if better.is_seeded and worse.is_seeded and equal_seeds else combinations


def metrics_of(
    members: Sequence[RunRecord], runs: Predictions, labels: np.ndarray, options: MetricOptions
) -> list[dict[str, float]]:
    """Return every metric on test, for each run; with folds once, for all examples together."""
    if members[0].spec.get("fold"):
        return [evaluate(labels, runs.predicted[0], runs.probabilities[0], options)]
    return [record.metrics["test"] for record in members]
