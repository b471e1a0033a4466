"""Subsets of train, the points of a learning curve: stratified, nested, and drawn anew for each seed."""

from itertools import pairwise

import numpy as np
import pytest

from tests.data.frames import frame, load
from tuneoff.data.spec import Subset
from tuneoff.data.splits import check_subset, subset_of
from tuneoff.errors import ConfigError

LABELS = np.repeat([0, 1, 2], [60, 30, 10])


@pytest.mark.parametrize(
    ("subsets", "class_counts"),
    [
        ([Subset(fraction=0.1), Subset(fraction=0.2), Subset(fraction=0.5)], [[6, 3, 1], [12, 6, 2], [30, 15, 5]]),
        ([Subset(per_class=2), Subset(per_class=8)], [[2, 2, 2], [8, 8, 8]]),
    ],
)
def test_subsets_are_stratified_and_the_larger_contain_the_smaller(subsets, class_counts):
    chosen = [subset_of(subset, LABELS, seed=1) for subset in subsets]
    assert [np.bincount(LABELS[indices]).tolist() for indices in chosen] == class_counts
    assert all(set(small) < set(large) for small, large in pairwise(chosen))


@pytest.mark.parametrize("subset", [Subset(fraction=0.1), Subset(per_class=2)])
def test_each_seed_draws_another_subset(subset):
    assert set(subset_of(subset, LABELS, seed=1)) != set(subset_of(subset, LABELS, seed=2))


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        (Subset(fraction=0.03), "fraction 0.03 of 36 training examples leaves out class 'positive'; use a larger one"),
        (Subset(per_class=19), "per_class 19: train has only 18 examples of 'negative'; use at most 18"),
    ],
)
def test_a_subset_that_train_cannot_give_is_refused(subset, message):
    dataset = load(frame(["negative", "positive"] * 30), validation_fraction=0.2, test_fraction=0.2)
    with pytest.raises(ConfigError, match=message):
        check_subset(dataset, subset)
