"""Bootstrap, confidence intervals, tests and power agree with theory, scipy and statsmodels."""

from dataclasses import replace

import numpy as np
import pytest
from mlxtend.evaluate import mcnemar as mlxtend_mcnemar
from mlxtend.evaluate import mcnemar_table
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

from tuneoff.scoring import stats
from tuneoff.scoring.metrics import evaluate


def draw_predictions(num_examples=400, accuracy=0.8, num_labels=3):
    rng = np.random.default_rng(0)
    labels = rng.integers(num_labels, size=num_examples)
    predicted = np.where(rng.random(num_examples) < accuracy, labels, (labels + 1) % num_labels)
    probabilities = np.eye(num_labels)[predicted] * 0.7 + 0.1
    return labels, predicted, probabilities / probabilities.sum(1, keepdims=True)


def resample_runs(is_right, seeds=None, is_seeded=True):
    """Run scores whose accuracy comes from a mask of correct predictions, (S, N), with 4,000 bootstrap resamples."""
    is_right = np.asarray(is_right, float)
    weights = stats.example_weights(is_right.shape[1], 4000, np.random.default_rng(0))
    resampled = is_right @ weights.T / is_right.shape[1]
    return stats.RunScores(is_right.mean(1), resampled, seeds or tuple(range(len(is_right))), is_seeded)


def runs_without_example_variance(scores):
    """Run scores that are equal on all resamples: only seeds vary."""
    scores = np.asarray(scores, float)
    return stats.RunScores(scores, np.tile(scores[:, None], 10), tuple(range(len(scores))))


def binomial_runs(scores, num_examples=1000):
    """Run scores whose resamples are independent binomial draws."""
    scores = np.asarray(scores, float)
    resampled = np.random.default_rng(0).binomial(num_examples, scores[:, None], (len(scores), 500)) / num_examples
    return stats.RunScores(scores, resampled, tuple(range(len(scores))))


def variance_from_seeds(estimate: stats.ScoreEstimate) -> float:
    """The variance of an estimate over draws of seeds; the estimate must have one."""
    assert estimate.variance_from_seeds is not None
    return estimate.variance_from_seeds


def pooled_variance(runs: list[stats.RunScores]) -> float:
    """The pooled seed-to-seed variance of runs; they must have one."""
    seed_variance = stats.pooled_seed_variance(runs)
    assert seed_variance is not None
    return seed_variance.variance


def test_weights_are_multinomial_resamples():
    weights = stats.example_weights(50, 200, np.random.default_rng(0))
    assert weights.shape == (200, 50)
    assert (weights.sum(1) == 50).all()
    assert weights.std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "mcc", "log_loss"])
def test_a_resampled_score_is_the_score_of_the_resample(metric):
    labels, predicted, probabilities = draw_predictions(60)
    scores = stats.resampled_scores(metric, labels, [predicted], [probabilities], seed=3, resamples=5)[0]
    weights = stats.example_weights(60, 5, np.random.default_rng(3)).astype(int)
    for score, row in zip(scores, weights, strict=True):
        drawn = np.repeat(np.arange(60), row)
        assert score == pytest.approx(evaluate(labels[drawn], predicted[drawn], probabilities[drawn])[metric], abs=1e-6)


def test_all_runs_are_scored_on_the_same_resamples():
    labels, predicted, probabilities = draw_predictions()
    scores = stats.resampled_scores("accuracy", labels, [predicted] * 2, [probabilities] * 2, seed=0, resamples=50)
    assert (scores[0] == scores[1]).all()


def test_the_block_size_does_not_change_the_draws(monkeypatch):
    labels, predicted, probabilities = draw_predictions(100)
    whole = stats.resampled_scores("accuracy", labels, [predicted], [probabilities], seed=0, resamples=40)
    monkeypatch.setattr(stats, "_BLOCK_SIZE", 700)
    blocks = stats.resampled_scores("accuracy", labels, [predicted], [probabilities], seed=0, resamples=40)
    assert (blocks == whole).all()


