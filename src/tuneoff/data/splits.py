"""Splits: hold out missing ones, limit their sizes, draw subsets of train, choose the examples that a run reads.

All are stratified by label; groups stay whole.

# N examples  C classes
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tuneoff.data import large
from tuneoff.data.dataset import FOLD, GROUP, HELD_OUT, UNIT, Dataset, label_counts, labels_of
from tuneoff.data.labels import rarest_label
from tuneoff.data.spec import SPLITS, DataSpec, Fold, Subset
from tuneoff.errors import ConfigError, DataError

_MIN_FOLDS = 10  # that groups are distributed over; a split is made of folds
_MAX_SIZE_FACTOR = 2.0  # by which the size of a split of whole groups may differ from the wanted one, up or down


def add_missing_splits(tables: dict[str, pa.Table], spec: DataSpec, notes: list[str]) -> dict[str, pa.Table]:
    """Hold out a missing test split, then a missing validation split, from train. Appends a note for each.

    A limit that is larger than the spec's fraction is the size of the split, up to half of the examples.
    """
    train = tables["train"]
    num_all, num_classes = train.num_rows, _num_strata(train)
    for split, fraction in (("test", spec.test_fraction), ("validation", spec.validation_fraction)):
        if split in tables:
            continue
        strata, limit = strata_of(train), spec.limits.get(split, 0)  # type: ignore[call-overload]
        wanted = round(fraction * num_all)
        if wanted < limit <= train.num_rows // 2:
            wanted, fraction = limit, limit / num_all
        elif limit > train.num_rows // 2:
            notes.append(f"the limit of {limit:,} for {split} is above half of the examples, and is no wanted size")
        if spec.group:
            # the fraction is of all examples, and train may already be without test
            held_out, rest = _split_groups(train, strata, fraction * num_all / train.num_rows, split, spec)
        else:
            total = max(num_classes, wanted)
            rng = np.random.default_rng([spec.split_seed, SPLITS.index(split)])
            held_out, rest = stratified_split(strata, total, rng)
        if len(held_out) == 0 or len(rest) < num_classes:
            raise DataError(
                f"{num_all} examples of {num_classes} classes are too few to hold out a {split} split; "
                f"name one (data.splits), or give at least {3 * num_classes} examples"
            )
        tables = {**tables, split: large.taken(train, held_out)}
        train = large.taken(train, rest)
        notes.append(
            f"{split} was held out from train: {len(held_out):,} of {num_all:,} examples, stratified by label, "
            + (f"groups of {spec.group!r} kept whole, " if spec.group else "")
            + f"seed {spec.split_seed}"
        )
    return {"train": train, "validation": tables["validation"], "test": tables["test"]}


def pool_splits(tables: dict[str, pa.Table], notes: list[str]) -> dict[str, pa.Table]:
    """Join all splits into train, to be divided anew; an example of a split without groups is a group of its own."""
    given = [split for split in SPLITS if split in tables]
    if len(given) == 1:
        notes.append("the data have no splits to ignore")
        return tables
    pool = pa.concat_tables([tables[split] for split in given], promote_options="default").combine_chunks()
    if GROUP in pool.column_names:
        filled = pool[GROUP].fill_null("")
        pool = pool.set_column(pool.column_names.index(GROUP), GROUP, filled)
    sizes = ", ".join(f"{split} {tables[split].num_rows:,}" for split in given)
    notes.append(f"the splits of the source are ignored: {pool.num_rows:,} examples ({sizes}) are divided anew")
    return {"train": pool}


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
            limited[split] = large.taken(tables[split], stratified_sample(strata_of(tables[split]), limit, rng))
            notes.append(f"{split} is a subset: {limit:,} of {num_all:,} examples, stratified by label")
    _check_all_classes_left(limited["train"], tables["train"])
    return limited


@dataclass(frozen=True)
class Part:
    """The examples that a run reads for one purpose: rows of a stored split."""

    split: str
    rows: np.ndarray | None = None  # sorted; None for all

    def table(self, dataset: Dataset) -> pa.Table:
        """Return the examples."""
        table = dataset.splits[self.split]
        return table if self.rows is None else large.taken(table, self.rows)

    def labels(self, dataset: Dataset) -> np.ndarray:
        """Return the labels: ids, (N,), or for multi-label data zeros and ones, (N, C)."""
        labels = labels_of(dataset.splits[self.split])
        return labels if self.rows is None else labels[self.rows]

    def row_numbers(self, dataset: Dataset) -> np.ndarray:
        """Return the examples' rows of the stored split. (N,)."""
        return np.arange(dataset.num_examples(self.split)) if self.rows is None else self.rows

    def num_examples(self, dataset: Dataset) -> int:
        """Return the number of examples."""
        return dataset.num_examples(self.split) if self.rows is None else len(self.rows)


