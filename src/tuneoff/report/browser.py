"""What the page's browser of examples holds: the test split, and what every strategy says of it, within a budget."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tuneoff.comparison.errors import lengths_of
from tuneoff.comparison.result import Comparison
from tuneoff.formats import cut, legible
from tuneoff.runs import stored_labels

BUDGET = 3_500_000  # bytes of all texts together: the page shall be below 8 MB
_SHORTEST = 160  # characters to which a text may be cut; beyond that examples are left out
_LONGEST = 2_000
_NUMBERS = 300_000  # answers of strategies: seven bytes each


def browser(comparison: Comparison) -> dict[str, Any] | None:
    """Columns of examples, compact. None without texts.

    examples: their numbers; texts: one or two lists of them; lengths: in Errors' unit; labels: ids of each. For each
    strategy: predicted ids, how many of its seeds are wrong, and the probability of what is predicted, in percent.
    """
    if comparison.examples is None or comparison.errors is None:
        return None
    labels, answers = stored_labels(comparison.examples["label"]), comparison.answers
    columns = [column for column in ("text", "text_pair") if column in comparison.examples]
    texts = [list(comparison.examples[column]) for column in columns]
    # where not all can be shown, first what is missed by most
    shares = np.mean([answers[group].shares(labels) for group in comparison.errors.joint], axis=0)
    learners = [row for row in comparison.rows if row.group in comparison.errors.joint]
    room = _NUMBERS // len(learners)
    kept, length = fitting(texts, np.argsort(-shares, kind="stable")[:room], BUDGET)
    strategies = []
    for row in learners:
        found = answers[row.group]
        predicted = found.most
        strategies.append(
            {
                "name": legible(comparison.names[row.group]),
                "seeds": len(found.predicted),
                "predicted": _ids(predicted[kept]),
                "wrong": found.is_wrong(labels).sum(0)[kept].tolist(),
                "sure": np.rint(100 * found.sureness(predicted))[kept].astype(int).tolist(),
            }
        )
    return {
        "all": len(labels),
        "examples": kept.tolist(),
        "lengths": lengths_of(comparison.texts)[1][kept].tolist(),
        "texts": [[legible(cut(column[i], length)) for i in kept] for column in texts],
        "labels": _ids(labels[kept]),
        "names": [legible(name) for name in comparison.label_names],
        "strategies": strategies,
    }


def _ids(labels: np.ndarray) -> list[list[int]]:
    """The ids of each example's labels, one or several."""
    return [[int(label)] for label in labels] if labels.ndim == 1 else [np.flatnonzero(row).tolist() for row in labels]


def _written(text: str) -> int:
    """Bytes of a text in the page, where < is written as six."""
    return len(text.encode("utf-8", "replace")) + 5 * text.count("<")


def fitting(texts: Sequence[Sequence[str]], order: np.ndarray, budget: int) -> tuple[np.ndarray, int]:
    """Which examples fit into so many bytes, in their own order, and how many characters of each text.

    texts: one or two columns. order: examples, those to keep first. Texts are cut before examples are left out.
    """
    bytes_ = [np.array([_written(text) for text in column]) for column in texts]
    lengths = [np.array([max(1, len(text)) for text in column]) for column in texts]

    def sizes(length: int) -> np.ndarray:
        return np.sum([b * np.minimum(1, length / n) for b, n in zip(bytes_, lengths, strict=True)], axis=0)

    length = _LONGEST
    while length > _SHORTEST and sizes(length).sum() > budget:
        length = max(_SHORTEST, length * 3 // 4)
    return np.sort(order[sizes(length)[order].cumsum() <= budget]), length
