"""Doubtful labels by cross-fitted probabilities: planted label errors are found, clean data has none."""

import numpy as np

from tuneoff.data.doctor.noise import cross_fitted, doubtful_labels, folds_of_texts, noise_findings, tfidf_features

RNG = np.random.default_rng(0)
TRUTH = np.arange(400) % 2
TEXTS = [f"{word} {number}" for word, number in zip(np.where(TRUTH, "good fine", "bad dull"), range(400), strict=True)]
VECTORS = RNG.normal(size=(400, 8)) + 4 * TRUTH[:, None] * (np.arange(8) < 3)
FLIPPED = RNG.choice(400, 20, replace=False)
LABELS = np.where(np.isin(np.arange(400), FLIPPED), 1 - TRUTH, TRUTH)


def test_planted_label_errors_are_found_by_vectors_and_by_tfidf():
    for features in (VECTORS, tfidf_features(TEXTS)):
        table, accuracy = doubtful_labels(features, LABELS, TEXTS, 2)
        assert set(table["example"]) <= set(FLIPPED)
        assert len(table) >= 0.7 * len(FLIPPED)
        assert accuracy > 0.9


def test_clean_labels_have_no_finding():
    table, accuracy = doubtful_labels(tfidf_features(TEXTS), TRUTH, TEXTS, 2)
    splits = np.array(["train"] * 300 + ["test"] * 100, object)
    assert noise_findings(table["example"].to_numpy(int), accuracy, splits, "test", "") == []


def test_the_finding_counts_by_split_and_weighs_the_scored_one():
    splits = np.array(["train"] * 300 + ["test"] * 100, object)
    (finding,) = noise_findings(np.array([0, 1, 2, 300, 301]), 0.9, splits, "test", "do")
    assert finding.text.startswith("3 of 300 in train and 2 of 100 in test are contradicted by a classifier")
    assert finding.harm == 0.02 / 5


def test_equal_texts_are_in_one_fold_and_folds_are_stratified():
    texts = [*TEXTS, *TEXTS[:100]]
    folds = folds_of_texts(np.r_[TRUTH, TRUTH[:100]], texts)
    assert (folds[400:] == folds[:100]).all()
    assert all(abs(TRUTH[folds[:400] == fold].mean() - 0.5) < 0.02 for fold in range(5))


def test_a_class_of_one_example_gets_no_probability_from_the_fold_without_it():
    labels = TRUTH.copy()
    labels[7] = 2
    probabilities = cross_fitted(VECTORS, labels, TEXTS, 3)
    assert np.allclose(probabilities.sum(1), 1)
    assert probabilities[7, 2] == 0
