"""The verdict if doubtful labels are wrong: scores by hand, and a pick that stands or changes."""

import numpy as np
import pandas as pd
import pytest

from tests.stored import stored_study
from tuneoff.comparison.label_noise import label_noise
from tuneoff.scoring import stats

STRATEGIES = [("tfidf", "tfidf", 0.75), ("lora", "lora", 0.9), ("full", "full", 0.92)]


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    return stored_study(tmp_path_factory.mktemp("s") / "s", STRATEGIES, num_test=300).comparison()


def labels_of(comparison):
    return comparison.examples["label"].to_numpy()


def scores_of(comparison):
    return {
        group: stats.RunScores(
            np.array([(predicted == labels_of(comparison)).mean() for predicted in runs.predicted]),
            stats.resampled_scores(
                "accuracy", labels_of(comparison), list(runs.predicted), list(runs.probabilities), seed=0
            ),
            tuple(range(len(runs.predicted))),
            True,
        )
        for group, runs in comparison.predictions.items()
    }


def noise_if(comparison, examples, likely):
    doubtful = pd.DataFrame({"example": examples, "likely": likely})
    picked = comparison.verdict.recommended
    labels, scores = labels_of(comparison), scores_of(comparison)
    arguments = (labels, comparison.predictions, scores, doubtful, "accuracy", "train_seconds", 0.005, picked)
    return label_noise(comparison.rows, *arguments)


def test_scores_are_those_without_the_doubtful_examples_and_with_the_likely_labels(tmp_path):
    comparison = stored_study(tmp_path / "s", [("lora", "lora", 0.7), ("full", "full", 0.75)], seeds=1).comparison()
    noise, doubtful, labels = comparison.label_noise, comparison.errors.label_errors, labels_of(comparison)
    assert noise.doubtful == len(doubtful) > 1
    kept = np.setdiff1d(np.arange(len(labels)), doubtful["example"])
    changed = labels.copy()
    changed[doubtful["example"]] = doubtful["likely"]
    for group, runs in comparison.predictions.items():
        assert noise.left_out.estimates[group][0] == pytest.approx((runs.predicted[:, kept] == labels[kept]).mean())
        assert noise.relabelled.estimates[group][0] == pytest.approx((runs.predicted == changed).mean())
    assert noise.summary.startswith(f"If all {len(doubtful)} doubtful labels are wrong, the verdict ")


def test_the_verdict_stands_if_every_strategy_is_wrong_on_the_doubtful_examples(comparison):
    labels = labels_of(comparison)
    all_wrong = np.all([(runs.predicted != labels).all(0) for runs in comparison.predictions.values()], axis=0)
    examples = np.flatnonzero(all_wrong)[:3] if all_wrong.any() else np.array([0])
    noise = noise_if(comparison, examples, 1 - labels[examples])
    name = comparison.names[comparison.verdict.recommended]
    assert f"the verdict stands: the pick stays {name}" in noise.summary


def test_the_verdict_changes_if_only_another_strategy_is_right_on_them(comparison):
    labels = labels_of(comparison)
    runs = {group: (of.predicted == labels).mean(0) for group, of in comparison.predictions.items()}
    tfidf = comparison["tfidf"].group
    others = np.mean([right for group, right in runs.items() if group != tfidf], axis=0)
    examples = np.flatnonzero((runs[tfidf] == 0) & (others > 0.5))
    noise = noise_if(comparison, examples, 1 - labels[examples])
    change = "the verdict changes: tfidf is picked with these examples left out as well as re-labelled, instead of "
    assert change in noise.summary
    assert (
        "The order of the strategies that use the text changes where they are left out and re-labelled."
        in noise.summary
    )


def test_no_doubtful_labels_give_no_scores(comparison):
    assert noise_if(comparison, np.array([], int), np.array([], int)) is None
