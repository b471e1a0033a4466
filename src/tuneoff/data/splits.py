"""Splits: hold out missing ones, limit their sizes, draw subsets of train. All stratified by label; groups stay whole.

# N examples  C classes
"""

import warnings
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from tuneoff.data.dataset import GROUP, Dataset, label_counts, labels_of
from tuneoff.data.labels import rarest_label
from tuneoff.data.spec import SPLITS, DataSpec, Subset
from tuneoff.errors import ConfigError, DataError
from tuneoff.scoring.metrics import as_rows

_MIN_FOLDS = 10  # that groups are distributed over; a split is made of folds
_MAX_SIZE_FACTOR = 2.0  # by which the size of a split of whole groups may differ from the wanted one, up or down


def add_missing_splits(tables: dict[str, pa.Table], spec: DataSpec, notes: list[str]) -> dict[str, pa.Table]:
    """Hold out a missing test split, then a missing validation split, from train. Appends a note for each."""
    train = tables["train"]
    num_all, num_classes = train.num_rows, _num_strata(train)
    for split, fraction in (("test", spec.test_fraction), ("validation", spec.validation_fraction)):
        if split in tables:
            continue
        strata = strata_of(train)
        if spec.group:
            # the fraction is of all examples, and train may already be without test
            held_out, rest = _split_groups(train, strata, fraction * num_all / train.num_rows, split, spec)
        else:
            total = max(num_classes, round(fraction * num_all))
            rng = np.random.default_rng([spec.split_seed, SPLITS.index(split)])
            held_out, rest = stratified_split(strata, total, rng)
        if len(held_out) == 0 or len(rest) < num_classes:
            raise DataError(
                f"{num_all} examples of {num_classes} classes are too few to hold out a {split} split; "
                f"name one (data.splits), or give at least {3 * num_classes} examples"
            )
        tables = {**tables, split: train.take(held_out)}
        train = train.take(rest)
        notes.append(
            f"{split} was held out from train: {len(held_out):,} of {num_all:,} examples, stratified by label, "
            + (f"groups of {spec.group!r} kept whole, " if spec.group else "")
            + f"seed {spec.split_seed}"
        )
    return {"train": train, "validation": tables["validation"], "test": tables["test"]}


def limit_splits(tables: dict[str, pa.Table], spec: DataSpec, notes: list[str]) -> dict[str, pa.Table]:
    """Reduce splits to the limits of a spec, stratified by label. Appends a note for each."""
    limited = dict(tables)
    for split, limit in spec.limits.items():
        num_all, num_classes = tables[split].num_rows, _num_strata(tables["train"])
        if limit < num_classes:
            raise DataError(
                f"limit {limit} for {split} is below the number of classes, {num_classes}; give at least {num_classes}"
            )
        if limit < num_all:
            rng = np.random.default_rng([spec.split_seed, 1, SPLITS.index(split)])
            limited[split] = tables[split].take(stratified_sample(strata_of(tables[split]), limit, rng))
            notes.append(f"{split} is a subset: {limit:,} of {num_all:,} examples, stratified by label")
    _check_all_classes_left(limited["train"], tables["train"])
    return limited


def check_subset(dataset: Dataset, subset: Subset, seeds: Sequence[int] = (0,)) -> None:
    """Raise ConfigError for a subset of train that lacks a class at one of the seeds, or is larger than train."""
    train = dataset.splits["train"]
    if subset.per_class and dataset.is_multilabel:
        raise ConfigError("per_class does not go with multi-label data; use fractions")
    labels = labels_of(train)
    counts = label_counts(labels, dataset.num_labels)
    rarest = int(counts.argmin())
    if subset.per_class and counts[rarest] < subset.per_class:
        raise ConfigError(
            f"per_class {subset.per_class}: train has only {counts[rarest]} examples of "
            f"{dataset.label_names[rarest]!r}; use at most {counts[rarest]}"
        )
    strata = strata_of(train)
    subset_counts = [label_counts(labels[subset_of(subset, strata, seed)], dataset.num_labels) for seed in seeds]
    is_absent = np.min(subset_counts, axis=0) == 0
    if is_absent.any():
        raise ConfigError(
            f"fraction {subset.fraction:g} of {train.num_rows:,} training examples leaves out class "
            f"{dataset.label_names[int(is_absent.argmax())]!r}; use a larger one"
        )


def subset_size(dataset: Dataset, subset: Subset | None, seed: int) -> int:
    """Return the number of training examples of a run with a subset and a seed."""
    indices = subset_indices(dataset, subset, seed)
    return dataset.num_examples("train") if indices is None else len(indices)


def subset_indices(dataset: Dataset, subset: Subset | None, seed: int) -> np.ndarray | None:
    """Return the sorted indices of the training examples of a run with a subset and a seed; None for all."""
    return subset_of(subset, strata_of(dataset.splits["train"]), seed) if subset else None


def subset_of(subset: Subset, strata: np.ndarray, seed: int) -> np.ndarray:
    """Return the sorted indices of a stratified subset of train. strata: (N,) class of each example.

    The same for every strategy. At one seed a larger subset contains the smaller ones, except for an example or two
    that rounding moves between classes.
    """
    rng = np.random.default_rng([2, seed])
    if subset.fraction:
        return stratified_sample(strata, max(1, round(subset.fraction * len(strata))), rng)
    classes = np.unique(strata)
    return np.sort(np.concatenate([rng.permutation(np.flatnonzero(strata == c))[: subset.per_class] for c in classes]))


def strata_of(table: pa.Table) -> np.ndarray:
    """Return the class by which each example is stratified: its label; in multi-label data, its rarest label. (N,)."""
    labels = labels_of(table)
    return rarest_label(labels) if labels.ndim == 2 else labels


