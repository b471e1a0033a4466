"""Whether the statistics keep what they promise, by simulation: coverage, false findings, power.

Test examples differ in difficulty and seeds in luck, on the scale of the logit (an item response model): a strategy
is right on example i at seed s with the chance of sigmoid(skill + difficulty_i + luck_s + taste_is), where taste is
what a strategy has of its own for an example. True scores are means over many more examples and seeds.
"""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np

from tuneoff import stats
from tuneoff.metrics import BOUNDS, SCORES, counts_from, indicators

RESAMPLES = 500
DIFFICULTY, TASTE = 2.0, 1.0  # standard deviations


class World:
    """Strategies of given skills, whose true accuracies are known."""

    def __init__(self, skills: list[float], luck: float | np.ndarray, rng: np.random.Generator) -> None:
        self.skills, self.luck, self.rng = np.array(skills), luck, rng

    def rights(self, num_examples: int, num_seeds: int) -> np.ndarray:
        """Who is right where, for one draw of a test split and of seeds. (strategies, S, N)."""
        size = (len(self.skills), num_seeds, num_examples)
        difficulty = self.rng.normal(0, DIFFICULTY, num_examples)
        taste = self.rng.normal(0, TASTE, (size[0], 1, size[2]))
        luck = self.rng.normal(0, 1, (size[0], size[1], 1)) * np.reshape(self.luck, (-1, 1, 1))
        chance = 1 / (1 + np.exp(-(self.skills[:, None, None] + difficulty + taste + luck)))
        return self.rng.random(size) < chance

    def truth(self) -> np.ndarray:
        """True accuracies."""
        spread = np.sqrt(DIFFICULTY**2 + TASTE**2 + self.luck**2)
        draws = self.rng.normal(0, spread, 2_000_000)
        return np.array([(1 / (1 + np.exp(-(skill + draws)))).mean() for skill in self.skills])


def runs_of(rights: np.ndarray, weights: np.ndarray) -> list[stats.Runs]:
    """rights: (strategies, S, N); weights: (R, N)."""
    resampled = rights.astype(np.float32) @ weights.T / rights.shape[-1]
    seeds = tuple(range(rights.shape[1]))
    return [stats.Runs(found.mean(1), again, seeds) for found, again in zip(rights, resampled, strict=True)]


def coverage(repetitions: int, rng: np.random.Generator) -> list[dict[str, float]]:
    """How often the 95 % interval of an accuracy, and of a difference, holds the truth."""
    found = []
    for num_examples, skill, luck, num_seeds in itertools.product((300, 1000), (2.0, 5.0), (0.0, 0.1, 0.3), (2, 3, 5)):
        world = World([skill, skill - 0.3], luck, rng)
        truth = world.truth()
        held, weights = np.zeros(2), stats.example_weights(num_examples, RESAMPLES, rng)
        for _ in range(repetitions):
            one, other = runs_of(world.rights(num_examples, num_seeds), weights)
            usual = stats.usual_luck([one, other])
            low, high = stats.interval(stats.measure(one, num_examples, usual), BOUNDS["accuracy"])
            gap_low, gap_high = stats.interval(stats.difference(one, other, num_examples, usual))
            held += [low <= truth[0] <= high, gap_low <= truth[0] - truth[1] <= gap_high]
        score, gap = held / repetitions
        row = {"examples": num_examples, "accuracy": truth[0], "luck": luck, "seeds": num_seeds}
        found.append({**row, "score": score, "difference": gap})
        print({key: round(float(value), 3) for key, value in found[-1].items()}, flush=True)
    return found


def macro_f1_coverage(repetitions: int, rng: np.random.Generator) -> float:
    """The same for macro-F1 over five classes of very unequal size, one run: how often the interval holds the truth."""
    shares, num_examples = np.array([0.5, 0.25, 0.15, 0.07, 0.03]), 1000

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.choice(5, size=count, p=shares)
        return labels, np.where(rng.random(count) < 0.8, labels, rng.choice(5, size=count, p=shares))

    labels, predicted = draw(4_000_000)
    truth = float(SCORES["macro_f1"](counts_from(indicators(labels, predicted, 5).sum(0))))
    held = 0
    for _ in range(repetitions):
        labels, predicted = draw(num_examples)
        chances = [np.eye(5)[predicted]]
        seed = int(rng.integers(2**31))
        resampled = stats.resampled_scores("macro_f1", labels, [predicted], chances, seed, RESAMPLES)
        score = SCORES["macro_f1"](counts_from(indicators(labels, predicted, 5).sum(0)))
        measured = stats.measure(stats.Runs(np.array([score]), resampled, (0,)), num_examples)
        low, high = stats.interval(measured, BOUNDS["macro_f1"])
        held += low <= truth <= high
    return held / repetitions


