"""Test sets from elsewhere: scores there, the drop from the study's own test examples, and whether the pick holds.

The examples of two test sets are independent, so that a drop has the variance of both. Strategies are compared on the
same examples of one test set, as on the study's own.

# N examples of a test set  S seeds, or folds  K strategies
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from tuneoff.runs import RunRecord, RunStore, StoredTest, stored_labels
from tuneoff.scoring import stats
from tuneoff.scoring.decision import choose, joint_scores
from tuneoff.scoring.metrics import bounds, direction

_SEED = 1  # of the resamples; another one than that of the study's own test examples, which are drawn independently


@dataclass(frozen=True)
class Candidates:
    """The strategies of a comparison and the rule that picks one of them."""

    records: Mapping[str, Sequence[RunRecord]]  # group -> its runs, best group first
    scores: Mapping[str, stats.RunScores]  # on the study's own test examples
    costs: Mapping[str, Mapping[str, float]]
    learners: frozenset[str]  # groups whose predictions use the text
    prior: str | None  # group that predicts the most frequent class
    metric: str
    positive: int | None  # id of the positive class, for the metrics that have one
    cost: str
    margin: float
    min_examples: int  # with fewer, the best measured strategy is picked
    is_one_seed: bool  # and so it is where strategies have one seed
    picked: str | None  # on the study's own test examples
    num_examples: int  # of these


@dataclass(frozen=True)
class ElsewhereRow:
    """One strategy on a test set from elsewhere, over its seeds or the models of its folds."""

    group: str
    score: float
    interval: tuple[float, float]  # 95 % confidence interval, over examples and seeds
    own_score: float  # on the study's own test examples
    drop: float  # from the own score, above 0 if it is worse there, for log loss too
    drop_interval: tuple[float, float]
    rank: int  # 1 is the best there
    own_rank: int  # among the same strategies
    difference: float  # to the best there, 0 or negative
    difference_interval: tuple[float, float]
    p_value: float  # of no difference to the best there, after Holm's correction


@dataclass(frozen=True)
class Elsewhere:
    """Scores on one test set from elsewhere."""

    name: str
    source: str
    examples: int
    labels: tuple[int, ...]  # examples of each label
    notes: tuple[str, ...]
    rows: tuple[ElsewhereRow, ...]  # best first
    picked: str | None  # group that the study's rule picks there; None if nothing is shown to beat the frequent class
    own_pick: str | None  # group that the study picks
    missing: tuple[str, ...]  # groups without predictions of it
    final: tuple[float, float, float] | None = None  # with folds: score and interval of the model that is handed over

    def row(self, group: str | None) -> ElsewhereRow | None:
        """Return the row of a group; None if it has none."""
        return next((row for row in self.rows if row.group == group), None)

    @property
    def keeps_order(self) -> bool:
        """True if the strategies are in the same order as on the study's own test examples."""
        return all(row.rank == row.own_rank for row in self.rows)


def score_elsewhere(
    tests: Sequence[StoredTest],
    candidates: Candidates,
    store: RunStore,
    num_labels: int,
    final: RunRecord | None = None,
) -> tuple[Elsewhere, ...]:
    """Score the runs of a comparison on each test set. final: with folds, the run on all labelled examples."""
    return tuple(_score(test, candidates, store, num_labels, final) for test in tests)


def _score(
    test: StoredTest, candidates: Candidates, store: RunStore, num_labels: int, final: RunRecord | None
) -> Elsewhere:
    wanted, metric = {test.name: test.fingerprint}, candidates.metric
    members = {
        group: records
        for group, records in candidates.records.items()
        if not any(store.missing_tests(record.run_id, wanted) for record in records)
    }
    sign, runs = direction(metric), {}
    for group, records in members.items():
        has_folds = bool(records[0].spec.get("fold"))
        own = candidates.scores[group]
        seeds = tuple(record.seed for record in records) if has_folds else own.seeds
        scores, resampled = _run_scores(records, store, test.name, num_labels, candidates)
        # the models of folds differ in their training examples: for any strategy, another draw gives another model
        unit = stats.unit_of(metric, resampled, test.examples)
        runs[group] = stats.RunScores(scores, resampled, seeds, has_folds or own.is_seeded, unit=unit)
    runs = dict(sorted(runs.items(), key=lambda item: -sign * item[1].scores.mean()))
    pooled = stats.pooled_seed_variance(list(runs.values()))
    of_final = None
    if final and not store.missing_tests(final.run_id, wanted):
        scores, resampled = _run_scores([final], store, test.name, num_labels, candidates)
        estimate = stats.estimate_score(stats.RunScores(scores, resampled, (0,)), test.examples, pooled)
        of_final = (estimate.value, *stats.interval(estimate, bounds(metric)))
    return Elsewhere(
        name=test.name,
        source=test.source,
        examples=test.examples,
        labels=tuple(test.labels),
        notes=tuple(test.notes),
        rows=_rows(runs, candidates, pooled, test.examples),
        picked=_pick(runs, candidates, pooled, test.examples),
        own_pick=candidates.picked,
        missing=tuple(group for group in candidates.records if group not in members),
        final=of_final,
    )


