"""Mistakes of each strategy: how many, of which labels, how far off, and a test of whether their kinds differ.

Numbers of mistakes are means over seeds. For multi-label data, a mistake of a label is one that is missed (its true
label) or wrongly added (its predicted label).

# N examples  S seeds  C classes  K kinds of mistakes  L strategies
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tuneoff.comparison.errors import Predictions, box_of
from tuneoff.scoring.profiles import profile_test, rate_difference
from tuneoff.scoring.stats import holm

TRUE, PREDICTED, LENGTH = "true label", "predicted label", "length"  # kinds of mistakes
_MAX_GROUPS = 10  # strategies whose kinds of mistakes are compared in pairs: the best ones
_MAX_KINDS = 20  # labels that are kinds of their own; the rarer ones share one
_MIN_PER_KIND = 5.0  # mistakes of a label, on average over the strategies, that make it a kind of its own
_MIN_MISTAKES = 20.0  # of a strategy, to compare their kinds
_NUM_LENGTHS = 4
_RESAMPLES = 1999  # of each test; Holm's correction over the 45 pairs of ten strategies leaves p values of 0.023
_GAP_COLUMNS = ["group", "label", "low", "q1", "median", "q3", "high", "examples"]


@dataclass(frozen=True)
class ProfilePair:
    """Two strategies and one way to divide their mistakes into kinds."""

    first: str  # group
    second: str
    by: str  # TRUE, PREDICTED or LENGTH
    distance: float  # share of one's mistakes that are of another kind than the other's: 0 for equal profiles
    kind: str  # with the largest difference of shares
    first_share: float  # of the first one's mistakes that are of that kind
    second_share: float
    p_value: float  # of equal profiles, profile_test()
    p_corrected: float  # after Holm's correction over all pairs


@dataclass(frozen=True)
class Mistakes:
    """Mistakes of the strategies of a comparison on test. Groups are in the order of the rows."""

    totals: dict[str, float]  # group -> misclassified examples
    examples: int  # test examples
    # group, label (id), examples, true, predicted: mistakes by true and by predicted label; p_value: that the label's
    # error rate is that of all other examples, after Holm's correction over labels (nan where it is not tested)
    by_label: pd.DataFrame
    gaps: pd.DataFrame  # boxes of predicted minus true probability by true label: _GAP_COLUMNS
    profiles: tuple[ProfilePair, ...]


def analyse_mistakes(
    labels: np.ndarray,
    predictions: Mapping[str, Predictions],
    learners: Sequence[str],
    lengths: np.ndarray | None,
    label_names: Sequence[str],
) -> Mistakes:
    """Analyse the mistakes of several strategies on the same examples.

    labels: (N,) or (N, C). learners: groups to compare in pairs. lengths: (N,) of the texts; None without texts.
    """
    compared = [group for group in learners if predictions[group].error_rates(labels).sum() >= _MIN_MISTAKES]
    best = {group: predictions[group] for group in compared[:_MAX_GROUPS]}
    return Mistakes(
        totals={group: float(runs.error_rates(labels).sum()) for group, runs in predictions.items()},
        examples=len(labels),
        by_label=_by_label(labels, predictions),
        gaps=_gaps(labels, predictions),
        profiles=_profiles(labels, best, lengths, label_names),
    )


def _by_label(labels: np.ndarray, predictions: Mapping[str, Predictions]) -> pd.DataFrame:
    num_labels = next(iter(predictions.values())).probabilities.shape[2]
    examples = labels.sum(0) if labels.ndim == 2 else np.bincount(labels, minlength=num_labels)
    tables = []
    for group, runs in predictions.items():
        true, predicted = (_kinds(labels, runs, np.arange(num_labels), by).sum(0) for by in (TRUE, PREDICTED))
        p_values = _label_tests(labels, runs.error_rates(labels), num_labels)
        columns = {
            "label": range(num_labels),
            "examples": examples,
            "true": true,
            "predicted": predicted,
            "p_value": p_values,
        }
        tables.append(pd.DataFrame({"group": group, **columns}))
    return pd.concat(tables, ignore_index=True)


def _label_tests(labels: np.ndarray, error_rates: np.ndarray, num_labels: int) -> np.ndarray:
    """Test whether the error rate of each label differs from that of all other examples. -> (C,) corrected p values."""
    p_values = np.full(num_labels, np.nan)
    if labels.ndim == 1:
        masks = [labels == label for label in range(num_labels)]
        tested = [label for label, mask in enumerate(masks) if 0 < mask.sum() < len(labels)]
        if tested:
            p_values[tested] = holm([rate_difference(error_rates, masks[label]).p_value for label in tested])
    return p_values


def _kinds(labels: np.ndarray, runs: Predictions, codes: np.ndarray, by: str) -> np.ndarray:
    """Count the mistakes on each example by kind, means over seeds. codes: (C,) kind of each label. -> (N, K)."""
    num_kinds = int(codes.max()) + 1
    if labels.ndim == 2:
        has, lacks = (labels, runs.predicted) if by == TRUE else (runs.predicted, labels)
        of_label = np.asarray((has == 1) & (lacks == 0), float)  # (S, N, C)
        return of_label.mean(0) @ np.eye(num_kinds)[codes]
    counts = np.zeros((len(labels), num_kinds))
    for predicted in runs.predicted:
        wrong = np.flatnonzero(predicted != labels)
        counts[wrong, codes[(labels if by == TRUE else predicted)[wrong]]] += 1 / len(runs.predicted)
    return counts


def _gaps(labels: np.ndarray, predictions: Mapping[str, Predictions]) -> pd.DataFrame:
    """Return boxes of the gap of wrong predictions by true label, over all seeds; none for multi-label data.

    gap: probability of the predicted label minus that of the true one.
    """
    rows = []
    for group, runs in predictions.items():
        if labels.ndim == 2 or not runs.has_probabilities:
            continue
        is_wrong = runs.is_wrong(labels)  # (S, N)
        predicted = np.take_along_axis(runs.probabilities, runs.predicted[..., None], 2)[..., 0]
        gap = (predicted - runs.probabilities[:, np.arange(len(labels)), labels])[is_wrong]
        true = np.broadcast_to(labels, is_wrong.shape)[is_wrong]
        rows += [{"group": group, "label": int(label), **box_of(gap[true == label])} for label in np.unique(true)]
    return pd.DataFrame(rows, columns=_GAP_COLUMNS)


def _profiles(
    labels: np.ndarray,
    predictions: Mapping[str, Predictions],
    lengths: np.ndarray | None,
    label_names: Sequence[str],
) -> tuple[ProfilePair, ...]:
    """Compare the kinds of mistakes of every two strategies."""
    ways = [by for by in (TRUE, PREDICTED, LENGTH) if by != LENGTH or lengths is not None]
    divided = {by: _divide(labels, predictions, by, lengths, label_names) for by in ways}
    divided = {by: (names, counts) for by, (names, counts) in divided.items() if len(names) > 1}
    couples = list(itertools.combinations(predictions, 2))
    if not couples or not divided:
        return ()
    pairs = []
    for by, (names, counts) in divided.items():
        rng = np.random.default_rng(0)
        p_values = [profile_test(counts[first], counts[second], rng, _RESAMPLES) for first, second in couples]
        shares = {group: of_group.sum(0) / (of_group.sum() or 1.0) for group, of_group in counts.items()}
        for (first, second), p_value, corrected in zip(couples, p_values, holm(p_values), strict=True):
            gaps = np.abs(shares[first] - shares[second])
            largest = int(gaps.argmax())
            pairs.append(
                ProfilePair(
                    first=first,
                    second=second,
                    by=by,
                    distance=float(gaps.sum() / 2),
                    kind=names[largest],
                    first_share=float(shares[first][largest]),
                    second_share=float(shares[second][largest]),
                    p_value=p_value,
                    p_corrected=float(corrected),
                )
            )
    return tuple(pairs)


def _divide(
    labels: np.ndarray,
    predictions: Mapping[str, Predictions],
    by: str,
    lengths: np.ndarray | None,
    label_names: Sequence[str],
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Divide the mistakes of each strategy into kinds: their names, and the mistakes of each strategy, (N, K)."""
    if by == LENGTH:
        assert lengths is not None
        edges = np.unique(np.quantile(lengths, np.linspace(0, 1, _NUM_LENGTHS + 1)[1:-1], method="higher"))
        codes = np.searchsorted(edges, lengths)
        present = [code for code in range(len(edges) + 1) if (codes == code).any()]
        names = [f"{lengths[codes == code].min():,} to {lengths[codes == code].max():,}" for code in present]
        is_kind = codes[:, None] == np.array(present)  # (N, K)
        return names, {group: is_kind * runs.error_rates(labels)[:, None] for group, runs in predictions.items()}
    every = np.arange(len(label_names))
    totals = np.mean([_kinds(labels, runs, every, by).sum(0) for runs in predictions.values()] or [every * 0.0], axis=0)
    own = np.argsort(-totals, kind="stable")[:_MAX_KINDS]
    own = np.sort(own[totals[own] >= _MIN_PER_KIND])
    codes = np.full(len(label_names), len(own))
    codes[own] = np.arange(len(own))
    names = [label_names[label] for label in own] + (["other labels"] if len(own) < len(label_names) else [])
    return names, {group: _kinds(labels, runs, codes, by) for group, runs in predictions.items()}
