"""Checks of the data before a comparison: leaks, duplicates, contradicting labels, label variants, groups, classes."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tuneoff.data.dataset import FOLD, GROUP, Dataset, label_counts, labels_of
from tuneoff.data.doctor.copies import Copies, Twins, copies_of
from tuneoff.data.doctor.finding import Finding, ranked
from tuneoff.data.doctor.variants import label_variants
from tuneoff.errors import join_limited

_RARE = 10  # examples of train; a class with fewer is reported as rare
_IMBALANCED = 3  # times the rarest class; a larger most frequent class is reported as class imbalance
_MAX_NAMES = 5  # of classes in a finding
# splits that are scored, each with the splits that training and selection use before it
_EARLIER = {"validation": ("train",), "test": ("train", "validation")}
# Harm is a share of the scored examples. Validation chooses epochs and options only, and what is wrong in some training
# examples changes a score by less than what is wrong in as many test examples: both count for a part.
_SELECTION, _TRAINING = 0.5, 0.1


def examine(dataset: Dataset, copies: Copies | None = None) -> list[Finding]:
    """Return the findings of all checks, most harmful first. copies: of the dataset, if they are computed already."""
    copies = copies or copies_of(dataset.splits)
    checks: list[Callable[[], list[Finding]]] = [
        lambda: _leakage(dataset, copies),
        lambda: _group_leakage(dataset),
        lambda: _contradictions(dataset, copies),
        lambda: _duplicates(dataset, copies),
        lambda: _label_variants(dataset),
        lambda: _classes(dataset),
    ]
    return ranked(finding for check in checks for finding in check())


def _leakage(dataset: Dataset, copies: Copies) -> list[Finding]:
    findings = []
    for split, earlier_splits in _EARLIER.items():
        for earlier in earlier_splits:
            if split not in copies.texts or earlier not in copies.texts:
                continue  # with folds there is no validation split, and perhaps no test split
            weight = 1.0 if (earlier, split) == ("train", "test") else _SELECTION
            findings += _leak(copies.twins(split, [earlier]), earlier, split, weight)
    if dataset.folds:
        is_leaked = copies.across_folds(dataset.splits["train"][FOLD].to_numpy())
        if is_leaked.any():
            count = int(is_leaked.sum())
            findings.append(
                Finding(
                    "leakage across folds",
                    f"{count:,} of {len(is_leaked):,} examples are nearly repeated in another fold; they are too many "
                    "for one fold",
                    "keep them together by a column (--group)",
                    count / len(is_leaked),
                    {"examples": count, "of": len(is_leaked)},
                )
            )
    return findings


def _leak(twins: Twins, earlier: str, split: str, weight: float) -> list[Finding]:
    num_shared, num_near, num_all = int(twins.is_copied.sum()), int(twins.is_near.sum()), len(twins.is_near)
    if not num_shared:
        return []
    num_other = int(twins.has_other_label.sum())
    text = f"{num_shared:,} of {num_all:,} {split} examples are also in {earlier}"
    parts = [f"{num_near:,} of them nearly"] if num_near else []
    parts += [f"{num_other:,} with another label"] if num_other else []
    details = {"examples": num_shared, "of": num_all, "near": num_near, "with_another_label": num_other}
    return [
        Finding(
            f"leakage from {earlier} into {split}",
            ", ".join([text, *parts]),
            f"--drop-leaks removes them from {earlier}",
            weight * num_shared / num_all,
            details,
        )
    ]


def _duplicates(dataset: Dataset, copies: Copies) -> list[Finding]:
    findings = []
    for split in copies.texts:
        repeats = copies.repeats(split)
        num_equal, num_near, num_all = int(repeats.is_equal.sum()), int(repeats.is_near.sum()), len(repeats.is_equal)
        if not num_equal + num_near:
            continue
        text = f"{num_equal + num_near:,} of {num_all:,} examples repeat an earlier one"
        findings.append(
            Finding(
                f"duplicates in {split}",
                text + (f", {num_near:,} of them nearly" if num_near else ""),
                "--drop-duplicates keeps the first of equal ones" if num_equal else "",
                _weight(dataset, split) * (num_equal + num_near) / num_all,
                {"examples": num_equal + num_near, "of": num_all, "near": num_near},
            )
        )
    return findings


def _contradictions(dataset: Dataset, copies: Copies) -> list[Finding]:
    findings = []
    for split, texts in copies.texts.items():
        is_contradicting = copies.contradicting(split)
        if not is_contradicting.any():
            continue
        count, num_texts = int(is_contradicting.sum()), len(np.unique(texts[is_contradicting]))
        findings.append(
            Finding(
                f"contradicting labels in {split}",
                f"{num_texts:,} of {len(np.unique(texts)):,} distinct texts have more than one label, in {count:,} "
                "examples",
                "--drop-contradicting drops all of them",
                _weight(dataset, split) * count / len(texts),
                {"texts": num_texts, "examples": count, "of": len(texts)},
            )
        )
    return findings


def _weight(dataset: Dataset, split: str) -> float:
    """Part of a score that a defect of some examples of a split may change."""
    if split == dataset.scored_split:
        return 1.0
    return _SELECTION if split == "validation" else _TRAINING


def _group_leakage(dataset: Dataset) -> list[Finding]:
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
        num_shared = _num_shared(groups[split], pa.chunked_array(chunks, type=groups[split].type))
        if num_shared:
            num_all, places = dataset.num_examples(split), " or ".join(earlier)
            findings.append(
                Finding(
                    f"group leakage from {places} into {split}",
                    f"{num_shared:,} of {num_all:,} {split} examples have a group that is also in {places}",
                    "give all examples in one file, which is split by group",
                    (1.0 if split == dataset.scored_split else _SELECTION) * num_shared / num_all,
                    {"examples": num_shared, "of": num_all},
                )
            )
    return findings


def _num_shared(values: pa.ChunkedArray, earlier: pa.ChunkedArray) -> int:
    """Count the values that are also in another column."""
    return pc.sum(pc.is_in(values, value_set=earlier)).as_py() or 0


def _label_variants(dataset: Dataset) -> list[Finding]:
    counts = _counts_by_split(dataset)
    total = np.sum(list(counts.values()), axis=0)
    names = dataset.label_names
    variants = label_variants(dict(zip(names, total.tolist(), strict=True)))
    if not variants:
        return []
    by_name = dict(zip(names, total.tolist(), strict=True))
    pairs = [
        f"{variant!r} ({by_name[variant]:,}) like {kept!r} ({by_name[kept]:,})" for variant, kept in variants.items()
    ]
    return [
        Finding(
            "label variants",
            f"{join_limited(pairs, _MAX_NAMES)}",
            "--merge-labels merges them into the most frequent spelling",
            sum(by_name[variant] for variant in variants) / max(1, int(total.sum())),
            {"variants": variants},
        )
    ]


def _counts_by_split(dataset: Dataset) -> dict[str, np.ndarray]:
    return {split: label_counts(labels_of(table), dataset.num_labels) for split, table in dataset.splits.items()}


def _classes(dataset: Dataset) -> list[Finding]:
    counts, names, findings = _counts_by_split(dataset), dataset.label_names, []
    train, scored = counts["train"], counts[dataset.scored_split]
    is_rare = train < _RARE
    if is_rare.any():
        findings.append(
            Finding(
                "rare classes in train",
                f"fewer than {_RARE} examples of {_some(names, is_rare)}",
                "label more of them, or merge classes",
                _share(scored, is_rare),
                {"classes": int(is_rare.sum())},
            )
        )
    for split, weight in (("test", 1.0), ("validation", _SELECTION)):
        is_missing = counts[split] == 0 if split in counts else np.zeros(len(names), bool)
        if is_missing.any():
            findings.append(
                Finding(
                    f"missing classes in {split}",
                    f"no example of {_some(names, is_missing)}",
                    f"use a {split} split that has them",
                    weight * _share(train, is_missing),
                    {"classes": int(is_missing.sum())},
                )
            )
    largest, smallest = int(train.argmax()), int(np.flatnonzero(train == train[train > 0].min())[-1])
    if train[largest] > _IMBALANCED * train[smallest]:
        findings.append(
            Finding(
                "class imbalance in train",
                f"{train[largest]:,} examples of {names[largest]}, the largest class, and {train[smallest]:,} of "
                f"{names[smallest]}, the smallest",
                f"compare macro_f1 as well as {'micro_f1' if dataset.is_multilabel else 'accuracy'}",
                0.0,  # of a score nothing changes, but what it means
                {"largest": int(train[largest]), "smallest": int(train[smallest])},
            )
        )
    return findings


def _some(names: tuple[str, ...], is_listed: np.ndarray) -> str:
    return join_limited([names[index] for index in np.flatnonzero(is_listed)], _MAX_NAMES)


def _share(counts: np.ndarray, is_counted: np.ndarray) -> float:
    return float(counts[is_counted].sum() / max(1, counts.sum()))
