"""Decisions of a race after a round, from the records so far: which strategies may still be picked, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tuneoff.comparison.result import Comparison
from tuneoff.comparison.rows import Row
from tuneoff.comparison.verdict import MIN_EXAMPLES
from tuneoff.costs import COSTS
from tuneoff.formats import chance_text, encoder_names
from tuneoff.scoring.metrics import bounds, direction, points
from tuneoff.scoring.race import MIN_REPEATS, NEGLIGIBLE, final_draws, goes_on, near_chances, pick_chances, trial_draws
from tuneoff.search.race_record import FINISHED, GOES_ON, STOPPED, Standing

Key = tuple[str, str | None]  # label and encoder of a strategy


def standings_on_test(comparison: Comparison, num_repeats: Mapping[Key, int], when: str) -> list[Standing]:
    """Decide after a seed or fold. num_repeats: of each strategy in the race. when: "after seed 0", for the reasons.

    Strategies without a score so far have no standing: they go on.
    """
    rows, joint = comparison.rows, comparison.joint
    if joint is None or comparison.verdict is None:
        return []
    folds, margin = comparison.data.folds, comparison.study.margin
    runs, pooled = list(comparison.groups.scores.values()), comparison.groups.seed_variance
    share = comparison.num_examples / comparison.data.splits[comparison.data.scored_split].examples
    repeats = 1 if folds else max(num_repeats.values())  # folds together are one run
    draws = final_draws(runs, joint, pooled, repeats, share if folds else 1.0)
    learners, num_runs = np.array([row.learns for row in rows]), np.array([len(row.seeds) for row in rows])
    costs = np.array([row.costs.get(comparison.study.cost, np.inf) for row in rows])
    covariance = np.atleast_2d(np.cov(joint.draws, rowvar=False))
    is_few = comparison.data.splits[comparison.data.scored_split].examples < MIN_EXAMPLES  # the verdict takes the best
    chances = np.zeros(len(rows))
    if learners.any():
        chances = pick_chances(draws, costs, None if is_few else margin, learners, covariance)
    may_run = np.array([len(row.seeds) < num_repeats.get(_key(row), 0) for row in rows])
    more = goes_on(chances, num_runs, learners, may_run, 0 if folds else MIN_REPEATS)
    leader = int(np.where(learners, joint.values, -np.inf).argmax())
    standings = []
    for index, row in enumerate(rows):
        if _key(row) not in num_repeats:
            continue  # predictions from a file
        state = GOES_ON if more[index] else STOPPED if may_run[index] and row.learns else FINISHED
        standings.append(
            Standing(
                label=row.label,
                model=row.model,
                runs=len(row.seeds),
                score=row.score,
                state=state,
                reason=_reason(index, leader, rows, comparison, state, float(chances[index]), when),
                chance=float(chances[index]),
                expected_loss=joint.expected_loss(index),
            )
        )
    return standings


def _reason(
    index: int, leader: int, rows: Sequence[Row], comparison: Comparison, state: str, chance: float, when: str
) -> str:
    row, best, metric, margin = rows[index], rows[leader], comparison.metric, comparison.study.margin
    names = comparison.names
    if not row.learns:
        return "a baseline that is never picked"
    gap = abs(row.score - best.score)
    place = "leads" if index == leader else f"{points(gap, metric)} behind {names[best.group]}"
    odds = f"chance to be picked in the end {chance_text(chance)}"
    if state == FINISHED:
        return f"{place} {when}; it has all of its runs"
    if state == GOES_ON:
        return f"{place} {when}; {odds}"
    if chance >= NEGLIGIBLE:
        return f"{place} {when}; no other strategy may still be picked"
    cost, own = comparison.study.cost, row.costs.get(comparison.study.cost, np.inf)
    cheaper = [r for r in rows if r.learns and r.costs.get(cost, np.inf) < own and abs(r.score - best.score) <= margin]
    if gap <= margin and cheaper:
        cost = COSTS[cost].name
        return f"{place} {when}, and a strategy within {points(margin, metric)} needs less {cost}; {odds}"
    return f"{place} {when}; {odds}"


@dataclass(frozen=True)
class TrialScore:
    """Validation score of a strategy: of its best trial so far, or of its first run."""

    label: str
    model: str | None
    score: float
    is_searched: bool  # more trials may come
    is_decided: bool  # the decision is about it: False for a strategy that has a run already


def standings_on_validation(
    scores: Sequence[TrialScore], metric: str, margin: float, num_examples: int, when: str
) -> list[Standing]:
    """Decide after trials, whether a strategy may still come within the margin of the best one.

    Nothing is decided by a metric without bounds, whose error is unknown before predictions are stored.
    """
    low, high = bounds(metric)
    if len(scores) < 2 or not np.isfinite([low, high]).all():
        return []
    values = direction(metric) * np.array([entry.score for entry in scores])
    searched = np.array([entry.is_searched for entry in scores])
    chances = near_chances(trial_draws(values, num_examples, searched, low, high), margin)
    names = encoder_names({entry.model: None for entry in scores if entry.model})
    best = scores[int(values.argmax())]
    best_name = best.label + (f" on {names[best.model]}" if best.model and len(names) > 1 else "")
    standings = []
    for entry, chance in zip(scores, chances, strict=True):
        if not entry.is_decided:
            continue
        gap = abs(entry.score - best.score)
        place = "leads" if entry is best else f"{points(gap, metric)} behind {best_name} on validation"
        reason = (
            f"{place} {when}; chance to come within {points(margin, metric)} of the best {chance_text(float(chance))}"
        )
        state = GOES_ON if chance >= NEGLIGIBLE else STOPPED
        standings.append(Standing(entry.label, entry.model, 0, entry.score, state, reason, chance=float(chance)))
    return standings


def _key(row: Row) -> Key:
    return row.label, row.model
