"""Build a Comparison from the stored runs of a study: scores, costs, and the uncertainty of differences.

With folds, the runs of a strategy on all folds together predict every labelled example once. They are scored as one
run over all examples, S = 1; costs are means over the folds.

# N test examples  S seeds  R resamples  C classes
"""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from tuneoff.comparison.curves import Gain, advise, curve_point, gain_per_doubling, subset_name
from tuneoff.comparison.epochs import epoch_scores, late_gains
from tuneoff.comparison.errors import Predictions
from tuneoff.comparison.external import load_external
from tuneoff.comparison.groups import (
    Groups,
    aligned_runs,
    load_groups,
    metrics_of,
    read_predictions,
    scored_examples,
    seeds_of_sources,
)
from tuneoff.comparison.imported import load_imported
from tuneoff.comparison.other_tests import Candidates, Elsewhere, score_elsewhere
from tuneoff.comparison.result import Comparison
from tuneoff.comparison.rows import EXTERNAL, CurvePoint, Pair, Row, Verdict
from tuneoff.comparison.verdict import MIN_EXAMPLES, has_one_seed, judge, other_picks, standing
from tuneoff.costs import Rates, check_is_stated, rated_costs
from tuneoff.data.describe import DataDescription
from tuneoff.errors import ConfigError
from tuneoff.runs import OK, RunRecord, RunStore, Session, StudyStore, stored_labels
from tuneoff.scoring import stats
from tuneoff.scoring.calibration import Calibration, calibrate
from tuneoff.scoring.metrics import (
    ClassScores,
    MetricOptions,
    bounds,
    check_metric,
    depends_on_positive,
    direction,
    evaluate,
    is_own,
    metric_for,
    metric_names,
    per_class,
)
from tuneoff.scoring.race import level_of_look, shows_no_variance
from tuneoff.spec.study import StudySpec
from tuneoff.strategies import STRATEGIES


