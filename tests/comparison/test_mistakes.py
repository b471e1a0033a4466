"""Mistakes are counted by label as by hand, and strategies that fail on other labels are told apart."""

import numpy as np
import pytest

from tests.comparison.test_errors import constant_predictions
from tuneoff.comparison import errors
from tuneoff.comparison.mistakes import LENGTH, PREDICTED, TRUE, analyse_mistakes

NAMES = ("a", "b", "c")


def of_group(mistakes, group):
    return mistakes.by_label[mistakes.by_label["group"] == group].set_index("label")


def test_mistakes_are_counted_by_true_and_by_predicted_label():
    labels = np.array([0, 0, 1, 1, 2])
    runs = constant_predictions([[0, 1, 1, 2, 0], [0, 1, 0, 1, 0]], num_labels=3)
    mistakes = analyse_mistakes(labels, {"x": runs}, ["x"], None, NAMES)
    assert mistakes.totals == {"x": 3.0}
    assert of_group(mistakes, "x")[["examples", "true", "predicted"]].values.tolist() == [[2, 1, 1.5], [2, 1, 1], [1, 1, 0.5]]  # fmt: skip
    assert mistakes.profiles == ()


def test_gaps_are_of_the_wrong_predictions_of_each_true_label():
    labels = np.array([0, 0, 1])
    runs = errors.Predictions(np.array([[1, 1, 1]]), np.array([[[0.3, 0.7], [0.1, 0.9], [0.2, 0.8]]]))
    mistakes = analyse_mistakes(labels, {"x": runs}, ["x"], None, NAMES[:2])
    (row,) = mistakes.gaps.to_dict("records")
    assert (row["label"], row["examples"], row["median"]) == (0, 2, pytest.approx(0.6))


def test_labels_of_multilabel_data_are_missed_or_wrongly_added():
    labels = np.array([[1, 0], [1, 1], [0, 1]])
    predicted = np.array([[[0, 1], [1, 1], [0, 0]]])
    mistakes = analyse_mistakes(labels, {"x": errors.Predictions(predicted, predicted * 1.0)}, ["x"], None, NAMES[:2])
    assert mistakes.totals == {"x": 2.0}
    assert of_group(mistakes, "x")[["examples", "true", "predicted"]].values.tolist() == [[2, 1, 0], [2, 1, 1]]
    assert len(mistakes.gaps) == 0


def drawn(rng, labels, rates, num_labels=3, seeds=2):
    """Predictions that are wrong at a rate of each label."""
    wrong = rng.random((seeds, len(labels))) < np.array(rates)[labels]
    return constant_predictions(np.where(wrong, (labels + 1) % num_labels, labels), num_labels)


def test_strategies_that_fail_on_other_labels_differ_and_others_do_not():
    rng = np.random.default_rng(0)
    labels, lengths = rng.integers(0, 3, 900), rng.integers(3, 30, 900)
    predictions = {
        "even": drawn(rng, labels, [0.2, 0.2, 0.2]),
        "more": drawn(rng, labels, [0.5, 0.5, 0.5]),
        "on a": drawn(rng, labels, [0.6, 0.1, 0.1]),
        "few": drawn(rng, labels, [0.01, 0.01, 0.01]),
    }
    mistakes = analyse_mistakes(labels, predictions, list(predictions), lengths, NAMES)
    pairs = {(pair.first, pair.second, pair.by): pair for pair in mistakes.profiles}
    assert {by for *_, by in pairs} == {TRUE, PREDICTED, LENGTH}
    assert not any("few" in groups for *groups, _ in pairs)  # too few mistakes to compare
    assert pairs["even", "more", TRUE].p_corrected > 0.05
    assert pairs["even", "on a", TRUE].p_corrected < 0.05
    assert pairs["even", "on a", TRUE].kind == "a"
    assert pairs["even", "on a", TRUE].first_share < pairs["even", "on a", TRUE].second_share
    assert pairs["even", "on a", TRUE].distance > 0.3
    assert pairs["even", "on a", PREDICTED].kind == "b"
    assert all(pair.p_corrected > 0.05 for (*_, by), pair in pairs.items() if by == LENGTH)
    p_values = of_group(mistakes, "on a")["p_value"]
    assert p_values[0] < 0.001
    assert of_group(mistakes, "even")["p_value"].min() > 0.05


def test_many_rare_labels_share_one_kind():
    rng = np.random.default_rng(0)
    names = [f"label {i}" for i in range(77)]
    labels = rng.integers(0, 77, 700)
    predictions = {name: drawn(rng, labels, [0.3] * 77, 77, seeds=1) for name in ("x", "y")}
    mistakes = analyse_mistakes(labels, predictions, ["x", "y"], None, names)
    assert {pair.by for pair in mistakes.profiles} <= {TRUE, PREDICTED}
    assert all(pair.p_corrected > 0.01 for pair in mistakes.profiles)


def test_a_label_without_examples_has_no_p_value():
    labels = np.array([0, 0, 0, 1, 1, 1])
    runs = constant_predictions([[0, 1, 0, 1, 1, 2]], num_labels=3)
    p_values = of_group(analyse_mistakes(labels, {"x": runs}, ["x"], None, NAMES), "x")["p_value"]
    assert np.isnan(p_values[2])
    assert np.isfinite(p_values[[0, 1]]).all()
