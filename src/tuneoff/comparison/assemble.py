"""Records -> a Comparison: what each strategy scores and costs, and how sure the differences are.

# N examples  S seeds  R resamples
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tuneoff import stats
from tuneoff.calibration import Calibration, calibrate
from tuneoff.comparison.curve import Point, advise, gain, is_part, point, size_of
from tuneoff.comparison.errors import Answers, analyse
from tuneoff.comparison.result import NO_LEARNERS, Comparison, Pair, Row, Verdict, row_names, texts_of
from tuneoff.comparison.slices import by_slice
from tuneoff.comparison.verdict import judge
from tuneoff.metrics import BOUNDS, direction, per_class
from tuneoff.runs import OK, RunRecord, RunStore, stored_labels
from tuneoff.search import SearchRecord
from tuneoff.strategies import STRATEGIES


def compare(
    run_ids: list[str],
    store: RunStore,
    metric: str,
    cost: str,
    data: dict[str, Any],
    study: dict[str, Any],
    examples: pd.DataFrame | None = None,
    searches: Sequence[SearchRecord] = (),
) -> Comparison:
    """Compare stored runs; those that failed or diverged are listed apart. examples: the test split, if known."""
    everything = [store.record(run_id) for run_id in run_ids]
    done = [record for record in everything if record.status == OK]
    records = [record for record in done if not is_part(record)]
    groups: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[record.group].append(record)
    for members in groups.values():
        members.sort(key=lambda record: record.seed)
    label_names, num_examples = tuple(data["label_names"]), data["splits"]["test"]["examples"]
    if examples is not None and len(examples) != num_examples:
        examples = None  # of other data
    labels, answers = _answers(groups, store, "test", len(label_names))
    runs = _runs(groups, labels, answers, metric)
    groups = {group: groups[group] for group in runs}  # best first
    answers = {group: answers[group] for group in runs}
    rights = {group: ~found.is_wrong(labels) for group, found in answers.items()}
    luck = stats.usual_luck(list(runs.values()))
    curve: tuple[Point, ...] = ()
    advice = ""
    pairs = _pairs(runs, rights, metric, num_examples, luck)
    rows = _rows(groups, runs, pairs, metric, num_examples, luck) if runs else ()
    verdict = judge(rows, pairs, metric, cost, num_examples) if rows else None
    parts = [record for record in done if is_part(record)]
    if parts and verdict:
        curve, advice = _curve(parts, rows, groups, runs, store, metric, num_examples, len(label_names), verdict)
    return Comparison(
        name=study["name"],
        metric=metric,
        label_names=label_names,
        rows=rows,
        pairs=pairs,
        verdict=verdict,
        failures=tuple(record for record in everything if record.status != OK),
        records=tuple(records),
        histories={record.run_id: store.history(record.run_id) for record in records},
        confusion={
            group: np.sum([record.confusion["test"] for record in members], axis=0) for group, members in groups.items()
        },
        classes={group: _classes(found, labels, label_names) for group, found in answers.items()},
        answers=answers,
        errors=analyse(labels, answers, _no_learners(groups), texts_of(examples)) if rows else None,
        calibration=_calibration(groups, store, labels, answers),
        slices=_slices(groups, labels, answers, examples, metric),
        examples=examples,
        data=data,
        study=study,
        parts=tuple(parts),
        curve=curve,
        advice=advice,
        searches=tuple(searches),
        folder=str(store.folder.parent),
    )


def _curve(
    parts: list[RunRecord],
    rows: tuple[Row, ...],
    groups: Mapping[str, list[RunRecord]],
    runs: Mapping[str, stats.Runs],
    store: RunStore,
    metric: str,
    num_test: int,
    num_labels: int,
    verdict: Verdict,
) -> tuple[tuple[Point, ...], str]:
    """The points of the learning curves, and what they advise. groups, runs: on all of train."""
    points = [point(groups[row.group], row.score, row.interval) for row in rows]
    largest: dict[tuple[str, str | None], tuple[int, stats.Runs]] = {}
    luck = stats.usual_luck(list(runs.values()))
    # by size alone, parts of equal size but another kind would mix
    parts = sorted(parts, key=lambda record: (record.train_examples or 0, size_of(record), record.seed))
    for _, same_size in itertools.groupby(parts, key=size_of):
        smaller: dict[str, list[RunRecord]] = defaultdict(list)
        for record in same_size:
            smaller[record.group].append(record)
        labels, answers = _answers(smaller, store, "test", num_labels)
        found = _runs(smaller, labels, answers, metric, are_parts=True)
        luck_here = stats.usual_luck(list(found.values()))  # with few examples, seeds differ more
        for group, scored in found.items():
            members, measured = smaller[group], stats.measure(scored, num_test, luck_here)
            points.append(point(members, measured.value, stats.interval(measured, BOUNDS[metric])))
            largest[members[0].label, members[0].model] = (members[0].train_examples or 0, scored)
    gains = {}
    for row in rows:
        before, scored = largest.get((row.label, row.model), (0, runs[row.group]))
        after = groups[row.group][0].train_examples or 0
        if 0 < before < after:
            gains[row.group] = gain(scored, runs[row.group], before, after, num_test, luck)
    learners = [row for row in rows if row.strategy not in NO_LEARNERS]
    names = row_names(rows)
    points.sort(key=lambda found: found.examples)
    return tuple(points), advise(learners, gains, names, verdict.recommended, metric)


def _slices(
    groups: Mapping[str, list[RunRecord]],
    labels: np.ndarray,
    answers: Mapping[str, Answers],
    examples: pd.DataFrame | None,
    metric: str,
) -> pd.DataFrame:
    if examples is None:
        return pd.DataFrame()
    seeds = {group: tuple(record.seed for record in members) for group, members in groups.items()}
    return by_slice(labels, answers, seeds, examples, metric)


def _answers(
    groups: Mapping[str, list[RunRecord]], store: RunStore, split: str, num_labels: int
) -> tuple[np.ndarray, dict[str, Answers]]:
    """The labels of a split, (N,) or (N, C), and what the runs of each group say of it, seeds in their order."""
    labels, found = np.empty(0, int), {}
    for group, members in groups.items():
        tables = [store.predictions(record.run_id, split) for record in members]
        labels = stored_labels(tables[0]["label"])
        found[group] = Answers(
            np.stack([stored_labels(table["predicted"]) for table in tables]),
            np.stack([table[[f"p{i}" for i in range(num_labels)]].to_numpy(np.float64) for table in tables]),
        )
    return labels, found


def _no_learners(groups: Mapping[str, list[RunRecord]]) -> set[str]:
    return {group for group, members in groups.items() if members[0].strategy in NO_LEARNERS}


def _calibration(
    groups: Mapping[str, list[RunRecord]], store: RunStore, labels: np.ndarray, answers: Mapping[str, Answers]
) -> dict[str, Calibration]:
    num_labels = next(iter(answers.values())).probabilities.shape[2] if answers else 0
    known, on_validation = _answers(groups, store, "validation", num_labels)
    return {
        group: calibrate(labels, list(found.probabilities), known, list(on_validation[group].probabilities))
        for group, found in answers.items()
    }


def _classes(answers: Answers, labels: np.ndarray, label_names: tuple[str, ...]) -> list[dict[str, Any]]:
    every = np.concatenate([labels] * len(answers.predicted))
    return per_class(every, np.concatenate(list(answers.predicted)), label_names)


def _runs(
    groups: Mapping[str, list[RunRecord]],
    labels: np.ndarray,
    answers: Mapping[str, Answers],
    metric: str,
    are_parts: bool = False,
) -> dict[str, stats.Runs]:
    """The metric of every run as it is, and on the same resamples of the examples. By group, best group first."""
    if not groups:
        return {}
    resampled = stats.resampled_scores(
        metric,
        labels,
        [run for found in answers.values() for run in found.predicted],
        [run for found in answers.values() for run in found.probabilities],
        seed=0,
    )
    parts = np.split(resampled, np.cumsum([len(members) for members in groups.values()])[:-1])
    found = {
        group: stats.Runs(
            np.array([record.metrics["test"][metric] for record in members]),
            part,
            tuple(record.seed for record in members),
            are_parts or STRATEGIES[members[0].strategy].is_seeded,  # each seed draws a part of its own
        )
        for (group, members), part in zip(groups.items(), parts, strict=True)
    }
    return dict(sorted(found.items(), key=lambda item: -direction(metric) * item[1].scores.mean()))


def _pairs(
    runs: dict[str, stats.Runs],
    rights: Mapping[str, np.ndarray],
    metric: str,
    num_examples: int,
    luck: stats.Luck | None,
) -> tuple[Pair, ...]:
    """Every two groups. rights: per group, whether a seed predicts an example right, (S, N)."""
    couples = list(itertools.combinations(runs, 2))
    level = 1 - (1 - stats.LEVEL) / max(1, len(couples))  # what Holm's correction asks at most
    gaps = [stats.difference(runs[one], runs[other], num_examples, luck) for one, other in couples]
    p_values = [gap.p_value for gap in gaps]
    pairs = []
    for (one, other), gap, p, corrected in zip(couples, gaps, p_values, stats.corrected(p_values), strict=True):
        beside = [(rights[one][i], rights[other][j]) for i, j in _side_by_side(runs[one], runs[other])]
        needed, (low, high) = stats.needed(gap, level), stats.interval(gap)
        pairs.append(
            Pair(
                better=one,
                worse=other,
                difference=abs(gap.value),
                interval=(low, high) if direction(metric) > 0 else (-high, -low),
                p_value=p,
                p_corrected=corrected,
                mcnemar=float(np.median([stats.mcnemar(*two) for two in beside])),
                effect=float(np.mean([stats.cohen_g(*two) for two in beside])),
                needed_examples=needed.examples,
                needed_seeds=needed.seeds,
            )
        )
    return tuple(pairs)


def _side_by_side(one: stats.Runs, other: stats.Runs) -> list[tuple[int, int]]:
    """Which runs of two groups stand side by side: those of one seed; without such, every one with every other."""
    every = list(itertools.product(range(len(one.seeds)), range(len(other.seeds))))
    of_one_seed = [(i, j) for i, j in every if one.seeds[i] == other.seeds[j]]
    return of_one_seed if one.is_seeded and other.is_seeded and of_one_seed else every


def _rows(
    groups: dict[str, list[RunRecord]],
    runs: dict[str, stats.Runs],
    pairs: tuple[Pair, ...],
    metric: str,
    num_examples: int,
    luck: stats.Luck | None,
) -> tuple[Row, ...]:
    best = next(iter(runs))
    to_best = {pair.worse: pair for pair in pairs if pair.better == best}
    rows = []
    for group, found in runs.items():
        members, pair = groups[group], to_best.get(group)
        measured, own = stats.measure(found, num_examples, luck), stats.measure(found, num_examples)
        rows.append(
            Row(
                group=group,
                label=members[0].label,
                strategy=members[0].strategy,
                model=members[0].model,
                seeds=tuple(record.seed for record in members),
                score=measured.value,
                spread=float(np.std(found.scores, ddof=1)) if len(found.scores) > 1 else None,
                interval=stats.interval(measured, BOUNDS[metric]),
                from_examples=math.sqrt(measured.from_examples),
                from_seeds=None if own.from_seeds is None else math.sqrt(own.from_seeds),
                validation=float(np.mean([record.metrics["validation"][metric] for record in members])),
                scores={
                    name: float(np.mean([r.metrics["test"][name] for r in members]))
                    for name in members[0].metrics["test"]
                },
                difference=-pair.difference if pair else 0.0,
                difference_interval=(-pair.interval[1], -pair.interval[0]) if pair else (0.0, 0.0),
                p_value=pair.p_corrected if pair else 1.0,
                is_tied=pair is None or not pair.is_told,
                costs=_mean_costs(members),
                parameters=members[0].parameters,
            )
        )
    return tuple(rows)


def _mean_costs(members: list[RunRecord]) -> dict[str, float]:
    names = dict.fromkeys(name for record in members for name in record.costs)
    costs = {name: float(np.mean([r.costs[name] for r in members if name in r.costs])) for name in names}
    # what a run would take alone: states of frozen blocks are shared, but somebody has to compute them
    costs["train_seconds"] = costs.get("train_seconds", 0.0) + costs.get("prefix_seconds", 0.0)
    costs["trainable_parameters"] = float(members[0].parameters.get("trainable", 0))
    return costs