def compare(study: StudySpec, store: StudyStore, metric_name: str | None = None) -> Comparison:
    """Compare the stored runs of a study, and predictions from files. Failed and diverged runs are only listed.

    metric_name: ranks the strategies, instead of the study's own metric. Raises ConfigError for a metric that is
    unknown or not defined for the data, and for a study whose own metric is a Python function: its code runs only if it
    is named here, because the study may be somebody else's.
    """
    check_is_stated(study.cost, study.rates)
    data, run_ids, search_ids = store.read_data()
    race, (num_missing, num_planned) = store.race(), store.num_missing()
    # in a race, or with runs to come, strategies have different numbers of seeds or folds
    is_partial = race is not None or num_missing > 0
    level = level_of_look(race.num_looks) if race else stats.LEVEL
    sessions = store.sessions()
    metric, options = _metric_and_options(study, data, metric_name)
    selection_metric = study.selection_metric(options)
    num_examples = data.splits[data.scored_split].examples
    records, final = [store.runs.record(run_id) for run_id in run_ids], store.read_final()
    successful = [record for record in records if record.status == OK]
    stored_runs = tuple(successful)
    successful = _on_shared_folds(successful) if data.folds and is_partial else _complete(successful, data.folds)
    successful = [_with_all_metrics(record, store.runs, options) for record in successful]
    whole = [record for record in successful if not record.is_subset]
    subset_records = [record for record in successful if record.is_subset]
    examples = store.test_examples()
    if examples is not None and len(examples) != num_examples:
        examples = None  # stored for an earlier version of the data
    scored = scored_examples(whole, store.runs) if data.folds and is_partial and whole else None
    if scored is not None and len(scored) < num_examples:
        num_examples = len(scored)
        examples = None if examples is None else examples.iloc[scored].reset_index(drop=True)
    # those of a part of the folds alone are not compared with predictions of all examples
    is_whole = num_examples == data.splits[data.scored_split].examples
    external = load_external(study, store, options, metric) if whole and is_whole else []
    groups = load_groups(whole, store.runs, metric, options, external)
    pairs = _pairs(groups, metric, num_examples, level)
    joint = groups.joint(metric, num_examples) if groups.scores else None
    costs = {group: _costs(members, study.rates, sessions) for group, members in groups.records.items()}
    rows = (
        _rows(groups, pairs, costs, joint.loss_bounds(level).tolist(), metric, study.margin, num_examples, level)
        if joint
        else ()
    )
    verdict = judge(rows, pairs, joint, metric, study.cost, study.margin, num_examples) if joint else None
    elsewhere = (
        _elsewhere(study, store, groups, rows, costs, verdict, metric, options.positive, num_examples, final)
        if verdict
        else ()
    )
    if verdict:
        details = (*verdict.details, *other_picks(elsewhere, rows, metric))
        verdict = replace(verdict, details=details)
    curve: tuple[CurvePoint, ...] = ()
    advice = ""
    if subset_records and verdict:
        curve, gains = _curves(subset_records, groups, rows, store.runs, metric, num_examples)
        advice = advise(rows, gains, verdict.recommended, metric)
    searches = [store.searches.read(search_id) for search_id in search_ids]
    histories = {record.run_id: store.runs.history(record.run_id) for record in whole}
    return Comparison(
        name=study.name,
        metric=metric,
        selection_metric=selection_metric,
        options=options,
        label_names=data.label_names,
        rows=rows,
        pairs=pairs,
        verdict=verdict,
        failures=tuple(record for record in [*records, *final] if record.status != OK),
        records=tuple(whole),
        histories=histories,
        confusion={
            group: np.sum([record.confusion["test"] for record in members], axis=0)
            for group, members in groups.records.items()
        },
        classes={
            group: _class_scores(runs, groups.labels, data.label_names) for group, runs in groups.predictions.items()
        },
        groups=groups,
        calibration=_calibration(groups, store.runs),
        examples=examples,
        data=data,
        study=study,
        sessions=tuple(sessions),
        subset_records=tuple(subset_records),
        curve=curve,
        advice=advice,
        searches=tuple(record.within(study.search) if study.search else record for record in searches),
        notes=tuple(row.note for row in external if row.note),
        folder=str(store.folder),
        final=next((record for record in final if record.status == OK), None),
        stored_models=frozenset(record.run_id for record in [*whole, *final] if store.runs.has_model(record.run_id)),
        epochs=tuple(epoch_scores(whole, histories)),
        late_gains=late_gains(whole, histories, selection_metric),
        imported=load_imported(study, store),
        elsewhere=elsewhere,
        joint=joint,
        race=race,
        missing_runs=(num_missing, num_planned),
        stored_runs=stored_runs,
    )


def _metric_and_options(study: StudySpec, data: DataDescription, metric_name: str | None) -> tuple[str, MetricOptions]:
    """Return the metric that ranks, and the roles of the labels. Raises ConfigError as compare() does."""
    options = study.metric_options(data.label_names, data.is_multilabel)
    metric = metric_for(check_metric(metric_name), options) if metric_name else study.ranking_metric(options)
    if is_own(metric) and not metric_name:
        raise ConfigError(
            f"study {study.name} is ranked by {metric}, a Python function, which is not imported for a stored study "
            f"unless you name it: --metric {metric}; or rank it by another metric: --metric accuracy"
        )
    return metric, replace(options, own=(metric,) if is_own(metric) else ())


def _with_all_metrics(record: RunRecord, store: RunStore, options: MetricOptions) -> RunRecord:
    """Return a record with every metric, and no other, computed from its predictions where it lacks one.

    Runs of earlier versions have fewer; the positive class, and a function of the user's own, may have changed since.
    """
    names = metric_names(options)
    is_same_class = record.spec.get("positive") == (options.positive_name or None)
    stale = {*options.own, *(name for name in names if depends_on_positive(name) and not is_same_class)}
    metrics = {}
    for split, scores in record.metrics.items():
        kept = {name: scores[name] for name in names if name in scores and name not in stale}
        if len(kept) < len(names):
            labels, runs, _ = read_predictions([record], store, split, len(options.label_names))
            kept = evaluate(labels, runs.predicted[0], runs.probabilities[0], options) | kept
        metrics[split] = {name: kept[name] for name in names}
    return replace(record, metrics=metrics)


