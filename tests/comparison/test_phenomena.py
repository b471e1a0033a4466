"""Phenomena that change the error rate are noticed after correction, and others are not."""

import numpy as np
import pytest

from tests.comparison.test_errors import constant_predictions
from tuneoff.comparison.phenomena import EVERY, analyse_phenomena

FILLER = ["we went to the place that they said it was", "this is what you would like to see and hear about"]


def planted(num_examples=800, rates=(0.5, 0.15), seed=0):
    """Texts, of which an eighth has a "not", and predictions of two strategies that are wrong more often on these."""
    rng = np.random.default_rng(seed)
    has_not = np.arange(num_examples) % 8 == 0
    texts = [f"{FILLER[i % 2]}{' not' if h else ''}{' ?' if i % 5 == 0 else ''}" for i, h in enumerate(has_not)]
    labels = rng.integers(0, 2, num_examples)
    predictions = {}
    for group in ("x", "y"):
        wrong = rng.random((3, num_examples)) < np.where(has_not, *rates)
        predictions[group] = constant_predictions(np.where(wrong, 1 - labels, labels))
    return texts, labels, predictions


def analysed(texts, labels, predictions, lengths=None, patterns=None):
    lengths = np.array([len(text.split()) for text in texts]) if lengths is None else lengths
    return analyse_phenomena(labels, predictions, list(predictions), [texts], lengths, patterns or {})


def rates_of(phenomena, group):
    return phenomena.rates[phenomena.rates["group"] == group].set_index("tag")


def test_a_planted_phenomenon_is_significant_and_no_other():
    phenomena = analysed(*planted())
    every = rates_of(phenomena, EVERY)
    assert every.loc["negation", "p_corrected"] < 0.001
    assert every.loc["negation", "difference"] == pytest.approx(0.35, abs=0.1)
    assert every.loc["negation", ["examples", "share"]].tolist() == [100, 0.125]
    assert every.loc["question", "p_corrected"] > 0.05
    assert rates_of(phenomena, "x").loc["negation", "p_corrected"] < 0.05
    assert set(phenomena.rates["group"]) == {EVERY, "x", "y"}


def test_random_errors_are_not_explained():
    significant = 0
    for seed in range(10):
        phenomena = analysed(*planted(rates=(0.3, 0.3), seed=seed))
        significant += int((rates_of(phenomena, EVERY)["p_corrected"] < 0.05).any())
    assert significant <= 2


def test_correction_is_over_tags_length_and_strategies():
    phenomena = analysed(*planted())
    single = [*phenomena.rates["group"], *phenomena.trends["group"]]
    assert phenomena.num_tests == sum(group != EVERY for group in single)
    smallest = phenomena.rates[phenomena.rates["group"] != EVERY]["p_value"].min()
    corrected = phenomena.rates[phenomena.rates["group"] != EVERY]["p_corrected"].min()
    assert corrected == pytest.approx(smallest * phenomena.num_tests)


def test_a_trend_with_length_has_its_sign():
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 40, 600)
    labels = np.zeros(600, int)
    wrong = rng.random((1, 600)) < np.where(lengths < 10, 0.6, 0.2)
    phenomena = analysed([FILLER[0]] * 600, labels, {"x": constant_predictions(np.where(wrong, 1, 0))}, lengths)
    (trend,) = phenomena.trends.to_dict("records")
    assert trend["group"] == "x"  # of a single strategy there is no mean over several
    assert trend["correlation"] < -0.1
    assert trend["p_corrected"] < 0.001


@pytest.mark.parametrize("predicted", [np.zeros(40, int), np.ones(40, int)])
def test_strategies_that_are_always_right_or_wrong_are_no_error(predicted):
    phenomena = analysed(
        [FILLER[i % 2] for i in range(40)], np.zeros(40, int), {"x": constant_predictions([predicted])}
    )
    assert len(phenomena.trends) == 0
    assert (phenomena.rates["p_corrected"] > 0.05).all()


def test_a_tag_with_few_texts_is_not_tested():
    texts, labels, predictions = planted(80)
    texts[3] += " zebra"
    phenomena = analysed(texts, labels, predictions, patterns={"rare": "zebra", "common": "^(?!.*zebra)"})
    assert (phenomena.masks["rare"].sum(), phenomena.masks["common"].sum()) == (1, 79)
    assert not {"rare", "common"} & set(phenomena.rates["tag"])


def test_an_example_of_multilabel_data_is_wrong_if_any_label_is():
    texts, labels, predictions = planted(400)
    both = np.stack([labels, labels], axis=-1)
    predicted = {group: runs.predicted for group, runs in predictions.items()}
    multi = {
        group: type(runs)(np.stack([predicted[group], both[None, :, 1].repeat(3, 0)], axis=-1), runs.probabilities)
        for group, runs in predictions.items()
    }
    single, double = analysed(texts, labels, predictions), analysed(texts, both, multi)
    assert single.rates["difference"].tolist() == double.rates["difference"].tolist()
