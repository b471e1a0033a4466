"""Data checks before a comparison: duplicates, leakage, label noise, group leakage, class imbalance."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tuneoff.data.dataset import GROUP, Dataset, label_counts, labels_of

_RARE = 10  # examples of train; a class with fewer is reported as rare
_IMBALANCED = 3  # times the rarest class; a larger most frequent class is reported as class imbalance
_MAX_NAMES = 5  # of classes in a finding
# splits that are scored, each with the splits that training and selection use before it
_EARLIER = {"validation": ("train",), "test": ("train", "validation")}


def check_data(dataset: Dataset) -> list[str]:
    """Return one line for each problem: duplicates, label noise, leakage between splits, class imbalance."""
    texts = {split: _text_keys(table) for split, table in dataset.splits.items()}
    return [
        *_duplicates_and_label_noise(dataset, texts),
        *_leakage(texts),
        *_group_leakage(dataset),
        *_class_imbalance(dataset),
    ]


# starts of findings that bear on a comparison's result, most harmful first; duplicates in train are left out
_HARM = (
    "leakage from train into test",
    "leakage from validation into test",
    "group leakage",
    "missing classes in test",
    "language of the encoder",
    "truncation",
    "drift from train to test",
    "unknown pieces",
    "label shares of test",
    "vocabulary of the encoder",
    "leakage from train into validation",
    "replaced head",
    "label noise in test",
    "label noise in train",
    "column that tells the label",
    "drift from train to validation",
    "label shares of validation",
    "duplicates in test",
    "rare classes",
    "class imbalance",
    "label noise",
)


def most_harmful(findings: Sequence[str]) -> list[str]:
    """Return the findings that bear on a comparison's result, most harmful first."""
    ranks = {
        finding: rank
        for rank, start in reversed(list(enumerate(_HARM)))
        for finding in findings
        if finding.startswith(start)
    }
    return sorted(ranks, key=lambda finding: ranks[finding])


def _duplicates_and_label_noise(dataset: Dataset, texts: dict[str, pa.ChunkedArray]) -> list[str]:
    findings = []
    for split, table in dataset.splits.items():
        num_examples, num_distinct = table.num_rows, pc.count_distinct(texts[split]).as_py()
        if num_distinct < num_examples:
            findings.append(
                f"duplicates in {split}: {num_examples - num_distinct:,} of {num_examples:,} examples repeat an "
                "earlier one"
            )
        num_contradicting = _num_contradicting(texts[split], labels_of(table))
        if num_contradicting:
            findings.append(
                f"label noise in {split}: contradicting labels for {num_contradicting:,} of {num_distinct:,} "
                "distinct texts"
            )
    return findings


def _leakage(texts: dict[str, pa.ChunkedArray]) -> list[str]:
    findings = []
    for split, earlier_splits in _EARLIER.items():
        for earlier in earlier_splits:
            if split not in texts or earlier not in texts:
                continue  # with folds there is no validation split, and perhaps no test split
            num_shared = _num_shared(texts[split], texts[earlier])
            if num_shared:
                findings.append(
                    f"leakage from {earlier} into {split}: {num_shared:,} of {len(texts[split]):,} {split} examples "
                    f"are also in {earlier}"
                )
    return findings


def _group_leakage(dataset: Dataset) -> list[str]:
    # an example without a group, stored as "", is a group of its own
    groups = {
        split: table.filter(pc.not_equal(table[GROUP], ""))[GROUP]
        for split, table in dataset.splits.items()
        if GROUP in table.column_names
    }
    findings = []
    for split, earlier_splits in _EARLIER.items():
        earlier = [name for name in earlier_splits if name in groups]
        if split not in groups or not earlier:
            continue
        chunks = [chunk for name in earlier for chunk in groups[name].chunks]
        earlier_groups = pa.chunked_array(chunks, type=groups[split].type)
        num_shared = _num_shared(groups[split], earlier_groups)
        if num_shared:
            findings.append(
                f"group leakage from {' or '.join(earlier)} into {split}: {num_shared:,} of "
                f"{dataset.num_examples(split):,} {split} examples have a group that is also in {' or '.join(earlier)}"
            )
    return findings


def _class_imbalance(dataset: Dataset) -> list[str]:
    counts = {split: label_counts(labels_of(table), dataset.num_labels) for split, table in dataset.splits.items()}
    train, test, names, findings = counts["train"], counts.get("test"), dataset.label_names, []
    rare = [names[index] for index in np.flatnonzero(train < _RARE)]
    if rare:
        others = " and others" if len(rare) > _MAX_NAMES else ""
        findings.append(f"rare classes in train: fewer than {_RARE} examples of {', '.join(rare[:_MAX_NAMES])}{others}")
    if test is not None and not test.all():
        missing = [names[index] for index in np.flatnonzero(test == 0)[:_MAX_NAMES]]
        findings.append(f"missing classes in test: no example of {', '.join(missing)}")
    if train.max() > _IMBALANCED * train[train > 0].min():
        largest, smallest = int(train.argmax()), int(np.flatnonzero(train == train[train > 0].min())[-1])
        findings.append(
            f"class imbalance in train: {train[largest]:,} examples of {names[largest]}, the largest class, and "
            f"{train[smallest]:,} of {names[smallest]}, the smallest; compare macro_f1 as well as accuracy"
        )
    return findings


def _text_keys(table: pa.Table) -> pa.ChunkedArray:
    """Return a string per example; equal strings mean equal texts (of a pair: both)."""
    if "text_pair" not in table.column_names:
        return table["text"]
    return pc.binary_join_element_wise(table["text"], table["text_pair"], pa.scalar("\x1f", pa.large_string()))


def _num_shared(values: pa.ChunkedArray, earlier: pa.ChunkedArray) -> int:
    """Count the values that are also in another column."""
    return pc.sum(pc.is_in(values, value_set=earlier)).as_py() or 0


def _num_contradicting(texts: pa.ChunkedArray, labels: np.ndarray) -> int:
    """Count the distinct texts with more than one label. labels: (N,) or multi-label (N, C)."""
    if labels.ndim == 2:  # one number for each set of labels
        labels = np.unique(labels, axis=0, return_inverse=True)[1]
    per_text = (
        pa.table({"text": texts, "label": labels.ravel()}).group_by("text").aggregate([("label", "count_distinct")])
    )
    return pc.sum(pc.greater(per_text["label_count_distinct"], 1)).as_py() or 0