def _elsewhere(
    study: StudySpec,
    store: StudyStore,
    groups: Groups,
    rows: Sequence[Row],
    costs: Mapping[str, Mapping[str, float]],
    verdict: Verdict,
    metric: str,
    positive: int | None,
    num_examples: int,
    final: Sequence[RunRecord],
) -> tuple[Elsewhere, ...]:
    """Score the runs on the study's test sets from elsewhere."""
    tests = [test for test in store.read_tests() if test.name in study.tests]
    own = [row.group for row in rows if not row.is_external]
    candidates = Candidates(
        records={group: groups.records[group] for group in own},
        scores=groups.scores,
        costs=costs,
        learners=frozenset(row.group for row in rows if row.learns),
        prior=next((row.group for row in rows if row.is_class_prior), None),
        metric=metric,
        positive=positive,
        cost=study.cost,
        margin=study.margin,
        min_examples=MIN_EXAMPLES,
        is_one_seed=has_one_seed(rows),
        picked=verdict.recommended,
        num_examples=num_examples,
    )
    num_labels = len(tests[0].labels) if tests else 0
    handed_over = next((record for record in final if record.status == OK), None)
    return score_elsewhere(tests, candidates, store.runs, num_labels, handed_over)


def _complete(records: Sequence[RunRecord], num_folds: int | None) -> list[RunRecord]:
    """Leave out the groups that lack a fold: a part of the examples has no prediction. All are kept without folds."""
    counts = Counter(record.group for record in records)
    return [record for record in records if num_folds is None or counts[record.group] == num_folds]