def test_a_single_run_has_the_variance_and_the_interval_of_a_proportion():
    estimate = stats.estimate_score(resample_runs([np.arange(400) < 320]), 400)
    assert estimate.variance_from_examples == pytest.approx(0.8 * 0.2 / 400, rel=0.06)
    wilson = scipy_stats.binomtest(320, 400).proportion_ci(method="wilson")
    assert stats.interval(estimate, (0, 1)) == pytest.approx((wilson.low, wilson.high), abs=0.003)


@pytest.mark.parametrize(("is_seeded", "expected"), [(True, None), (False, 0)])
def test_a_single_run_shows_no_variance_from_seeds(is_seeded, expected):
    runs = resample_runs([np.arange(400) < 320], is_seeded=is_seeded)
    assert stats.estimate_score(runs, 400).variance_from_seeds == expected


def test_the_interaction_of_seeds_and_examples_is_counted_once():
    rng = np.random.default_rng(0)
    # each seed is right with the same probability on every example: there is no seed effect, only interaction
    estimates = [stats.estimate_score(resample_runs(rng.random((4, 300)) < 0.7), 300) for _ in range(60)]
    variance = 0.7 * 0.3 / 300 / 4
    assert np.mean([e.variance_from_examples for e in estimates]) == pytest.approx(variance, rel=0.1)
    # 0 on average but for negative remainders, which become 0
    assert np.mean([e.variance_from_seeds for e in estimates]) < 0.6 * variance


def test_the_variance_from_seeds_is_that_of_their_mean():
    shifts = np.random.default_rng(0).normal(0, 0.05, (200, 4))
    estimates = [stats.estimate_score(runs_without_example_variance(0.8 + shift), 10**6) for shift in shifts]
    assert np.mean([e.variance_from_seeds for e in estimates]) == pytest.approx(0.05**2 / 4, rel=0.1)
    assert estimates[0].degrees_of_freedom == pytest.approx(3)


@pytest.fixture
def nearly_equal():
    """Masks of correct predictions of two strategies, (3, 500), the second one wrong on ten more examples."""
    first = np.random.default_rng(0).random((3, 500)) < 0.8
    second = first.copy()
    second[:, :10] = False
    return first, second


def test_a_difference_is_paired_by_example(nearly_equal):
    first, second = nearly_equal
    gap = stats.difference(resample_runs(first), resample_runs(second), 500)
    assert gap.value == pytest.approx(first.mean() - second.mean())
    assert gap.variance < 0.2 * stats.estimate_score(resample_runs(first), 500).variance
    assert gap.p_value < 0.01


def test_a_difference_is_paired_by_seed_where_seeds_are_equal(nearly_equal):
    first, second = (resample_runs(is_right) for is_right in nearly_equal)
    unpaired = stats.difference(first, resample_runs(nearly_equal[1], seeds=(7, 8, 9)), 500)
    assert variance_from_seeds(stats.difference(first, second, 500)) < variance_from_seeds(unpaired)
    expected = sum(variance_from_seeds(stats.estimate_score(runs, 500)) for runs in (first, second))
    assert unpaired.variance_from_seeds == pytest.approx(expected)


def test_a_difference_to_a_strategy_without_seeds_has_the_seeds_of_the_other(nearly_equal):
    first, second = nearly_equal
    unseeded = resample_runs(second[:1], is_seeded=False)
    assert stats.difference(resample_runs(first), unseeded, 500).num_seeds == 3
    assert stats.difference(unseeded, resample_runs(first), 500).num_seeds == 3


def test_a_difference_of_two_single_runs_shows_no_variance_from_seeds(nearly_equal):
    first, second = nearly_equal
    assert stats.difference(resample_runs(first[:1]), resample_runs(second[:1]), 500).variance_from_seeds is None


@pytest.fixture(scope="module")
def pooled():
    """Pooled seed variances of 200 comparisons of 15 strategies, three seeds each, true standard deviation 0.05."""
    shifts = np.random.default_rng(0).normal(0, 0.05, (200, 15, 3))
    return [stats.pooled_seed_variance([runs_without_example_variance(0.8 + s) for s in family]) for family in shifts]


