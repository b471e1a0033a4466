"""What to pick, in words and as data."""

import math
from collections.abc import Sequence

from tuneoff.comparison.result import COSTS, Row, Verdict


def judge(rows: Sequence[Row], metric: str, cost: str, num_test: int) -> Verdict:
    """The rows that cannot be told from the best, and the cheapest of them. rows: best first."""
    tied = [row for row in rows if row.is_tied]
    cheapest = min(tied, key=lambda row: row.costs.get(cost, math.inf))
    return Verdict(
        best=rows[0].group,
        tied=tuple(row.group for row in tied),
        recommended=cheapest.group,
        cost=cost,
        text=_in_words(rows, tied, cheapest, metric, cost, num_test),
    )


def _in_words(rows: Sequence[Row], tied: Sequence[Row], cheapest: Row, metric: str, cost: str, num_test: int) -> str:
    best, name = rows[0], metric.replace("_", " ")
    low, high = best.interval
    runs = f"{len(best.seeds)} seeds" if len(best.seeds) > 1 else "one run"
    said = [f"{best.label} scores best: {name} {best.score:.3f} (95 % interval {low:.3f} to {high:.3f}, {runs})."]
    several_models = len({row.model for row in rows if row.model}) > 1
    if len(tied) == 1:
        others = [row for row in rows if row is not best]
        if others:
            near = others[0]
            least, most = -near.difference_interval[1], -near.difference_interval[0]
            said.append(
                f"It is better than every other: the nearest, {_name(near, several_models)}, "
                f"is {-near.difference:.3f} behind ({least:.3f} to {most:.3f})."
            )
        said.append(f"Pick {_name(best, several_models)}.")
        return " ".join(said)
    names = [_name(row, several_models) for row in tied if row is not best]
    said.append(f"On {num_test:,} test examples it cannot be told from {_and(names)}.")
    if cheapest is best:
        said.append(f"It is also the cheapest of them in {COSTS[cost]}: pick {_name(best, several_models)}.")
    else:
        name = f"{_name(cheapest, several_models)}{_ratio(best, cheapest, cost)}"
        said.append(f"The cheapest of them in {COSTS[cost]} is {name}: pick it.")
    return " ".join(said)


def _name(row: Row, several_models: bool) -> str:
    return f"{row.label} on {row.model}" if several_models and row.model else row.label


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _ratio(best: Row, cheapest: Row, cost: str) -> str:
    ours, theirs = cheapest.costs.get(cost, 0), best.costs.get(cost, 0)
    if ours <= 0 or theirs / ours < 1.05:
        return ""
    share = theirs / ours
    return (
        f" ({share:.1f} times less than {best.label})" if share < 10 else f" ({share:.0f} times less than {best.label})"
    )
