"""Tests of kinds of mistakes keep their level, however many mistakes strategies make, and find what is planted."""

import numpy as np
import pytest
from scipy import stats

from tuneoff.scoring.profiles import profile_test, rate_difference


def correlated_mistakes(rng, rates, num_examples=400, boosts=(1.0, 1.0), seeds=1):
    """Mistakes of two strategies on the same examples, (N, 3) each, by kind. boosts: of the rate of kind 0."""
    kinds = rng.choice(3, num_examples, p=[0.2, 0.3, 0.5])
    difficulty, mistakes = rng.normal(size=num_examples), []
    for rate, boost in zip(rates, boosts, strict=True):
        own_rate = np.where(kinds == 0, min(0.95, rate * boost), rate)
        latent = np.sqrt(0.7) * difficulty + np.sqrt(0.3) * rng.normal(size=(seeds, num_examples))
        mistakes.append(np.eye(3)[kinds] * (latent < stats.norm.ppf(own_rate)).mean(0)[:, None])
    first, second = mistakes
    return first, second


def p_value(rng, rates, **options):
    first, second = correlated_mistakes(rng, rates, **options)
    return profile_test(first, second, rng, 199)


@pytest.mark.parametrize(("rates", "seeds"), [((0.3, 0.3), 1), ((0.5, 0.15), 1), ((0.5, 0.15), 3)])
def test_strategies_that_differ_in_number_only_are_rarely_called_different(rates, seeds):
    rng = np.random.default_rng(0)
    p_values = [p_value(rng, rates, seeds=seeds) for _ in range(200)]
    assert np.mean(np.array(p_values) <= 0.05) <= 0.09


def test_another_kind_of_mistakes_is_noticed():
    rng = np.random.default_rng(0)
    p_values = [p_value(rng, (0.3, 0.3), boosts=(1, 2.5)) for _ in range(20)]
    assert np.mean(np.array(p_values) <= 0.05) >= 0.9


def test_the_statistic_is_that_of_the_plain_loop():
    """The matrix product of swaps gives the p value of a loop over resamples that swaps rows."""
    rng = np.random.default_rng(0)
    first, second = correlated_mistakes(rng, (0.4, 0.2), num_examples=150, boosts=(1, 1.6))

    def statistic(a, b):
        influence = (a - a.sum(1, keepdims=True) * a.sum(0) / a.sum()) / a.sum()
        influence = influence - (b - b.sum(1, keepdims=True) * b.sum(0) / b.sum()) / b.sum()
        return ((a.sum(0) / a.sum() - b.sum(0) / b.sum()) ** 2).sum() / (influence**2).sum()

    swaps = rng.random((4000, 150)) < 0.5
    resampled = [statistic(np.where(s[:, None], second, first), np.where(s[:, None], first, second)) for s in swaps]
    plain = np.mean(np.array(resampled) >= statistic(first, second))
    assert profile_test(first, second, rng, 4000) == pytest.approx(plain, abs=0.025)


def test_equal_predictions_and_strategies_without_mistakes_have_p_1():
    rng = np.random.default_rng(0)
    mistakes, _ = correlated_mistakes(rng, (0.3, 0.3))
    assert profile_test(mistakes, mistakes, rng, 199) == 1
    assert profile_test(mistakes, np.zeros_like(mistakes), rng, 199) == 1


@pytest.mark.parametrize(("num_kind", "rates"), [(20, (0.3, 0.2)), (12, (0.02, 0.05)), (200, (0.5, 0.5))])
def test_intervals_of_a_difference_cover_the_truth(num_kind, rates):
    rng, covered = np.random.default_rng(0), []
    is_kind = np.arange(400) < num_kind
    for _ in range(400):
        errors = (rng.random((2, 400)) < np.where(is_kind, *rates)).mean(0)
        gap = rate_difference(errors, is_kind)
        covered.append(gap.low <= rates[0] - rates[1] <= gap.high)
    assert np.mean(covered) >= 0.93


def test_a_difference_is_of_the_measured_rates():
    gap = rate_difference(np.array([1, 0.5, 0, 0, 0, 1]), np.array([True, True, False, False, False, False]))
    assert (gap.rate_with, gap.rate_without, gap.difference) == (0.75, 0.25, 0.5)
    assert gap.low < 0 < gap.high
    assert 0 < gap.p_value < 1


def test_the_interval_of_examples_that_are_all_right_has_a_width():
    gap = rate_difference(np.zeros(100), np.arange(100) < 10)
    assert gap.low < 0 < gap.high
    assert gap.p_value > 0.3
