"""Decisions of the verdict where the true scores are known: loss of the pick, wrong standings, folds against a split.

Three parts. `simulate`: predictions from the item response model of intervals.py. `real`: stored studies with a large
test split, of which small samples are drawn; the rest of the split is the truth. `folds`: strategies on embeddings of
real texts, cross-fitted or on one split; texts that no strategy saw are the truth.

# K strategies  S seeds  N examples  R resamples
"""

import argparse
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from intervals import DIFFICULTY_SD, INTERACTION_SD, score_runs

from tuneoff.comparison.verdict import MIN_EXAMPLES
from tuneoff.runs import RunStore
from tuneoff.scoring import stats
from tuneoff.scoring.decision import DEFAULT_MARGIN, choose, joint_scores, optimism

RESAMPLES = 1000
# usual gaps to the best, and times of training relative to full's: full, adapter, lora, partial, head, probe, tfidf
GAPS, GAP_SD = np.array([0, 0.4, 1, 1.8, 5.5, 7.5, 12.5]) / 100, 0.012
COSTS = np.array([100.0, 60, 70, 40, 20, 5, 1])
FAMILIES = ("usual", "equal", "one winner", "any order")
BASE, SEED_SD = 0.78, 0.006  # accuracy of the best; standard deviation of a strategy's accuracy over seeds


@dataclass(frozen=True)
class Family:
    """Strategies with known true accuracies, and their correct predictions on a test split."""

    truth: np.ndarray  # (K,)
    costs: np.ndarray  # (K,)
    is_right: list[np.ndarray]  # of each strategy (S, N) bool; (1, N) without seeds
    is_seeded: np.ndarray  # (K,)


@dataclass(frozen=True)
class Outcome:
    """Losses against the truly best strategy, in accuracy, and what was claimed."""

    pick: float
    best_measured: float
    old_rule: float  # the cheapest that is not significantly worse than the best measured
    cost_ratio: float  # of the pick to the best measured
    is_bound_exceeded: bool  # the true loss of the pick is above the stated one
    is_equivalent_wrong: bool
    is_worse_wrong: bool
    optimism: float  # measured minus true score of the pick
    corrected: float  # the same after the correction


def simulated_family(kind: str, num_examples: int, num_seeds: int, rng: np.random.Generator) -> Family:
    """Draw true accuracies of a kind of family, and predictions with paired examples."""
    count = len(GAPS) if kind == "usual" else int(rng.integers(2, 11))
    costs, is_seeded = rng.permutation(np.geomspace(1, 100, count)), np.ones(count, bool)
    if kind == "usual":
        truth, costs = BASE - GAPS + rng.normal(0, GAP_SD, count), COSTS
        is_seeded[-2:] = False
    elif kind == "equal":
        truth = np.full(count, BASE)
    elif kind == "one winner":  # and it costs most
        truth = np.concatenate([[BASE], BASE - 0.05 - rng.exponential(0.03, count - 1)])
        costs = np.concatenate([[100.0], rng.permutation(np.geomspace(1, 80, count - 1))])
    else:  # any order of scores and costs
        truth = BASE - np.abs(rng.normal(0, 0.03, count))
    skills, slopes = _skills(truth)
    difficulty = rng.normal(0, DIFFICULTY_SD, num_examples)
    is_right = []
    for skill, slope, seeded in zip(skills, slopes, is_seeded, strict=True):
        runs = num_seeds if seeded else 1
        effect = rng.normal(0, SEED_SD, (runs, 1)) / slope if seeded else 0.0
        logits = skill + difficulty + rng.normal(0, INTERACTION_SD, num_examples) + effect
        is_right.append(rng.random((runs, num_examples)) < 1 / (1 + np.exp(-logits)))
    return Family(truth, costs, is_right, is_seeded)


