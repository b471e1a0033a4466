"""Sentences for readers on the metric of a comparison and on thresholds: the positive class, units, resamples."""

from tuneoff.comparison.result import Comparison
from tuneoff.scoring import stats
from tuneoff.scoring.metrics import MetricOptions, depends_on_positive, display_name, is_own


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
