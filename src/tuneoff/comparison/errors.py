"""Error analysis on the test split: by text length, by word, shared between strategies, and likely label errors.

The error rate of an example is the share of a strategy's seeds that predict it wrong, 0 to 1. Counts of errors add up
these fractions, so that every seed of a strategy has the same weight.

# N examples  S seeds  C classes
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from tuneoff.comparison.words import over_represented_words, words_by_group
from tuneoff.scoring.label_noise import LABEL_ERROR_COLUMNS, likely_label_errors

_MAX_MEAN_WORD = 12  # characters; a longer mean word means a language that is written without spaces
_CONFIDENCE_COLUMNS = ["group", "kind", "low", "q1", "median", "q3", "high", "examples"]


@dataclass(frozen=True)
class Predictions:
    """Predictions of the runs of one strategy on one split, seeds in order."""

    predicted: np.ndarray  # (S, N) ids, or (S, N, C) of 0 and 1
    probabilities: np.ndarray  # (S, N, C)
    has_probabilities: bool = True  # False if only labels are known: probabilities are 0 and 1

    @property
    def majority_vote(self) -> np.ndarray:
        """The label that most seeds predict for each example; in a tie the more probable one. (N,) ids.

        For multi-label data, the labels that at least half of the seeds predict. (N, C).
        """
        if self.predicted.ndim == 3:
            return (self.predicted.mean(0) >= 0.5).astype(np.int64)
        votes = self.mean_probabilities.copy()  # 1 only if all seeds agree, so that they decide ties only
        for seed in self.predicted:
            votes[np.arange(len(seed)), seed] += 1
        return votes.argmax(1)

    @property
    def mean_probabilities(self) -> np.ndarray:
        """Probabilities averaged over seeds. (N, C)."""
        return self.probabilities.mean(0)

    def error_rates(self, labels: np.ndarray) -> np.ndarray:
        """Share of seeds that predict each example wrong. labels: (N,) or (N, C) -> (N,)."""
        return self.is_wrong(labels).mean(0)

    def is_wrong(self, labels: np.ndarray) -> np.ndarray:
        """Mask of wrong predictions, in any label for multi-label data. labels: (N,) or (N, C) -> (S, N)."""
        return is_wrong(self.predicted, labels)

    def confidence(self, predicted: np.ndarray) -> np.ndarray:
        """Mean probability of the predicted label; for multi-label data, of the least certain label. -> (N,)."""
        if predicted.ndim == 1:
            return self.mean_probabilities[np.arange(len(predicted)), predicted]
        return np.where(predicted, self.mean_probabilities, 1 - self.mean_probabilities).min(1)


def is_wrong(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mask of wrong predictions. labels: (N,) or (N, C). predicted: (..., N) or (..., N, C) -> (..., N)."""
    different = predicted != labels
    return different.any(-1) if labels.ndim == 2 else different


@dataclass(frozen=True)
class Errors:
    """Error analysis of the strategies of a comparison on test. Groups are in the order of the rows."""

    # groups whose predictions depend on the text: examples_by_num_wrong, overlap, label_errors, words are about these
    learners: tuple[str, ...]
    examples_by_num_wrong: np.ndarray  # examples that 0, 1, ... of them predict wrong, by majority vote over seeds
    overlap: pd.DataFrame  # error_overlap()
    confidence: pd.DataFrame  # _CONFIDENCE_COLUMNS
    label_errors: pd.DataFrame  # likely_label_errors()
    # of the texts; empty if they were not stored
    length_unit: str  # words | characters
    by_length: pd.DataFrame  # group, and the columns of error_rate_by_length()
    words: pd.DataFrame  # over_represented_words()
    words_by_group: pd.DataFrame  # words_by_group(), of the learners


def analyse_errors(
    labels: np.ndarray, predictions: Mapping[str, Predictions], non_learners: set[str], texts: Sequence[str]
) -> Errors:
    """Analyse the errors of several strategies on the same examples.

    labels: (N,) or (N, C). non_learners: groups whose predictions do not depend on the text, such as the most frequent
    class. texts: N of them, or none.
    """
    learners = tuple(group for group in predictions if group not in non_learners) or tuple(predictions)
    error_rates = {group: runs.error_rates(labels) for group, runs in predictions.items()}
    mean_error_rates = np.mean([error_rates[group] for group in learners], axis=0)
    with_probabilities = {group: runs for group, runs in predictions.items() if runs.has_probabilities}
    mean_probabilities = [runs.mean_probabilities for group, runs in with_probabilities.items() if group in learners]
    num_wrong = np.sum([is_wrong(predictions[group].majority_vote, labels) for group in learners], axis=0)  # (N,)
    unit, lengths = text_lengths(texts)
    by_length = [
        error_rate_by_length(lengths, rates).assign(group=group) for group, rates in error_rates.items() if texts
    ]
    return Errors(
        learners=learners,
        examples_by_num_wrong=np.bincount(num_wrong, minlength=len(learners) + 1),
        overlap=error_overlap({group: error_rates[group] for group in learners}),
        confidence=_confidences(labels, with_probabilities),
        label_errors=(
            likely_label_errors(labels, np.mean(mean_probabilities, axis=0))
            if mean_probabilities
            else pd.DataFrame(columns=LABEL_ERROR_COLUMNS)
        ),
        length_unit=unit,
        by_length=pd.concat(by_length) if by_length else pd.DataFrame(),
        words=over_represented_words(texts, mean_error_rates) if texts else pd.DataFrame(),
        words_by_group=words_by_group(texts, {group: error_rates[group] for group in learners if texts}),
    )


