"""Error rates of races where the true scores are known: wrong standings, loss of the pick, and the runs that it takes.

Families of strategies come from verdict.py. Each is decided by the whole grid of seeds, and by a race over the same
predictions: after each seed, strategies with a negligible chance to be picked stop (scoring/race.py).

# K strategies  S seeds  N examples  R resamples
"""

import argparse
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import verdict
from intervals import score_runs

from tuneoff.comparison.verdict import MIN_EXAMPLES
from tuneoff.scoring import stats
from tuneoff.scoring.decision import DEFAULT_MARGIN, JointScores, choose, joint_scores
from tuneoff.scoring.race import MIN_REPEATS, final_draws, goes_on, level_of_look, pick_chances, shows_no_variance


@dataclass(frozen=True)
class Decided:
    """One family, decided by the grid and by the race. Losses against the truly best, in accuracy."""

    grid_pick: float
    race_pick: float
    is_same_pick: bool
    run_share: float  # runs of the race, of the grid's
    cost_share: float  # the same, each run at its cost
    grid_worse_wrong: bool
    race_worse_wrong: bool  # at the end of the race
    any_look_worse_wrong: bool  # at the end of any round, for a reader of every interim report
    unadjusted_worse_wrong: bool  # at any look, without dividing the error rate by the looks


def scores_of(family: verdict.Family, weights: np.ndarray) -> list[stats.RunScores]:
    """Score every run of each strategy."""
    return [
        stats.RunScores(scored.scores, scored.resampled, scored.seeds, bool(seeded))
        for is_right, seeded in zip(family.is_right, family.is_seeded, strict=True)
        for scored in score_runs(is_right[None], weights)
    ]


def first_runs(grid: list[stats.RunScores], counts: np.ndarray) -> list[stats.RunScores]:
    """Return the first runs of each strategy. counts: runs of each."""
    return [
        stats.RunScores(runs.scores[:count], runs.resampled[:count], runs.seeds[:count], runs.is_seeded)
        for runs, count in zip(grid, counts, strict=True)
    ]


def fold_scores_of(
    family: verdict.Family, counts: list[int], folds: np.ndarray, rng: np.random.Generator
) -> dict[int, stats.RunScores]:
    """Score the strategies with the most folds on the examples of these. folds: (N,) fold of each example.

    The model of a fold has the seed with the fold's number. counts: folds of each strategy.
    """
    scored = np.flatnonzero(folds < max(counts))
    weights, runs = stats.example_weights(len(scored), verdict.RESAMPLES, rng), {}
    for index, is_right in enumerate(family.is_right):
        if counts[index] < max(counts):
            continue
        right = is_right[folds[scored] if len(is_right) > 1 else 0, scored]
        shares = right.astype(np.float32) @ weights.T / len(scored)
        resampled = stats.widened_for_folds(shares[None], len(scored))
        seeded = bool(family.is_seeded[index])
        runs[index] = stats.RunScores(np.array([right.mean()]), resampled, (0,), seeded, folds[scored], is_right=right)
    return runs


def is_worse_wrong(
    truth: np.ndarray, runs: list[stats.RunScores], num_examples: int, level: float, is_race: bool = True
) -> bool:
    """Return True if a strategy that is truly as good as the best measured one is called worse than it.

    truth: (K,) of the same strategies. is_race: no strategy with seeds is called worse at a look at one run of each.
    """
    is_first = is_race and shows_no_variance(runs)
    pooled, best = stats.pooled_seed_variance(runs), int(np.argmax([r.scores.mean() for r in runs]))
    couples = list(itertools.combinations(range(len(runs)), 2))
    p_values = stats.holm([stats.difference(runs[a], runs[b], num_examples, pooled).p_value for a, b in couples])
    worse = [
        a if b == best else b
        for (a, b), p in zip(couples, p_values, strict=True)
        if best in (a, b) and p < 1 - level and not (is_first and (runs[a].is_seeded or runs[b].is_seeded))
    ]
    return any(truth[index] >= truth[best] - 1e-9 for index in worse)


def decide(family: verdict.Family, margin: float, num_seeds: int, rng: np.random.Generator) -> Decided:
    """Decide on one family by the grid and by a race."""
    num_examples, count = family.is_right[0].shape[1], len(family.truth)
    weights, every = stats.example_weights(num_examples, verdict.RESAMPLES, rng), np.ones(count, bool)
    level, is_few, grid = level_of_look(num_seeds), num_examples < MIN_EXAMPLES, scores_of(family, weights)

    def pick(runs: list[stats.RunScores]) -> int:
        is_thin = is_few or all(len(r.scores) == 1 for r in runs if r.is_seeded)
        joint = joint_scores(runs, 1.0, num_examples, stats.pooled_seed_variance(runs))
        return choose(joint, family.costs, margin, every, takes_best=is_thin)

    counts, wrong, unadjusted = np.ones(count, int), [], []
    for look in range(num_seeds):
        runs = first_runs(grid, counts)
        wrong.append(is_worse_wrong(family.truth, runs, num_examples, level))
        unadjusted.append(is_worse_wrong(family.truth, runs, num_examples, stats.LEVEL, is_race=False))
        pooled = stats.pooled_seed_variance(runs)
        joint = joint_scores(runs, 1.0, num_examples, pooled)
        draws = final_draws(runs, joint, pooled, num_seeds)
        used_margin = None if is_few else margin
        chances = pick_chances(draws, family.costs, used_margin, every, np.cov(joint.draws, rowvar=False))
        more = goes_on(chances, counts, every, family.is_seeded & (counts == look + 1), MIN_REPEATS)
        if not more.any() or look == num_seeds - 1:
            break
        counts[more] += 1
    whole = np.where(family.is_seeded, num_seeds, 1)
    race_pick, grid_pick, losses = pick(runs), pick(grid), family.truth.max() - family.truth
    return Decided(
        grid_pick=losses[grid_pick],
        race_pick=losses[race_pick],
        is_same_pick=race_pick == grid_pick,
        run_share=counts.sum() / whole.sum(),
        cost_share=float(counts @ family.costs / (whole @ family.costs)),
        grid_worse_wrong=is_worse_wrong(family.truth, grid, num_examples, stats.LEVEL, is_race=False),
        race_worse_wrong=wrong[-1],
        any_look_worse_wrong=any(wrong),
        unadjusted_worse_wrong=any(unadjusted),
    )


