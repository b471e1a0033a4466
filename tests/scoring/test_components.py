"""Variance components agree with statsmodels, with known components in simulations, and give intervals that cover."""

import itertools

import numpy as np
import pandas as pd
import pytest

from tuneoff.scoring import stats
from tuneoff.scoring.components import Components, grid_variance, levels_of, mean_components


def grid_seeds(*counts, names=("head", "order", "dropout")):
    """The seeds of the runs on a complete grid."""
    return tuple(tuple(zip(names, cell, strict=False)) for cell in itertools.product(*map(range, counts)))


def draw_scores(counts, sds, rest, rng):
    """Scores of the runs on a grid, with normal effects of each source. -> (S,)."""
    effects = [rng.normal(0, sd, count) for count, sd in zip(counts, sds, strict=True)]
    sums = sum(effect[ids] for effect, ids in zip(effects, np.indices(counts).reshape(len(counts), -1), strict=True))
    return 0.8 + sums + rng.normal(0, rest, int(np.prod(counts)))


def no_noise(scores):
    return np.tile(scores[:, None], 3)


def test_levels_are_those_of_sources_with_several_seeds():
    levels = levels_of([(("head", 5), ("order", 7)), (("head", 9), ("order", 7))])
    assert {source: list(ids) for source, ids in levels.items()} == {"head": [0, 1]}
    assert levels_of((0, 1, 2)) == levels_of([(("head", 5),)]) == {}


@pytest.mark.parametrize("counts", [(2, 2), (3, 4), (2, 3, 2)])
def test_components_agree_with_the_mean_squares_of_statsmodels(counts):
    # statsmodels 0.14.0 does not import its formulas with a scipy of 1.16 or later
    ols = pytest.importorskip("statsmodels.formula.api", exc_type=ImportError).ols
    anova_lm = pytest.importorskip("statsmodels.stats.anova", exc_type=ImportError).anova_lm
    scores = draw_scores(counts, [0.02] * len(counts), 0.01, np.random.default_rng(0))
    levels = levels_of(grid_seeds(*counts))
    frame = pd.DataFrame({**levels, "score": scores})
    table = anova_lm(ols(f"score ~ {' + '.join(f'C({source})' for source in levels)}", frame).fit())
    squares = table["sum_sq"] / table["df"]
    spread = grid_variance(scores, no_noise(scores), levels).spread
    assert spread.rest == pytest.approx(squares["Residual"])
    for source, count in zip(levels, counts, strict=True):
        expected = (squares[f"C({source})"] - squares["Residual"]) * count / len(scores)
        assert spread.by_source[source] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("counts", "sds", "rest"), [((3, 3), (0.03, 0.0), 0.01), ((2, 5), (0.01, 0.03), 0.02), ((3, 2, 2), (0.02, 0.01, 0.03), 0.01)]
)  # fmt: skip
def test_known_components_are_recovered(counts, sds, rest):
    rng, levels = np.random.default_rng(0), levels_of(grid_seeds(*counts))
    draws = [draw_scores(counts, sds, rest, rng) for _ in range(3000)]
    grids = [grid_variance(scores, no_noise(scores), levels) for scores in draws]
    mean = mean_components([grid.components for grid in grids])
    assert mean.rest == pytest.approx(rest**2, rel=0.1)
    for source, sd in zip(levels, sds, strict=True):
        assert mean.by_source[source] == pytest.approx(sd**2, rel=0.1, abs=0.05 * max(sds) ** 2)
    # the variance of the mean over the grid, which is more than that of independent runs
    expected = sum(sd**2 / count for sd, count in zip(sds, counts, strict=True)) + rest**2 / np.prod(counts)
    assert np.var([scores.mean() for scores in draws]) == pytest.approx(expected, rel=0.1)
    assert mean.of_mean(dict(zip(levels, counts, strict=True))) == pytest.approx(expected, rel=0.1)


def test_the_noise_of_the_test_examples_is_removed():
    """Every run is right with the same probability: all that runs differ in comes from the test examples."""
    rng, levels = np.random.default_rng(0), levels_of(grid_seeds(3, 3))
    weights = stats.example_weights(200, 200, rng)
    grids = []
    for _ in range(300):
        is_right = rng.random((9, 200)) < 0.8
        grids.append(grid_variance(is_right.mean(1), is_right @ weights.T / 200, levels))
    spread, left = (mean_components([getattr(grid, name) for grid in grids]) for name in ("spread", "components"))
    assert spread.rest == pytest.approx(0.8 * 0.2 / 200, rel=0.1)
    assert abs(left.rest) < 0.1 * spread.rest
    assert all(abs(variance) < 0.1 * spread.rest for variance in left.by_source.values())


def test_more_seeds_of_one_source_do_not_reduce_the_others():
    components = Components({"head": 4.0, "order": 1.0}, 2.0)
    assert components.of_mean({"head": 2, "order": 2}) == 2 + 0.5 + 0.5
    assert components.of_mean({"head": 2, "order": 4}) == 2 + 0.25 + 0.25
    assert components.total == 7
    assert Components({"head": -1.0}, 2.0).of_mean({"head": 2}) == 1


def test_a_grid_with_a_hole_has_no_rest_and_more_variance():
    rng, seeds = np.random.default_rng(0), grid_seeds(3, 3)
    complete, with_hole = [], []
    for _ in range(500):
        scores = draw_scores((3, 3), (0.02, 0.01), 0.01, rng)
        complete.append(grid_variance(scores, no_noise(scores), levels_of(seeds)))
        with_hole.append(grid_variance(scores[1:], no_noise(scores[1:]), levels_of(seeds[1:])))
    assert not with_hole[0].is_complete
    assert with_hole[0].spread.rest == 0
    assert np.mean([grid.of_mean for grid in with_hole]) >= np.mean([grid.of_mean for grid in complete])