def test_the_pooled_seed_variance_has_little_bias_and_half_of_the_degrees_of_freedom(pooled):
    assert np.mean([seed_variance.variance for seed_variance in pooled]) == pytest.approx(0.05**2, rel=0.05)
    assert pooled[0].degrees_of_freedom == 15 * 2 / 2


def test_single_runs_have_a_typical_seed_variance():
    assert pooled_variance([runs_without_example_variance([0.8])]) == stats.TYPICAL_SEED_SD**2
    unseeded = stats.RunScores(np.array([0.8]), np.full((1, 10), 0.8), (0,), is_seeded=False)
    assert stats.pooled_seed_variance([unseeded]) is None


def test_one_unstable_strategy_does_not_dominate_the_pooled_seed_variance():
    stable = [binomial_runs([0.8, 0.803, 0.797]) for _ in range(5)]
    unstable = binomial_runs([0.35, 0.62, 0.5])
    assert pooled_variance([*stable, unstable]) < 10 * pooled_variance(stable)


def test_the_pooled_seed_variance_is_a_lower_limit(pooled):
    first, second = (runs_without_example_variance(np.full(3, 0.8) + gap) for gap in (0, 0.01))
    assert stats.difference(first, second, 10**6).variance_from_seeds == 0
    gap = stats.difference(first, second, 10**6, pooled[0])
    assert gap.variance_from_seeds == pytest.approx(2 * pooled[0].variance / 3)
    assert gap.degrees_of_freedom == pytest.approx(15)


def test_a_single_run_takes_the_pooled_seed_variance():
    pooled = stats.SeedVariance(0.03**2, 4)
    single, repeated = binomial_runs([0.8]), binomial_runs([0.8, 0.83, 0.77])
    assert stats.estimate_score(single, 1000, pooled).variance_from_seeds == pytest.approx(0.03**2)
    gap = stats.difference(repeated, single, 1000, pooled)
    assert variance_from_seeds(gap) >= 0.03**2
    assert gap.p_value > 0.5


EXACT_LOW = scipy_stats.binomtest(50, 50).proportion_ci(method="exact").low  # of 50 right in 50


@pytest.mark.parametrize(
    ("is_right", "expected"), [(np.ones((1, 50)), (EXACT_LOW, 1)), (np.zeros((2, 50)), (0, 1 - EXACT_LOW))]
)
def test_without_variance_the_interval_of_a_score_is_the_exact_binomial_one(is_right, expected):
    assert stats.interval(stats.estimate_score(resample_runs(is_right), 50), (0, 1)) == pytest.approx(expected)


def test_without_variance_the_interval_of_a_difference_is_the_exact_binomial_one():
    gap = stats.difference(resample_runs(np.ones((1, 50))), resample_runs(np.ones((1, 50))), 50)
    assert stats.interval(gap) == pytest.approx((EXACT_LOW - 1, 1 - EXACT_LOW))
    assert gap.p_value == 1
    assert stats.required_size(gap) == stats.RequiredSize(None, None)


def test_a_small_pooled_seed_variance_does_not_narrow_the_exact_interval():
    estimate = stats.estimate_score(resample_runs(np.ones((2, 50))), 50, stats.SeedVariance(1e-8, 2))
    assert stats.interval(estimate, (0, 1))[0] <= EXACT_LOW + 1e-9


@pytest.mark.parametrize(("num_examples", "expected"), [(1000, 0.0), (2, 0.5)])
def test_without_variance_the_p_value_is_that_of_the_sign_test(num_examples, expected):
    gap = stats.difference(runs_without_example_variance([1]), runs_without_example_variance([0]), num_examples)
    assert gap.p_value == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("bounds", [(0, 1), (-1, 1), (0, np.inf), None])
@pytest.mark.parametrize("value", [0.02, 0.5, 0.97])
def test_a_narrow_interval_is_students_t(bounds, value):
    half_width = scipy_stats.t.ppf(0.975, 20) * 1e-4
    estimate = stats.ScoreEstimate(value, 1e-8, 0.0, 21, 3)
    assert stats.interval(estimate, bounds) == pytest.approx((value - half_width, value + half_width), rel=1e-3)


