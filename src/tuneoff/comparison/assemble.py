"""Records -> a Comparison: what each strategy scores and costs, and how sure the differences are.

# N examples  S seeds  R resamples
"""

from collections import defaultdict
from typing import Any

import numpy as np
import pandas as pd

from tuneoff import stats
from tuneoff.comparison.result import Comparison, Row
from tuneoff.comparison.verdict import judge
from tuneoff.metrics import per_class
from tuneoff.runs import OK, RunRecord, RunStore


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
    resampled = _resampled(groups, test, metric, len(label_names))
    rows = _rows(groups, resampled, metric)
    return Comparison(
        name=study["name"],
        metric=metric,
        label_names=label_names,
        rows=rows,
        verdict=judge(rows, metric, cost, data["splits"]["test"]["examples"]) if rows else None,
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


def _resampled(
    groups: dict[str, list[RunRecord]], test: dict[str, pd.DataFrame], metric: str, num_labels: int
) -> dict[str, np.ndarray]:
    """The metric of every group on the same resamples of examples and seeds. group -> (R,)."""
    if not groups:
        return {}
    run_ids = [record.run_id for members in groups.values() for record in members]
    chances = [f"p{index}" for index in range(num_labels)]
    scores = stats.resampled_scores(
        metric,
        test[run_ids[0]]["label"].to_numpy(),
        [test[run_id]["predicted"].to_numpy() for run_id in run_ids],
        [test[run_id][chances].to_numpy(np.float64) for run_id in run_ids],
        seed=0,
    )
    by_run = dict(zip(run_ids, scores, strict=True))
    draws: dict[tuple[int, ...], np.ndarray] = {}
    combined = {}
    for group, members in groups.items():
        members.sort(key=lambda record: record.seed)
        seeds = tuple(record.seed for record in members)
        # strategies run with the same seeds are compared in pairs: the same seeds are drawn for both
        if seeds not in draws:
            draws[seeds] = stats.seed_draws(len(seeds), scores.shape[1], np.random.default_rng([1, *seeds]))
        combined[group] = stats.mean_over_seeds(np.stack([by_run[r.run_id] for r in members]), draws[seeds])
    return combined


def _rows(groups: dict[str, list[RunRecord]], resampled: dict[str, np.ndarray], metric: str) -> tuple[Row, ...]:
    sign = -1 if metric == "log_loss" else 1
    means = {group: float(np.mean([r.metrics["test"][metric] for r in members])) for group, members in groups.items()}
    order = sorted(groups, key=lambda group: -sign * means[group])
    rows = []
    for group in order:
        members, best = groups[group], order[0]
        scores = [record.metrics["test"][metric] for record in members]
        gap = stats.interval(sign * (resampled[group] - resampled[best]))
        costs = _mean_costs(members)
        rows.append(
            Row(
                group=group,
                label=members[0].label,
                strategy=members[0].strategy,
                model=members[0].model,
                seeds=tuple(record.seed for record in members),
                score=means[group],
                spread=float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
                interval=stats.interval(resampled[group]),
                validation=float(np.mean([record.metrics["validation"][metric] for record in members])),
                scores={
                    name: float(np.mean([r.metrics["test"][name] for r in members]))
                    for name in members[0].metrics["test"]
                },
                difference=sign * (means[group] - means[best]),
                difference_interval=gap,
                is_tied=gap[1] >= 0,
                costs=costs,
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
