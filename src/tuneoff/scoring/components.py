"""Variance components of scores on a crossed grid of seeds: how much each source of randomness explains.

The score of a run is a mean, plus a random effect of each source (one for each of its levels), plus a rest: the
interaction of the sources. Every combination of levels has one run. The components come from the analysis of variance
by the method of moments (Searle, Casella & McCulloch, 1992, chapter 4): the mean square of a source with L of S runs'
levels has the expectation rest + (S / L) * component, so that component = (mean square - rest) * L / S. Estimates are
unbiased; a negative one becomes 0 where a variance is needed.

All runs are scored on the same test examples. What makes those examples easier or harder for every run cancels in the
mean squares. What is left of them is that each run errs on its own examples, and runs with one head on the same ones.
Resamples of the examples show how much of each mean square that is (its noise).

# S runs  R resamples  L levels of a source
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


def levels_of(seeds: Sequence[object]) -> dict[str, np.ndarray]:
    """Return the level of each run for each source with several levels, as numbers from 0. Source -> (S,).

    seeds: of each run; where sources vary apart, pairs of source and seed. Empty if they do not.

    >>> levels_of([(("head", 0), ("order", 7)), (("head", 5), ("order", 7))])
    {'head': array([0, 1])}
    """
    cells = [dict(seed) for seed in seeds if isinstance(seed, tuple)]
    if len(cells) < len(seeds):
        return {}
    columns = {source: np.array([cell[source] for cell in cells]) for source in (cells[0] if cells else ())}
    levels = {source: np.unique(values, return_inverse=True)[1] for source, values in columns.items()}
    return {source: ids for source, ids in levels.items() if ids.max() > 0}


@dataclass(frozen=True)
class Components:
    """Variance of the score of one run by source. Unbiased estimates, so that one may be negative."""

    by_source: dict[str, float]
    rest: float  # interaction of the sources; 0 with a single source, which contains it

    @property
    def total(self) -> float:
        """Variance of the score of one run; negative components count as 0."""
        return self.of_mean(dict.fromkeys(self.by_source, 1))

    def of_mean(self, counts: Mapping[str, int]) -> float:
        """Return the variance of the mean over a grid; negative components count as 0. counts: levels by source.

        More levels of one source reduce its own component and the rest, not the components of other sources: 9 runs
        with 3 heads are not 9 independent runs.
        """
        main = sum(max(0.0, variance) / counts.get(source, 1) for source, variance in self.by_source.items())
        return main + max(0.0, self.rest) / math.prod(counts.values())

    def times(self, factor: float) -> "Components":
        """Return every component times a factor."""
        return Components({s: factor * variance for s, variance in self.by_source.items()}, factor * self.rest)

    def within(self, sources: Collection[str]) -> "Components":
        """Return the components of some sources alone, with the rest."""
        return Components({s: variance for s, variance in self.by_source.items() if s in sources}, self.rest)

    def minus(self, other: "Components") -> "Components":
        """Return the differences of the components."""
        by_source = {source: variance - other.by_source[source] for source, variance in self.by_source.items()}
        return Components(by_source, self.rest - other.rest)


def mean_components(parts: Sequence[Components]) -> Components:
    """Average the components of several strategies, which have the same sources."""
    by_source = {source: float(np.mean([part.by_source[source] for part in parts])) for source in parts[0].by_source}
    return Components(by_source, float(np.mean([part.rest for part in parts])))


@dataclass(frozen=True)
class GridVariance:
    """Analysis of variance of the scores on a grid of runs."""

    counts: dict[str, int]  # levels of each source
    spread: Components  # of the measured scores
    noise: Components  # the part of it from the test examples: each run errs on its own
    degrees_of_freedom: float  # of the variance of the mean (Satterthwaite, 1946)
    is_complete: bool

    @property
    def components(self) -> Components:
        """Components of the true scores: without the noise."""
        return self.spread.minus(self.noise)

    @property
    def of_mean(self) -> float:
        """Variance of the mean score over all runs."""
        return self.spread.of_mean(self.counts)

    @property
    def noise_of_mean(self) -> float:
        """The part of of_mean from the test examples."""
        kept = [source for source, variance in self.spread.by_source.items() if variance > 0]  # as in of_mean
        main = sum(self.noise.by_source[source] / self.counts[source] for source in kept)
        return main + self.noise.rest / math.prod(self.counts.values())


def grid_variance(scores: np.ndarray, resampled: np.ndarray, levels: Mapping[str, np.ndarray]) -> GridVariance:
    """Analyse the scores of the runs on a grid. scores: (S,); resampled: (S, R); levels: source -> (S,).

    A grid with holes (failed runs) has no separate rest: each source's component then contains it, so that the variance
    of the mean is too large rather than too small.

    Worked example: two heads and two orders. The means of the heads are 0.805 and 0.835, those of the orders 0.82 both.
    The sums of squares are 0.0009 (head), 0 (order) and 0.0001 (rest), each with one degree of freedom, so that the
    component of the head is (0.0009 - 0.0001) / 2, that of the order (0 - 0.0001) / 2, and the rest 0.0001.

    >>> levels = {"head": np.array([0, 0, 1, 1]), "order": np.array([0, 1, 0, 1])}
    >>> spread = grid_variance(np.array([0.80, 0.81, 0.84, 0.83]), np.zeros((4, 2)), levels).spread
    >>> round(spread.by_source["head"], 6), round(spread.by_source["order"], 6), round(spread.rest, 6)
    (0.0004, -5e-05, 0.0001)
    """
    counts = {source: int(ids.max()) + 1 for source, ids in levels.items()}
    is_complete = len(scores) == math.prod(counts.values())
    num_rest = len(scores) - 1 - sum(count - 1 for count in counts.values()) if is_complete else 0
    between, rest = _mean_squares(scores, levels, num_rest)
    deviations = resampled - resampled.mean(1, keepdims=True)
    noise_between, noise_rest = (squares.mean(-1) for squares in _mean_squares(deviations, levels, num_rest))
    # the variance of the mean is sum(max(0, between - rest) + rest) / S, which is a sum of mean squares with weights
    is_kept = between > rest
    squares = np.append(between[is_kept], (1 - is_kept.sum()) * rest)
    degrees = np.append(np.array(list(counts.values()))[is_kept] - 1, max(1, num_rest))
    divisor = float((squares**2 / degrees).sum())
    return GridVariance(
        counts,
        _components(counts, between, rest, len(scores)),
        _components(counts, noise_between, noise_rest, len(scores)),
        max(1.0, float(squares.sum()) ** 2 / divisor) if divisor else 1.0,
        is_complete,
    )


def _mean_squares(values: np.ndarray, levels: Mapping[str, np.ndarray], num_rest: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean squares of the sources and of the rest. values: (S, ...) -> (sources, ...), (...).

    num_rest: degrees of freedom of the rest; 0 for no rest.
    """
    mean = values.mean(0)
    rest, squares = ((values - mean) ** 2).sum(0), []
    for ids in levels.values():
        num_levels = int(ids.max()) + 1
        means = np.stack([values[ids == level].mean(0) for level in range(num_levels)])
        of_source = len(values) / num_levels * ((means - mean) ** 2).sum(0)
        rest = rest - of_source
        squares.append(of_source / (num_levels - 1))
    return np.stack(squares), np.maximum(rest, 0.0) / num_rest if num_rest else np.zeros_like(rest)


def _components(counts: Mapping[str, int], between: np.ndarray, rest: np.ndarray, num_runs: int) -> Components:
    pairs = zip(counts.items(), between, strict=True)
    return Components({s: float(square - rest) * count / num_runs for (s, count), square in pairs}, float(rest))