@pytest.mark.parametrize(
    ("estimate", "bounds"),
    [
        *((stats.ScoreEstimate(value, 0.04, 0.0, 21, 3), bounds) for value in (0.02, 0.5, 0.97) for bounds in ((0, 1), (-1, 1), (0, np.inf))),
        (stats.estimate_score(binomial_runs([0.9995, 0.9995]), 2000, stats.SeedVariance(0.3**2, 2)), (0, 1)),
        (stats.ScoreEstimate(1e-3, 0.0, 0.2, 10, 2, 0.2, 1), (0, np.inf)),
    ],
)  # fmt: skip
def test_a_wide_interval_contains_the_value_and_stays_within_the_bounds(estimate, bounds):
    low, high = stats.interval(estimate, bounds)
    assert bounds[0] <= low < estimate.value < high <= bounds[1]


@pytest.fixture
def classifiers():
    """Masks of correct predictions of two classifiers, (200,), and the discordant counts, the smaller one first."""
    rng = np.random.default_rng(0)
    first, second = rng.random(200) < 0.8, rng.random(200) < 0.7
    table = mcnemar_table(np.ones(200), first.astype(float), second.astype(float))
    return first, second, table, sorted([int(table[0, 1]), int(table[1, 0])])


def test_mcnemar_agrees_with_statsmodels_and_mlxtend(classifiers):
    first, second, table, (fewer, more) = classifiers
    exact = mcnemar(table, exact=True).pvalue
    assert mlxtend_mcnemar(table, exact=True)[1] == pytest.approx(exact)
    mid_p = exact - scipy_stats.binom.pmf(fewer, fewer + more, 0.5)
    assert stats.mcnemar(first, second) == stats.mcnemar(second, first) == pytest.approx(mid_p)


def test_mcnemar_of_classifiers_with_equal_accuracy_is_1(classifiers):
    first = classifiers[0]
    assert stats.mcnemar(first, first) == 1
    assert stats.mcnemar(np.array([True, False]), np.array([False, True])) == pytest.approx(1)


def test_cohen_g_is_the_share_of_the_discordant_examples_above_a_half(classifiers):
    first, second, _, (fewer, more) = classifiers
    assert stats.cohen_g(first, second) == pytest.approx(more / (fewer + more) - 0.5)
    assert stats.cohen_g(second, first) == pytest.approx(0.5 - more / (fewer + more))
    assert stats.cohen_g(first, first) == 0


def test_holm_agrees_with_numbers_by_hand():
    assert stats.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert stats.holm([]) == []


@pytest.mark.parametrize("count", [1, 2, 7, 60])
def test_holm_agrees_with_statsmodels(count):
    p_values = np.random.default_rng(count).beta(0.4, 2, count).round(2)  # some are equal, some 0
    assert stats.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_power_agrees_with_statsmodels():
    gap = stats.ScoreEstimate(0.02, 0.3**2 / 50, 0.0, 50, 1)
    # statsmodels counts rejections on the wrong side too
    critical = scipy_stats.t.ppf(0.975, gap.degrees_of_freedom)
    wrong_side = scipy_stats.nct.cdf(-critical, gap.degrees_of_freedom, gap.value / np.sqrt(gap.variance))
    assert gap.power() == pytest.approx(TTestPower().power(0.02 / 0.3, 50, 0.05) - wrong_side, rel=1e-6)


def test_required_examples_agree_with_statsmodels():
    gap = stats.ScoreEstimate(0.02, 0.3**2 / 1000, 0.0, 1000, 1)
    required = stats.required_size(gap)
    expected = TTestPower().solve_power(effect_size=0.02 / 0.3, alpha=0.05, power=0.8)
    assert required.examples == pytest.approx(expected, rel=1e-3)
    assert required.seeds is None  # there is no variance from seeds that more of them would reduce


