"""Ranks over datasets: against scipy, Demsar's published example, and numbers worked by hand."""

import numpy as np
import pytest
from scipy import stats

from tuneoff.scoring.ranks import critical_difference, friedman, nemenyi, ranks

# Demsar (2006), table 6: AUC of C4.5 and three variants of it on fourteen datasets
AUC = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


def test_ranks_of_equal_scores_are_shared():
    np.testing.assert_array_equal(ranks(np.array([[0.7, 0.9, 0.7], [0.1, 0.2, 0.3]])), [[2.5, 1, 2.5], [3, 2, 1]])


def test_the_published_example():
    mean_ranks = ranks(AUC).mean(0)
    np.testing.assert_allclose(mean_ranks, [3.143, 2.000, 2.893, 1.964], atol=0.001)
    test = friedman(ranks(AUC))
    assert test.statistic == pytest.approx(9.28, abs=0.01)  # Demsar, section 3.2.3
    # which corrects for ties, as permutation does; its approximation is conservative
    assert test.p_value == pytest.approx(stats.friedmanchisquare(*AUC.T).pvalue, abs=0.01)
    assert critical_difference(4, 14) == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), abs=0.001)
    assert nemenyi(mean_ranks, 14).min() > 0.05  # the largest difference, 1.18, is below 1.25


def test_the_test_by_permutation_is_exact_for_few_datasets():
    agreeing = np.array([[1, 2, 3], [1, 2, 3]])
    test = friedman(agreeing)
    assert test.smallest_p_value == pytest.approx(1 / 6)
    assert test.p_value == pytest.approx(1 / 6, abs=0.01)
    opposed = friedman(np.array([[1, 2, 3], [3, 2, 1]]))
    assert opposed.p_value == 1


def test_a_difference_as_large_as_the_critical_one_has_p_of_five_percent():
    gap = critical_difference(3, 10)
    assert nemenyi(np.array([1.0, 1.0 + gap, 2.0]), 10)[0, 1] == pytest.approx(0.05, abs=1e-6)
