"""What a user should know of their data before trusting a comparison on it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tuneoff.data.dataset import GROUP, Dataset, label_counts, labels_of
from tuneoff.data.encode import TokenTable
from tuneoff.formats import cut
from tuneoff.metrics import as_rows

_PIECES = 32  # of a histogram
_MOST_SHOWN = 30
_SHOWN_LENGTH = 300  # characters


def describe(dataset: Dataset, tokens: Mapping[str, Mapping[str, TokenTable]]) -> dict[str, Any]:
    """Sizes, label balance, lengths and findings, as plain data. tokens: model -> split -> tokens."""
    splits = {}
    for split, table in dataset.splits.items():
        labels = label_counts(labels_of(table), dataset.num_labels)
        splits[split] = {"examples": table.num_rows, "labels": labels.tolist()}
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "label_names": list(dataset.label_names),
        "is_pair": dataset.is_pair,
        "is_multilabel": dataset.is_multilabel,
        "notes": list(dataset.notes),
        "splits": splits,
        "lengths": {
            model: {split: _lengths(table, _edges(tables)) for split, table in tables.items()}
            for model, tables in tokens.items()
        },
        "first_examples": _first_examples(dataset),
        "findings": findings(dataset),
    }


def _lengths(table: TokenTable, edges: np.ndarray) -> dict[str, Any]:
    """Tokens an example, how they spread, and the share that was cut. edges: of the histogram's bins."""
    lengths = table.lengths
    low, median, high = np.quantile(lengths, [0.25, 0.5, 0.75])
    reach = 1.5 * (high - low)  # Tukey (1977): a whisker ends at the last example within it
    return {
        "mean": float(lengths.mean()),
        "median": float(median),
        "p95": float(np.quantile(lengths, 0.95)),
        "max": int(lengths.max()),
        "truncated": float(table.is_truncated.mean()),
        "box": [
            int(lengths[lengths >= low - reach].min()),
            *map(float, (low, median, high)),
            int(lengths[lengths <= high + reach].max()),
        ],
        "histogram": {"edges": edges.tolist(), "examples": np.histogram(lengths, edges)[0].tolist()},
    }


def _edges(tables: Mapping[str, TokenTable]) -> np.ndarray:
    """Whole numbers that part the lengths of all splits into pieces of equal width. The last piece holds its end."""
    longest = max(int(table.lengths.max()) for table in tables.values())
    return np.arange(0, longest + 1 + -(-longest // _PIECES), -(-longest // _PIECES))


def _first_examples(dataset: Dataset) -> list[dict[str, str]]:
    """A few examples of each label, as they stand in train; long texts cut."""
    train, found = dataset.splits["train"], []
    labels, texts = as_rows(labels_of(train), dataset.num_labels), ["text", *(["text_pair"] if dataset.is_pair else [])]
    each = max(1, min(3, _MOST_SHOWN // dataset.num_labels))
    for index, name in enumerate(dataset.label_names[:_MOST_SHOWN]):
        rows = train.filter(pa.array(labels[:, index])).slice(0, each)
        for row in rows.select(texts).to_pylist():
            found.append({"label": name, **{column: cut(text, _SHOWN_LENGTH) for column, text in row.items()}})
    return found


def findings(dataset: Dataset) -> list[str]:
    """Repeats, leaks between splits, contradicting labels and rare classes, a sentence each."""
    found = []
    keys = {split: _keys(table) for split, table in dataset.splits.items()}
    for split, texts in keys.items():
        repeats = len(texts) - pc.count_distinct(texts).as_py()
        if repeats:
            found.append(f"{split}: {repeats:,} of {len(texts):,} examples repeat an earlier one")
        contradicting = _contradicting(texts, labels_of(dataset.splits[split]))
        if contradicting:
            found.append(f"{split}: {contradicting:,} texts stand there with different labels")
    for split in ("validation", "test"):
        for other in ("train", "validation")[: 1 if split == "validation" else 2]:
            shared = pc.sum(pc.is_in(keys[split], value_set=keys[other])).as_py() or 0
            if shared:
                found.append(f"{split}: {shared:,} of {len(keys[split]):,} examples also stand in {other}")
    for split in ("validation", "test"):
        others = [s for s in ("train", "validation") if s != split and GROUP in dataset.splits[s].column_names]
        if GROUP in dataset.splits[split].column_names and others:
            seen = pa.chunked_array([chunk for s in others for chunk in dataset.splits[s][GROUP].chunks])
            shared = pc.sum(pc.is_in(dataset.splits[split][GROUP], value_set=seen)).as_py() or 0
            if shared:
                found.append(f"{split}: {shared:,} examples are of groups that also stand in {' or '.join(others)}")
    counts, in_test = (label_counts(labels_of(dataset.splits[s]), dataset.num_labels) for s in ("train", "test"))
    rare = [dataset.label_names[index] for index in np.flatnonzero(counts < 10)]
    if rare:
        found.append(f"train: fewer than 10 examples of {', '.join(rare[:5])}{' and others' if len(rare) > 5 else ''}")
    if not in_test.all():
        found.append(
            f"test: no example of {', '.join(dataset.label_names[i] for i in np.flatnonzero(in_test == 0)[:5])}"
        )
    if counts.max() > 3 * counts[counts > 0].min():
        share = counts.max() / dataset.num_examples("train")
        found.append(
            f"train: classes are out of balance ({dataset.label_names[int(counts.argmax())]} is {share:.0%}); "
            "look at macro_f1 beside accuracy"
        )
    return found


def _keys(table: pa.Table) -> pa.ChunkedArray:
    """What two examples share if they are the same: their texts."""
    if "text_pair" not in table.column_names:
        return table["text"]
    return pc.binary_join_element_wise(table["text"], table["text_pair"], pa.scalar("\x1f", pa.large_string()))


def _contradicting(texts: pa.ChunkedArray, labels: np.ndarray) -> int:
    if labels.ndim == 2:  # any number for each set of labels
        labels = np.unique(labels, axis=0, return_inverse=True)[1]
    grouped = (
        pa.table({"text": texts, "label": labels.ravel()}).group_by("text").aggregate([("label", "count_distinct")])
    )
    return pc.sum(pc.greater(grouped["label_count_distinct"], 1)).as_py() or 0
