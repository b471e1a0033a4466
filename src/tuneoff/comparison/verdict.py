"""Verdict of a comparison: which strategy to pick, what that may lose and how sure it is, as data and in sentences."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tuneoff.comparison.other_tests import Elsewhere
from tuneoff.comparison.rows import BEST, EQUIVALENT, UNDECIDED, WORSE, Pair, Row, Verdict, row_names
from tuneoff.costs import COSTS
from tuneoff.formats import fixed, join_names
from tuneoff.scoring.decision import MAX_RISK, MIN_SAVING, RISK_MARGINS, ROUNDING, JointScores, choose, optimism
from tuneoff.scoring.metrics import apart, direction, display_name, points
from tuneoff.scoring.stats import LEVEL, POWER

# With fewer, the pick is the best measured strategy. On samples of 100 real test examples cheaper picks lost up to 5.6
# points at the 95th percentile, the best measured 3.4 (docs/benchmarks.md).
MIN_EXAMPLES = 200
_CHANCE = f"{100 * (1 - LEVEL):.0f} %"


def judge(
    rows: Sequence[Row],
    pairs: Sequence[Pair],
    joint: JointScores,
    metric: str,
    cost: str,
    margin: float,
    num_examples: int,
) -> Verdict:
    """Pick the cheapest strategy whose expected loss against the best choice is within the margin.

    rows: best first. joint: their scores, in the same order. margin: in the metric's units. cost: key of costs.py.

    Nothing is picked if no strategy that learns is better than the most frequent class with confidence. On thin
    evidence (few test examples, or one seed) the pick is the best measured strategy.
    """
    learners = np.array([row.learns for row in rows])
    prior = next((index for index, row in enumerate(rows) if row.is_class_prior), None)
    is_better = learners if prior is None else learners & joint.exceeds(prior)
    if not is_better.any():
        return _nothing_to_pick(rows, metric, cost, margin, has_prior=prior is not None)
    noun = "labelled examples" if any(row.fold_scores for row in rows) else "test examples"
    thin = _thin_evidence(rows, num_examples, noun)
    costs = np.array([row.costs.get(cost, math.inf) for row in rows])
    choice = choose(joint, costs, margin, learners, takes_best=bool(thin))
    picked, names = rows[choice], row_names(rows)
    best = int(learners.argmax())  # rows are in order of score
    excess = optimism(joint, costs, margin, learners, takes_best=bool(thin))
    corrected = picked.score - direction(metric) * excess
    expected, bound = joint.expected_loss(choice), joint.loss_quantile(choice)
    cheaper = [
        (row, joint.risk(best, index, RISK_MARGINS * margin))
        for index, row in enumerate(rows)
        if row.learns and costs[index] < costs[choice] and joint.values[best] - joint.values[index] <= margin + ROUNDING
    ]
    much_cheaper = [(row, risk) for row, risk in cheaper if row.costs[cost] <= (1 - MIN_SAVING) * costs[choice]]
    summary = [
        f"{thin} {_pick(rows, picked, cheaper, much_cheaper, metric, cost, margin, names, bool(thin))}".strip(),
        *_risk(int(learners.sum()), expected, bound, metric),
        _expectation(corrected, picked.score, excess, metric),
    ]
    return Verdict(
        best=rows[0].group,
        recommended=picked.group,
        cost=cost,
        margin=margin,
        expected_loss=expected,
        loss_bound=bound,
        corrected_score=corrected,
        thin=thin,
        summary=tuple(summary),
        details=(*_standings(rows, metric, margin, names), *_required_size(pairs, rows, picked, metric, noun)),
    )


def standing(index: int, is_significant: bool, loss_bound: float, margin: float) -> str:
    """Return the standing of a row against the best. index: of the row, best first.

    A loss that is surely within the margin is equivalent, even if it is also surely above 0.
    """
    if index == 0:
        return BEST
    if loss_bound <= margin:
        return EQUIVALENT
    return WORSE if is_significant else UNDECIDED


def _thin_evidence(rows: Sequence[Row], num_examples: int, noun: str) -> str:
    """Return a sentence on what the evidence lacks; empty if it is enough for a choice."""
    lacks = []
    if num_examples < MIN_EXAMPLES:
        lacks.append(f"{num_examples:,} {noun}")
    if has_one_seed(rows):
        lacks.append("one seed per strategy")
    if not lacks:
        return ""
    return f"Only {' and '.join(lacks)}: chance may have decided the order."


def has_one_seed(rows: Sequence[Row]) -> bool:
    """Return True if strategies that depend on the seed ran with one, so that nothing shows what seeds change."""
    seeded = [row for row in rows if row.learns and row.is_seeded]
    return bool(seeded) and all(row.seed_sd is None and not row.fold_scores for row in seeded)


def _pick(
    rows: Sequence[Row],
    picked: Row,
    cheaper: Sequence[tuple[Row, float]],
    much_cheaper: Sequence[tuple[Row, float]],
    metric: str,
    cost: str,
    margin: float,
    names: Mapping[str, str],
    is_thin: bool,
) -> str:
    """Sentence on the strategy to pick.

    cheaper: rows within the margin that cost less, and their risks. much_cheaper: those that save
    MIN_SAVING.
    """
    best = max((row for row in rows if row.learns), key=lambda row: row.difference)
    score = f"{display_name(metric)} {fixed(picked.score)}"
    if picked is not best:
        name, gap = COSTS[cost].name, apart(best.difference - picked.difference, metric)
        text = f"Pick {names[picked.group]}: {score}, {gap} {names[best.group]}"
        if cost not in best.costs:
            return f"{text}, whose {name} is not known."
        return f"{text}, for {_times_less(best.costs[cost], picked.costs.get(cost))}{name}."
    text = f"Pick {names[picked.group]}: {score}, the best measured"
    if is_thin or sum(row.learns for row in rows) == 1:
        return f"{text}."
    if not cheaper:
        within = f"comes within {points(margin, metric)} of it"
        if any(row.learns and cost not in row.costs for row in rows):
            return f"{text}, and nothing of which less {COSTS[cost].name} is known {within}."
        return f"{text}, and nothing with less {COSTS[cost].name} {within}."
    rival, risk = min(much_cheaper or cheaper, key=lambda pair: pair[1])
    gap = apart(best.difference - rival.difference, metric)
    if not much_cheaper:
        share = f"{100 * MIN_SAVING:.0f} %"
        return f"{text}. {names[rival.group]} is only {gap}, but saves less than {share} of {COSTS[cost].name}."
    return (
        f"{text}. {names[rival.group]} needs less {COSTS[cost].name} and is only {gap}, but the chance that it "
        f"loses more than {points(RISK_MARGINS * margin, metric)} is {100 * risk:.0f} %, above {100 * MAX_RISK:.0f} %."
    )


def _risk(num_learners: int, expected: float, bound: float, metric: str) -> list[str]:
    if num_learners < 2:
        return []
    return [
        f"Against the truly best of the {num_learners} strategies, expect it to lose {points(expected, metric)}; with "
        f"a chance of {_CHANCE} it loses more than {points(bound, metric)}."
    ]


def _expectation(corrected: float, measured: float, excess: float, metric: str) -> str:
    text = f"On new texts expect {display_name(metric)} {fixed(corrected)}"
    if fixed(corrected) == fixed(measured) or points(excess, metric) == points(0.0, metric):
        return f"{text}, as measured."
    return (
        f"{text}: the {fixed(measured)} measured is {points(excess, metric)} too good on average, because it "
        "was picked for it."
    )


def _nothing_to_pick(rows: Sequence[Row], metric: str, cost: str, margin: float, has_prior: bool) -> Verdict:
    """Verdict that picks nothing, and says what to do."""
    learner, names = next((row for row in rows if row.learns), None), row_names(rows)
    if learner is None or not has_prior:
        summary = ["No strategy that learns from the text finished, so there is nothing to pick."]
    else:
        prior = next(row for row in rows if row.is_class_prior)
        summary = [
            "Pick nothing yet: no strategy is shown to be better than always predicting the most frequent class.",
            f"{names[learner.group]} comes closest, with {display_name(metric)} {fixed(learner.score)} against "
            f"{fixed(prior.score)}.",
            "Check that texts and labels belong together (tuneoff inspect), then label more examples, train longer "
            "(--epochs 10) or try another encoder (--model).",
        ]
    return Verdict(best=rows[0].group, recommended=None, cost=cost, margin=margin, summary=tuple(summary))


def _standings(rows: Sequence[Row], metric: str, margin: float, names: Mapping[str, str]) -> list[str]:
    """Sentence on which strategies are equivalent to the best, worse, or undecided."""
    phrases = []
    for word in (EQUIVALENT, WORSE, UNDECIDED):
        group = [names[row.group] for row in rows if row.standing == word]
        if group:
            phrases.append(f"{join_names(group)} {'is' if len(group) == 1 else 'are'} {word}")
    if not phrases:
        return []
    return [f"Against {names[rows[0].group]}, at a margin of {points(margin, metric)}: {'; '.join(phrases)}."]


def _required_size(pairs: Sequence[Pair], rows: Sequence[Row], picked: Row, metric: str, noun: str) -> list[str]:
    """Sentence on the examples or seeds that would separate the best from the pick, or from the next best."""
    best, names = rows[0], row_names(rows)
    undecided = [row for row in rows if row.standing == UNDECIDED]
    if not undecided:
        return []
    rival = picked if picked in undecided else undecided[0]
    pair = next(pair for pair in pairs if {pair.better, pair.worse} == {best.group, rival.group})
    if pair.difference == 0:
        return []
    sizes = []
    if pair.required_examples is not None:
        sizes.append(f"about {_round_up(pair.required_examples):,} {noun}")
    if pair.required_seeds is not None:
        of_each = " of each source" if len(best.sources or rival.sources) > 1 else ""
        sizes.append(f"{pair.required_seeds:,} seeds{of_each}")
    goal = f"Detecting a true difference of {points(pair.difference, metric)} between {names[best.group]} and "
    goal += names[rival.group]
    if not sizes:
        return [f"{goal} would take more {noun}{'' if best.fold_scores else ' and more seeds'}."]
    return [f"{goal} would take {' or '.join(sizes)} ({100 * POWER:.0f} % power)."]


def other_picks(elsewhere: Sequence[Elsewhere], rows: Sequence[Row], metric: str) -> list[str]:
    """Sentence for each test set from elsewhere on which another strategy would be picked."""
    names, sentences = row_names(rows), []
    for test in elsewhere:
        row, own = test.row(test.picked), test.row(test.own_pick)
        if test.own_pick is None or own is None or test.picked == test.own_pick:
            continue
        if row is None:
            sentences.append(
                f"On {test.name}, a test set from elsewhere, no strategy is shown to be better than the most frequent "
                f"class; {names[own.group]} has {display_name(metric)} {fixed(own.score)} there."
            )
            continue
        sentences.append(
            f"On {test.name}, a test set from elsewhere, the pick would be {names[row.group]} ({display_name(metric)} "
            f"{fixed(row.score)}) instead of {names[own.group]} ({fixed(own.score)})."
        )
    return sentences


def _round_up(count: int) -> int:
    """Round up to two significant digits, because the estimate is no more exact than that."""
    step = 10 ** max(0, len(str(count)) - 2)
    return -(-count // step) * step


def _times_less(best_cost: float | None, picked_cost: float | None) -> str:
    """Phrase such as "2.5 times less "; "less " if a cost is unknown or 0."""
    if not best_cost or not picked_cost:
        return "less "
    ratio = best_cost / picked_cost
    return f"{ratio:.{1 if ratio < 10 else 0}f} times less "
