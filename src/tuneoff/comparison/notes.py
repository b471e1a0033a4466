"""Sentences for readers on the metric of a comparison and on thresholds: the positive class, units, resamples."""

from tuneoff.comparison.result import Comparison
from tuneoff.errors import join_limited
from tuneoff.formats import chance_text, counted, join_names, rough_seconds, written_time
from tuneoff.scoring import stats
from tuneoff.scoring.metrics import MetricOptions, depends_on_positive, display_name, is_own, points
from tuneoff.search.race_record import RaceRecord, last_standings
from tuneoff.strategies import STRATEGIES


def unfinished_note(comparison: Comparison) -> str:
    """Sentences on how sure the pick of a race or of an unfinished study is, and on what is missing; else empty."""
    race, (num_missing, num_planned) = comparison.race, comparison.missing_runs
    is_over = race is not None and bool(race.ended)
    if race is None and not num_missing:
        return ""
    sentences = []
    if not is_over:
        without = _strategies_without_runs(comparison)
        none_of = f", none of {join_names(without)} so far" if without else ""
        sentences.append(
            f"Unfinished: {num_planned - num_missing:,} of {counted(num_planned, 'run')} are stored{none_of}."
            + (" This is the verdict on what there is." if comparison.verdict else "")
        )
    if comparison.verdict and comparison.verdict.recommended and comparison.joint:
        groups = [row.group for row in comparison.rows]
        losses = comparison.joint.losses[:, groups.index(comparison.verdict.recommended)]
        chance, margin = float((losses <= comparison.verdict.margin).mean()), comparison.verdict.margin
        sentences.append(
            f"The chance that no strategy with a score is more than {points(margin, comparison.metric)} better than "
            f"the pick is {100 * chance:.0f} %."
        )
    if is_over and race and race.left_out:
        sentences.append(_left_out_text(comparison, race))
    if race and race.for_limits(comparison.study.data.limits).sampled_sizes:
        sentences.append(_sample_text(race))
    return " ".join(sentences)


def _strategies_without_runs(comparison: Comparison) -> list[str]:
    """Name the strategies that no stored run is of, and that have not stopped."""
    encoders, study = comparison.study_encoders, comparison.study
    present = {(record.label, record.model) for record in comparison.stored_runs}
    present |= {*comparison.race.stopped} if comparison.race else set()
    names = []
    for strategy in study.strategies:
        models = study.encoders_of(strategy) if STRATEGIES[strategy.name].uses_encoder else (None,)
        missing = [model for model in models if (strategy.label, model) not in present]
        names += [f"{strategy.label} on {encoders[m]}" if m and len(encoders) > 1 else strategy.label for m in missing]
    return names


def _left_out_text(comparison: Comparison, race: RaceRecord) -> str:
    """Sentences on what did not fit into the time, and what more of it would bring."""
    encoders, without = comparison.study_encoders, _strategies_without_runs(comparison)
    by_jobs: dict[tuple[str, ...], list[str]] = {}
    for entry in race.left_out:
        name = f"{entry.label} on {encoders[entry.model]}" if entry.model and len(encoders) > 1 else entry.label
        if name not in without:
            by_jobs.setdefault(("all trials",) if entry.names == ("trials",) else entry.names, []).append(name)
    parts = [f"any run of {join_names(without)}"] if without else []
    parts += [f"{join_names(list(jobs))} of {join_names(names)}" for jobs, names in by_jobs.items()]
    work = rough_seconds(sum(entry.seconds for entry in race.left_out))
    text = f"No time was left for {join_limited(parts, 6)}, about {work} of work."
    if without:
        text += f" There is no score of {join_names(without)}, which may be better than the pick."
    standings = [s for s in last_standings(race) if s.chance]
    picked = [r for r in comparison.rows if comparison.verdict and r.group == comparison.verdict.recommended]
    chances = [s.chance for s in standings if picked and (s.label, s.model) == (picked[0].label, picked[0].model)]
    if chances and chances[0] is not None and not without:
        text += f" The chance that all of it would change the pick is {chance_text(1 - chances[0])}."
    if race.needed:
        text += f" With --time {written_time(race.needed)} it would fit; stored runs are not repeated."
    return text


def _sample_text(race: RaceRecord) -> str:
    """Sentences on the data that a race took because of its time."""
    text = (
        f"To fit into the time, this study takes a sample, {race.sample_text}. The pick is for a training set of that "
        "size; with more examples the order may change."
    )
    if race.seconds_for_whole:
        text += f" A new study (another --name) of all of them needs --time {written_time(race.seconds_for_whole)}."
    return text


def metric_note(comparison: Comparison) -> str:
    """Sentences on the metric that ranks: its positive class, its unit, its resamples; empty if none is needed."""
    metric, name, options = comparison.metric, display_name(comparison.metric), comparison.options
    sentences = []
    if is_of_positive(metric, options):
        hint = "" if comparison.study.positive else ", the second label (--positive names another)"
        sentences.append(f"{name[0].upper()}{name[1:]} is that of the class {options.positive_name!r}{hint}.")
    if metric == "mae":
        sentences.append("The mean absolute error is in steps from one label to the next; lower is better.")
    if is_own(metric):
        sentences.append(f"{name} is a Python function; a higher value counts as better.")
    if comparison.num_resamples < stats.RESAMPLES:
        sentences.append(
            f"Intervals are from {comparison.num_resamples:,} resamples of the test examples instead of "
            f"{stats.RESAMPLES:,}, because each may be slow to score."
        )
    return " ".join(sentences)


def is_of_positive(metric: str, options: MetricOptions) -> bool:
    """Return True for a metric of the positive class; PR AUC is one with two classes, otherwise a mean over classes."""
    is_binary = len(options.label_names) == 2 and not options.is_multilabel
    return options.positive is not None and depends_on_positive(metric) and (metric != "pr_auc" or is_binary)


def threshold_note(comparison: Comparison) -> str:
    """Sentence on the thresholds of two classes, which validation chose; empty if the default of 0.5 holds."""
    names = comparison.names
    chosen: dict[str, list[str]] = {}
    for record in comparison.records:
        if record.thresholds and record.group in names and not comparison.options.is_multilabel:
            chosen.setdefault(names[record.group], []).append(f"{record.thresholds[0]:.2f}")
    if not chosen:
        return ""
    in_order = [f"{name} {', '.join(chosen[name])}" for name in names.values() if name in chosen]
    return (
        f"{comparison.label_names[1]!r} is predicted from the probability that had the best "
        f"{display_name(comparison.selection_metric)} on validation, instead of 0.5: {'; '.join(in_order)} (by "
        f"{comparison.repeat})."
    )