def stratified_split(labels: np.ndarray, total: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Hold out `total` examples, stratified. labels: (N,) -> (held out, rest), sorted indices.

    Every class keeps at least one example in the rest, so that it can still be learnt. Fewer than `total` are held
    out where a class would otherwise lose its last example.
    """
    classes, counts = np.unique(labels, return_counts=True)
    sizes = np.minimum(apportion(counts, total), counts - 1)
    parts = [
        rng.permutation(np.flatnonzero(labels == label))[:size] for label, size in zip(classes, sizes, strict=True)
    ]
    held_out = np.sort(np.concatenate(parts))
    return held_out, np.setdiff1d(np.arange(len(labels)), held_out)


def stratified_sample(labels: np.ndarray, total: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `total` examples, stratified; all if there are fewer. labels: (N,) -> sorted indices."""
    classes, counts = np.unique(labels, return_counts=True)
    parts = [
        rng.permutation(np.flatnonzero(labels == label))[:size]
        for label, size in zip(classes, apportion(counts, total), strict=True)
    ]
    return np.sort(np.concatenate(parts))


def apportion(counts: np.ndarray, total: int) -> np.ndarray:
    """Divide a total among classes in proportion to their counts; the sum is exact. counts: (C,) -> (C,).

    Method of largest remainders (Hamilton).

    >>> apportion(np.array([50, 30, 20]), 10)
    array([5, 3, 2])
    """
    total = min(total, int(counts.sum()))
    exact = counts * total / max(1, counts.sum())
    sizes = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(sizes - exact, kind="stable")  # largest remainder first
    sizes[by_remainder[: total - sizes.sum()]] += 1
    return sizes


def _split_groups(
    train: pa.Table, strata: np.ndarray, fraction: float, split: str, spec: DataSpec
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out whole groups with about a fraction of train. strata: (N,) -> (held out, rest), sorted indices.

    Against group leakage: no group has examples on both sides. An example without a group is a group of its own.

    Algorithm: StratifiedGroupKFold distributes the groups over folds of about equal size and class shares. The folds
    form a circle; a candidate is a sequence of neighbouring folds that together make up the fraction, and each fold
    starts one candidate. Candidates that would leave train without a class are dropped. The candidate whose size is
    nearest to the wanted one is held out.

    Trade-off: more folds approximate the fraction better, fewer folds keep the class shares better. There are at
    least ten (or one per group), also where a class has fewer examples than that: with as many folds as the rarest
    class has examples, half of the data became test (docs/log.md, "A second review"). Whole groups cannot give an
    exact size; up to twice or half of the wanted size is accepted, beyond that the user has to give the split.
    """
    if fraction >= 1:
        raise DataError(f"test and {split} together would take all of train; lower test_fraction or {split}_fraction")
    names = train[GROUP].to_pylist()
    groups = np.unique([name or f"\0{row}" for row, name in enumerate(names)], return_inverse=True)[1]
    wanted, num_groups = fraction * train.num_rows, len(np.unique(groups))
    # a group of average size must fit into the smaller side; 0.5 for rounding
    if num_groups < 1 / min(fraction, 1 - fraction) - 0.5:
        raise DataError(
            f"group column {spec.group!r} has {num_groups} groups, too few to hold out {100 * fraction:.0f} % as "
            f"{split}; give the split (--{split} FILE)"
        )
    num_folds = min(num_groups, max(_MIN_FOLDS, round(1 / fraction)))
    from sklearn.model_selection import StratifiedGroupKFold  # slow to import, and used only for groups

    with warnings.catch_warnings():
        # about classes with fewer examples than folds; the classes that are left are checked below
        warnings.simplefilter("ignore")
        splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=spec.split_seed)
        folds = [fold for _, fold in splitter.split(strata, strata, groups)]
    length = max(1, round(fraction * num_folds))  # of a candidate, in folds
    candidates = [
        np.sort(np.concatenate([folds[(start + step) % num_folds] for step in range(length)]))
        for start in range(num_folds)
    ]
    pairs = [(held_out, np.setdiff1d(np.arange(train.num_rows), held_out)) for held_out in candidates]
    num_classes = len(np.unique(strata))
    valid_pairs = [(held_out, rest) for held_out, rest in pairs if len(np.unique(strata[rest])) == num_classes]
    if not valid_pairs:
        raise DataError(
            f"group column {spec.group!r}: every choice of groups for {split} takes all examples of a class from "
            f"train; give the split (--{split} FILE), or use another split_seed"
        )
    held_out, rest = min(valid_pairs, key=lambda pair: abs(len(pair[0]) - wanted))
    if not wanted / _MAX_SIZE_FACTOR <= len(held_out) <= wanted * _MAX_SIZE_FACTOR:
        raise DataError(
            f"group column {spec.group!r}: groups are so large that {split} would have {len(held_out)} examples of "
            f"{train.num_rows} instead of {wanted:.0f}; give the split (--{split} FILE)"
        )
    return held_out, rest


def _check_all_classes_left(limited: pa.Table, train: pa.Table) -> None:
    labels = [labels_of(table) for table in (limited, train)]
    num_labels = labels[1].shape[1] if labels[1].ndim == 2 else int(labels[1].max()) + 1
    is_left, is_in_train = (as_rows(of_table, num_labels).any(0) for of_table in labels)
    if (is_left < is_in_train).any():
        raise DataError("the limit for train leaves out a class; raise it, or merge rare classes")


def _num_strata(table: pa.Table) -> int:
    return len(np.unique(strata_of(table)))
