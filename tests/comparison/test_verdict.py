"""The verdict: the cheapest strategy that is statistically tied with the best, in sentences."""

import itertools
from dataclasses import replace

import pytest

from tests.comparison.rows import row
from tuneoff.comparison.result import Pair
from tuneoff.comparison.verdict import judge


def verdict_of(rows, metric="accuracy", cost="fit_seconds", required_examples=4321, required_seeds=None):
    """The verdict on some rows, best first, whose pairs all have the same required sizes."""
    pairs = [
        Pair(
            better=better.group,
            worse=worse.group,
            difference=better.score - worse.score,
            interval=(better.score - worse.score - 0.02, better.score - worse.score + 0.02),
            p_value=worse.p_value / 3,
            p_corrected=worse.p_value,
            mcnemar=worse.p_value / 2,
            effect=0.1,
            required_examples=required_examples,
            required_seeds=required_seeds,
        )
        for better, worse in itertools.combinations(rows, 2)
    ]
    return judge(rows, pairs, metric, cost, num_test=1000)


FULL, LORA = row("full", 0.9, 100, is_tied=True), row("lora", 0.89, 40, is_tied=True)
HEAD = row("head", 0.7, 5, is_tied=False)
MAJORITY = row("majority", 0.88, 0.1, is_tied=True, model=None)
UNTRAINED = row("untrained", 0.87, 0.1, is_tied=True)


def test_the_cheapest_of_the_tied_strategies_is_recommended():
    verdict = verdict_of([FULL, LORA, HEAD])
    assert (verdict.best, verdict.recommended, verdict.tied) == ("full-1", "lora-1", ("full-1", "lora-1"))
    assert verdict.text == (
        "full scores best: accuracy 0.900 (95 % confidence interval 0.880 to 0.920, 2 seeds). On 1,000 test examples the "
        "difference to lora is not significant (statistically tied). Of the tied strategies, lora is the cheapest in "
        "training time (2.5 times less than full): pick it. Detecting a true difference of 0.010 between full and lora "
        "would take about 4,400 test examples (80 % power)."
    )


def test_the_best_strategy_is_recommended_if_it_is_the_cheapest():
    slow = replace(LORA, costs={"fit_seconds": 500.0})
    partial = row("partial", 0.885, 300, is_tied=True)
    verdict = verdict_of([FULL, slow, partial])
    assert verdict.recommended == "full-1"
    assert "the differences to lora and partial are not significant (statistically tied)." in verdict.text
    assert "Of the tied strategies, full is the cheapest in training time: pick it." in verdict.text
    assert "between full and lora" in verdict.text


@pytest.mark.parametrize(
    ("required", "ending"),
    [
        ({"required_examples": None, "required_seeds": 12}, "would take 12 seeds (80 % power)."),
        ({"required_examples": 950, "required_seeds": 12}, "would take about 950 test examples or 12 seeds (80 % power)."),
        ({"required_examples": None}, "would take more test examples and more seeds."),
    ],
)  # fmt: skip
def test_the_verdict_ends_with_the_required_size(required, ending):
    assert verdict_of([FULL, LORA], **required).text.endswith(ending)


@pytest.mark.parametrize(
    ("non_learners", "subject"),
    [
        ([MAJORITY], "majority does"),
        ([UNTRAINED], "untrained does"),
        ([MAJORITY, UNTRAINED], "majority and untrained do"),
    ],
)
def test_no_strategy_is_recommended_in_words_if_one_that_does_not_learn_is_tied(non_learners, subject):
    verdict = verdict_of([FULL, LORA, *non_learners])
    assert verdict.recommended == "lora-1"  # for the cost of the report's other parts
    assert (
        f"{subject} not learn from the text, and no strategy is shown to be better: none can be recommended yet. Of those "
        "that learn, lora is the cheapest in training time (2.5 times less than full). Detecting a true" in verdict.text
    )
    assert "pick" not in verdict.text.lower()


@pytest.mark.parametrize("others", [[], [HEAD]])
def test_no_strategy_is_recommended_if_only_the_best_one_is_left_and_does_not_learn(others):
    text = verdict_of([MAJORITY, *others]).text
    assert text.endswith("majority does not learn from the text: no strategy can be recommended.")
    assert "Pick" not in text


def test_an_untrained_head_is_not_tied_if_the_best_is_better_than_the_most_frequent_class():
    verdict = verdict_of([FULL, UNTRAINED, replace(MAJORITY, is_tied=False)])
    assert verdict.tied == ("full-1",)
    assert (
        "the nearest, majority, is 0.020 behind (-0.010 to 0.040). untrained does not learn from the text and counts as "
        "worse, although its difference is not significant: full is significantly better than the most frequent class. "
        "Pick full." in verdict.text
    )


def test_a_strategy_that_is_better_than_every_other_is_recommended():
    text = verdict_of([FULL, HEAD], "macro_f1").text
    assert "better than every other: the nearest, head, is 0.200 behind (0.180 to 0.220)" in text
    assert text.endswith("Pick full.")


def test_a_single_strategy_is_recommended():
    verdict = verdict_of([FULL])
    assert verdict.recommended == "full-1"
    assert verdict.text.endswith("Pick full.")


def test_no_strategy_is_named_cheapest_if_a_cost_was_not_measured():
    text = verdict_of([replace(FULL, costs={}), LORA], cost="model_bytes").text
    assert "The size on disk of some of them was not measured; choose by another cost." in text
    assert "cheapest" not in text
