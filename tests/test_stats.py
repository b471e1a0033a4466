"""Bootstrap intervals agree with theory and with scipy."""

import numpy as np
import pytest
from mlxtend.evaluate import mcnemar as mlxtend_mcnemar
from mlxtend.evaluate import mcnemar_table
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.power import TTestPower

from tuneoff import stats
from tuneoff.metrics import evaluate


def predictions(num_examples=400, accuracy=0.8, num_labels=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(num_labels, size=num_examples)
    predicted = np.where(rng.random(num_examples) < accuracy, labels, (labels + 1) % num_labels)
    chances = np.eye(num_labels)[predicted] * 0.7 + 0.1
    return labels, predicted, chances / chances.sum(1, keepdims=True)


def test_weights_are_resamples():
    weights = stats.example_weights(50, 200, np.random.default_rng(0))
    assert weights.shape == (200, 50)
    assert (weights.sum(1) == 50).all()
    assert weights.std() == pytest.approx(1, abs=0.05)  # multinomial


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "mcc", "log_loss"])
def test_a_resampled_score_is_the_score_of_the_resample(metric):
    labels, predicted, chances = predictions(60)
    scores = stats.resampled_scores(metric, labels, [predicted], [chances], seed=3, resamples=5)[0]
    weights = stats.example_weights(60, 5, np.random.default_rng(3)).astype(int)
    for score, row in zip(scores, weights, strict=True):
        drawn = np.repeat(np.arange(60), row)
        assert score == pytest.approx(evaluate(labels[drawn], predicted[drawn], chances[drawn])[metric], abs=1e-6)


def test_sets_are_compared_on_the_same_resamples():
    labels, predicted, chances = predictions()
    same = stats.resampled_scores("accuracy", labels, [predicted, predicted], [chances, chances], seed=0, resamples=50)
    assert (same[0] == same[1]).all()


def test_blocks_do_not_change_what_is_drawn(monkeypatch):
    labels, predicted, chances = predictions(100)
    whole = stats.resampled_scores("accuracy", labels, [predicted], [chances], seed=0, resamples=40)
    monkeypatch.setattr(stats, "_CELLS", 700)
    assert (stats.resampled_scores("accuracy", labels, [predicted], [chances], seed=0, resamples=40) == whole).all()


def runs_of(rights, seeds=None, is_seeded=True):
    """Runs whose accuracies are those of `rights`, (S, N), resampled."""
    rights = np.asarray(rights, float)
    weights = stats.example_weights(rights.shape[1], 4000, np.random.default_rng(0))
    resampled = rights @ weights.T / rights.shape[1]
    return stats.Runs(rights.mean(1), resampled, seeds or tuple(range(len(rights))), is_seeded)


def test_one_run_varies_as_a_proportion_does():
    rights = np.arange(400) < 320
    measured = stats.measure(runs_of([rights]), 400)
    assert measured.from_examples == pytest.approx(0.8 * 0.2 / 400, rel=0.06)
    assert measured.from_seeds is None
    assert stats.measure(runs_of([rights], is_seeded=False), 400).from_seeds == 0
    wilson = scipy_stats.binomtest(320, 400).proportion_ci(method="wilson")
    assert stats.interval(measured, (0, 1)) == pytest.approx((wilson.low, wilson.high), abs=0.003)


def test_a_seed_and_an_example_are_not_counted_twice():
    rng = np.random.default_rng(0)
    # every seed is right with the same chance everywhere: scores of seeds differ by the draw of examples alone
    found = [stats.measure(runs_of(rng.random((4, 300)) < 0.7), 300) for _ in range(60)]
    truth = 0.7 * 0.3 / 300 / 4
    assert np.mean([m.from_examples for m in found]) == pytest.approx(truth, rel=0.1)
    assert np.mean([m.from_seeds for m in found]) < 0.6 * truth
    # seeds that differ, on so many examples that these hardly matter
    shifts = rng.normal(0, 0.05, (200, 4))
    wide = [stats.Runs(0.8 + shift, np.full((4, 10), 0.8) + shift[:, None], (0, 1, 2, 3)) for shift in shifts]
    assert np.mean([stats.measure(r, 10**6).from_seeds for r in wide]) == pytest.approx(0.05**2 / 4, rel=0.1)
    assert stats.measure(wide[0], 10**6).degrees == pytest.approx(3)


