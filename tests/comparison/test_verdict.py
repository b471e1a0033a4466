"""The verdict: the cheapest strategy whose expected loss is within the margin, in sentences."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from tests.comparison.rows import row
from tests.stored import stored_study
from tuneoff.comparison.rows import Pair
from tuneoff.comparison.verdict import judge, standing
from tuneoff.scoring.decision import JointScores


def verdict_of(rows, metric="accuracy", sd=0.002, num_examples=1000, margin=0.005, cost="fit_seconds", **required):
    """The verdict on rows, best first. sd: standard deviation of each true score around the measured one."""
    sizes = {"required_examples": 4321, "required_seeds": None, **required}
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
            **sizes,
        )
        for better, worse in itertools.combinations(rows, 2)
    ]
    values = np.array([r.score for r in rows])
    joint = JointScores(values, values + sd * np.random.default_rng(0).normal(size=(4000, len(rows))))
    return judge(rows, pairs, joint, metric, cost, margin, num_examples)


FULL, PARTIAL, LORA = row("full", 0.9, 100), row("partial", 0.896, 50), row("lora", 0.88, 40)
HEAD = row("head", 0.7, 5, is_worse=True)
MAJORITY = row("majority", 0.5, 0.1, is_worse=True, model=None)
UNTRAINED = row("untrained", 0.52, 0.1, is_worse=True)


def test_the_cheapest_strategy_within_the_margin_is_picked():
    verdict = verdict_of([FULL, PARTIAL, LORA, HEAD, UNTRAINED, MAJORITY])
    assert (verdict.best, verdict.recommended, verdict.thin) == ("full-1", "partial-1", "")
    assert verdict.summary[0] == (
        "Pick partial: accuracy 0.896, 0.4 points below full, for 2.0 times less training time."
    )
    assert verdict.summary[1].startswith("Against the truly best of the 4 strategies, expect it to lose 0.4 points; ")
    assert verdict.summary[2].startswith("On new texts expect accuracy 0.89")
    assert verdict.details == (
        "Against full, at a margin of 0.5 points: head, untrained and majority are worse; partial and lora are undecided.",
        "Detecting a true difference of 0.4 points between full and partial would take about 4,400 test examples "
        "(80 % power).",
    )


def test_a_strategy_eight_points_behind_is_not_picked_however_cheap_it_is():
    far = row("tfidf", 0.82, 0.1, model=None)
    assert verdict_of([FULL, far], sd=0.05, num_examples=140).recommended == "full-1"


def test_a_larger_margin_allows_a_cheaper_strategy():
    assert verdict_of([FULL, PARTIAL, LORA], margin=0.03).recommended == "lora-1"
    assert verdict_of([FULL, PARTIAL, LORA], margin=0.0).recommended == "full-1"


def test_a_cheaper_strategy_within_the_margin_is_not_picked_where_it_may_lose_much():
    verdict = verdict_of([FULL, PARTIAL, HEAD], sd=0.03)
    assert verdict.recommended == "full-1"
    assert verdict.summary[0].startswith(
        "Pick full: accuracy 0.900, the best measured. partial needs less training time and is only 0.4 points below, "
        "but the chance that it loses more than 2.0 points is 3"
    )


def test_a_gap_of_exactly_the_margin_is_within_it():
    """0.875 - 0.870 is 0.0050000000000000044."""
    verdict = verdict_of([row("full", 0.875, 100), row("lora", 0.870, 40)])
    assert verdict.recommended == "lora-1"


def test_unknown_costs_are_not_compared():
    best, near = row("full", 0.9, 100), row("lora", 0.897, 40)
    unknown = replace(best, costs={})
    assert verdict_of([unknown, near]).summary[0] == (
        "Pick lora: accuracy 0.897, 0.3 points below full, whose training time is not known."
    )
    other = replace(near, costs={})
    assert " and nothing of which less training time is known comes within" in verdict_of([best, other]).summary[0]


def test_a_small_saving_buys_no_loss():
    near = row("partial", 0.896, 90)
    assert verdict_of([FULL, near]).summary[0] == (
        "Pick full: accuracy 0.900, the best measured. partial is only 0.4 points below, but saves less than 20 % of "
        "training time."
    )


def test_the_best_is_picked_where_nothing_cheaper_is_near():
    assert verdict_of([FULL, LORA]).summary[0] == (
        "Pick full: accuracy 0.900, the best measured, and nothing with less training time comes within 0.5 points of it."
    )


@pytest.mark.parametrize(
    ("num_examples", "seed_sd", "start"),
    [
        (30, 0.01, "Only 30 test examples: chance may have decided the order. Pick full: accuracy 0.900, the best measured."),
        (1000, None, "Only one seed per strategy: chance may have decided the order. Pick full"),
        (3, None, "Only 3 test examples and one seed per strategy: chance may have decided the order. Pick full"),
    ],
)  # fmt: skip
def test_on_thin_evidence_the_best_measured_is_picked_and_the_sentence_begins_with_it(num_examples, seed_sd, start):
    rows = [replace(r, seed_sd=seed_sd) for r in (FULL, PARTIAL, LORA)]
    verdict = verdict_of(rows, num_examples=num_examples)
    assert verdict.recommended == "full-1"
    assert verdict.text.startswith(start)


def test_nothing_is_picked_if_no_strategy_is_better_than_the_most_frequent_class():
    near = row("majority", 0.895, 0.1, model=None)
    verdict = verdict_of([FULL, near, LORA], sd=0.02)
    assert verdict.recommended is None
    assert verdict.text == (
        "Pick nothing yet: no strategy is shown to be better than always predicting the most frequent class. full comes "
        "closest, with accuracy 0.900 against 0.895. Check that texts and labels belong together (tuneoff inspect), "
        "then label more examples, train longer (--epochs 10) or try another encoder (--model)."
    )
    assert verdict_of([near, LORA], sd=0.02).recommended is None


def test_without_a_strategy_that_learns_there_is_nothing_to_pick():
    verdict = verdict_of([replace(MAJORITY, score=0.9)])
    assert verdict.recommended is None
    assert verdict.text == "No strategy that learns from the text finished, so there is nothing to pick."


def test_a_single_strategy_is_picked():
    verdict = verdict_of([FULL])
    assert verdict.text == (
        "Pick full: accuracy 0.900, the best measured. On new texts expect accuracy 0.900, as measured."
    )


def test_the_pick_of_many_equal_strategies_is_corrected_for_having_been_picked():
    rows = [row(f"lora{i}", 0.9 - 0.001 * i, 100 - i, strategy="lora") for i in range(8)]
    verdict = verdict_of(rows, sd=0.01)
    assert 0.86 < verdict.corrected_score < 0.895
    assert "points too good on average, because it was picked for it." in verdict.summary[2]


def test_a_lower_log_loss_is_better():
    best = row("full", 0.30, 100, difference=0.0, standing="best")
    joint = JointScores(np.array([-0.30, -0.34]), np.array([-0.30, -0.34]) + np.zeros((100, 2)))
    other = row("lora", 0.34, 1, difference=-0.04, standing="equivalent")
    verdict = judge([best, other], [], joint, "log_loss", "fit_seconds", 0.05, 1000)
    assert verdict.summary[0] == "Pick lora: log loss 0.340, 0.040 above full, for 100 times less training time."


def test_an_unknown_cost_is_never_the_cheapest():
    verdict = verdict_of([FULL, replace(PARTIAL, costs={}), LORA])
    assert verdict.recommended == "full-1"
    assert verdict_of([replace(FULL, costs={}), replace(PARTIAL, costs={})]).recommended == "full-1"


@pytest.mark.parametrize(
    ("index", "is_significant", "loss_bound", "expected"),
    [
        (0, False, 0.02, "best"),
        (1, False, 0.004, "equivalent"),
        (1, True, 0.004, "equivalent"),
        (1, True, 0.006, "worse"),
        (1, False, 0.006, "undecided"),
    ],
)
def test_standing_against_the_best(index, is_significant, loss_bound, expected):
    assert standing(index, is_significant, loss_bound, margin=0.005) == expected


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


def test_six_of_872_examples_do_not_decide_between_two_ranks(tmp_path):
    """The published claim "rank 8 (0.898) is better than rank 16 (0.891)", on the validation split of SST-2."""
    study = stored_study(
        tmp_path / "s",
        [("lora", "lora", 0.898), ("lora", "lora rank=16", 0.891), ("majority", "majority", 0.5)],
        num_test=872,
    )
    verdict, (best, second, _) = study.comparison().verdict, study.comparison().rows
    assert 0 < best.score - second.score < 0.02
    assert second.standing == "undecided"
    assert "is undecided" in verdict.text
