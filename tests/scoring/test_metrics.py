"""Every metric agrees with scikit-learn, on ordinary and on degenerate predictions."""

import numpy as np
import pytest
from sklearn import metrics as sk

from tuneoff.errors import ConfigError, DataError
from tuneoff.scoring.metrics import (
    bounds,
    check_metric,
    confusion,
    count,
    counts_from,
    evaluate,
    indicators,
    is_better,
    metric_for,
    metric_names,
    metric_options,
    per_class,
    points,
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
    expected["kappa"] = sk.cohen_kappa_score(labels, predicted)
    expected["balanced_accuracy"] = np.mean([(predicted == labels)[labels == c].mean() for c in np.unique(labels)])
    expected["log_loss"] = sk.log_loss(labels, probabilities, labels=range(num_labels))
    scores = evaluate(labels, predicted, probabilities)
    assert {name: scores[name] for name in scores if "auc" not in name} == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("labels", "predicted", "num_labels"), CASES.values(), ids=CASES)
def test_metrics_of_ordered_labels_agree_with_scikit_learn(labels, predicted, num_labels):
    options = metric_options([str(index) for index in range(num_labels)], False, is_ordered=True)
    scores = evaluate(labels, predicted, np.eye(num_labels)[predicted], options)
    kappa = sk.cohen_kappa_score(labels, predicted, labels=range(num_labels), weights="quadratic")
    assert scores["quadratic_kappa"] == pytest.approx(kappa)
    assert scores["mae"] == pytest.approx(sk.mean_absolute_error(labels, predicted))


@pytest.mark.parametrize("positive", ["no", "yes"])
def test_binary_scores_are_those_of_the_positive_class(positive):
    labels, predicted = draw_ids(2, 90), np.roll(draw_ids(2, 90), 1)
    scores = evaluate(labels, predicted, np.eye(2)[predicted], metric_options(["no", "yes"], False, positive))
    position = ["no", "yes"].index(positive)
    p, r, f, _ = sk.precision_recall_fscore_support(labels, predicted, average="binary", pos_label=position)
    assert (scores["precision"], scores["recall"], scores["f1"]) == pytest.approx((p, r, f))


def test_of_two_classes_the_second_is_positive_by_default_and_of_more_none_is():
    assert metric_options(["no", "yes"], False).positive_name == "yes"
    assert metric_options(["a", "b", "c"], False).positive is None
    assert metric_options(["a", "b"], True).positive is None  # two labels that may both be true
    assert "f1" not in metric_names(metric_options(["a", "b", "c"], False))
    assert metric_for("f1", metric_options(["a", "b", "c"], False, "c")) == "f1"


def test_kappas_without_any_disagreement_by_chance_are_0():
    labels = np.zeros(5, int)
    scores = evaluate(labels, labels, np.eye(2)[labels], metric_options(["no", "yes"], False, is_ordered=True))
    assert (scores["kappa"], scores["quadratic_kappa"], scores["mae"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: metric_options(["no", "yes"], False, "maybe"), "positive class 'maybe' is none of the labels; choose from no, yes"),
        (lambda: metric_options(["a", "b"], True, is_ordered=True), "ordered is for one label per example"),
        (lambda: metric_for("f1", metric_options(["a", "b", "c"], False)), r"metric f1 is of one positive class, and the data has 3 labels: a, b, c; name it \(positive: NAME, --positive NAME\), or use macro_f1"),
        (lambda: metric_for("mae", metric_options(["a", "b"], False)), r"metric mae is of ordered labels; say that a, b are in order \(ordered: true, --ordered\)"),
        (lambda: metric_for("kappa", metric_options(["a", "b"], True)), "metric kappa is not defined for multi-label data"),
        (lambda: check_metric("macrof1"), "metric 'macrof1' is unknown; did you mean 'macro_f1'"),
        (lambda: check_metric("my metrics:score"), "is not module:name; write e.g. mymetrics:score"),
    ],
)  # fmt: skip
def test_a_metric_that_the_data_does_not_allow_is_one_line(make, message):
    with pytest.raises(ConfigError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_a_mean_absolute_error_is_better_if_lower_and_has_no_points():
    assert is_better("mae", 0.1, 0.2)
    assert points(0.25, "mae") == "0.250"
    assert bounds("mae") == (0, np.inf)
    assert bounds("kappa") == (-1, 1)


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
