"""Error rates with and without a phenomenon (a tag), a trend with text length, and what is significant among them.

# N examples
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from tuneoff.comparison.errors import Predictions
from tuneoff.data.tags import tag_texts
from tuneoff.scoring.profiles import rate_difference
from tuneoff.scoring.stats import holm

EVERY = "every"  # group of the mean over all strategies that use the text
MIN_TEXTS = 10  # with and without a tag, to compare their error rates
_RATE_COLUMNS = ["tag", "group", "examples", "share", "rate_with", "rate_without", "difference", "low", "high"]
_RATE_COLUMNS += ["p_value", "p_corrected"]
_TREND_COLUMNS = ["group", "correlation", "p_value", "p_corrected"]


@dataclass(frozen=True)
class Phenomena:
    """Phenomena of the test texts, and error rates by them. Groups are the learners, and EVERY for their mean."""

    masks: dict[str, np.ndarray]  # tag -> (N,) bool
    meanings: dict[str, str]  # tag -> what it matches
    rates: pd.DataFrame  # _RATE_COLUMNS, of tags that can be compared
    trends: pd.DataFrame  # _TREND_COLUMNS: Spearman's correlation of text length and errors
    num_tests: int  # of single strategies, over which Holm's correction is; the tests of EVERY are corrected apart
    notes: tuple[str, ...]  # on tags that were left out


def analyse_phenomena(
    labels: np.ndarray,
    predictions: Mapping[str, Predictions],
    learners: Sequence[str],
    columns: Sequence[Sequence[str]],
    lengths: np.ndarray,
    patterns: Mapping[str, str],
) -> Phenomena:
    """Compare the error rates of texts with each tag and of all others, for every learner and for their mean.

    labels: (N,) or (N, C). columns: the N texts, for pairs two columns. lengths: (N,). patterns: tags of the user.
    """
    tagged = tag_texts(columns, patterns)
    rates = {group: predictions[group].error_rates(labels) for group in learners}
    if len(rates) > 1:
        rates = {EVERY: np.mean(list(rates.values()), axis=0), **rates}
    rows: list[dict[str, Any]] = []
    for tag, mask in tagged.masks.items():
        if min(mask.sum(), (~mask).sum()) < MIN_TEXTS:
            continue
        for group, of_group in rates.items():
            gap = rate_difference(of_group, mask)
            rows.append(
                {
                    "tag": tag,
                    "group": group,
                    "examples": int(mask.sum()),
                    "share": float(mask.mean()),
                    **vars(gap),
                    "difference": gap.difference,
                }
            )
    trends: list[dict[str, Any]] = [{"group": group, **_trend(lengths, of_group)} for group, of_group in rates.items()]
    trends = [trend for trend in trends if np.isfinite(trend["p_value"])]
    _correct([row for row in [*rows, *trends] if row["group"] == EVERY])
    _correct(of_strategies := [row for row in [*rows, *trends] if row["group"] != EVERY])
    return Phenomena(
        masks=tagged.masks,
        meanings=tagged.meanings,
        rates=pd.DataFrame(rows, columns=_RATE_COLUMNS),
        trends=pd.DataFrame(trends, columns=_TREND_COLUMNS),
        num_tests=len(of_strategies),
        notes=tagged.notes,
    )


def _correct(rows: Sequence[dict[str, Any]]) -> None:
    """Add p values after Holm's correction over all rows."""
    for row, p_corrected in zip(rows, holm([row["p_value"] for row in rows]) if rows else [], strict=True):
        row["p_corrected"] = float(p_corrected)


def _trend(lengths: np.ndarray, error_rates: np.ndarray) -> dict[str, float]:
    """Return Spearman's rank correlation of length and error rate; nan where one of them is constant."""
    if len(lengths) < MIN_TEXTS or np.ptp(lengths) == 0 or np.ptp(error_rates) == 0:
        return {"correlation": float("nan"), "p_value": float("nan")}
    result = stats.spearmanr(lengths, error_rates)
    return {"correlation": float(result.statistic), "p_value": float(result.pvalue)}
