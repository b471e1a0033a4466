"""Where the variance of scores comes from, in sentences and tables: for the details of the verdict's section."""

from tuneoff.comparison.result import Comparison
from tuneoff.comparison.variance import SEED, NextStep, SourceVariance, VarianceSources
from tuneoff.formats import join_names
from tuneoff.report.section import Block, Heading, TableBlock, Text
from tuneoff.scoring.metrics import points
from tuneoff.tables import COUNT, SCORE, TEXT, Column, Table


def variance_blocks(comparison: Comparison) -> list[Block]:
    """Return the blocks on the sources of variance; none if no run succeeded."""
    variance = comparison.variance
    if variance is None:
        return []
    blocks: list[Block] = [Heading("Where the variance comes from")]
    if not comparison.data.folds:
        blocks += [Text(_explanation(variance))]
    if variance.pooled:
        blocks += [Text(_pooled_text(variance.pooled, comparison.metric)), TableBlock(variance_table(comparison))]
    if variance.pair:
        blocks += [Text(_steps_text(comparison, variance)), TableBlock(steps_table(comparison))]
    return blocks


def _explanation(variance: VarianceSources) -> str:
    if not variance.pooled:
        return "No strategy ran with several seeds, so only the variance over test examples is known."
    text = (
        "Standard deviations of the score of one run: over draws of the test examples, and over seeds. All runs have "
        "the same test examples, whose noise is removed from the parts of the seeds; a part whose estimate is negative "
        "is 0 (the average is taken before that). A few seeds estimate a variance roughly."
    )
    if len(variance.pooled.sd_by_source) > 1:
        text += (
            " Every combination of the seeds ran, so that an analysis of variance tells their parts from each other "
            "(random effects, method of moments); the interaction is what no source explains alone."
        )
    return text


def _pooled_text(pooled: SourceVariance, metric: str) -> str:
    """Sentences on the standard deviations, largest first, and on the sources that show none."""
    parts = [(pooled.sd_from_examples, "the test examples")]
    parts += [(sd, _source_name(source)) for source, sd in pooled.sd_by_source.items()]
    parts += [] if pooled.sd_from_rest is None else [(pooled.sd_from_rest, "the interaction of seeds")]
    ordered = sorted(parts, key=lambda part: -part[0])
    phrases = [f"{points(sd, metric)} with {name}" for sd, name in ordered if sd > 0]
    none = [name for sd, name in ordered if sd == 0]
    text = (
        f"On average over the strategies with seeds, the score of one run varies by {join_names(phrases)}."
        if phrases
        else ""
    )
    return f"{text} No variance is shown to come from {join_names(none)}.".strip() if none else text


def _source_name(source: str) -> str:
    return "the seed" if source == SEED else f"the seed of {source}"


def variance_table(comparison: Comparison) -> Table:
    """Standard deviations of the score of one run by source: of each strategy, and pooled."""
    variance = comparison.variance
    assert variance is not None
    assert variance.pooled is not None
    sources = list(variance.pooled.sd_by_source)
    has_rest = variance.pooled.sd_from_rest is not None
    columns = (
        Column("strategy", "strategy", TEXT),
        Column("sd_from_examples", "test examples", SCORE),
        *[Column(f"sd_from_{source}", "seeds" if source == SEED else source, SCORE) for source in sources],
        *([Column("sd_from_interaction", "interaction of seeds", SCORE)] if has_rest else []),
    )

    def cells(part: SourceVariance) -> list[float | None]:
        by_source = [part.sd_by_source.get(source) for source in sources]
        return [part.sd_from_examples, *by_source, *([part.sd_from_rest] if has_rest else [])]

    rows = [[comparison.names[row.group], *cells(variance.by_group[row.group])] for row in comparison.rows]
    return Table("variance", columns, rows, total=["average of those with seeds", *cells(variance.pooled)])


def _steps_text(comparison: Comparison, variance: VarianceSources) -> str:
    """Sentences on the interval of the best two strategies, and on the step that narrows it most."""
    assert variance.pair is not None
    best, second = (comparison.names[group] for group in variance.pair)
    narrowest = min(variance.steps, key=lambda step: step.half_width)
    label, most = _step_label(narrowest, comparison), " most," if len(variance.steps) > 1 else ""
    now, then = (points(half_width, comparison.metric) for half_width in (variance.half_width, narrowest.half_width))
    return (
        f"The 95 % interval of the difference between {best} and {second} has a half-width of {now}. "
        f"{label[0].upper()}{label[1:]} would narrow it{most} to about {then}, if the variances are as estimated."
    )


def _step_label(step: NextStep, comparison: Comparison) -> str:
    if step.source is None:
        return "twice as many labelled examples" if comparison.data.folds else "twice as many test examples"
    return "one more seed" if step.source == SEED else f"one more seed of {step.source}"


def steps_table(comparison: Comparison) -> Table:
    """Half-width of the interval of the best two strategies, now and after each next step."""
    variance = comparison.variance
    assert variance is not None
    columns = (
        Column("change", "change", TEXT),
        Column("more_runs", "more runs per strategy", COUNT),
        Column("half_width", "half-width of the interval", SCORE),
    )
    rows: list[list[str | float]] = [["none", 0, variance.half_width]]
    rows += [[_step_label(step, comparison), step.more_runs, step.half_width] for step in variance.steps]
    return Table("next-steps", columns, rows)
