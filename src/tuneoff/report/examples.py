"""Data of the page's example browser: test examples and the predictions of every strategy, within a size budget."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuneoff.comparison.errors import text_lengths
from tuneoff.comparison.result import Comparison
from tuneoff.formats import shorten, show_control_characters
from tuneoff.runs import stored_labels

BUDGET = 3_500_000  # bytes of all texts together, so that the page stays below 8 MB
_MIN_LENGTH = 160  # characters that texts are shortened to; beyond that examples are left out
_MAX_LENGTH = 2_000
_MAX_PREDICTIONS = 300_000  # examples times strategies: seven bytes each


@dataclass(frozen=True)
class StrategyPredictions:
    """Predictions of one strategy for the examples of the browser."""

    name: str
    seeds: int
    predicted: list[list[int]]  # label ids of each example
    wrong: list[int]  # seeds that are wrong
    confidence: list[int] | None  # of the prediction, in percent; None without probabilities


@dataclass(frozen=True)
class BrowserData:
    """Data of the example browser, in columns. page.js reads the fields by their names."""

    all: int  # test examples, also those that the page has no room for
    examples: list[int]  # their indices
    lengths: list[int]  # in the unit of Errors
    texts: list[list[str]]  # one column, or two for pairs
    labels: list[list[int]]  # label ids of each example
    names: list[str]  # of the labels
    strategies: list[StrategyPredictions]
    tags: dict[str, list[int]]  # tag -> places in examples of those that it matches

    def to_json(self) -> dict[str, object]:
        """Return the columns as plain data."""
        # not by asdict, which would copy every number
        return {**vars(self), "strategies": [vars(strategy) for strategy in self.strategies]}


def browser_data(comparison: Comparison) -> BrowserData | None:
    """Return the data of the example browser; None without stored test texts."""
    if comparison.examples is None or comparison.errors is None:
        return None
    labels, predictions = stored_labels(comparison.examples["label"]), comparison.predictions
    columns = [column for column in ("text", "text_pair") if column in comparison.examples]
    texts = [list(comparison.examples[column]) for column in columns]
    # where the page has no room for all of them, the hardest examples stay
    difficulty = np.mean([predictions[group].error_rates(labels) for group in comparison.errors.learners], axis=0)
    learners = [row for row in comparison.rows if row.group in comparison.errors.learners]
    room = _MAX_PREDICTIONS // len(learners)
    kept, length = fit_into_budget(texts, np.argsort(-difficulty, kind="stable")[:room], BUDGET)
    strategies, tags = [], comparison.phenomena.masks if comparison.phenomena else {}
    for row in learners:
        of_strategy = predictions[row.group]
        predicted = of_strategy.majority_vote
        strategies.append(
            StrategyPredictions(
                name=show_control_characters(comparison.names[row.group]),
                seeds=len(of_strategy.predicted),
                predicted=_ids(predicted[kept]),
                wrong=of_strategy.is_wrong(labels).sum(0)[kept].tolist(),
                confidence=_percent(of_strategy.confidence(predicted)[kept]) if of_strategy.has_probabilities else None,
            )
        )
    return BrowserData(
        all=len(labels),
        examples=kept.tolist(),
        lengths=text_lengths(comparison.texts)[1][kept].tolist(),
        texts=[[show_control_characters(shorten(column[i], length)) for i in kept] for column in texts],
        labels=_ids(labels[kept]),
        names=[show_control_characters(name) for name in comparison.label_names],
        strategies=strategies,
        tags={tag: np.flatnonzero(mask[kept]).tolist() for tag, mask in tags.items() if mask[kept].any()},
    )


def _percent(shares: np.ndarray) -> list[int]:
    return np.rint(100 * shares).astype(int).tolist()


def _ids(labels: np.ndarray) -> list[list[int]]:
    """Return the label ids of each example: one, or for multi-label data any number."""
    return [[int(label)] for label in labels] if labels.ndim == 1 else [np.flatnonzero(row).tolist() for row in labels]


def _num_bytes(text: str) -> int:
    """Return the bytes of a text in the page, where < is written as six."""
    return len(text.encode("utf-8", "replace")) + 5 * text.count("<")


def fit_into_budget(texts: Sequence[Sequence[str]], order: np.ndarray, budget: int) -> tuple[np.ndarray, int]:
    """Choose the examples that fit into a number of bytes: their sorted indices, and the length of texts in characters.

    texts: one or two columns. order: indices, those to keep first. Texts are shortened before examples are left out.
    """
    byte_counts = [np.array([_num_bytes(text) for text in column]) for column in texts]
    lengths = [np.array([max(1, len(text)) for text in column]) for column in texts]

    def sizes(length: int) -> np.ndarray:
        return np.sum([b * np.minimum(1, length / n) for b, n in zip(byte_counts, lengths, strict=True)], axis=0)

    length = _MAX_LENGTH
    while length > _MIN_LENGTH and sizes(length).sum() > budget:
        length = max(_MIN_LENGTH, length * 3 // 4)
    return np.sort(order[sizes(length)[order].cumsum() <= budget]), length
