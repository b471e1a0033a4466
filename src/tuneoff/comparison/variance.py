"""Where the variance of scores comes from: test examples and seeds, and what more of either would bring."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tuneoff.scoring import stats
from tuneoff.scoring.components import Components, GridVariance, grid_variance, levels_of, mean_components

SEED = "seed"  # the one source where all sources of randomness vary together


@dataclass(frozen=True)
class SourceVariance:
    """Standard deviations of the score of one run: over draws of test examples, and over seeds of each source."""

    sd_from_examples: float
    sd_by_source: dict[str, float]  # empty for a strategy that no source changes, and for a single run
    sd_from_rest: float | None  # interaction of the sources; None for fewer than two, and if a run of the grid failed


@dataclass(frozen=True)
class NextStep:
    """What a larger study would bring for the difference of the best two strategies."""

    source: str | None  # of which there is one more seed; None: twice as many test examples
    more_runs: int  # of each strategy
    half_width: float  # of the 95 % confidence interval


@dataclass(frozen=True)
class VarianceSources:
    """Variance of the scores by source, of each strategy and on average, and the next steps that would reduce it."""

    by_group: dict[str, SourceVariance]
    pooled: SourceVariance | None  # mean variances over the strategies that have every source; None if no seeds vary
    pair: tuple[str, str] | None = None  # groups of the best strategy and the next best
    half_width: float = 0.0  # of the 95 % confidence interval of their difference
    steps: tuple[NextStep, ...] = ()


def variance_sources(
    scores: Mapping[str, stats.RunScores], learners: Sequence[str], num_examples: int, pooled: stats.SeedVariance | None
) -> VarianceSources:
    """Split the variance of scores by source.

    scores: group -> test scores. learners: groups that depend on the text, best first.
    """
    grids = {group: grid for group, runs in scores.items() if (grid := _grid(runs)) is not None}
    examples = {group: float(runs.resampled.var(axis=1, ddof=1).mean()) for group, runs in scores.items()}
    by_group = {group: SourceVariance(math.sqrt(variance), {}, None) for group, variance in examples.items()}
    by_group |= {group: _deviations(examples[group], grid.components, grid) for group, grid in grids.items()}
    kinds = {group: (len(grids[group].counts), grids[group].is_complete) for group in learners if group in grids}
    alike = [group for group, kind in kinds.items() if kind == max(kinds.values())]
    mean = None
    if alike:
        mean_examples = float(np.mean([examples[group] for group in alike]))
        components = mean_components([grids[group].components for group in alike])
        mean = _deviations(mean_examples, components, grids[alike[0]])
    if len(learners) < 2:
        return VarianceSources(by_group, mean)
    best, second = learners[:2]
    gap = stats.difference(scores[best], scores[second], num_examples, pooled)
    return VarianceSources(by_group, mean, (best, second), _half_width(gap), tuple(_next_steps(gap)))


def _grid(runs: stats.RunScores) -> GridVariance | None:
    """Analyse the scores of the runs of a strategy; None for a single run and for a strategy that no seed changes."""
    if not runs.is_seeded or len(runs.scores) < 2:
        return None
    levels = levels_of(runs.seeds) or {SEED: np.arange(len(runs.scores))}
    return grid_variance(runs.scores, runs.resampled, levels)


def _deviations(examples: float, components: Components, grid: GridVariance) -> SourceVariance:
    has_rest = grid.is_complete and len(grid.counts) > 1
    return SourceVariance(
        math.sqrt(examples),
        {source: math.sqrt(max(0.0, variance)) for source, variance in components.by_source.items()},
        math.sqrt(max(0.0, components.rest)) if has_rest else None,
    )


def _next_steps(gap: stats.ScoreEstimate) -> list[NextStep]:
    """Extrapolate a difference to one more seed of each source, and to twice as many test examples."""
    steps = []
    num_runs = math.prod(gap.counts.values())
    if gap.components:
        for source, count in gap.counts.items():
            more = gap.with_counts({**gap.counts, source: count + 1})
            steps.append(NextStep(source, num_runs // count, _half_width(more)))
    elif gap.variance_from_seeds:
        more = gap.extrapolate(gap.num_examples, gap.num_seeds + 1)
        steps.append(NextStep(SEED, 1, _half_width(more)))
    twice = gap.extrapolate(2 * gap.num_examples, gap.num_seeds)
    return [*steps, NextStep(None, 0, _half_width(twice))]


def _half_width(gap: stats.ScoreEstimate) -> float:
    low, high = stats.interval(gap)
    return (high - low) / 2
