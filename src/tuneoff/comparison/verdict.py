"""What to pick, in words and as data."""

import math
from collections.abc import Sequence

from tuneoff.comparison.result import NO_LEARNERS, Pair, Row, Verdict, row_names
from tuneoff.metrics import spoken
from tuneoff.runs import COSTS
from tuneoff.stats import POWER


def judge(rows: Sequence[Row], pairs: Sequence[Pair], metric: str, cost: str, num_test: int) -> Verdict:
    """The rows that cannot be told from the best, and the cheapest of them that learns. rows: best first.

    Where the best is better than the most frequent class, it is better than an untrained head too: that one guesses,
    each seed otherwise, and few seeds say little of how far.
    """
    is_learnt = any(row.strategy == "majority" and not row.is_tied for row in rows)
    tied = [row for row in rows if row.is_tied and not (is_learnt and row.strategy == "untrained")]
    learners = [row for row in tied if row.strategy not in NO_LEARNERS]
    cheapest = min(learners or tied, key=lambda row: row.costs.get(cost, math.inf))
    return Verdict(
        best=rows[0].group,
        tied=tuple(row.group for row in tied),
        recommended=cheapest.group,
        cost=cost,
        text=" ".join(
            [*_sentences(rows, tied, cheapest, metric, cost, num_test), *_what_would_tell(pairs, tied, cheapest, rows)]
        ),
    )


def _sentences(
    rows: Sequence[Row], tied: Sequence[Row], cheapest: Row, metric: str, cost: str, num_test: int
) -> list[str]:
    best, names = rows[0], row_names(rows)
    low, high = best.interval
    runs = f"{len(best.seeds)} seeds" if len(best.seeds) > 1 else "one run"
    score = f"{spoken(metric)} {best.score:.3f} (95 % interval {low:.3f} to {high:.3f}, {runs})"
    said = [f"{names[best.group]} scores best: {score}."]
    if len(tied) == 1:
        if len(rows) > 1:
            near = rows[1]
            least, most = -near.difference_interval[1], -near.difference_interval[0]
            gap = f"{-near.difference:.3f} behind ({least:.3f} to {most:.3f})"
            said.append(f"It is better than every other: the nearest, {names[near.group]}, is {gap}.")
        return [*said, f"Pick {names[best.group]}."]
    others = [names[row.group] for row in tied if row is not best]
    said.append(f"On {num_test:,} test examples it cannot be told from {_and(others)}.")
    if any(cost not in row.costs for row in tied):
        return [*said, f"Their {COSTS[cost]} is not known for all; choose by another cost."]
    idle = [names[row.group] for row in tied if row.strategy in NO_LEARNERS]
    if idle:
        said.append(f"{_and(idle)} says nothing of a text: so far nothing is shown to have been learnt.")
    if cheapest is best:
        return [*said, f"It is also the cheapest of them in {COSTS[cost]}: pick {names[best.group]}."]
    less = _times_less(best.costs[cost], cheapest.costs[cost], names[best.group])
    return [*said, f"The cheapest of them in {COSTS[cost]} is {names[cheapest.group]}{less}: pick it."]


def _what_would_tell(pairs: Sequence[Pair], tied: Sequence[Row], cheapest: Row, rows: Sequence[Row]) -> list[str]:
    """What it would take to tell the best from the one that was picked instead, or from the nearest."""
    if len(tied) == 1:
        return []
    best, names = rows[0], row_names(rows)
    other = cheapest if cheapest is not best else tied[1]
    pair = next(pair for pair in pairs if {pair.better, pair.worse} == {best.group, other.group})
    if pair.difference == 0:
        return []
    ways = []
    if pair.needed_examples is not None:
        ways.append(f"about {_rounded(pair.needed_examples):,} test examples")
    if pair.needed_seeds is not None:
        ways.append(f"{pair.needed_seeds:,} seeds")
    size = f"To tell {names[best.group]} from {names[other.group]}, were they {pair.difference:.3f} apart as here, "
    if not ways:
        return [f"{size}would take more test examples and more seeds."]
    return [f"{size}would take {' or '.join(ways)} ({100 * POWER:.0f} % power)."]


def _rounded(number: int) -> int:
    """Two digits, rounded up: what is foretold is no more exact than that."""
    step = 10 ** max(0, len(str(number)) - 2)
    return -(-number // step) * step


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _times_less(theirs: float, ours: float, name: str) -> str:
    if ours <= 0 or theirs / ours < 1.05:
        return ""
    share = theirs / ours
    return f" ({share:.1f} times less than {name})" if share < 10 else f" ({share:.0f} times less than {name})"
