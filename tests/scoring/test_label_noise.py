"""Confident learning on planted label errors, and against cleanlab, which is a development dependency only (AGPL)."""

import numpy as np
import pytest

from tuneoff.scoring.label_noise import confident_joint, likely_label_errors


def test_planted_label_errors_are_listed_and_no_correct_label_is():
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=600)
    probabilities = np.full((600, 3), 0.1)
    probabilities[np.arange(600), truth] = 0.8
    probabilities = rng.dirichlet([1, 1, 1], 600) * 0.2 + probabilities * 0.8
    labels = truth.copy()
    labels[:30] = (labels[:30] + 1) % 3
    table = likely_label_errors(labels, probabilities)
    assert set(table["example"]) <= set(range(30))
    assert len(table) >= 10  # those above the mean probability of their class, about half
    assert (table["likely"].to_numpy() == truth[table["example"]]).all()


def test_a_class_without_examples_is_never_the_likely_label():
    # class 2 is the most probable one everywhere, but no example has this label
    probabilities = np.tile([0.2, 0.3, 0.5], (4, 1))
    assert set(likely_label_errors(np.array([0, 1, 0, 1]), probabilities)["likely"]) == {1}


def noisy(num_labels, count=3000, seed=0):
    """Labels of which a twentieth is wrong, and probabilities of a good model."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(num_labels, size=count)
    logits = rng.normal(size=(count, num_labels)) + 3 * np.eye(num_labels)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    is_wrong = rng.random(count) < 0.05
    return np.where(is_wrong, (truth + rng.integers(1, num_labels, count)) % num_labels, truth), probabilities


@pytest.mark.parametrize("num_labels", [2, 3, 10])
def test_the_list_and_the_joint_agree_with_cleanlab(num_labels):
    count = pytest.importorskip("cleanlab.count")
    from cleanlab.filter import find_label_issues

    labels, probabilities = noisy(num_labels)
    theirs = find_label_issues(
        labels, probabilities, filter_by="confident_learning", return_indices_ranked_by="normalized_margin", n_jobs=1
    )
    table = likely_label_errors(labels, probabilities)
    assert table["example"].tolist() == theirs.tolist()
    joint = count.compute_confident_joint(labels, probabilities, calibrate=False)
    ours = confident_joint(labels, probabilities)
    np.fill_diagonal(ours, ours.diagonal().clip(min=1))  # cleanlab leaves no class without a confident example
    assert (ours == joint).all()


def test_with_many_classes_ours_leaves_out_the_cases_in_which_the_label_is_more_probable_than_the_confident_class():
    pytest.importorskip("cleanlab")
    from cleanlab.filter import find_label_issues

    labels, probabilities = noisy(151)
    theirs = set(np.flatnonzero(find_label_issues(labels, probabilities, filter_by="confident_learning", n_jobs=1)))
    ours = set(likely_label_errors(labels, probabilities)["example"])
    assert ours <= theirs
    assert len(ours) >= 0.98 * len(theirs)