@pytest.fixture
def dominated_by_seeds():
    return stats.ScoreEstimate(0.02, 1e-6, 0.01**2, 1000, 3, 0.01**2, 2)


def test_no_number_of_examples_is_enough_if_the_variance_from_seeds_is_too_large(dominated_by_seeds):
    assert stats.required_size(dominated_by_seeds).examples is None


def test_required_seeds_are_the_smallest_number_with_enough_power(dominated_by_seeds):
    seeds = stats.required_size(dominated_by_seeds).seeds
    assert seeds is not None
    has_power = [dominated_by_seeds.extrapolate(1000, count).power() >= 0.8 for count in (seeds - 1, seeds)]
    assert has_power == [False, True]
    # more than the normal approximation gives: few seeds estimate their variance poorly
    z = scipy_stats.norm.ppf(0.975) + scipy_stats.norm.ppf(0.8)
    assert seeds > 3 * 0.01**2 / ((0.02 / z) ** 2 - 1e-6)


def test_intervals_over_folds_are_wider_by_the_factor_and_hold_a_typical_seed_variance():
    rng = np.random.default_rng(0)
    is_right, folds = rng.random(1000) < 0.8, np.arange(1000) % 5
    resampled = (is_right @ stats.example_weights(1000, 2000, rng).T / 1000)[None]
    plain = stats.RunScores(np.array([is_right.mean()]), resampled, (0,), False)
    folded = stats.RunScores(plain.scores, stats.widened_for_folds(resampled, 1000), (0,), True, folds)
    pooled = stats.pooled_seed_variance([folded])
    assert pooled is not None
    assert pooled.variance == pytest.approx(stats.TYPICAL_SEED_SD**2 / 5)
    estimates = [stats.estimate_score(plain, 1000), stats.estimate_score(folded, 1000, pooled)]
    expected = stats.fold_factor(1000) ** 2 * estimates[0].variance + stats.TYPICAL_SEED_SD**2 / 5
    assert estimates[1].variance == pytest.approx(expected, rel=1e-6)
    assert stats.difference(folded, folded, 1000, pooled).variance == pytest.approx(2 * stats.TYPICAL_SEED_SD**2 / 5)


def strategies_on_folds(num_strategies, num_examples, seed_sd, rng):
    """Equally good strategies whose accuracy differs by seed, on five folds of examples of unequal difficulty."""
    folds, ease = np.arange(num_examples) % 5, rng.normal(0, 0.2, num_examples)
    effects = rng.normal(0, seed_sd, (num_strategies, 5))[:, folds]
    is_right = rng.random((num_strategies, num_examples)) < np.clip(0.75 + ease + effects, 0, 1)
    flat = np.full((1, 10), 0.75)
    return [stats.RunScores(run.mean(keepdims=True), flat, (0,), True, folds, is_right=run) for run in is_right]


def variance_of(strategies):
    pooled = stats.pooled_seed_variance(strategies)
    assert pooled is not None
    return pooled.variance


@pytest.mark.parametrize("seed_sd", [0.0, 0.06])
def test_folds_show_the_variance_from_seeds_without_that_of_their_examples(seed_sd):
    rng = np.random.default_rng(1)
    shown = [stats.fold_seed_variance(strategies_on_folds(5, 1000, seed_sd, rng)) for _ in range(200)]
    of_mean = np.array([estimate.variance for estimate in shown if estimate])
    assert len(of_mean) == 200
    # probabilities that reach 1 take a part of the effect; negative estimates become 0, and the noise alone is 1.3e-4
    assert 0.7 * seed_sd**2 / 5 < of_mean.mean() < seed_sd**2 / 5 + 4e-5
    assert all(1 <= estimate.degrees_of_freedom <= 16 for estimate in shown if estimate)