def false_findings(repetitions: int, rng: np.random.Generator) -> list[dict[str, float]]:
    """With no true difference, how many families of strategies have any pair that is called different."""
    found = []
    # in the mixed world every other strategy is six times as unsteady
    for strategies, luck, num_seeds in itertools.product((2, 5, 10), (0.0, 0.1, 0.3, "mixed"), (2, 3, 5)):
        lucks = [0.05, 0.3] * strategies if luck == "mixed" else [luck] * strategies
        world, families, bests = World([2.0] * strategies, np.array(lucks[:strategies]), rng), 0, 0
        weights = stats.example_weights(1000, RESAMPLES, rng)
        for _ in range(repetitions):
            runs = sorted(runs_of(world.rights(1000, num_seeds), weights), key=lambda r: -r.scores.mean())
            couples = list(itertools.combinations(range(strategies), 2))
            usual = stats.usual_luck(runs)
            p_values = [stats.difference(runs[a], runs[b], 1000, usual).p_value for a, b in couples]
            told = np.array(stats.corrected(p_values)) < 1 - stats.LEVEL
            families += told.any()
            bests += any(is_told for (a, _), is_told in zip(couples, told, strict=True) if a == 0)
        row = {"strategies": strategies, "luck": luck, "seeds": num_seeds}
        found.append({**row, "any pair": families / repetitions, "the best": bests / repetitions})
        print(found[-1], flush=True)
    return found


def share_found(
    world: World, gap: float, num_examples: int, num_seeds: int, repetitions: int
) -> tuple[float, stats.Measured]:
    """How often a difference is found (p below 0.05), and the true one with its usual variances."""
    hits, found, weights = 0, [], stats.example_weights(num_examples, RESAMPLES, world.rng)
    for _ in range(repetitions):
        one, other = runs_of(world.rights(num_examples, num_seeds), weights)
        measured = stats.difference(one, other, num_examples, stats.usual_luck([one, other]))
        hits += measured.p_value < 0.05
        found.append((measured.from_examples, measured.from_seeds, measured.between, measured.seed_degrees))
    from_examples, from_seeds, between, degrees = np.mean(found, axis=0)
    typical = stats.Measured(gap, from_examples, from_seeds, num_examples, num_seeds, between, degrees)
    return hits / repetitions, typical


def power(repetitions: int, rng: np.random.Generator) -> list[dict[str, float]]:
    """Of two strategies that truly differ, how often that is found; and with as many examples as were called for.

    Theory is the noncentral t with the variances as they are on average.
    """
    found = []
    for gap, luck, num_seeds in itertools.product((0.15, 0.3), (0.0, 0.1), (2, 3, 5)):
        world = World([2.0, 2.0 - gap], luck, rng)
        one, other = world.truth()
        share, typical = share_found(world, one - other, 1000, num_seeds, repetitions)
        called_for = stats.needed(typical).examples
        row = {"difference": one - other, "luck": luck, "seeds": num_seeds, "found": share, "theory": typical.power()}
        then = None
        if called_for and called_for < 20_000:
            then = share_found(world, one - other, called_for, num_seeds, repetitions // 4)[0]
        found.append({**row, "called for": called_for, "found then": then})
        print({key: value if value is None else round(float(value), 3) for key, value in found[-1].items()}, flush=True)
    return found


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="figures as JSON")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    found = {
        "coverage": coverage(given.repetitions, rng),
        "macro-F1": macro_f1_coverage(given.repetitions, rng),
        "false findings": false_findings(given.repetitions, rng),
        "power": power(given.repetitions, rng),
    }
    print("macro-F1 coverage", found["macro-F1"])
    if given.out:
        given.out.write_text(json.dumps(found, indent=1, default=float))


if __name__ == "__main__":
    main()
