"""Every metric agrees with scikit-learn, on ordinary and on degenerate predictions."""

import numpy as np
import pytest
from sklearn import metrics as sk

from tuneoff.errors import ConfigError, DataError
from tuneoff.scoring.metrics import (
    check_metric,
    confusion,
    count,
    counts_from,
    evaluate,
    indicators,
    is_better,
    per_class,
)


def draw_ids(num_labels, size):
    return np.random.default_rng(num_labels).integers(num_labels, size=size)


IDS = draw_ids(3, 50)
# labels, predictions, number of classes
CASES = {
    "random": (draw_ids(4, 200), np.roll(draw_ids(4, 200), 1), 4),
    "all right": (IDS, IDS, 3),
    "all wrong": (IDS, (IDS + 1) % 3, 3),
    "one class predicted": (IDS, np.zeros(50, int), 3),
    "two classes absent": (draw_ids(2, 50), np.roll(draw_ids(2, 50), 1), 4),
    "a class predicted but absent": (draw_ids(2, 50), IDS, 3),
    "many classes": (draw_ids(150, 400), np.roll(draw_ids(150, 400), 1), 150),
}


@pytest.mark.parametrize(("labels", "predicted", "num_labels"), CASES.values(), ids=CASES)
def test_metrics_agree_with_scikit_learn(labels, predicted, num_labels):
    probabilities = np.random.default_rng(1).dirichlet(np.ones(num_labels), len(labels))
    expected = {"accuracy": sk.accuracy_score(labels, predicted)}
    for average in ("macro", "weighted"):
        p, r, f, _ = sk.precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)
        expected |= {f"{average}_precision": p, f"{average}_recall": r, f"{average}_f1": f}
    expected["mcc"] = sk.matthews_corrcoef(labels, predicted)
    expected["log_loss"] = sk.log_loss(labels, probabilities, labels=range(num_labels))
    assert evaluate(labels, predicted, probabilities) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("labels", "predicted", "num_labels"), CASES.values(), ids=CASES)
def test_confusion_and_class_scores_agree_with_scikit_learn(labels, predicted, num_labels):
    classes = range(num_labels)
    assert (confusion(labels, predicted, num_labels) == sk.confusion_matrix(labels, predicted, labels=classes)).all()
    p, r, f, n = sk.precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0)
    rows = per_class(labels, predicted, tuple(map(str, classes)))
    assert [row.label for row in rows] == list(map(str, classes))
    for name, expected in (("precision", p), ("recall", r), ("f1", f), ("examples", n)):
        assert [getattr(row, name) for row in rows] == pytest.approx(expected)
    assert [row.predicted for row in rows] == np.bincount(predicted, minlength=num_labels).tolist()


def test_counts_of_a_resample_are_a_weighted_sum_of_indicators():
    labels, predicted, _ = CASES["random"]
    chosen = np.random.default_rng(1).integers(200, size=200)
    weights = np.bincount(chosen, minlength=200)
    weighted = counts_from(weights @ indicators(labels, predicted, 4))
    direct = count(labels[chosen], predicted[chosen], 4)
    for name in ("correct", "predicted", "actual", "exact", "examples"):
        assert (getattr(weighted, name) == getattr(direct, name)).all()


def test_one_confident_error_leaves_the_log_loss_finite():
    assert np.isfinite(evaluate(np.array([0]), np.array([1]), np.array([[0.0, 1.0]]))["log_loss"])


@pytest.mark.parametrize(
    ("metric", "score", "reference", "expected"),
    [("log_loss", 0.1, 0.2, True), ("log_loss", 0.2, 0.1, False), ("accuracy", 0.2, 0.1, True), ("accuracy", 0.2, 0.2, False)],
)  # fmt: skip
def test_lower_log_loss_and_higher_accuracy_are_better(metric, score, reference, expected):
    assert is_better(metric, score, reference) == expected


def test_an_unknown_metric_is_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match=r"'acuracy' is unknown; did you mean 'accuracy'"):
        check_metric("acuracy")


def test_labels_and_predictions_of_different_lengths_are_refused():
    with pytest.raises(DataError, match="3 labels but 2 predictions; pass one prediction per label"):
        count(np.zeros(3, int), np.zeros(2, int), 2)
