"""Simulate comparisons with known true scores: coverage of confidence intervals, false positives, statistical power.

Correct predictions come from an item response model on the logit scale: examples differ in difficulty, seeds in an
effect of their own, and each strategy has its own interaction with each example. The probability that a strategy is
right on example i with seed s is sigmoid(skill + difficulty_i + seed effect_s + interaction_i). True scores are means
over many more examples and seeds.

# N examples  S seeds  R resamples
"""

import argparse
import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tuneoff.scoring import stats
from tuneoff.scoring.metrics import SCORES, bounds, counts_from, indicators

RESAMPLES = 500
DIFFICULTY_SD, INTERACTION_SD = 2.0, 1.0  # on the logit scale


class ItemResponseModel:
    """Strategies with known true accuracies. seed_sd: standard deviation of seed effects, of all or of each."""

    def __init__(self, skills: list[float], seed_sd: float | np.ndarray, rng: np.random.Generator) -> None:
        self.skills, self.seed_sd, self.rng = np.array(skills), seed_sd, rng

    def draw(self, num_examples: int, num_seeds: int) -> np.ndarray:
        """Draw a test split and seeds. -> mask of correct predictions, (strategies, S, N)."""
        size = (len(self.skills), num_seeds, num_examples)
        difficulty = self.rng.normal(0, DIFFICULTY_SD, num_examples)
        interaction = self.rng.normal(0, INTERACTION_SD, (size[0], 1, size[2]))
        seed_effect = self.rng.normal(0, 1, (size[0], size[1], 1)) * np.reshape(self.seed_sd, (-1, 1, 1))
        probability = 1 / (1 + np.exp(-(self.skills[:, None, None] + difficulty + interaction + seed_effect)))
        return self.rng.random(size) < probability

    def true_accuracies(self) -> np.ndarray:
        """Estimate each strategy's accuracy over all examples and seeds by a large simulation."""
        spread = np.sqrt(DIFFICULTY_SD**2 + INTERACTION_SD**2 + self.seed_sd**2)
        draws = self.rng.normal(0, spread, 2_000_000)
        return np.array([(1 / (1 + np.exp(-(skill + draws)))).mean() for skill in self.skills])


def score_runs(is_right: np.ndarray, weights: np.ndarray) -> list[stats.RunScores]:
    """Score every strategy on test and on resamples of it. is_right: (strategies, S, N); weights: (R, N)."""
    resampled = is_right.astype(np.float32) @ weights.T / is_right.shape[-1]
    seeds = tuple(range(is_right.shape[1]))
    return [stats.RunScores(runs.mean(1), scores, seeds) for runs, scores in zip(is_right, resampled, strict=True)]


def coverage(repetitions: int, rng: np.random.Generator) -> list[dict[str, float]]:
    """Share of 95 % confidence intervals of an accuracy, and of a difference, that contain the true value."""
    rows = []
    for num_examples, skill, seed_sd, num_seeds in itertools.product(
        (300, 1000), (2.0, 5.0), (0.0, 0.1, 0.3), (2, 3, 5)
    ):
        model = ItemResponseModel([skill, skill - 0.3], seed_sd, rng)
        truth = model.true_accuracies()
        num_covered, weights = np.zeros(2), stats.example_weights(num_examples, RESAMPLES, rng)
        for _ in range(repetitions):
            first, second = score_runs(model.draw(num_examples, num_seeds), weights)
            pooled = stats.pooled_seed_variance([first, second])
            low, high = stats.interval(stats.estimate_score(first, num_examples, pooled), bounds("accuracy"))
            gap_low, gap_high = stats.interval(stats.difference(first, second, num_examples, pooled))
            num_covered += [low <= truth[0] <= high, gap_low <= truth[0] - truth[1] <= gap_high]
        score, gap = num_covered / repetitions
        row = {"examples": num_examples, "accuracy": truth[0], "seed_sd": seed_sd, "seeds": num_seeds}
        rows.append({**row, "score": score, "difference": gap})
        print({key: round(float(value), 3) for key, value in rows[-1].items()}, flush=True)
    return rows


