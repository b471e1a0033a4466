"""Power analysis before a study: variances recovered from simulated runs, and sizes against closed formulas."""

import numpy as np
import pytest
from scipy import stats as distributions

from tuneoff.scoring.power import (
    TYPICAL,
    DifferenceVariances,
    Repeats,
    detectable_gap,
    measured_variances,
    required_examples,
)
from tuneoff.scoring.stats import fold_factor


def test_without_seeds_the_size_is_that_of_a_paired_test():
    variances = DifferenceVariances(example=0.1, interaction=0.0, seed=0.0)
    z = distributions.norm.ppf(0.975) + distributions.norm.ppf(0.8)
    assert required_examples(0.01, variances, Repeats(3)) == pytest.approx(z**2 * 0.1 / 0.01**2, rel=0.01)


def size(gap, seeds, variances):
    """The required test examples, of which there must be some number."""
    count = required_examples(gap, variances, Repeats(seeds, num_strategies=5))
    assert count is not None
    return count


def test_seeds_that_vary_more_than_the_difference_leave_no_size():
    variances = DifferenceVariances(example=0.1, interaction=0.04, seed=0.01**2)
    assert required_examples(0.005, variances, Repeats(2, num_strategies=5)) is None
    assert size(0.03, 5, variances) < 3000


def test_more_seeds_need_fewer_examples():
    variances = DifferenceVariances(example=0.05, interaction=0.04, seed=0.003**2)
    sizes = [size(0.02, seeds, variances) for seeds in (2, 3, 5, 10)]
    assert sizes == sorted(sizes, reverse=True)


def test_the_detectable_difference_needs_the_examples_that_there_are():
    variances = DifferenceVariances(example=0.05, interaction=0.04, seed=0.002**2)
    gap = detectable_gap(2000, variances, Repeats(3, num_strategies=5))
    assert gap is not None
    assert size(gap, 3, variances) <= 2000 < size(gap - 0.001, 3, variances)


def test_variances_are_recovered_from_runs():
    rng = np.random.default_rng(0)
    num_seeds, num_examples = 8, 4000
    difficulty = rng.normal(0, 0.3, num_examples)
    is_right = []
    for _ in range(4):
        own = rng.normal(0, 0.15, num_examples)
        effect = rng.normal(0, 0.02, (num_seeds, 1))
        probability = np.clip(0.6 + difficulty + own + effect, 0, 1)
        is_right.append(rng.random((num_seeds, num_examples)) < probability)
    measured = measured_variances(is_right)
    assert measured is not None
    assert 0.015 < measured.example < 0.045  # 2 * 0.15 ** 2, less where probabilities are clipped
    assert 0.08 < measured.interaction < 0.2
    assert 0.008**2 < measured.seed < 0.03**2
    assert measured_variances(is_right[:1]) is None


def test_the_estimate_agrees_with_the_spread_of_simulated_differences():
    rng = np.random.default_rng(1)
    variances = DifferenceVariances(example=0.05, interaction=0.03, seed=0.01**2)
    gaps = []
    for _ in range(2000):
        example = rng.normal(0, np.sqrt(0.05), 200)
        interaction = rng.normal(0, np.sqrt(0.03), (2, 3, 200))
        seed = rng.normal(0, 0.01, (2, 3, 1))
        gaps.append((example + (interaction + seed)[0].mean(0) - (interaction + seed)[1].mean(0)).mean())
    assert np.var(gaps) == pytest.approx(variances.estimate(0.0, 200, Repeats(3)).variance, rel=0.1)


def test_folds_need_more_examples_than_independent_ones_by_the_square_of_their_factor():
    variances = DifferenceVariances(example=0.1, interaction=0.0, seed=0.0)
    on_one_split, on_folds = (
        required_examples(0.01, variances, repeats) or 0 for repeats in (Repeats(3), Repeats(num_folds=5))
    )
    assert on_folds / on_one_split == pytest.approx(fold_factor(on_folds) ** 2, rel=0.01)
    assert Repeats(num_folds=5).name == "5 folds"


def test_more_examples_never_detect_less_with_one_seed():
    repeats = Repeats(num_seeds=1, num_strategies=5)
    of_few, of_many = (detectable_gap(count, TYPICAL, repeats) for count in (500, 5000))
    assert of_few is not None
    assert of_many is not None
    assert of_many < of_few < 0.06
