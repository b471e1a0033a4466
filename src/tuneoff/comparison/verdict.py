"""Verdict of a comparison: the recommended strategy, as data and in sentences."""

import math
from collections.abc import Sequence

from tuneoff.comparison.result import Pair, Row, Verdict, row_names
from tuneoff.costs import COSTS
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
    runs = f"{len(best.seeds)} seeds" if len(best.seeds) > 1 else "one run"
    score = f"{display_name(metric)} {best.score:.3f} (95 % confidence interval {low:.3f} to {high:.3f}, {runs})"
    sentences = [f"{names[best.group]} scores best: {score}."]
    if len(tied) == 1:
        if len(rows) > 1:
            second = rows[1]
            min_gap, max_gap = -second.difference_interval[1], -second.difference_interval[0]
            gap = f"{-second.difference:.3f} behind ({min_gap:.3f} to {max_gap:.3f})"
            sentences.append(f"It is better than every other: the nearest, {names[second.group]}, is {gap}.")
        return [*sentences, f"Pick {names[best.group]}."]
    others = [names[row.group] for row in tied if row is not best]
    gaps = f"difference to {others[0]} is" if len(others) == 1 else f"differences to {_join(others)} are"
    sentences.append(f"On {num_test:,} test examples the {gaps} not significant (statistically tied).")
    if any(cost not in row.costs for row in tied):
        return [*sentences, f"The {COSTS[cost].name} of some of them was not measured; choose by another cost."]
    no_learners = [names[row.group] for row in tied if not row.learns]
    if no_learners:
        sentences.append(
            f"{_join(no_learners)} {'does' if len(no_learners) == 1 else 'do'} not learn from the text: no strategy is "
            "shown to have learned anything."
        )
    candidates = "tied strategies that learn" if no_learners and cheapest.learns else "tied strategies"
    saving = "" if cheapest is best else _times_less(best.costs[cost], cheapest.costs[cost], names[best.group])
    choice = f"{names[cheapest.group]} is the cheapest in {COSTS[cost].name}{saving}: pick it."
    return [*sentences, f"Of the {candidates}, {choice}"]


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
    goal = f"Detecting a true difference of {pair.difference:.3f} between {names[best.group]} and {names[rival.group]}"
    if not sizes:
        return [f"{goal} would take more test examples and more seeds."]
    return [f"{goal} would take {' or '.join(sizes)} ({100 * POWER:.0f} % power)."]


def _round_up(count: int) -> int:
    """Round up to two significant digits, because the estimate is no more exact than that."""
    step = 10 ** max(0, len(str(count)) - 2)
    return -(-count // step) * step


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _times_less(best_cost: float, cheapest_cost: float, best_name: str) -> str:
    """Phrase such as " (2.5 times less than full)"; empty if the costs are about equal."""
    if cheapest_cost <= 0 or best_cost / cheapest_cost < 1.05:
        return ""
    ratio = best_cost / cheapest_cost
    return f" ({ratio:.{1 if ratio < 10 else 0}f} times less than {best_name})"