def parts_of(
    dataset: Dataset,
    fold: Fold | None = None,
    subset: Subset | None = None,
    seed: int = 0,
    division: int = 0,
) -> dict[str, Part]:
    """Return the examples that a run trains on, is validated on and is tested on, by purpose: train, validation, test.

    Without a fold they are the stored splits; a dataset with folds then has no validation split, and a test split only
    if one was given. A subset is drawn from the examples to train on. division: seed of the division of the stored
    train split into examples to train on and validation examples, where it holds both; 0 is the stored one.
    """
    parts = {split: Part(split) for split in dataset.splits}
    if fold is not None:
        rows = rows_of_fold(dataset.splits["train"], fold)
        parts = {purpose: Part("train", own) for purpose, own in zip(SPLITS, rows, strict=True)}
    elif dataset.is_pooled:
        divided = rows_of_division(dataset.splits["train"], division)
        parts |= {purpose: Part("train", own) for purpose, own in zip(("train", "validation"), divided, strict=True)}
    if subset:
        train = parts["train"]
        chosen = subset_of(subset, strata_of(train.table(dataset)), seed)
        parts["train"] = Part(train.split, train.row_numbers(dataset)[chosen])
    return parts


def rows_of_fold(pool: pa.Table, fold: Fold) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows of a fold's training, validation and test examples, each sorted.

    Validation is held out from the next fold (from the next ones, if it is larger than one): folds are alike, and in a
    single one whole groups are divided quickly. Every class keeps a training example there, if it has two.
    """
    folds, units = pool[FOLD].to_numpy(), pool[UNIT].to_numpy()
    num_wanted = max(1, round(fold.validation_fraction * len(folds)))
    num_next = min(fold.of - 1, int(np.ceil(fold.validation_fraction * fold.of)))
    next_folds = (fold.index + 1 + np.arange(num_next)) % fold.of
    source, rest = (
        np.flatnonzero(np.isin(folds, next_folds)),
        np.flatnonzero(~np.isin(folds, [fold.index, *next_folds])),
    )
    strata = strata_of(pool.select(["label"]).take(source))
    if len(np.unique(units[source])) == len(source):
        rng = np.random.default_rng([fold.split_seed, 3, fold.index])
        held_out, left = stratified_split(strata, min(num_wanted, len(source)), rng)
    else:
        held_out, left = _hold_out_units(strata, units[source], num_wanted, fold.split_seed)
    train = np.sort(np.concatenate([rest, source[left]]))
    return train, source[held_out], np.flatnonzero(folds == fold.index)


def pool_to_divide(tables: dict[str, pa.Table], spec: DataSpec, notes: list[str]) -> dict[str, pa.Table]:
    """Join train and validation for runs that divide them anew. Returns train, with HELD_OUT and UNIT, and test."""
    parts = [tables[split] for split in ("train", "validation")]
    pool = pa.concat_tables(parts, promote_options="default").combine_chunks()
    units = np.arange(pool.num_rows)
    if GROUP in pool.column_names:
        groups = pool[GROUP].to_pylist()
        first = {name: row for row, name in reversed(list(enumerate(groups))) if name}
        units = np.array([first.get(name, row) for row, name in enumerate(groups)])
    held_out = np.repeat(np.array([0, 1], np.int8), [part.num_rows for part in parts])
    pool = pool.append_column(HELD_OUT, pa.array(held_out)).append_column(UNIT, pa.array(units))
    notes.append(
        f"train and validation are divided anew by each seed of split but 0: {parts[1].num_rows:,} of "
        f"{pool.num_rows:,} examples for validation, stratified by label"
        + (f", groups of {spec.group!r} kept whole" if spec.group else "")
    )
    return {"train": pool, "test": tables["test"]}


def rows_of_division(pool: pa.Table, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the examples to train on and of the validation examples, each sorted; seed 0: as stored."""
    is_held_out = pool[HELD_OUT].to_numpy().astype(bool)
    if seed == 0:
        return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
    strata, units, num_wanted = strata_of(pool.select(["label"])), pool[UNIT].to_numpy(), int(is_held_out.sum())
    if len(np.unique(units)) == len(units):
        held_out, left = stratified_split(strata, num_wanted, np.random.default_rng([4, seed]))
    else:
        held_out, left = _hold_out_units(strata, units, num_wanted, seed)
    return left, held_out


