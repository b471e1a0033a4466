"""Verdict of a comparison: the recommended strategy, as data and in sentences."""

import math
from collections.abc import Mapping, Sequence

from tuneoff.comparison.result import Pair, Row, Verdict, row_names
from tuneoff.costs import COSTS
from tuneoff.formats import fixed, join_names
from tuneoff.scoring.metrics import display_name
from tuneoff.scoring.stats import POWER


def judge(rows: Sequence[Row], pairs: Sequence[Pair], metric: str, cost: str, num_test: int) -> Verdict:
    """Recommend the cheapest strategy that learns among those that are statistically tied with the best.

    rows: best first. If the best is significantly better than the most frequent class, every strategy that does not
    learn counts as worse, the untrained head too: it predicts at random, differently for each seed, and with few seeds
    the variance of its score hides how much worse it is.
    """
    is_learned = any(row.is_class_prior and not row.is_tied for row in rows)
    tied = [row for row in rows if row.is_tied and not (is_learned and not row.learns)]
    learners = [row for row in tied if row.learns]
    cheapest = min(learners or tied, key=lambda row: row.costs.get(cost, math.inf))
    sentences = _conclusion(rows, tied, cheapest, metric, cost, num_test)
    return Verdict(
        best=rows[0].group,
        tied=tuple(row.group for row in tied),
        recommended=cheapest.group,
        cost=cost,
        text=" ".join([*sentences, *_required_size(pairs, tied, cheapest, rows)]),
    )


def _conclusion(
    rows: Sequence[Row], tied: Sequence[Row], cheapest: Row, metric: str, cost: str, num_test: int
) -> list[str]:
    """Sentences on the best score, the statistically tied strategies and the recommended one."""
    best, names = rows[0], row_names(rows)
    low, high = best.interval
    score = (
        f"{display_name(metric)} {fixed(best.score)} (95 % confidence interval {fixed(low)} to {fixed(high)}, "
        f"{best.repeats})"
    )
    sentences = [f"{names[best.group]} scores best: {score}."]
    excluded = [names[row.group] for row in rows if row.is_tied and row not in tied]
    if len(tied) > 1:
        others = [names[row.group] for row in tied if row is not best]
        gaps = f"difference to {others[0]} is" if len(others) == 1 else f"differences to {join_names(others)} are"
        sentences.append(f"On {num_test:,} test examples the {gaps} not significant (statistically tied).")
    elif len(rows) > 1:
        second = next(row for row in rows if not row.is_tied)
        min_gap, max_gap = -second.difference_interval[1], -second.difference_interval[0]
        gap = f"{fixed(-second.difference)} behind ({fixed(min_gap)} to {fixed(max_gap)})"
        sentences.append(f"It is better than every other: the nearest, {names[second.group]}, is {gap}.")
    if excluded:
        count = "counts as worse, although its difference is"
        if len(excluded) > 1:
            count = "count as worse, although their differences are"
        sentences.append(
            f"{_do_not_learn(excluded)} and {count} not significant: {names[best.group]} is significantly better than "
            "the most frequent class."
        )
    return [*sentences, _choice(tied, cheapest, cost, names)]


def _choice(tied: Sequence[Row], cheapest: Row, cost: str, names: Mapping[str, str]) -> str:
    """Sentence on the strategy to pick, or on why none can be recommended. tied: best first."""
    best = tied[0]
    non_learners = [names[row.group] for row in tied if not row.learns]
    is_measured = all(cost in row.costs for row in tied)
    saving = ""
    if is_measured and cheapest is not best:
        saving = _times_less(best.costs[cost], cheapest.costs[cost], names[best.group])
    if not cheapest.learns:
        return f"{_do_not_learn(non_learners)}: no strategy can be recommended."
    if non_learners:
        text = f"{_do_not_learn(non_learners)}, and no strategy is shown to be better: none can be recommended yet."
        if is_measured:
            text += f" Of those that learn, {names[cheapest.group]} is the cheapest in {COSTS[cost].name}{saving}."
        return text
    if len(tied) == 1:
        return f"Pick {names[best.group]}."
    if not is_measured:
        return f"The {COSTS[cost].name} of some of them was not measured; choose by another cost."
    return f"Of the tied strategies, {names[cheapest.group]} is the cheapest in {COSTS[cost].name}{saving}: pick it."


def _do_not_learn(names: Sequence[str]) -> str:
    return f"{join_names(names)} {'does' if len(names) == 1 else 'do'} not learn from the text"


def _required_size(pairs: Sequence[Pair], tied: Sequence[Row], cheapest: Row, rows: Sequence[Row]) -> list[str]:
    """Sentence on the test examples or seeds that would separate the best from the pick, or from the next best."""
    if len(tied) == 1:
        return []
    best, names = rows[0], row_names(rows)
    rival = cheapest if cheapest is not best else tied[1]
    pair = next(pair for pair in pairs if {pair.better, pair.worse} == {best.group, rival.group})
    if pair.difference == 0:
        return []
    sizes = []
    if pair.required_examples is not None:
        sizes.append(f"about {_round_up(pair.required_examples):,} test examples")
    if pair.required_seeds is not None:
        sizes.append(f"{pair.required_seeds:,} seeds")
    goal = (
        f"Detecting a true difference of {fixed(pair.difference)} between {names[best.group]} and {names[rival.group]}"
    )
    if not sizes:
        return [f"{goal} would take more test examples and more seeds."]
    return [f"{goal} would take {' or '.join(sizes)} ({100 * POWER:.0f} % power)."]


def _round_up(count: int) -> int:
    """Round up to two significant digits, because the estimate is no more exact than that."""
    step = 10 ** max(0, len(str(count)) - 2)
    return -(-count // step) * step


def _times_less(best_cost: float, cheapest_cost: float, best_name: str) -> str:
    """Phrase such as " (2.5 times less than full)"; empty if the costs are about equal."""
    if cheapest_cost <= 0 or best_cost / cheapest_cost < 1.05:
        return ""
    ratio = best_cost / cheapest_cost
    return f" ({ratio:.{1 if ratio < 10 else 0}f} times less than {best_name})"