def test_a_difference_is_paired_by_examples_and_seeds():
    rng = np.random.default_rng(0)
    one = rng.random((3, 500)) < 0.8
    other = one.copy()
    other[:, :10] = False  # worse on a few, the same for every seed
    gap = stats.difference(runs_of(one), runs_of(other), 500)
    assert gap.value == pytest.approx(one.mean() - other.mean())
    assert gap.variance < 0.2 * stats.measure(runs_of(one), 500).variance
    assert gap.p_value < 0.01
    apart = stats.difference(runs_of(one), runs_of(other, seeds=(7, 8, 9)), 500)
    assert apart.from_seeds >= gap.from_seeds
    single = stats.difference(runs_of(one), runs_of(other[:1], is_seeded=False), 500)
    assert single.num_seeds == 3
    assert stats.difference(runs_of(one[:1]), runs_of(other[:1]), 500).from_seeds is None


def test_a_strategy_that_looks_steady_by_chance_borrows_the_luck_of_others():
    rng = np.random.default_rng(0)
    families = [
        [
            stats.Runs(0.8 + shift, np.full((3, 10), 0.8) + shift[:, None], (0, 1, 2))
            for shift in rng.normal(0, 0.05, (15, 3))
        ]
        for _ in range(200)
    ]
    lucks = [stats.usual_luck(family) for family in families]
    assert np.mean([luck.variance for luck in lucks]) == pytest.approx(0.05**2, rel=0.05)
    assert lucks[0].degrees == 15
    steady = [stats.Runs(np.array([0.8, 0.8, 0.8]) + gap, np.full((3, 10), 0.8), (0, 1, 2)) for gap in (0, 0.01)]
    alone = stats.difference(*steady, 10**6)
    among = stats.difference(*steady, 10**6, lucks[0])
    assert alone.from_seeds == 0
    assert among.from_seeds == pytest.approx(2 * lucks[0].variance / 3)
    assert among.degrees == pytest.approx(15)
    assert stats.usual_luck([stats.Runs(np.array([0.8]), np.zeros((1, 3)), (0,))]) is None


def test_where_nothing_varies_the_interval_is_the_exact_one():
    everything = stats.measure(runs_of(np.ones((1, 50))), 50)
    exact = scipy_stats.binomtest(50, 50).proportion_ci(method="exact")
    assert stats.interval(everything, (0, 1)) == pytest.approx((exact.low, 1.0))
    nothing = stats.measure(runs_of(np.zeros((2, 50))), 50)
    assert stats.interval(nothing, (0, 1)) == pytest.approx((0.0, 1 - exact.low))
    same = stats.difference(runs_of(np.ones((1, 50))), runs_of(np.ones((1, 50))), 50)
    assert stats.interval(same) == pytest.approx((-(1 - exact.low), 1 - exact.low))
    assert same.p_value == 1
    assert stats.needed(same) == stats.Needed(None, None)


@pytest.mark.parametrize("bounds", [(0, 1), (-1, 1), (0, np.inf), None])
@pytest.mark.parametrize("value", [0.02, 0.5, 0.97])
def test_an_interval_stays_within_bounds_and_is_students_otherwise(bounds, value):
    tight, loose = (stats.Measured(value, variance, 0.0, 21, 3) for variance in (1e-8, 0.04))
    half = scipy_stats.t.ppf(0.975, 20) * 1e-4
    assert stats.interval(tight, bounds) == pytest.approx((value - half, value + half), rel=1e-3)
    low, high = stats.interval(loose, bounds)
    assert low < value < high
    if bounds:
        assert bounds[0] <= low
        assert high <= bounds[1]


def test_mcnemar_agrees_with_statsmodels_and_mlxtend():
    rng = np.random.default_rng(0)
    one, other = rng.random(200) < 0.8, rng.random(200) < 0.7
    table = mcnemar_table(np.ones(200), one.astype(float), other.astype(float))
    fewer, more = sorted([int(table[0, 1]), int(table[1, 0])])
    exact = mcnemar(table, exact=True).pvalue
    assert mlxtend_mcnemar(table, exact=True)[1] == pytest.approx(exact)
    assert stats.mcnemar(one, other) == pytest.approx(exact - scipy_stats.binom.pmf(fewer, fewer + more, 0.5))
    assert stats.mcnemar(one, other) == stats.mcnemar(other, one)
    assert stats.mcnemar(one, one) == 1
    assert stats.mcnemar(np.array([True, False]), np.array([False, True])) == pytest.approx(1)
    assert stats.cohen_g(one, other) == pytest.approx(more / (fewer + more) - 0.5)
    assert stats.cohen_g(one, one) == 0


