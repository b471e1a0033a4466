"""The checks on real reviews: clean splits have no finding, planted label errors are more frequent in the list."""

import dataclasses

import numpy as np
import pytest

from tuneoff.data.doctor.drift import drift
from tuneoff.data.doctor.encoder_fit import encoder_fit, fit_findings
from tuneoff.data.doctor.noise import doubtful_labels, tfidf_features
from tuneoff.data.load import load_dataset
from tuneoff.data.spec import DataSpec
from tuneoff.encoder.config import load_tokenizer


@pytest.fixture(scope="module")
def reviews():
    return load_dataset(DataSpec(source="packaged:rotten-tomatoes", limits={"train": 1500, "test": 500}))


def test_real_reviews_have_no_drift_and_fit_an_english_encoder(reviews):
    assert drift(dataclasses.replace(reviews, held_out=())) == []
    assert reviews.findings == ()
    fit = encoder_fit(reviews, "packaged:minilm", load_tokenizer("packaged:minilm"))
    assert fit_findings(fit) == []
    assert fit.made_for == ("English",)
    assert 1.0 < fit.pieces_per_word < 1.2


def test_planted_label_errors_are_three_times_as_frequent_at_the_top_of_the_list(reviews):
    texts, labels = reviews.splits["train"]["text"].to_pylist(), reviews.splits["train"]["label"].to_numpy()
    is_wrong = np.random.default_rng(0).random(len(labels)) < 0.05
    table, _ = doubtful_labels(tfidf_features(texts), np.where(is_wrong, 1 - labels, labels), texts, 2)
    examples = table["example"].to_numpy(int)
    assert is_wrong[examples[:75]].mean() > 3 * is_wrong.mean()
    assert is_wrong[examples].sum() > 0.4 * is_wrong.sum()