def texts_of(examples: pd.DataFrame | None) -> list[str]:
    """Return one text per example, the two texts of a pair joined; an empty list for None."""
    if examples is None:
        return []
    pairs = examples.get("text_pair")
    return list(examples["text"] if pairs is None else examples["text"] + " ¶ " + pairs)


def text_columns(examples: pd.DataFrame | None) -> list[list[str]]:
    """Return the texts of the examples: one column, for pairs two; an empty list for None."""
    if examples is None:
        return []
    return [list(examples[name]) for name in ("text", "text_pair") if name in examples]


def text_lengths(texts: Sequence[str]) -> tuple[str, np.ndarray]:
    """Unit and length of each text, (N,): words, or characters for a language that is written without spaces."""
    words, characters = (np.array([measure(text) for text in texts]) for measure in (lambda t: len(t.split()), len))
    has_no_spaces = characters.sum() > _MAX_MEAN_WORD * words.sum()
    return ("characters", characters) if has_no_spaces else ("words", words)


def _confidences(labels: np.ndarray, predictions: Mapping[str, Predictions]) -> pd.DataFrame:
    if labels.ndim == 2:  # a multi-label prediction has no single probability
        return pd.DataFrame(columns=_CONFIDENCE_COLUMNS)
    rows = [{"group": group, **box} for group, runs in predictions.items() for box in _confidence(labels, runs)]
    return pd.DataFrame(rows, columns=_CONFIDENCE_COLUMNS)


def _confidence(labels: np.ndarray, predictions: Predictions) -> list[dict[str, object]]:
    """Box plot statistics of wrong predictions, over all seeds: of their confidence (kind "wrong") and of their margin.

    margin: probability of the wrong predicted label minus that of the true one.
    """
    predicted_probability = np.take_along_axis(predictions.probabilities, predictions.predicted[..., None], 2)[..., 0]
    true_probability = predictions.probabilities[:, np.arange(len(labels)), labels]  # (S, N)
    is_error = predictions.is_wrong(labels)
    kinds = {
        "wrong": predicted_probability[is_error],
        "margin": (predicted_probability - true_probability)[is_error],
    }
    rows = []
    for kind, values in kinds.items():
        if len(values):
            rows.append({"kind": kind, **box_of(values)})
    return rows


def box_of(values: np.ndarray) -> dict[str, float]:
    """Return the five numbers of a box plot, and the number of examples.

    Boxes are quartiles; whiskers reach the last value within 1.5 times the interquartile range (Tukey, 1977).
    """
    q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75])
    within = values[(values >= q1 - 1.5 * (q3 - q1)) & (values <= q3 + 1.5 * (q3 - q1))]
    box = {"low": within.min(), "q1": q1, "median": median, "q3": q3, "high": within.max()}
    return {**{name: float(value) for name, value in box.items()}, "examples": len(values)}


def error_rate_by_length(lengths: np.ndarray, error_rates: np.ndarray, num_bins: int = 6) -> pd.DataFrame:
    """Error rate in bins of text length with about equal numbers of examples, with 95 % confidence intervals (Wilson).

    lengths, error_rates: (N,). Columns: shortest, longest, examples, rate, low, high. Texts of one length are in one
    bin, so that there may be fewer bins.
    """
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, num_bins + 1)[1:-1], method="higher"))
    bin_index = np.searchsorted(edges, lengths)  # a length that equals an edge belongs to the lower bin
    rows = []
    for index in np.unique(bin_index):
        is_inside = bin_index == index
        wrong, count = float(error_rates[is_inside].sum()), int(is_inside.sum())
        low, high = proportion_confint(wrong, count, method="wilson")
        ends = {"shortest": int(lengths[is_inside].min()), "longest": int(lengths[is_inside].max())}
        rows.append({**ends, "examples": count, "rate": wrong / count, "low": float(low), "high": float(high)})
    return pd.DataFrame(rows)


def error_overlap(error_rates: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Share of their errors that every two strategies have in common, 0 to 1.

    Jaccard's index, for fractions Ruzicka's: the sum of minima over the sum of maxima. error_rates: group -> (N,).
    Columns: one, other (groups), shared.
    """
    rows = []
    for first, second in itertools.product(error_rates, repeat=2):
        intersection = np.minimum(error_rates[first], error_rates[second]).sum()
        union = np.maximum(error_rates[first], error_rates[second]).sum()
        rows.append({"one": first, "other": second, "shared": float(intersection / union) if union else 1.0})
    return pd.DataFrame(rows)