@dataclass(frozen=True)
class GridEffects:
    """Random effects on a crossed grid of seeds: their standard deviations on the logit scale."""

    first: float  # of the first source
    others: float  # of each other source
    pairs: float  # interaction of every two sources

    def shapes(self, counts: tuple[int, ...]) -> list[tuple[tuple[int, ...], float]]:
        """Return the shape of each effect, which broadcasts to the grid, with its standard deviation."""
        sources = range(len(counts))
        subsets = [*itertools.combinations(sources, 1), *itertools.combinations(sources, 2)]
        sds = [self.first, *[self.others] * (len(counts) - 1), *[self.pairs] * (len(subsets) - len(counts))]
        return [
            (tuple(counts[source] if source in subset else 1 for source in sources), sd)
            for subset, sd in zip(subsets, sds, strict=True)
        ]


def grid_coverage(repetitions: int, rng: np.random.Generator) -> list[dict[str, object]]:
    """Coverage on crossed grids of seeds: taken as grids, and as if every run had a seed of its own."""
    rows, skills, num_examples = [], (2.0, 1.7), 1000
    scenarios = {"none": GridEffects(0, 0, 0), "one": GridEffects(0.3, 0, 0), "all": GridEffects(0.2, 0.2, 0.1)}
    for counts, (name, effects) in itertools.product(((2, 2), (3, 3), (2, 5), (2, 2, 2)), scenarios.items()):
        shapes = effects.shapes(counts)
        spread = np.sqrt(DIFFICULTY_SD**2 + INTERACTION_SD**2 + sum(sd**2 for _, sd in shapes))
        draws = rng.normal(0, spread, 2_000_000)
        truth = [(1 / (1 + np.exp(-(skill + draws)))).mean() for skill in skills]
        seeds = tuple(tuple(zip("abc", cell, strict=False)) for cell in itertools.product(*map(range, counts)))
        num_covered, weights = np.zeros(4), stats.example_weights(num_examples, RESAMPLES, rng)
        for _ in range(repetitions):
            difficulty, masks = rng.normal(0, DIFFICULTY_SD, num_examples), []
            for skill in skills:
                by_run = sum(rng.normal(0, sd, shape) for shape, sd in shapes) + np.zeros(counts)
                interaction = rng.normal(0, INTERACTION_SD, num_examples)
                logits = skill + difficulty + interaction + by_run.reshape(-1, 1)
                masks.append(rng.random(logits.shape) < 1 / (1 + np.exp(-logits)))
            apart = score_runs(np.stack(masks), weights)
            is_covered = []
            for first, second in ([replace(runs, seeds=seeds) for runs in apart], apart):
                pooled = stats.pooled_seed_variance([first, second])
                low, high = stats.interval(stats.estimate_score(first, num_examples, pooled), bounds("accuracy"))
                gap_low, gap_high = stats.interval(stats.difference(first, second, num_examples, pooled))
                is_covered += [low <= truth[0] <= high, gap_low <= truth[0] - truth[1] <= gap_high]
            num_covered += is_covered
        names = ("score", "difference", "score, as seeds", "difference, as seeds")
        row = {"grid": " x ".join(map(str, counts)), "effects": name}
        shares = (num_covered / repetitions).round(3).tolist()
        rows.append({**row, **dict(zip(names, shares, strict=True))})
        print(rows[-1], flush=True)
    return rows


def macro_f1_coverage(repetitions: int, rng: np.random.Generator) -> float:
    """Coverage for macro F1 of a single run, over five classes with strong class imbalance."""
    shares, num_examples = np.array([0.5, 0.25, 0.15, 0.07, 0.03]), 1000

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.choice(5, size=count, p=shares)
        return labels, np.where(rng.random(count) < 0.8, labels, rng.choice(5, size=count, p=shares))

    labels, predicted = draw(4_000_000)
    truth = float(SCORES["macro_f1"](counts_from(indicators(labels, predicted, 5).sum(0))))
    num_covered = 0
    for _ in range(repetitions):
        labels, predicted = draw(num_examples)
        probabilities = [np.eye(5)[predicted]]
        seed = int(rng.integers(2**31))
        resampled = stats.resampled_scores("macro_f1", labels, [predicted], probabilities, seed, RESAMPLES)
        score = SCORES["macro_f1"](counts_from(indicators(labels, predicted, 5).sum(0)))
        estimate = stats.estimate_score(stats.RunScores(np.array([score]), resampled, (0,)), num_examples)
        low, high = stats.interval(estimate, bounds("macro_f1"))
        num_covered += low <= truth <= high
    return num_covered / repetitions