def test_holm_by_hand():
    assert stats.corrected([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert stats.corrected([]) == []


def test_power_agrees_with_statsmodels():
    gap = stats.Measured(0.02, 0.3**2 / 50, 0.0, 50, 1)
    assert gap.power() == pytest.approx(TTestPower().power(0.02 / 0.3, 50, 0.05) - tail(gap), rel=1e-6)


def tail(gap):
    """What a two-sided test finds on the wrong side."""
    least = scipy_stats.t.ppf(0.975, gap.degrees)
    return scipy_stats.nct.cdf(-least, gap.degrees, gap.value / np.sqrt(gap.variance))


def test_needed_examples_agree_with_statsmodels():
    gap = stats.Measured(0.02, 0.3**2 / 1000, 0.0, 1000, 1)
    expected = TTestPower().solve_power(effect_size=0.02 / 0.3, alpha=0.05, power=0.8)
    assert stats.needed(gap).examples == pytest.approx(expected, rel=1e-3)
    assert stats.needed(gap).seeds is None  # nothing comes from seeds


def test_where_seeds_alone_vary_too_much_no_number_of_examples_would_do():
    noisy = stats.Measured(0.02, 1e-6, 0.01**2, 1000, 3, 0.01**2, 2)
    assert stats.needed(noisy).examples is None
    seeds = stats.needed(noisy).seeds
    assert [noisy.with_more(1000, count).power() >= 0.8 for count in (seeds - 1, seeds)] == [False, True]
    # more than the normal approximation calls for: few seeds say little of their own variance
    assert seeds > 3 * 0.01**2 / ((0.02 / (scipy_stats.norm.ppf(0.975) + scipy_stats.norm.ppf(0.8))) ** 2 - 1e-6)


def made_runs(scores, num_examples=1000):
    """Runs with these scores, of independent examples."""
    scores = np.asarray(scores, float)
    noise = np.random.default_rng(0).binomial(num_examples, scores[:, None], (len(scores), 500)) / num_examples
    return stats.Runs(scores, noise, tuple(range(len(scores))))


def test_a_single_run_varies_as_others_do():
    luck = stats.Luck(0.03**2, 4)
    alone, three = made_runs([0.8]), made_runs([0.8, 0.83, 0.77])
    assert stats.measure(alone, 1000).from_seeds is None
    assert stats.measure(alone, 1000, luck).from_seeds == pytest.approx(0.03**2)
    gap = stats.difference(three, alone, 1000, luck)
    assert gap.from_seeds >= 0.03**2
    assert gap.p_value > 0.5


def test_one_wild_strategy_does_not_make_all_look_wild():
    steady = [made_runs([0.8, 0.803, 0.797]) for _ in range(5)]
    wild = made_runs([0.35, 0.62, 0.5])
    assert stats.usual_luck([*steady, wild]).variance < 10 * stats.usual_luck(steady).variance


def test_intervals_stay_within_bounds_however_wide():
    luck = stats.Luck(0.3**2, 2)
    low, high = stats.interval(stats.measure(made_runs([0.9995, 0.9995]), 2000, luck), (0, 1))
    assert 0 <= low < 0.5
    assert high <= 1
    low, high = stats.interval(stats.Measured(1e-3, 0.0, 0.2, 10, 2, 0.2, 1), (0, np.inf))
    assert 0 <= low < high


def test_all_right_is_no_surer_for_what_others_do():
    perfect = stats.Runs(np.ones(2), np.ones((2, 500)), (0, 1))
    exact = scipy_stats.binomtest(50, 50).proportion_ci(method="exact").low
    assert stats.interval(stats.measure(perfect, 50, stats.Luck(1e-8, 2)), (0, 1))[0] <= exact + 1e-9


def test_all_right_and_all_wrong_are_told_apart():
    right, wrong = stats.Runs(np.ones(1), np.ones((1, 500)), (0,)), stats.Runs(np.zeros(1), np.zeros((1, 500)), (0,))
    assert stats.difference(right, wrong, 1000).p_value < 1e-10
    assert stats.difference(right, wrong, 2).p_value == 0.5