def _skills(accuracies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the skills, on the logit scale, that give these accuracies, and accuracy's slope there. (K,), (K,)."""
    grid = np.linspace(-6, 10, 2001)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    logits = grid[:, None] + np.hypot(DIFFICULTY_SD, INTERACTION_SD) * nodes
    means = (1 / (1 + np.exp(-logits))) @ (weights / weights.sum())
    skills = np.interp(accuracies, means, grid)
    return skills, np.interp(skills, grid, np.gradient(means, grid))


def outcome(family: Family, margin: float, rng: np.random.Generator) -> Outcome:
    """Decide on one family as the verdict does."""
    num_examples = family.is_right[0].shape[1]
    weights = stats.example_weights(num_examples, RESAMPLES, rng)
    runs = [
        stats.RunScores(scored.scores, scored.resampled, scored.seeds, bool(seeded))
        for is_right, seeded in zip(family.is_right, family.is_seeded, strict=True)
        for scored in score_runs(is_right[None], weights)
    ]
    pooled = stats.pooled_seed_variance(runs)
    joint, every = joint_scores(runs, 1.0, num_examples, pooled), np.ones(len(runs), bool)
    is_thin = num_examples < MIN_EXAMPLES or all(len(r.scores) == 1 for r in runs if r.is_seeded)
    pick = choose(joint, family.costs, margin, every, takes_best=is_thin)
    best, truth = int(joint.values.argmax()), family.truth
    is_worse = _significantly_worse(runs, best, num_examples, pooled)
    losses = truth.max() - truth
    not_worse = np.flatnonzero(~is_worse)
    is_equivalent = (joint.loss_bounds() <= margin) & (np.arange(len(runs)) != best)
    excess = float(joint.values[pick] - truth[pick])
    return Outcome(
        pick=losses[pick],
        best_measured=losses[best],
        old_rule=losses[min(not_worse, key=lambda index: family.costs[index])],
        cost_ratio=family.costs[pick] / family.costs[best],
        is_bound_exceeded=losses[pick] > joint.loss_quantile(pick) + 1e-9,
        is_equivalent_wrong=bool((is_equivalent & (losses > margin + 1e-9)).any()),
        is_worse_wrong=bool((is_worse & (truth >= truth[best] - 1e-9)).any()),
        optimism=excess,
        corrected=excess - optimism(joint, family.costs, margin, every, takes_best=is_thin),
    )


def _significantly_worse(
    runs: list[stats.RunScores], best: int, num_examples: int, pooled: stats.SeedVariance | None
) -> np.ndarray:
    """Mask of the strategies that are significantly worse than the best measured, after Holm over all pairs. (K,)."""
    couples = list(itertools.combinations(range(len(runs)), 2))
    p_values = stats.holm([stats.difference(runs[a], runs[b], num_examples, pooled).p_value for a, b in couples])
    is_worse = np.zeros(len(runs), bool)
    for (a, b), p in zip(couples, p_values, strict=True):
        if best in (a, b) and p < 1 - stats.LEVEL:
            is_worse[b if a == best else a] = True
    return is_worse


def summary(outcomes: list[Outcome]) -> dict[str, float]:
    """Summarise outcomes: losses in points (mean and 95th percentile), shares from 0 to 1."""
    row: dict[str, float] = {}
    for name in ("pick", "best_measured", "old_rule"):
        losses = 100 * np.array([getattr(result, name) for result in outcomes])
        row |= {f"{name} mean": losses.mean(), f"{name} p95": np.quantile(losses, 0.95)}
    row["cost ratio"] = float(np.exp(np.mean(np.log([result.cost_ratio for result in outcomes]))))
    for name in ("is_bound_exceeded", "is_equivalent_wrong", "is_worse_wrong"):
        row[name.removeprefix("is_")] = float(np.mean([getattr(result, name) for result in outcomes]))
    for name in ("optimism", "corrected"):
        row[name] = 100 * float(np.mean([getattr(result, name) for result in outcomes]))
    return row


def simulate(
    kinds: list[str], sizes: list[int], repetitions: int, margin: float, rng: np.random.Generator
) -> Iterator[dict[str, object]]:
    """Simulated families of each kind and size. The usual family has 3 seeds, the others from 1 to 5."""
    for kind, num_examples in itertools.product(kinds, sizes):
        count = repetitions if num_examples < 3000 else max(1, repetitions // 4)
        outcomes = []
        for _ in range(count):
            num_seeds = 3 if kind == "usual" else int(rng.integers(1, 6))
            outcomes.append(outcome(simulated_family(kind, num_examples, num_seeds, rng), margin, rng))
        yield {"family": kind, "examples": num_examples, "repetitions": count, **summary(outcomes)}


def stored_families(folder: Path) -> Callable[[int, np.random.Generator], Family]:
    """Return a function that samples test examples of a stored study; the rest of its test split is the truth."""
    store = RunStore(folder / "runs")
    by_group: dict[str, list[str]] = {}
    for path in sorted((folder / "runs").iterdir()):
        record = store.record(path.name)
        if record.strategy not in ("majority", "untrained") and record.status == "ok" and not record.is_subset:
            by_group.setdefault(record.group, []).append(record.run_id)
    is_right, costs = [], []
    for run_ids in by_group.values():
        tables = [store.predictions(run_id, "test") for run_id in run_ids]
        is_right.append(np.stack([(table["label"] == table["predicted"]).to_numpy() for table in tables]))
        records = [store.record(run_id) for run_id in run_ids]
        costs.append(np.mean([r.costs["train_seconds"] + r.costs.get("prefix_seconds", 0.0) for r in records]))
    is_seeded = np.array([len(runs) > 1 for runs in is_right])

    def draw(num_examples: int, rng: np.random.Generator) -> Family:
        order = rng.permutation(is_right[0].shape[1])
        sample, rest = order[:num_examples], order[num_examples:]
        truth = np.array([runs[:, rest].mean() for runs in is_right])
        return Family(truth, np.array(costs), [runs[:, sample] for runs in is_right], is_seeded)

    return draw


def real(folders: list[Path], repetitions: int, margin: float, rng: np.random.Generator) -> Iterator[dict[str, object]]:
    """Samples of the test splits of stored studies. The truth is the mean accuracy of the same seeds on the rest."""
    for folder in folders:
        draw = stored_families(folder)
        for num_examples in (100, 300, 600, 1000, 3000):
            if num_examples > 0.5 * _test_size(folder):
                break
            outcomes = [outcome(draw(num_examples, rng), margin, rng) for _ in range(repetitions)]
            yield {"study": folder.name, "examples": num_examples, "repetitions": repetitions, **summary(outcomes)}


def _test_size(folder: Path) -> int:
    return int(json.loads((folder / "data.json").read_text())["splits"]["test"]["examples"])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["simulate", "real"])
    parser.add_argument("folders", type=Path, nargs="*", help="of stored studies, for the part real")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--examples", type=int, nargs="+", default=[100, 300, 600, 1000, 3000, 10_000])
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--margin", type=float, default=DEFAULT_MARGIN)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    rng, rows = np.random.default_rng(0), []
    parts = {
        "simulate": lambda: simulate(options.families, options.examples, options.repetitions, options.margin, rng),
        "real": lambda: real(options.folders, options.repetitions, options.margin, rng),
    }
    for row in parts[options.part]():
        rows.append(row)
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}, flush=True)
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1, default=float))


if __name__ == "__main__":
    main()