def false_positives(repetitions: int, rng: np.random.Generator) -> list[dict[str, float]]:
    """Share of comparisons of equal strategies with a significant difference: of any pair, and to the best."""
    rows = []
    # mixed: every other strategy has six times the seed effects
    for num_strategies, seed_sd, num_seeds in itertools.product((2, 5, 10), (0.0, 0.1, 0.3, "mixed"), (2, 3, 5)):
        seed_sds = [0.05, 0.3] * num_strategies if seed_sd == "mixed" else [seed_sd] * num_strategies
        model = ItemResponseModel([2.0] * num_strategies, np.array(seed_sds[:num_strategies]), rng)
        num_any, num_to_best, weights = 0, 0, stats.example_weights(1000, RESAMPLES, rng)
        for _ in range(repetitions):
            runs = sorted(score_runs(model.draw(1000, num_seeds), weights), key=lambda r: -r.scores.mean())
            pairs = list(itertools.combinations(range(num_strategies), 2))
            pooled = stats.pooled_seed_variance(runs)
            p_values = [stats.difference(runs[a], runs[b], 1000, pooled).p_value for a, b in pairs]
            is_significant = np.array(stats.holm(p_values)) < 1 - stats.LEVEL
            num_any += is_significant.any()
            num_to_best += any(flag for (a, _), flag in zip(pairs, is_significant, strict=True) if a == 0)
        row = {"strategies": num_strategies, "seed_sd": seed_sd, "seeds": num_seeds}
        rows.append({**row, "any pair": num_any / repetitions, "the best": num_to_best / repetitions})
        print(rows[-1], flush=True)
    return rows


def detection_rate(
    model: ItemResponseModel, gap: float, num_examples: int, num_seeds: int, repetitions: int
) -> tuple[float, stats.ScoreEstimate]:
    """Share of comparisons that detect a difference (p < 0.05), and an estimate of the true gap with mean variances."""
    num_detected, parts, weights = 0, [], stats.example_weights(num_examples, RESAMPLES, model.rng)
    for _ in range(repetitions):
        first, second = score_runs(model.draw(num_examples, num_seeds), weights)
        estimate = stats.difference(first, second, num_examples, stats.pooled_seed_variance([first, second]))
        num_detected += estimate.p_value < 0.05
        parts.append(
            (
                estimate.variance_from_examples,
                estimate.variance_from_seeds,
                estimate.variance_between_seeds,
                estimate.seed_degrees_of_freedom,
            )
        )
    variance_from_examples, variance_from_seeds, variance_between_seeds, degrees = np.mean(parts, axis=0)
    typical = stats.ScoreEstimate(
        gap, variance_from_examples, variance_from_seeds, num_examples, num_seeds, variance_between_seeds, degrees
    )
    return num_detected / repetitions, typical


def power(repetitions: int, rng: np.random.Generator) -> list[dict[str, float]]:
    """Detection rate of a true difference, against theory, and with the number of examples that theory requires.

    Theory is the noncentral t with mean variances. Above 20,000 required examples the second rate is not simulated.
    """
    rows = []
    for skill_gap, seed_sd, num_seeds in itertools.product((0.15, 0.3), (0.0, 0.1), (2, 3, 5)):
        model = ItemResponseModel([2.0, 2.0 - skill_gap], seed_sd, rng)
        first, second = model.true_accuracies()
        detected, typical = detection_rate(model, first - second, 1000, num_seeds, repetitions)
        required = stats.required_size(typical).examples
        detected_with_required = None
        if required and required < 20_000:
            detected_with_required, _ = detection_rate(model, first - second, required, num_seeds, repetitions // 4)
        rows.append(
            {
                "difference": first - second,
                "seed_sd": seed_sd,
                "seeds": num_seeds,
                "detected": detected,
                "theory": typical.power(),
                "required examples": required,
                "detected with them": detected_with_required,
            }
        )
        print({key: value if value is None else round(float(value), 3) for key, value in rows[-1].items()}, flush=True)
    return rows


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    figures = {
        "coverage": coverage(options.repetitions, rng),
        "coverage on grids": grid_coverage(options.repetitions, rng),
        "macro-F1": macro_f1_coverage(options.repetitions, rng),
        "false positives": false_positives(options.repetitions, rng),
        "power": power(options.repetitions, rng),
    }
    print("macro-F1 coverage", figures["macro-F1"])
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1, default=float))


if __name__ == "__main__":
    main()