def _run_scores(
    records: Sequence[RunRecord], store: RunStore, name: str, num_labels: int, candidates: Candidates
) -> tuple[np.ndarray, np.ndarray]:
    """Score some runs on a test set and on resamples of it. -> (S,), (S, R)."""
    tables = [store.test_predictions(record.run_id, name) for record in records]
    labels = stored_labels(tables[0]["label"])
    predicted = [stored_labels(table["predicted"]) for table in tables]
    names = [f"p{index}" for index in range(num_labels)]
    probabilities = [table[names].to_numpy(np.float64) for table in tables]
    metric, positive = candidates.metric, candidates.positive
    # as many resamples as of the study's own test examples, from whose scores they are subtracted
    resamples = next(iter(candidates.scores.values())).resampled.shape[1]
    resampled = stats.resampled_scores(metric, labels, predicted, probabilities, _SEED, resamples, positive)
    scores = [stats.score_of(metric, labels, *run, positive) for run in zip(predicted, probabilities, strict=True)]
    return np.array(scores), resampled


def _rows(
    runs: Mapping[str, stats.RunScores], candidates: Candidates, pooled: stats.SeedVariance | None, num_examples: int
) -> tuple[ElsewhereRow, ...]:
    """Return a row for each strategy. runs: on the test set, best first."""
    if not runs:
        return ()
    metric, sign, best = candidates.metric, direction(candidates.metric), next(iter(runs.values()))
    own_order = [group for group in candidates.records if group in runs]
    gaps = {group: stats.difference(scores, best, num_examples, pooled) for group, scores in runs.items()}
    # over all pairs: the best one is not known beforehand
    pairs = {(a, b): stats.difference(runs[a], runs[b], num_examples, pooled) for a, b in combinations(runs, 2)}
    corrected = stats.holm([pair.p_value for pair in pairs.values()])
    p_values = {b: p for (a, b), p in zip(pairs, corrected, strict=True) if a == next(iter(runs))}
    rows = []
    for rank, (group, scores) in enumerate(runs.items(), start=1):
        own = candidates.scores[group]
        estimate = stats.estimate_score(scores, num_examples, pooled)
        drop = stats.difference(own, scores, min(num_examples, candidates.num_examples), pooled)
        rows.append(
            ElsewhereRow(
                group=group,
                score=estimate.value,
                interval=stats.interval(estimate, bounds(metric)),
                own_score=float(own.scores.mean()),
                drop=sign * drop.value + 0.0,
                drop_interval=_oriented(stats.interval(drop), sign),
                rank=rank,
                own_rank=own_order.index(group) + 1,
                difference=sign * gaps[group].value + 0.0 if rank > 1 else 0.0,
                difference_interval=_oriented(stats.interval(gaps[group]), sign) if rank > 1 else (0.0, 0.0),
                p_value=p_values.get(group, 1.0),
            )
        )
    return tuple(rows)


def _oriented(ends: tuple[float, float], sign: int) -> tuple[float, float]:
    return ends if sign > 0 else (0.0 - ends[1], 0.0 - ends[0])


def _pick(
    runs: Mapping[str, stats.RunScores], candidates: Candidates, pooled: stats.SeedVariance | None, num_examples: int
) -> str | None:
    """Pick a strategy by its scores on a test set, by the rule of the verdict."""
    groups = list(runs)
    learners = np.array([group in candidates.learners for group in groups])
    if not learners.any():
        return None
    joint = joint_scores(list(runs.values()), direction(candidates.metric), num_examples, pooled)
    if candidates.prior in groups:
        is_better = learners & joint.exceeds(groups.index(candidates.prior))
        if not is_better.any():
            return None
    costs = np.array([candidates.costs[group].get(candidates.cost, math.inf) for group in groups])
    is_thin = candidates.is_one_seed or num_examples < candidates.min_examples
    return groups[choose(joint, costs, candidates.margin, learners, takes_best=is_thin)]
