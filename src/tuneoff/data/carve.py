"""Missing splits taken off train, splits limited, parts of train chosen: all with classes in proportion."""

import warnings
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from sklearn.model_selection import StratifiedGroupKFold

from tuneoff.data import multilabel, splits
from tuneoff.data.dataset import GROUP, SPLITS, Dataset, DataSpec, label_counts, labels_of
from tuneoff.data.splits import Subset
from tuneoff.errors import ConfigError, DataError
from tuneoff.metrics import as_rows

_FOLDS = 10
_FARTHEST = 2.0  # times more or less than wanted that a split of whole groups may be


def carve(tables: dict[str, pa.Table], spec: DataSpec, notes: list[str]) -> dict[str, pa.Table]:
    """Take a missing test split, then a missing validation split, off train; groups stay whole."""
    train = tables["train"]
    num_all, num_classes = train.num_rows, num_strata(train)
    for split, share in (("test", spec.test_fraction), ("validation", spec.validation_fraction)):
        if split in tables:
            continue
        labels = strata_of(train)
        if spec.group:
            taken, rest = _carve_groups(train, labels, share * num_all / train.num_rows, split, spec)
        else:
            total = max(num_classes, round(share * num_all))
            taken, rest = splits.carve(labels, total, np.random.default_rng([spec.split_seed, SPLITS.index(split)]))
        if len(taken) == 0 or len(rest) < num_classes:
            raise DataError(
                f"{num_all} examples of {num_classes} classes are too few to carve a {split} split; "
                f"give one (data.splits), or at least {3 * num_classes} examples"
            )
        tables = {**tables, split: train.take(taken)}
        train = train.take(rest)
        notes.append(
            f"{split} was carved from train: {len(taken):,} of {num_all:,} examples, classes in proportion, "
            + (f"groups of {spec.group!r} whole, " if spec.group else "")
            + f"seed {spec.split_seed}"
        )
    return {"train": train, "validation": tables["validation"], "test": tables["test"]}


def limited(tables: dict[str, pa.Table], spec: DataSpec, notes: list[str]) -> dict[str, pa.Table]:
    """At most as many examples of each split as a spec allows, classes in proportion."""
    kept = dict(tables)
    for split, limit in spec.limits.items():
        num_all, num_classes = tables[split].num_rows, num_strata(tables["train"])
        if limit < num_classes:
            raise DataError(f"limit {limit} for {split} is below the number of classes, {num_classes}")
        if limit < num_all:
            chosen = splits.subset(
                strata_of(tables[split]), limit, np.random.default_rng([spec.split_seed, 1, SPLITS.index(split)])
            )
            kept[split] = tables[split].take(chosen)
            notes.append(f"{split} is a subset: {limit:,} of {num_all:,} examples, classes in proportion")
    _check_all_classes_left(kept["train"], tables["train"])
    return kept


def _carve_groups(
    train: pa.Table, strata: np.ndarray, share: float, split: str, spec: DataSpec
) -> tuple[np.ndarray, np.ndarray]:
    """Whole groups of about a share of the examples, and the rest. strata: (N,). Sorted indices.

    An example without a group is one of its own.
    """
    if share >= 1:
        raise DataError(f"test and {split} together would take all of train; lower test_fraction or {split}_fraction")
    words = train[GROUP].to_pylist()
    groups = np.unique([word or f"\0{row}" for row, word in enumerate(words)], return_inverse=True)[1]
    wanted, num_groups = share * train.num_rows, len(np.unique(groups))
    if num_groups < 1 / min(share, 1 - share) - 0.5:
        raise DataError(
            f"group column {spec.group!r} has {num_groups} groups, too few to carve a {split} split of "
            f"{100 * share:.0f} %; give the split (--{split} FILE)"
        )
    count = min(num_groups, max(_FOLDS, round(1 / share)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer examples than folds: what is left is checked below
        parts = StratifiedGroupKFold(count, shuffle=True, random_state=spec.split_seed)
        folds = [part for _, part in parts.split(strata, strata, groups)]
    together = max(1, round(share * count))  # neighbours in the circle of folds
    circle = [np.concatenate([folds[(at + step) % count] for step in range(together)]) for at in range(count)]
    found = [(np.sort(taken), np.setdiff1d(np.arange(train.num_rows), taken)) for taken in circle]
    whole = [(taken, rest) for taken, rest in found if len(np.unique(strata[rest])) == len(np.unique(strata))]
    if not whole:
        raise DataError(
            f"group column {spec.group!r}: all examples of a class stand in groups that would leave train for {split}; "
            f"give the split (--{split} FILE), or another split_seed"
        )
    taken, rest = min(whole, key=lambda two: abs(len(two[0]) - wanted))
    if not wanted / _FARTHEST <= len(taken) <= wanted * _FARTHEST:
        raise DataError(
            f"group column {spec.group!r}: groups are so large that {split} would hold {len(taken)} examples of "
            f"{train.num_rows} where {wanted:.0f} are wanted; give the split (--{split} FILE)"
        )
    return taken, rest


def _check_all_classes_left(limited: pa.Table, whole: pa.Table) -> None:
    kept, all_of_it = (as_rows(labels_of(table), _most(whole)).any(0) for table in (limited, whole))
    if (kept < all_of_it).any():
        raise DataError("the limit for train leaves out a class; raise it, or merge rare classes")


def check_subset(dataset: Dataset, chosen: Subset, seeds: Sequence[int] = (0,)) -> None:
    """Raise ConfigError for a subset of train that leaves out a class, or that train has not enough examples for."""
    train = dataset.splits["train"]
    if chosen.per_class and dataset.is_multilabel:
        raise ConfigError("per_class does not go with several labels an example; use fractions")
    labels = labels_of(train)
    counts = label_counts(labels, dataset.num_labels)
    least = int(counts.argmin())
    if chosen.per_class and counts[least] < chosen.per_class:
        raise ConfigError(
            f"per_class {chosen.per_class}: train has only {counts[least]} examples of "
            f"{dataset.label_names[least]!r}; give at most so many"
        )
    strata = strata_of(train)
    left = np.min([label_counts(labels[chosen.of(strata, seed)], dataset.num_labels) for seed in seeds], axis=0)
    if (left == 0).any():
        absent = dataset.label_names[int(np.flatnonzero(left == 0)[0])]
        raise ConfigError(
            f"fraction {chosen.fraction:g} of {train.num_rows:,} training examples leaves out class {absent!r}; "
            "give a larger one"
        )


def chosen_examples(dataset: Dataset, part: Subset | None, seed: int) -> np.ndarray | None:
    """The training examples that a run with a seed sees; None for all."""
    return part.of(strata_of(dataset.splits["train"]), seed) if part else None


def num_chosen(dataset: Dataset, part: Subset | None, seed: int) -> int:
    """How many training examples a run with a seed sees."""
    chosen = chosen_examples(dataset, part, seed)
    return dataset.num_examples("train") if chosen is None else len(chosen)


def strata_of(table: pa.Table) -> np.ndarray:
    """By what splits and subsets are kept in proportion: the label, of several the rarest. (N,)."""
    labels = labels_of(table)
    return multilabel.strata(labels) if labels.ndim == 2 else labels


def num_strata(table: pa.Table) -> int:
    """How many classes a split is parted by."""
    return len(np.unique(strata_of(table)))


def _most(table: pa.Table) -> int:
    """Labels of a split, at most."""
    labels = labels_of(table)
    return labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1
