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
        codes, names = _parts(columns[name])
        for code, value in enumerate(names):
            here = np.flatnonzero(codes == code)
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


def _parts(column: pd.Series) -> tuple[np.ndarray, list[str]]:
    """The number of the part that each example belongs to, and the parts' names: commonest first, or ranges."""
    is_missing = (column == "").to_numpy()
    numbers = pd.to_numeric(column[~is_missing], errors="coerce")
    if column.nunique() > _MOST and numbers.notna().all() and len(numbers):
        pieces = pd.qcut(numbers, _PIECES, duplicates="drop", labels=False)
        codes = np.full(len(column), -1)
        codes[~is_missing] = pieces
        held = [numbers[pieces == piece] for piece in range(int(pieces.max()) + 1)]
        names = [f"{part.min():,.10g} to {part.max():,.10g}" for part in held]
    else:
        common = list(column[~is_missing].value_counts().index)
        kept = common[:_MOST] if len(common) <= _MOST else common[: _MOST - 1]
        places = {word: place for place, word in enumerate(kept)}
        codes = np.array([places.get(word, len(kept)) for word in column])
        names = [*kept, f"({len(common) - len(kept)} rarer values)"]
        codes[is_missing] = -1
    codes[is_missing] = len(names)
    return codes, [*names, "(missing)"]