def _on_shared_folds(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the runs on the most folds that two strategies share; of one that lacks such a fold, none.

    In a race strategies stop after some of the folds, and a study that is not finished has some so far.
    """
    folds: dict[str, set[int]] = {}
    for record in records:
        folds.setdefault(record.group, set()).add(record.seed)
    learners = {record.group for record in records if STRATEGIES[record.strategy].learns}
    most = sorted((folds[group] for group in learners or folds), key=len, reverse=True)[:2]
    shared = set.intersection(*most) if most else set()
    return [r for r in records if r.seed in shared and shared <= folds[r.group]]


def _pairs(groups: Groups, metric: str, num_examples: int, of_look: float = stats.LEVEL) -> tuple[Pair, ...]:
    """Compare every two groups, the better one first. of_look: confidence level, above the usual one in a race."""
    looks = (1 - stats.LEVEL) / (1 - of_look)
    # an early look at one run of each strategy shows no variance between seeds: their differences are not significant
    is_first = looks > 1 and shows_no_variance(list(groups.scores.values()))
    scores, seed_variance = groups.scores, groups.seed_variance
    couples = list(itertools.combinations(scores, 2))  # scores are in order, best first
    level = 1 - (1 - of_look) / max(1, len(couples))  # of the strictest of Holm's tests
    gaps = [stats.difference(scores[better], scores[worse], num_examples, seed_variance) for better, worse in couples]
    p_values = [gap.p_value for gap in gaps]
    is_right = {group: ~runs.is_wrong(groups.labels) for group, runs in groups.predictions.items()}  # (S, N)
    pairs = []
    for (better, worse), gap, p_value, p_corrected in zip(couples, gaps, p_values, stats.holm(p_values), strict=True):
        p_of_look = min(1.0, p_corrected * looks) if looks > 1 else p_corrected
        if is_first and (scores[better].is_seeded or scores[worse].is_seeded):
            p_of_look = 1.0
        aligned = [(is_right[better][i], is_right[worse][j]) for i, j in aligned_runs(scores[better], scores[worse])]
        required, (low, high) = stats.required_size(gap, level), stats.interval(gap, level=of_look)
        pairs.append(
            Pair(
                better=better,
                worse=worse,
                difference=abs(gap.value),
                interval=(low, high) if direction(metric) > 0 else (-high, -low),
                p_value=p_value,
                p_corrected=p_of_look,
                mcnemar=float(np.median([stats.mcnemar(*runs) for runs in aligned])),
                effect=float(np.mean([stats.cohen_g(*runs) for runs in aligned])),
                required_examples=required.examples,
                required_seeds=required.seeds if scores[better].folds is None else None,
            )
        )
    return tuple(pairs)


def _rows(
    groups: Groups,
    pairs: tuple[Pair, ...],
    costs: Mapping[str, dict[str, float]],
    loss_bounds: Sequence[float],
    metric: str,
    margin: float,
    num_examples: int,
    level: float = stats.LEVEL,
) -> tuple[Row, ...]:
    """Return one row per group, best first. costs: by group. loss_bounds: in the order of the groups."""
    best = next(iter(groups.scores), None)
    to_best = {pair.worse: pair for pair in pairs if pair.better == best}
    seed_variance = groups.seed_variance
    rows = []
    for index, (group, scores) in enumerate(groups.scores.items()):
        members, runs, pair = groups.records[group], groups.predictions[group], to_best.get(group)
        by_run = metrics_of(members, runs, groups.labels, groups.options)
        estimate = stats.estimate_score(scores, num_examples, seed_variance)
        # shown next to the scores of its seeds, so without the pooled variance as lower limit
        variance_from_seeds = stats.estimate_score(scores, num_examples).variance_from_seeds
        rows.append(
            Row(
                group=group,
                label=members[0].label,
                strategy=members[0].strategy,
                model=members[0].model,
                seeds=tuple(record.seed for record in members),
                score=estimate.value,
                seed_sd=float(np.std(scores.scores, ddof=1)) if len(scores.scores) > 1 else None,
                interval=stats.interval(estimate, bounds(metric), level),
                sd_from_examples=math.sqrt(estimate.variance_from_examples),
                sd_from_seeds=None if variance_from_seeds is None else math.sqrt(variance_from_seeds),
                validation=_mean_scores(members, "validation").get(metric),
                validation_scores=_mean_scores(members, "validation"),
                scores={name: float(np.mean([of_run[name] for of_run in by_run])) for name in by_run[0]},
                difference=0.0 - pair.difference if pair else 0.0,  # never -0.0
                difference_interval=(0.0 - pair.interval[1], 0.0 - pair.interval[0]) if pair else (0.0, 0.0),
                p_value=pair.p_corrected if pair else 1.0,
                standing=standing(index, pair is not None and pair.is_significant, loss_bounds[index], margin),
                loss_bound=float(loss_bounds[index]),
                costs=costs[group],
                parameters=members[0].parameters,
                sources=seeds_of_sources(members),
                fold_scores=() if scores.folds is None else tuple(r.metrics["test"][metric] for r in members),
            )
        )
    return tuple(rows)


def _mean_scores(members: Sequence[RunRecord], split: str) -> dict[str, float]:
    """Return the means over seeds or folds of every metric; empty without predictions of the split."""
    by_run = [record.metrics[split] for record in members if split in record.metrics]
    return {name: float(np.mean([scores[name] for scores in by_run])) for name in (by_run[0] if by_run else ())}


def _costs(members: list[RunRecord], rates: Rates, sessions: Sequence[Session]) -> dict[str, float]:
    """Average costs over seeds or folds and add the derived ones; for external predictions, what is stated."""
    if members[0].strategy == EXTERNAL:
        return dict(members[0].costs)
    keys = dict.fromkeys(key for record in members for key in record.costs)
    costs = {key: float(np.mean([r.costs[key] for r in members if key in r.costs])) for key in keys}
    # cached outputs of frozen blocks are shared between runs; a run on its own would have to compute them
    costs["fit_seconds"] = costs.get("train_seconds", 0.0) + costs.get("prefix_seconds", 0.0)
    if costs.get("operations") and costs.get("peak_operations_per_second") and costs["train_seconds"]:
        costs["peak_share"] = costs["operations"] / costs["train_seconds"] / costs["peak_operations_per_second"]
    costs["trainable_parameters"] = float(members[0].parameters.get("trainable", 0))
    return costs | rated_costs(costs, rates, _measured_watts(sessions))


def _measured_watts(sessions: Sequence[Session]) -> float | None:
    """Return the mean power of one run: that of processors and GPUs, divided by the number of runs at once."""
    measured = [
        ((session.joules or 0.0) + (session.gpu_joules or 0.0), session.seconds * session.workers)
        for session in sessions
        if session.joules or session.gpu_joules
    ]
    return sum(joules for joules, _ in measured) / sum(seconds for _, seconds in measured) if measured else None


def _curves(
    records: Sequence[RunRecord],
    groups: Groups,
    rows: tuple[Row, ...],
    store: RunStore,
    metric: str,
    num_test: int,
) -> tuple[tuple[CurvePoint, ...], dict[str, Gain]]:
    """Return the points of the learning curves, and for each group the gain from the last step of its curve.

    records: runs on subsets of train. groups, rows: runs on all of train.
    """
    points = [curve_point(groups.records[row.group], row.score, row.interval) for row in rows if not row.is_external]
    largest: dict[tuple[str, str | None], tuple[int, stats.RunScores]] = {}  # examples and scores, by label and model
    # by name: subsets of equal size that were drawn in different ways are different points; folds differ in size
    sizes: dict[str, int] = {}
    for record in records:
        sizes[subset_name(record)] = max(record.train_examples or 0, sizes.get(subset_name(record), 0))
    ordered = sorted(records, key=lambda record: (sizes[subset_name(record)], subset_name(record), record.seed))
    for _, same_size in itertools.groupby(ordered, key=subset_name):
        subset_groups = load_groups(list(same_size), store, metric, groups.options, are_subsets=True)
        seed_variance = subset_groups.seed_variance  # of this size: with few examples scores vary more by seed
        for group, scores in subset_groups.scores.items():
            members, estimate = subset_groups.records[group], stats.estimate_score(scores, num_test, seed_variance)
            points.append(curve_point(members, estimate.value, stats.interval(estimate, bounds(metric))))
            largest[members[0].label, members[0].model] = (members[0].train_examples or 0, scores)
    gains = {}
    for row in rows:
        before, scores = largest.get((row.label, row.model), (0, groups.scores[row.group]))
        after = groups.records[row.group][0].train_examples or 0
        if 0 < before < after:
            gap = stats.difference(groups.scores[row.group], scores, num_test, groups.seed_variance)
            gains[row.group] = gain_per_doubling(gap, before, after)
    points.sort(key=lambda point: point.examples)
    return tuple(points), gains


def _calibration(groups: Groups, store: RunStore) -> dict[str, Calibration]:
    if not groups.predictions:
        return {}
    num_labels = next(iter(groups.predictions.values())).probabilities.shape[2]
    return {
        group: calibrate(
            groups.labels, list(runs.probabilities), _on_validation(groups.records[group], store, num_labels)
        )
        for group, runs in groups.predictions.items()
        if runs.has_probabilities
    }


def _on_validation(
    members: Sequence[RunRecord], store: RunStore, num_labels: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Read labels and probabilities of each run's validation examples; with folds of all of them as one run."""
    if members[0].strategy == EXTERNAL:
        return []
    tables = [store.predictions(record.run_id, "validation") for record in members]
    if members[0].spec.get("fold"):
        tables = [pd.concat(tables)]
    names = [f"p{i}" for i in range(num_labels)]
    return [(stored_labels(table["label"]), table[names].to_numpy(np.float64)) for table in tables]


def _class_scores(runs: Predictions, labels: np.ndarray, label_names: tuple[str, ...]) -> list[ClassScores]:
    """Return precision, recall and F1 of each class, the predictions of all seeds pooled; examples count once."""
    repeated = np.concatenate([labels] * len(runs.predicted))
    pooled = per_class(repeated, np.concatenate(list(runs.predicted)), label_names)
    return [replace(scores, examples=scores.examples // len(runs.predicted)) for scores in pooled]
