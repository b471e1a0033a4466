"""Records -> a Comparison: what each strategy scores and costs, and how sure the differences are.

# N examples  S seeds  R resamples
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from tuneoff import stats
from tuneoff.comparison.result import Comparison, Pair, Row
from tuneoff.comparison.verdict import judge
from tuneoff.metrics import BOUNDS, per_class
from tuneoff.runs import OK, RunRecord, RunStore
from tuneoff.strategies import STRATEGIES


def compare(
    run_ids: list[str], store: RunStore, metric: str, cost: str, data: dict[str, Any], study: dict[str, Any]
) -> Comparison:
    """Compare stored runs; those that failed or diverged are listed apart."""
    everything = [store.record(run_id) for run_id in run_ids]
    records = [record for record in everything if record.status == OK]
    groups: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        groups[record.group].append(record)
    label_names = tuple(data["label_names"])
    test = {record.run_id: store.predictions(record.run_id, "test") for record in records}
    for members in groups.values():
        members.sort(key=lambda record: record.seed)
    runs, num_examples = _runs(groups, test, metric, len(label_names)), data["splits"]["test"]["examples"]
    rights = {
        group: [(test[r.run_id]["predicted"] == test[r.run_id]["label"]).to_numpy() for r in members]
        for group, members in groups.items()
    }
    pairs = _pairs(runs, rights, metric, num_examples)
    rows = _rows(groups, runs, pairs, metric, num_examples) if runs else ()
    return Comparison(
        name=study["name"],
        metric=metric,
        label_names=label_names,
        rows=rows,
        pairs=pairs,
        verdict=judge(rows, pairs, metric, cost, num_examples) if rows else None,
        failures=tuple(record for record in everything if record.status != OK),
        records=tuple(records),
        histories={record.run_id: store.history(record.run_id) for record in records},
        confusion={
            group: np.sum([record.confusion["test"] for record in members], axis=0) for group, members in groups.items()
        },
        classes={group: _classes(members, test, label_names) for group, members in groups.items()},
        data=data,
        study=study,
        folder=str(store.folder.parent),
    )


def _classes(
    members: list[RunRecord], test: dict[str, pd.DataFrame], label_names: tuple[str, ...]
) -> list[dict[str, Any]]:
    joined = pd.concat([test[record.run_id] for record in members])
    return per_class(joined["label"].to_numpy(), joined["predicted"].to_numpy(), label_names)


def _runs(
    groups: dict[str, list[RunRecord]], test: dict[str, pd.DataFrame], metric: str, num_labels: int
) -> dict[str, stats.Runs]:
    """The metric of every run as it is, and on the same resamples of the examples. By group, best group first."""
    if not groups:
        return {}
    run_ids = [record.run_id for members in groups.values() for record in members]
    chances = [f"p{index}" for index in range(num_labels)]
    resampled = stats.resampled_scores(
        metric,
        test[run_ids[0]]["label"].to_numpy(),
        [test[run_id]["predicted"].to_numpy() for run_id in run_ids],
        [test[run_id][chances].to_numpy(np.float64) for run_id in run_ids],
        seed=0,
    )
    by_run = dict(zip(run_ids, resampled, strict=True))
    found = {
        group: stats.Runs(
            np.array([record.metrics["test"][metric] for record in members]),
            np.stack([by_run[record.run_id] for record in members]),
            tuple(record.seed for record in members),
            STRATEGIES[members[0].strategy].is_seeded,
        )
        for group, members in groups.items()
    }
    return dict(sorted(found.items(), key=lambda item: -_sign(metric) * item[1].scores.mean()))


def _sign(metric: str) -> int:
    return -1 if metric == "log_loss" else 1


def _pairs(
    runs: dict[str, stats.Runs], rights: dict[str, list[np.ndarray]], metric: str, num_examples: int
) -> tuple[Pair, ...]:
    """Every two groups. rights: per group and seed, whether each test example is predicted right, (N,)."""
    couples = list(itertools.combinations(runs, 2))
    luck = stats.usual_luck(list(runs.values()))
    level = 1 - (1 - stats.LEVEL) / max(1, len(couples))  # what Holm's correction asks at most
    gaps = [stats.difference(runs[one], runs[other], num_examples, luck) for one, other in couples]
    p_values = [gap.p_value for gap in gaps]
    pairs = []
    for (one, other), gap, p, corrected in zip(couples, gaps, p_values, stats.corrected(p_values), strict=True):
        seeded = list(_side_by_side(rights[one], rights[other]))
        needed, (low, high) = stats.needed(gap, level), stats.interval(gap)
        pairs.append(
            Pair(
                better=one,
                worse=other,
                difference=abs(gap.value),
                interval=(low, high) if _sign(metric) > 0 else (-high, -low),
                p_value=p,
                p_corrected=corrected,
                mcnemar=float(np.median([stats.mcnemar(*two) for two in seeded])),
                effect=float(np.mean([stats.cohen_g(*two) for two in seeded])),
                needed_examples=needed.examples,
                needed_seeds=needed.seeds,
            )
        )
    return tuple(pairs)


def _side_by_side(one: list[np.ndarray], other: list[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Seed by seed; a single run stands beside every seed of the other."""
    most = max(len(one), len(other))
    for index in range(most):
        yield one[min(index, len(one) - 1)], other[min(index, len(other) - 1)]


def _rows(
    groups: dict[str, list[RunRecord]],
    runs: dict[str, stats.Runs],
    pairs: tuple[Pair, ...],
    metric: str,
    num_examples: int,
) -> tuple[Row, ...]:
    best = next(iter(runs))
    to_best = {pair.worse: pair for pair in pairs if pair.better == best}
    rows = []
    for group, found in runs.items():
        members, measured, pair = groups[group], stats.measure(found, num_examples), to_best.get(group)
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
                from_seeds=None if measured.from_seeds is None else math.sqrt(measured.from_seeds),
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