def decide_on_folds(family: verdict.Family, margin: float, num_folds: int, rng: np.random.Generator) -> Decided:
    """Decide on one family by folds: all of them for every strategy, and by a race."""
    num_examples, count = family.is_right[0].shape[1], len(family.truth)
    folds, level = rng.permutation(num_examples) % num_folds, level_of_look(num_folds)

    def pick(runs: dict[int, stats.RunScores]) -> int:
        joint = joint_of(runs)
        every = np.ones(len(runs), bool)
        is_thin = len(next(iter(runs.values())).folds) < MIN_EXAMPLES
        return list(runs)[choose(joint, family.costs[list(runs)], margin, every, takes_best=is_thin)]

    def joint_of(runs: dict[int, stats.RunScores]) -> JointScores:
        members = list(runs.values())
        return joint_scores(members, 1.0, len(members[0].folds), stats.pooled_seed_variance(members))

    counts, wrong, unadjusted = np.ones(count, int), [], []
    for look in range(num_folds):
        runs = fold_scores_of(family, counts.tolist(), folds, rng)
        members, keys = list(runs.values()), list(runs)
        size = len(members[0].folds)
        wrong.append(is_worse_wrong(family.truth[keys], members, size, level))
        unadjusted.append(is_worse_wrong(family.truth[keys], members, size, stats.LEVEL, is_race=False))
        if look == num_folds - 1:
            break
        joint, every = joint_of(runs), np.ones(len(runs), bool)
        draws = final_draws(members, joint, stats.pooled_seed_variance(members), 1, size / num_examples)
        covariance = np.atleast_2d(np.cov(joint.draws, rowvar=False))
        used_margin = None if num_examples < MIN_EXAMPLES else margin
        chances = pick_chances(draws, family.costs[keys], used_margin, every, covariance)
        more = goes_on(chances, counts[keys], every, every, 0)
        if not more.any():
            break
        counts[np.array(keys)[more]] += 1
    grid = fold_scores_of(family, [num_folds] * count, folds, rng)
    race_pick, grid_pick, losses = pick(runs), pick(grid), family.truth.max() - family.truth
    return Decided(
        grid_pick=losses[grid_pick],
        race_pick=losses[race_pick],
        is_same_pick=race_pick == grid_pick,
        run_share=counts.sum() / (num_folds * count),
        cost_share=float(counts @ family.costs / (num_folds * family.costs.sum())),
        grid_worse_wrong=is_worse_wrong(family.truth, list(grid.values()), num_examples, stats.LEVEL, is_race=False),
        race_worse_wrong=wrong[-1],
        any_look_worse_wrong=any(wrong),
        unadjusted_worse_wrong=any(unadjusted),
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=verdict.FAMILIES, default=list(verdict.FAMILIES))
    parser.add_argument("--examples", type=int, nargs="+", default=[300, 1000, 3000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--folds", action="store_true", help="folds in place of seeds, as many of them")
    parser.add_argument("--repetitions", type=int, default=300)
    parser.add_argument("--seed-sd", type=float, default=verdict.SEED_SD, help="of accuracy over seeds")
    parser.add_argument("--margin", type=float, default=DEFAULT_MARGIN)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    verdict.SEED_SD = options.seed_sd
    rng, rows = np.random.default_rng(0), []
    for kind, num_examples, num_seeds in itertools.product(options.families, options.examples, options.seeds):
        by = decide_on_folds if options.folds else decide
        decided = [
            by(verdict.simulated_family(kind, num_examples, num_seeds, rng), options.margin, num_seeds, rng)
            for _ in range(options.repetitions)
        ]
        fields = {name: np.array([getattr(d, name) for d in decided], float) for name in Decided.__dataclass_fields__}
        means = {name: float(values.mean()) for name, values in fields.items()}
        losses = {name: 100 * means[name] for name in ("grid_pick", "race_pick")}
        extra = 100 * (fields["race_pick"] - fields["grid_pick"])
        row = {
            "family": kind,
            "examples": num_examples,
            "folds" if options.folds else "seeds": num_seeds,
            **means,
            **losses,
        }
        rows.append({**row, "extra_p95": float(np.quantile(extra, 0.95))})
        print({key: round(v, 3) if isinstance(v, float) else v for key, v in rows[-1].items()}, flush=True)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
