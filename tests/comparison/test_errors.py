"""Error analysis finds what is planted, and calls nothing else significant."""

import numpy as np
import pytest

from tuneoff.comparison import errors


def constant_predictions(predicted, num_labels=2, confidence=0.9):
    """Predictions of several runs, (S, N) ids, each with the same confidence."""
    predicted = np.asarray(predicted)
    probabilities = np.full((*predicted.shape, num_labels), (1 - confidence) / (num_labels - 1))
    np.put_along_axis(probabilities, predicted[..., None], confidence, axis=-1)
    return errors.Predictions(predicted, probabilities)


def test_error_rates_are_shares_of_seeds():
    predictions = constant_predictions([[0, 1, 1, 0], [0, 1, 0, 1], [0, 0, 0, 1]])
    assert predictions.error_rates(np.array([0, 1, 1, 1])).tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1 / 3])


def test_the_majority_vote_is_what_most_seeds_predict():
    predictions = constant_predictions([[0, 1, 1, 0], [0, 1, 0, 1], [0, 0, 0, 1]])
    assert predictions.majority_vote.tolist() == [0, 1, 0, 1]


def test_the_more_probable_label_decides_a_tied_vote():
    predictions = errors.Predictions(np.array([[0], [1]]), np.array([[[0.6, 0.4]], [[0.1, 0.9]]]))
    assert predictions.majority_vote.tolist() == [1]


def test_a_multilabel_prediction_is_wrong_in_any_label_and_as_confident_as_its_least_certain_one():
    predicted = np.array([[[1, 0], [1, 1]], [[1, 1], [0, 1]]])
    probabilities = np.array([[[0.9, 0.4], [0.8, 0.7]], [[0.7, 0.6], [0.2, 0.9]]])
    predictions = errors.Predictions(predicted, probabilities)
    assert predictions.is_wrong(np.array([[1, 0], [0, 1]])).tolist() == [[False, True], [True, False]]
    assert predictions.majority_vote.tolist() == [[1, 1], [1, 1]]  # half of the seeds are enough
    assert predictions.confidence(predictions.majority_vote).tolist() == pytest.approx([0.5, 0.5])


def test_bins_of_length_contain_every_example_once():
    lengths = np.random.default_rng(0).integers(3, 60, 900)
    error_rates = np.where(lengths > 40, 0.5, 0.1)
    bins = errors.error_rate_by_length(lengths, error_rates)
    assert bins["examples"].sum() == 900
    assert (bins["longest"].to_numpy()[:-1] < bins["shortest"].to_numpy()[1:]).all()
    assert bins["rate"].iloc[0] == pytest.approx(0.1)
    assert bins["rate"].iloc[-1] == pytest.approx(0.5)
    assert bins["low"].iloc[-1] < 0.5 < bins["high"].iloc[-1]
    assert (bins["examples"] @ bins["rate"]) == pytest.approx(error_rates.sum())


def test_texts_of_one_length_are_one_bin():
    bins = errors.error_rate_by_length(np.full(10, 7), np.zeros(10))
    assert bins[["shortest", "longest", "examples"]].values.tolist() == [[7, 7, 10]]


@pytest.mark.parametrize(
    ("texts", "unit", "lengths"),
    [
        (["two words", "and three words"], "words", [2, 3]),
        (["这是一个没有空格的很长的句子它会一直写下去直到结束为止", "短"], "characters", [27, 1]),
    ],
)
def test_texts_without_spaces_are_measured_in_characters(texts, unit, lengths):
    measured_unit, measured = errors.text_lengths(texts)
    assert (measured_unit, measured.tolist()) == (unit, lengths)


def test_error_overlap_agrees_with_numbers_by_hand():
    table = errors.error_overlap({"a": np.array([1, 1, 0, 0.5]), "b": np.array([1, 0, 0, 0.5]), "c": np.zeros(4)})
    shared = {(row["one"], row["other"]): row["shared"] for _, row in table.iterrows()}
    assert shared["a", "b"] == pytest.approx(1.5 / 2.5)
    assert shared["a", "b"] == shared["b", "a"]
    assert (shared["a", "a"], shared["a", "c"], shared["c", "c"]) == (1, 0, 1)


LABELS = np.array([0, 1, 0, 1])
PREDICTIONS = {
    "right": constant_predictions([[0, 1, 0, 1]]),
    "half": constant_predictions([[0, 1, 1, 0]]),
    "most frequent": constant_predictions([[0, 0, 0, 0]]),
}


def test_counts_of_wrong_strategies_are_of_the_groups_that_learn():
    analysis = errors.analyse_errors(LABELS, PREDICTIONS, {"most frequent"}, ["one two", "three", "four", "five"])
    assert analysis.learners == ("right", "half")
    assert analysis.examples_by_num_wrong.tolist() == [2, 2, 0]
    assert set(analysis.by_length["group"]) == set(PREDICTIONS)
    assert analysis.length_unit == "words"


def test_a_group_that_does_not_learn_is_analysed_if_there_is_no_other():
    predictions = {"most frequent": PREDICTIONS["most frequent"]}
    assert errors.analyse_errors(LABELS, predictions, {"most frequent"}, []).learners == ("most frequent",)


def test_without_texts_the_tables_of_texts_are_empty():
    analysis = errors.analyse_errors(LABELS, PREDICTIONS, {"most frequent"}, [])
    assert len(analysis.words) == len(analysis.by_length) == 0


def test_confidence_is_of_wrong_predictions_and_of_their_margin():
    predictions = {"one": constant_predictions([[0, 0, 0, 0]], confidence=0.7)}
    boxes = errors.analyse_errors(np.array([0, 0, 1, 1]), predictions, set(), []).confidence.set_index("kind")
    assert boxes["median"].to_dict() == pytest.approx({"wrong": 0.7, "margin": 0.4})
    assert boxes["examples"].to_dict() == {"wrong": 2, "margin": 2}


def test_predictions_without_errors_have_no_boxes():
    labels = np.array([0, 1])
    boxes = errors.analyse_errors(labels, {"one": constant_predictions([labels])}, set(), []).confidence
    assert len(boxes) == 0
    assert {"group", "kind", "median"} <= set(boxes)