def run_scores(is_right, weights, seeds):
    return stats.RunScores(is_right.mean(1), is_right.astype(np.float32) @ weights.T / is_right.shape[1], seeds)


def simulate(counts, sds, seeds, repetitions=200, num_examples=500):
    """Share of 95 % intervals of a score and of a difference that contain the true value. sds: on the logit scale."""
    rng = np.random.default_rng(0)
    weights, skills = stats.example_weights(num_examples, 200, rng), (2.0, 1.7)
    spread = np.sqrt(2**2 + sum(sd**2 for sd in sds))
    truth = [(1 / (1 + np.exp(-(skill + rng.normal(0, spread, 10**6))))).mean() for skill in skills]
    num_covered = np.zeros(2)
    for _ in range(repetitions):
        difficulty, runs = rng.normal(0, 2, num_examples), []
        for skill in skills:
            effects = draw_scores(counts, sds, 0.0, rng) - 0.8
            is_right = rng.random((len(effects), num_examples)) < 1 / (
                1 + np.exp(-(skill + difficulty + effects[:, None]))
            )
            runs.append(run_scores(is_right, weights, seeds))
        pooled = stats.pooled_seed_variance(runs)
        low, high = stats.interval(stats.estimate_score(runs[0], num_examples, pooled), (0, 1))
        gap_low, gap_high = stats.interval(stats.difference(runs[0], runs[1], num_examples, pooled))
        num_covered += [low <= truth[0] <= high, gap_low <= truth[0] - truth[1] <= gap_high]
    return num_covered / repetitions


@pytest.mark.parametrize("counts", [(3, 3), (2, 4)])
def test_intervals_cover_where_runs_share_a_head(counts):
    sds = (0.3, 0.1)
    assert (simulate(counts, sds, grid_seeds(*counts)) >= 0.93).all()
    # as independent runs they would not
    assert (simulate(counts, sds, tuple(range(int(np.prod(counts))))) < 0.9).all()


@pytest.fixture
def grids():
    """Scores of four strategies on grids of three heads and two orders, on the same resamples."""
    rng = np.random.default_rng(1)
    weights = stats.example_weights(400, 300, rng)
    effects = [draw_scores((3, 2), (0.05, 0.02), 0.01, rng) for _ in range(4)]
    return [run_scores(rng.random((6, 400)) < effect[:, None], weights, grid_seeds(3, 2)) for effect in effects]


def test_the_pooled_components_are_a_lower_limit(grids):
    pooled = stats.pooled_seed_variance(grids)
    assert pooled is not None
    assert pooled.components is not None
    limit = pooled.components.of_mean({"head": 3, "order": 2})
    for runs in grids:
        estimate = stats.estimate_score(runs, 400, pooled)
        assert estimate.variance_between_seeds >= limit - 1e-12
        assert estimate.num_seeds == 2  # of the source with the fewest


def test_a_single_run_takes_the_sum_of_the_pooled_components(grids):
    pooled = stats.pooled_seed_variance(grids)
    assert pooled is not None
    assert pooled.components is not None
    single = stats.RunScores(grids[0].scores[:1], grids[0].resampled[:1], grids[0].seeds[:1])
    estimate = stats.estimate_score(single, 400, pooled)
    assert estimate.variance_from_seeds == pooled.variance == pooled.components.total


def test_a_difference_on_equal_grids_is_paired_and_on_others_not(grids):
    paired = stats.difference(grids[0], grids[1], 400)
    assert paired.counts == {"head": 3, "order": 2}
    fewer = stats.RunScores(grids[1].scores[:4], grids[1].resampled[:4], grids[1].seeds[:4])
    parts = [stats.estimate_score(runs, 400).variance_from_seeds or 0.0 for runs in (grids[0], fewer)]
    assert stats.difference(grids[0], fewer, 400).variance_from_seeds == pytest.approx(sum(parts))


def test_more_seeds_of_a_source_narrow_an_interval_by_its_part():
    estimate = stats.ScoreEstimate(
        0.8, 0.0001, 0.0006, 1000, 2, 0.0006, 3.0, Components({"head": 0.001, "order": 0.0}, 0.0004), {"head": 2, "order": 2}
    )  # fmt: skip
    more_heads, more_orders = (estimate.with_counts({**estimate.counts, source: 4}) for source in ("head", "order"))
    assert more_heads.variance_from_seeds == pytest.approx(0.0003)
    assert more_orders.variance_from_seeds == pytest.approx(0.0005 + 0.00005)
    assert more_heads.seed_degrees_of_freedom == pytest.approx(6)
    assert estimate.with_counts(estimate.counts).variance == pytest.approx(estimate.variance)


def test_a_strategy_that_depends_on_fewer_sources_is_paired_with_every_run_of_the_same_seeds():
    rng, (heads, splits) = np.random.default_rng(0), (2, 4)
    of_split = rng.normal(0, 0.03, splits)  # shared by both strategies: cancels in their difference
    few, many = 0.70 + of_split, 0.72 + np.tile(of_split, (heads, 1)) + rng.normal(0, 0.001, (heads, splits))
    noise = rng.normal(0, 0.001, (heads * splits, 50))
    first = stats.RunScores(
        many.ravel(), many.ravel()[:, None] + noise, grid_seeds(heads, splits, names=("head", "split"))
    )
    second = stats.RunScores(few, few[:, None] + noise[:splits], grid_seeds(splits, names=("split",)))
    for gap in (stats.difference(first, second, 1000), stats.difference(second, first, 1000)):
        assert abs(gap.value) == pytest.approx(0.02, abs=0.001)
        assert (gap.variance_from_seeds or 0.0) < 0.001**2
        assert gap.counts == {"head": heads, "split": splits}
