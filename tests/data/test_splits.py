"""Shares are kept, sums are exact, nothing is lost."""

import numpy as np
import pytest

from tuneoff.data.splits import apportion, carve, subset


@pytest.mark.parametrize("seed", range(20))
def test_apportion_is_exact_and_fair(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 100, rng.integers(2, 12))
    total = int(rng.integers(0, counts.sum() + 1))
    taken = apportion(counts, total)
    assert taken.sum() == total
    assert (np.abs(taken - counts * total / counts.sum()) < 1).all()


def test_carve_keeps_every_class_in_the_rest():
    labels = np.array([0] * 50 + [1] * 50 + [2])
    taken, rest = carve(labels, 60, np.random.default_rng(0))
    assert sorted([*taken, *rest]) == list(range(101))
    assert set(labels[rest]) == {0, 1, 2}


def test_subset_takes_as_many_as_asked():
    labels = np.repeat([0, 1], [70, 30])
    chosen = subset(labels, 10, np.random.default_rng(0))
    assert np.bincount(labels[chosen]).tolist() == [7, 3]
    assert len(subset(labels, 1000, np.random.default_rng(0))) == 100
