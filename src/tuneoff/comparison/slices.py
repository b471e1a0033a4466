"""Test scores on slices: parts of the test split by the values of a column."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from tuneoff.comparison.errors import Predictions
from tuneoff.comparison.rescore import scores_on
from tuneoff.data.dataset import SLICE
from tuneoff.scoring import stats
from tuneoff.scoring.metrics import bounds, is_defined

_MAX_VALUES = 20  # slices of a column; its rarer values share the last one
_NUM_RANGES = 4  # slices of a column with more numbers than that
_MIN_EXAMPLES = 2  # a single example has no confidence interval


def score_slices(
    labels: np.ndarray,
    predictions: Mapping[str, Predictions],
    scores: Mapping[str, stats.RunScores],
    columns: pd.DataFrame,
    metric: str,
    positive: int | None = None,
) -> pd.DataFrame:
    """Score each strategy on each slice of test, with 95 % confidence intervals over examples and seeds.

    labels: (N,) or (N, C). scores: of each group on all examples. columns: the test examples, N rows; columns whose
    names start with SLICE are strings, one slicing each. positive: id of the positive class, for the metrics that have
    one. A slice on which the metric is not defined, for lack of a class, is left out.
    Returned columns: slice, value, examples, group, score, low, high.
    """
    rows = []
    for name in [str(name) for name in columns if str(name).startswith(SLICE)]:
        codes, values = _slice_codes(columns[name])
        for code, value in enumerate(values):
            is_kept = codes == code
            count = int(is_kept.sum())
            if count < _MIN_EXAMPLES or not is_defined(metric, labels[is_kept], positive):
                continue
            of_groups = scores_on(is_kept, labels, predictions, scores, metric, positive)
            pooled = stats.pooled_seed_variance(list(of_groups.values()))
            for group in predictions:
                estimate = stats.estimate_score(of_groups[group], count, pooled)
                low, high = stats.interval(estimate, bounds(metric))
                part = {"slice": name.removeprefix(SLICE), "value": value, "examples": count}
                rows.append({**part, "group": group, "score": estimate.value, "low": low, "high": high})
    return pd.DataFrame(rows)


def _slice_codes(column: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Assign each example to a slice: its code, (N,), and the slices' names by code.

    A column with many numbers is cut into ranges at its quantiles. Otherwise each value is a slice, most frequent
    first, and the rarest share one. Missing values, "", are the last slice.
    """
    is_missing = (column == "").to_numpy()
    numbers = pd.to_numeric(column[~is_missing], errors="coerce")
    if column.nunique() > _MAX_VALUES and numbers.notna().all() and len(numbers):
        range_codes = pd.qcut(numbers, _NUM_RANGES, duplicates="drop", labels=False)
        codes = np.full(len(column), -1)
        codes[~is_missing] = range_codes
        ranges = [numbers[range_codes == code] for code in range(int(range_codes.max()) + 1)]
        names = [f"{part.min():,.10g} to {part.max():,.10g}" for part in ranges]
    else:
        values = list(column[~is_missing].value_counts().index)
        kept = values[:_MAX_VALUES] if len(values) <= _MAX_VALUES else values[: _MAX_VALUES - 1]
        code_of = {value: code for code, value in enumerate(kept)}
        codes = np.array([code_of.get(value, len(kept)) for value in column])
        names = [*kept, f"({len(values) - len(kept)} rarer values)"]
    codes[is_missing] = len(names)
    return codes, [*names, "(missing)"]
