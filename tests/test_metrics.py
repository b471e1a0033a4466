"""Every score agrees with scikit-learn, on ordinary and on awkward predictions."""

import numpy as np
import pytest
from sklearn import metrics as sk

from tuneoff.errors import ConfigError, DataError
from tuneoff.metrics import check_metric, confusion, count, counts_from, evaluate, indicators, is_better, per_class


def awkward(case, rng):
    if case == "all right":
        labels = rng.integers(3, size=50)
        return labels, labels.copy(), 3
    if case == "all wrong":
        labels = rng.integers(3, size=50)
        return labels, (labels + 1) % 3, 3
    if case == "one class predicted":
        return rng.integers(3, size=50), np.zeros(50, int), 3
    if case == "a class absent":
        return rng.integers(2, size=50), rng.integers(2, size=50), 4
    if case == "a class predicted but absent":
        return rng.integers(2, size=50), rng.integers(3, size=50), 3
    if case == "many classes":
        return rng.integers(150, size=400), rng.integers(150, size=400), 150
    return rng.integers(4, size=200), rng.integers(4, size=200), 4


CASES = [
    "random",
    "all right",
    "all wrong",
    "one class predicted",
    "a class absent",
    "a class predicted but absent",
    "many classes",
]


@pytest.mark.parametrize("case", CASES)
def test_scores_agree_with_scikit_learn(case):
    rng = np.random.default_rng(1)
    labels, predicted, num_labels = awkward(case, rng)
    chances = rng.dirichlet(np.ones(num_labels), len(labels))
    found = evaluate(labels, predicted, chances)
    expected = {"accuracy": sk.accuracy_score(labels, predicted)}
    for average in ("macro", "weighted"):
        p, r, f, _ = sk.precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)
        expected |= {f"{average}_precision": p, f"{average}_recall": r, f"{average}_f1": f}
    expected["mcc"] = sk.matthews_corrcoef(labels, predicted)
    expected["log_loss"] = sk.log_loss(labels, chances, labels=range(num_labels))
    assert found == pytest.approx(expected, abs=1e-9)
    assert (
        confusion(labels, predicted, num_labels).tolist()
        == sk.confusion_matrix(labels, predicted, labels=range(num_labels)).tolist()
    )


def test_per_class_scores_agree_with_scikit_learn():
    labels, predicted, _ = awkward("random", np.random.default_rng(0))
    p, r, f, n = sk.precision_recall_fscore_support(labels, predicted, labels=range(4))
    rows = per_class(labels, predicted, tuple("abcd"))
    assert [row["label"] for row in rows] == list("abcd")
    for name, expected in (("precision", p), ("recall", r), ("f1", f), ("examples", n)):
        assert [row[name] for row in rows] == pytest.approx(expected)


def test_counts_of_a_resample_are_a_product_away():
    labels, predicted, _ = awkward("random", np.random.default_rng(0))
    chosen = np.random.default_rng(1).integers(200, size=200)
    weights = np.bincount(chosen, minlength=200)
    weighted = counts_from(weights @ indicators(labels, predicted, 4))
    direct = count(labels[chosen], predicted[chosen], 4)
    assert (weighted.correct == direct.correct).all()
    assert (weighted.predicted == direct.predicted).all()
    assert (weighted.actual == direct.actual).all()


def test_one_confident_mistake_leaves_the_log_loss_finite():
    assert np.isfinite(evaluate(np.array([0]), np.array([1]), np.array([[0.0, 1.0]]))["log_loss"])


def test_lower_log_loss_and_higher_accuracy_are_better():
    assert is_better("log_loss", 0.1, 0.2)
    assert is_better("accuracy", 0.2, 0.1)
    assert not is_better("accuracy", 0.2, 0.2)


def test_a_wrong_metric_or_length_is_one_line():
    with pytest.raises(ConfigError, match=r"'acuracy' is unknown; did you mean 'accuracy'"):
        check_metric("acuracy")
    with pytest.raises(DataError, match="3 labels against 2 predictions"):
        count(np.zeros(3, int), np.zeros(2, int), 2)
