"""Linear CKA: equal, rotated and unrelated representations, and the plain estimate where it has little bias."""

import math

import numpy as np
import pytest

from tuneoff.scoring.similarity import linear_cka

RNG = np.random.default_rng(0)


def test_rotations_and_scales_change_nothing():
    vectors = RNG.normal(size=(50, 8))
    rotation = np.linalg.qr(RNG.normal(size=(8, 8)))[0]
    assert linear_cka(vectors, vectors) == pytest.approx(1)
    assert linear_cka(vectors, 3 * vectors @ rotation + 2) == pytest.approx(1)


def test_unrelated_representations_are_near_zero_with_fewer_examples_than_numbers():
    values = [linear_cka(RNG.normal(size=(40, 200)), RNG.normal(size=(40, 200))) for _ in range(50)]
    assert abs(np.mean(values)) < 0.02


def test_it_agrees_with_the_plain_estimate_of_many_examples():
    first = RNG.normal(size=(3000, 5))
    second = first @ RNG.normal(size=(5, 4)) + RNG.normal(size=(3000, 4))
    a, b = first - first.mean(0), second - second.mean(0)
    norms = np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)
    plain = np.linalg.norm(b.T @ a) ** 2 / norms  # Kornblith et al. 2019, equation 6
    assert linear_cka(first, second) == pytest.approx(plain, abs=0.01)


def test_constant_representations_have_none():
    assert math.isnan(linear_cka(np.ones((9, 3)), RNG.normal(size=(9, 3))))


def test_too_few_examples_are_an_error():
    with pytest.raises(ValueError, match="at least 4"):
        linear_cka(np.ones((3, 2)), np.ones((3, 2)))