def test_the_variance_from_seeds_over_folds_is_at_least_the_typical_one_in_the_unit_of_the_metric():
    rng = np.random.default_rng(0)
    stable, unstable = strategies_on_folds(5, 1000, 0.0, rng), strategies_on_folds(5, 1000, 0.06, rng)
    assert variance_of(stable) == pytest.approx(stats.TYPICAL_SEED_SD**2 / 5)
    assert variance_of(unstable) > 0.04**2 / 5
    in_hundreds = [replace(strategy, unit=100.0) for strategy in unstable]
    assert variance_of(in_hundreds) == pytest.approx(10**4 * variance_of(unstable))
    assert stats.fold_seed_variance(unstable[:1]) is None
    few = [replace(strategy, folds=np.arange(1000)) for strategy in unstable]  # one example each
    assert stats.fold_seed_variance(few) is None
    same = [replace(strategy, is_right=unstable[0].is_right) for strategy in unstable]
    shown = stats.fold_seed_variance(same)
    assert shown is not None
    assert shown.variance == 0


def run_scores(metric, labels, predicted, positive=None):
    """One run's scores, as comparisons make them."""
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    probabilities = np.eye(2)[predicted]
    resampled = stats.resampled_scores(metric, labels, [predicted], [probabilities], 0, 200, positive)
    score = stats.score_of(metric, labels, predicted, probabilities, positive)
    deciding = stats.deciding_examples(metric, labels, [predicted], positive)
    return stats.RunScores(
        np.array([score]), resampled, (0,), False, None, stats.unit_of(metric, resampled, len(labels)), deciding
    )


@pytest.mark.parametrize(
    ("metric", "low"), [("accuracy", 0.9963), ("recall", 0.8316), ("f1", 0.8316), ("macro_recall", 0.9119)]
)
def test_a_perfect_score_is_a_rate_of_the_examples_that_decide_it(metric, low):
    """All of 20 positive and 980 negative examples; 0.8316 is Clopper and Pearson's limit of 20 of 20."""
    labels = [1] * 20 + [0] * 980
    runs = run_scores(metric, labels, labels, positive=1)
    limits = stats.interval(stats.estimate_score(runs, 1000), (0.0, 1.0))
    assert limits == (pytest.approx(low, abs=1e-4), 1.0)
    gap = stats.difference(runs, runs, 1000)
    assert stats.interval(gap)[1] == pytest.approx(1 - low, abs=1e-4)


def test_assumed_variances_are_in_the_unit_of_the_metric():
    rng = np.random.default_rng(0)
    labels, is_wrong = rng.integers(2, size=1000), rng.random(1000) < 0.15
    one = run_scores("accuracy", labels, np.where(is_wrong, 1 - labels, labels))
    assert one.unit == 1.0
    percent = replace(one, is_seeded=True, unit=stats.unit_of("my:metric", 100 * one.resampled, 1000))
    assert percent.unit == pytest.approx(100, rel=0.15)
    pooled = stats.pooled_seed_variance([percent])
    assert pooled is not None
    assert pooled.variance == pytest.approx((percent.unit * stats.TYPICAL_SEED_SD) ** 2)
    assert stats.unit_of("mcc", one.resampled, 1000) == 2.0


def test_on_a_grid_a_strategy_has_the_variance_of_its_own_sources():
    """The head changes one strategy much, and the other, which has no head, not at all."""
    rng = np.random.default_rng(0)
    cells = [(("head", head), ("split", split)) for head in range(3) for split in range(3)]
    scores = 0.85 + np.repeat([-0.02, 0.0, 0.02], 3) + rng.normal(0, 5e-4, 9)
    resampled = scores[:, None] + rng.normal(0, 0.01, 200)
    full = stats.RunScores(scores, resampled, tuple(cells))
    own = np.array([0.8, 0.801, 0.799])
    tfidf = stats.RunScores(own, own[:, None] + rng.normal(0, 0.01, 200), tuple((("split", s),) for s in range(3)))
    pooled = stats.pooled_seed_variance([full, tfidf])
    assert pooled is not None
    estimate = stats.estimate_score(tfidf, 2000, pooled)
    assert estimate.variance_from_seeds is not None
    assert estimate.variance_from_seeds < 0.002**2
    of_full = stats.estimate_score(full, 2000, pooled)
    assert of_full.variance_from_seeds is not None
    assert of_full.variance_from_seeds > 0.01**2
