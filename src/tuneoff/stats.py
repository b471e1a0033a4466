"""Intervals of scores and of their differences. Arrays and a generator in, arrays out.

# N examples  C classes  R resamples  S seeds
"""

import numpy as np

from tuneoff.metrics import SCORES, counts_from, indicators, log_losses

LEVEL = 0.95
RESAMPLES = 2000
_CELLS = 2**24  # numbers of a block of resampling weights held at once: 64 MiB of fp32


def example_weights(num_examples: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each example is drawn in each bootstrap resample. (R, N) float32, rows sum to N."""
    draws = rng.integers(num_examples, size=(resamples, num_examples))
    rows = np.arange(resamples)[:, None] * num_examples
    counts = np.bincount((draws + rows).ravel(), minlength=resamples * num_examples)
    return counts.reshape(resamples, num_examples).astype(np.float32)


def resampled_scores(
    metric: str,
    labels: np.ndarray,
    predicted: list[np.ndarray],
    probabilities: list[np.ndarray],
    seed: int,
    resamples: int = RESAMPLES,
) -> np.ndarray:
    """A metric of several sets of predictions on the same resamples of the examples. -> (sets, R).

    labels: (N,), predicted: one (N,) a set, probabilities: one (N, C) a set. The same seed gives the same resamples
    whatever the metric, so scores can be compared in pairs (Efron & Tibshirani, 1993, chapter 6).
    """
    rng = np.random.default_rng(seed)
    block = max(1, min(resamples, _CELLS // max(1, len(labels))))
    pieces = []
    for start in range(0, resamples, block):
        weights = example_weights(len(labels), min(block, resamples - start), rng)
        pieces.append(
            [_scores(metric, labels, p, chances, weights) for p, chances in zip(predicted, probabilities, strict=True)]
        )
    return np.concatenate(pieces, axis=1)


def _scores(
    metric: str, labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """One metric on each resample. weights: (R, N) -> (R,)."""
    if metric == "log_loss":
        return weights @ log_losses(labels, probabilities).astype(np.float32) / len(labels)
    sums = weights @ indicators(labels, predicted, probabilities.shape[1]).astype(np.float32)  # (R, 3C)
    return SCORES[metric](counts_from(sums))


def seed_draws(num_seeds: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Which seeds each resample draws, with replacement. (R, S) indices."""
    return rng.integers(num_seeds, size=(resamples, num_seeds))


def mean_over_seeds(scores: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Mean score of the drawn seeds in each resample. scores: (S, R), draws: (R, S) -> (R,).

    Draws with replacement from S seeds vary by (S - 1) / S of what new seeds would; the deviation from the mean of
    all seeds is stretched by the root of S / (S - 1) to make up for it. One seed says nothing of how seeds vary.
    """
    num_seeds = len(scores)
    everything = scores.mean(0)
    drawn = scores[draws, np.arange(scores.shape[1])[:, None]].mean(1)
    stretch = np.sqrt(num_seeds / (num_seeds - 1)) if num_seeds > 1 else 1.0
    return everything + stretch * (drawn - everything)


def interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The percentile interval of bootstrap values. values: (R,).

    >>> interval(np.arange(101), level=0.9)
    (5.0, 95.0)
    """
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