def check_divisions(dataset: Dataset, seeds: Sequence[int]) -> None:
    """Raise DataError for a seed of split that leaves a class without a training example, or no validation example."""
    for seed in seeds:
        parts = parts_of(dataset, division=seed)
        counts = label_counts(parts["train"].labels(dataset), dataset.num_labels)
        if not counts.all() or not parts["validation"].num_examples(dataset):
            lost = f"class {dataset.label_names[int(counts.argmin())]!r} without a training example"
            raise DataError(
                f"seeds: split {seed} leaves {lost if not counts.all() else 'no validation example'}; use another seed"
            )


def _hold_out_units(strata: np.ndarray, units: np.ndarray, wanted: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hold out about `wanted` examples in whole units, stratified. strata, units: (N,) -> (held out, rest), sorted."""
    num_folds = min(round(len(units) / wanted), len(np.unique(units)))
    if num_folds < 2:
        return np.arange(len(units)), np.empty(0, int)
    candidates = stratified_folds(strata, units, num_folds, seed)
    held_out = min(candidates, key=lambda rows: abs(len(rows) - wanted))
    return held_out, np.setdiff1d(np.arange(len(units)), held_out)


def check_subset(dataset: Dataset, subset: Subset, seeds: Sequence[int] = (0,), folds: Sequence[Fold] = ()) -> None:
    """Raise ConfigError for a subset of train that lacks a class at one of the seeds, or is larger than train.

    folds: where there are some, each draws its own subset, from its training examples and with its index as seed.
    """
    if subset.per_class and dataset.is_multilabel:
        raise ConfigError("per_class does not go with multi-label data; use fractions")
    draws: list[tuple[Fold | None, int]] = [(fold, fold.index) for fold in folds]
    for fold, seed in draws or [(None, seed) for seed in seeds]:
        train = parts_of(dataset, fold)["train"].labels(dataset)
        counts = label_counts(train, dataset.num_labels)
        rarest = int(counts.argmin())
        if subset.per_class and counts[rarest] < subset.per_class:
            raise ConfigError(
                f"per_class {subset.per_class}: train has only {counts[rarest]} examples of "
                f"{dataset.label_names[rarest]!r}; use at most {counts[rarest]}"
            )
        drawn = parts_of(dataset, fold, subset, seed)["train"].labels(dataset)
        is_absent = label_counts(drawn, dataset.num_labels) == 0
        if is_absent.any():
            raise ConfigError(
                f"fraction {subset.fraction:g} of {len(train):,} training examples leaves out class "
                f"{dataset.label_names[int(is_absent.argmax())]!r}; use a larger one"
            )


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
    folds = stratified_folds(strata, groups, num_folds, spec.split_seed)
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


def stratified_folds(strata: np.ndarray, groups: np.ndarray, num_folds: int, seed: int) -> list[np.ndarray]:
    """Distribute whole groups over folds of about equal size and class shares; the sorted indices of each fold.

    strata, groups: (N,).
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # slow to import

    has_groups = len(np.unique(groups)) < len(groups)
    splitter = (StratifiedGroupKFold if has_groups else StratifiedKFold)(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # about classes with fewer examples than folds; callers check the classes that are left
        warnings.simplefilter("ignore")
        return [fold for _, fold in splitter.split(strata, strata, groups)]


def _check_all_classes_left(limited: pa.Table, train: pa.Table) -> None:
    labels = [labels_of(table) for table in (limited, train)]
    num_labels = labels[1].shape[1] if labels[1].ndim == 2 else int(labels[1].max()) + 1
    is_left, is_in_train = (label_counts(of_table, num_labels) > 0 for of_table in labels)
    if (is_left < is_in_train).any():
        raise DataError("the limit for train leaves out a class; raise it, or merge rare classes")


def _num_strata(table: pa.Table) -> int:
    return len(np.unique(strata_of(table)))
