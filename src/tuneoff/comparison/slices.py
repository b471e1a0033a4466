"""Scores on parts of test: by what a column says of the examples."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from tuneoff import stats
from tuneoff.comparison.errors import Answers
from tuneoff.data.dataset import SLICE
from tuneoff.metrics import BOUNDS
from tuneoff.strategies import STRATEGIES

_MOST = 20  # values of a column; rarer ones are one part together
_PIECES = 4  # of a column of many numbers
_LEAST = 2  # examples; of one there is no interval


def by_slice(
    labels: np.ndarray,
    answers: Mapping[str, Answers],
    seeds: Mapping[str, tuple[int, ...]],
    columns: pd.DataFrame,
    metric: str,
) -> pd.DataFrame:
    """The metric of each strategy on each part of test, with 95 % intervals over its examples and the seeds.

    columns: of words, one a slicing, a row an example. seeds: of each group. Columns: slice, value, examples, group,
    score, low, high.
    """
    rows = []
    for name in [str(name) for name in columns if str(name).startswith(SLICE)]:
        values, parts = _values(columns[name])
        for value in parts:
            here = np.flatnonzero(values == value)
            if len(here) < _LEAST:
                continue
            for group, found in answers.items():
                runs = _runs(labels[here], found, here, seeds[group], group, metric)
                measured = stats.measure(runs, len(here))
                low, high = stats.interval(measured, BOUNDS[metric])
                part = {"slice": name.removeprefix(SLICE), "value": value, "examples": len(here)}
                rows.append({**part, "group": group, "score": measured.value, "low": low, "high": high})
    return pd.DataFrame(rows)


def _runs(
    labels: np.ndarray, answers: Answers, here: np.ndarray, seeds: tuple[int, ...], group: str, metric: str
) -> stats.Runs:
    predicted, chances = list(answers.predicted[:, here]), list(answers.probabilities[:, here])
    resampled = stats.resampled_scores(metric, labels, predicted, chances, seed=0)
    scores = np.array([stats.score_of(metric, labels, p, c) for p, c in zip(predicted, chances, strict=True)])
    return stats.Runs(scores, resampled, seeds, STRATEGIES[group.rsplit("-", 1)[0]].is_seeded)


def _values(column: pd.Series) -> tuple[np.ndarray, list[str]]:
    """The part that each example belongs to, and the parts in order: values, the commonest first, or ranges."""
    words = column.where(column != "", "none")
    numbers = pd.to_numeric(words, errors="coerce")
    if words.nunique() > _MOST and numbers.notna().all():
        pieces = numbers.groupby(pd.qcut(numbers, _PIECES, duplicates="drop"), observed=True)
        named = pieces.transform(lambda part: f"{part.min():g} to {part.max():g}")
        return named.to_numpy(), [f"{part.min():g} to {part.max():g}" for _, part in pieces]
    if words.nunique() > _MOST:
        words = words.where(words.isin(words.value_counts().index[: _MOST - 1]), "other")
    return words.to_numpy(), list(words.value_counts().index)
