"""Folds: every labelled example is a test example once. Stratified by label; groups and repeated texts stay whole.

# N examples
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from tuneoff.data.dataset import FOLD, GROUP, UNIT, label_counts, labels_of
from tuneoff.data.repeats import Pairs, repeated_texts
from tuneoff.data.spec import DataSpec, Evaluation, Fold
from tuneoff.data.splits import add_missing_splits, limit_splits, rows_of_fold, strata_of, stratified_folds
from tuneoff.errors import DataError
from tuneoff.scoring.metrics import as_rows

DEFAULT_FOLDS = 5
# labelled examples; with as many, a tenth of them is a test split that decides, and five runs of each strategy are slow
FOLDS_BELOW = 5000
_MAX_SIZE_FACTOR = 2.0  # by which the largest fold may be larger than the mean


@dataclass(frozen=True)
class Division:
    """Labelled examples, divided into splits or folds."""

    tables: dict[str, pa.Table]  # split -> its examples
    folds: int | None  # their number; None for one split
    left_out: dict[str, int]  # split that a limit reduced -> number of examples left out


class _NoFoldsError(DataError):
    """Data that cannot be divided into that number of folds."""


def fold_or_split(
    tables: dict[str, pa.Table], names: tuple[str, ...], spec: DataSpec, evaluate: Evaluation | None, notes: list[str]
) -> Division:
    """Divide the labelled examples into folds, or hold out the splits that are missing.

    names: of the labels. evaluate: None chooses folds for small data without a test split, if its classes and groups
    allow them. Appends notes. Raises DataError, in one line, if it cannot be done as asked.
    """
    num_folds = evaluate.folds if evaluate is not None else _default_folds(tables, spec)
    if num_folds is None:
        return _split(tables, spec, notes)
    try:
        folded, fold_notes = _fold(tables, names, spec, num_folds)
    except _NoFoldsError as error:
        if evaluate is not None:
            fewer = "" if num_folds == 2 else "use fewer folds (--folds 2), or "
            raise DataError(f"{error}; {fewer or 'use '}one test split (--folds none)") from None
        notes.append(f"evaluated on one test split instead of {num_folds} folds: {error}")
        return _split(tables, spec, notes)
    notes += fold_notes
    before, after = (sum(t.num_rows for s, t in of.items() if s != "test") for of in (tables, folded))
    return Division(folded, num_folds, {"train": before - after} if after < before else {})


def _split(tables: dict[str, pa.Table], spec: DataSpec, notes: list[str]) -> Division:
    whole = add_missing_splits(tables, spec, notes)
    limited = limit_splits(whole, spec, notes)
    left_out = {split: table.num_rows - limited[split].num_rows for split, table in whole.items()}
    return Division(limited, None, {split: count for split, count in left_out.items() if count})


def _default_folds(tables: dict[str, pa.Table], spec: DataSpec) -> int | None:
    """Return the number of folds for data without a test split; None for large data, or where a split is asked for."""
    asks_for_split = "test" in spec.limits or spec.test_fraction != DataSpec.model_fields["test_fraction"].default
    sizes = {split: min(table.num_rows, spec.limits.get(split, table.num_rows)) for split, table in tables.items()}  # type: ignore[call-overload]
    is_small = sum(sizes.values()) < FOLDS_BELOW
    return DEFAULT_FOLDS if is_small and "test" not in tables and not asks_for_split else None


def _fold(
    tables: dict[str, pa.Table], names: tuple[str, ...], spec: DataSpec, num_folds: int
) -> tuple[dict[str, pa.Table], list[str]]:
    """Pool the labelled examples, and give each a fold. Returns train, perhaps test, and notes."""
    if "test" in spec.limits and "test" not in tables:
        raise DataError("limit for test: with folds there is no test split unless one is given; leave the limit out")
    notes: list[str] = []
    limits = {split: limit for split, limit in spec.limits.items() if split in tables}
    limited = limit_splits(tables, spec.model_copy(update={"limits": limits}), notes)
    pool = _pooled([limited[split] for split in ("train", "validation") if split in limited])
    _check_classes(pool, names, num_folds)
    units, repeats = _units(pool, num_folds)
    _check_groups(pool, units, spec, num_folds)
    folds = _assign(strata_of(pool), units, num_folds, spec.split_seed)
    pool = pool.append_column(FOLD, pa.array(folds)).append_column(UNIT, pa.array(units))
    _check_folds(pool, names, spec, num_folds)
    whole = [f"groups of {spec.group!r} kept whole"] if spec.group else []
    whole += [repeats] if repeats else []
    source = "train and validation" if "validation" in limited else "all examples"
    notes.append(
        f"{num_folds} folds over {source}: each of the {pool.num_rows:,} examples is predicted once, by models that "
        f"were trained on the other folds; {', '.join(['stratified by label', *whole, f'seed {spec.split_seed}'])}"
    )
    return {"train": pool, **({"test": limited["test"]} if "test" in limited else {})}, notes


def _pooled(tables: list[pa.Table]) -> pa.Table:
    """Join splits; an example of a split without groups has the group "", which is one of its own."""
    pool = pa.concat_tables(tables, promote_options="default").combine_chunks()
    if GROUP in pool.column_names:
        filled = pc.fill_null(pool[GROUP], "")
        pool = pool.set_column(pool.column_names.index(GROUP), GROUP, filled)
    return pool


def _units(pool: pa.Table, num_folds: int) -> tuple[np.ndarray, str]:
    """Return the unit of each example, (N,), and a note on repeated texts; empty if there are none.

    Examples of one group, and those whose texts repeat each other, are in one unit, also by way of others: units are
    the connected components of both relations. Where similar texts join more examples than a fold has, as in data that
    was made from templates, only equal texts count.
    """
    equal, similar = repeated_texts(pool)
    fixed = [equal, *([_group_pairs(pool)] if GROUP in pool.column_names else [])]
    units, without_similar = _components(pool.num_rows, [*fixed, similar]), _components(pool.num_rows, fixed)
    num_repeats = len(np.unique(np.concatenate([*equal, *similar])))
    if np.bincount(units).max() <= max(pool.num_rows / num_folds, np.bincount(without_similar).max()):
        return units, f"{num_repeats:,} repeated or nearly repeated texts in one fold each" if num_repeats else ""
    num_equal = len(np.unique(np.concatenate(equal)))
    note = f"{num_equal:,} repeated texts in one fold each" if num_equal else ""
    if len(similar[0]):
        note += f"{', but ' if note else ''}not the nearly repeated ones, which are too many"
    return without_similar, note


def _group_pairs(pool: pa.Table) -> Pairs:
    """Return pairs of the first example of each group with every other one of it."""
    rows = np.flatnonzero(pc.not_equal(pool[GROUP], ""))
    groups = pool[GROUP].to_numpy(zero_copy_only=False)[rows].astype(str)
    _, first, codes = np.unique(groups, return_index=True, return_inverse=True)
    return rows[first][codes], rows


def _components(size: int, pairs: list[Pairs]) -> np.ndarray:
    """Return the connected component of each example, (N,)."""
    left, right = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    edges = sparse.coo_matrix((np.ones(len(left), np.int8), (left, right)), shape=(size, size))
    return connected_components(edges, directed=False)[1].astype(np.int64)


def _assign(strata: np.ndarray, units: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """Return the fold of each example, (N,). strata, units: (N,)."""
    folds = np.empty(len(strata), np.int64)
    for fold, rows in enumerate(stratified_folds(strata, units, num_folds, seed)):
        folds[rows] = fold
    return folds


def _check_classes(pool: pa.Table, names: tuple[str, ...], num_folds: int) -> None:
    """Raise if a class has fewer examples than there are folds."""
    counts = label_counts(labels_of(pool), len(names))
    rarest = int(counts.argmin())
    if counts[rarest] < num_folds:
        examples = "1 example" if counts[rarest] == 1 else f"{counts[rarest]} examples"
        raise _NoFoldsError(f"class {names[rarest]!r} has {examples}, fewer than {num_folds} folds")


def _check_groups(pool: pa.Table, units: np.ndarray, spec: DataSpec, num_folds: int) -> None:
    """Raise if there are fewer groups than folds, or if repeated texts join all examples."""
    if spec.group and GROUP in pool.column_names:
        names = pool[GROUP].to_pylist()
        num_groups = len({name or row for row, name in enumerate(names)})
        if num_groups < num_folds:
            raise _NoFoldsError(f"group column {spec.group!r} has {num_groups} groups, fewer than {num_folds} folds")
    num_units = len(np.unique(units))
    if num_units < num_folds:
        raise _NoFoldsError(f"{_joined_by(spec)} leave {num_units} of them apart, fewer than {num_folds} folds")


def _check_folds(pool: pa.Table, names: tuple[str, ...], spec: DataSpec, num_folds: int) -> None:
    """Raise if a fold is much too large, or if the runs of a fold could not learn a class."""
    sizes, labels = np.bincount(pool[FOLD].to_numpy(), minlength=num_folds), as_rows(labels_of(pool), len(names))
    if sizes.max() > _MAX_SIZE_FACTOR * pool.num_rows / num_folds:
        raise _NoFoldsError(
            f"{_joined_by(spec)} are so large that a fold would have {sizes.max():,} of {pool.num_rows:,} examples "
            f"instead of {pool.num_rows / num_folds:,.0f}"
        )
    for index in range(num_folds):
        fold = Fold(index=index, of=num_folds, validation_fraction=spec.validation_fraction, split_seed=spec.split_seed)
        train, validation, _ = rows_of_fold(pool, fold)
        has_example = labels[train].any(0)
        if not has_example.all():
            name = names[int(has_example.argmin())]
            raise _NoFoldsError(f"class {name!r} has no training example in fold {index} of {num_folds}")
        if not len(validation):
            raise _NoFoldsError(f"fold {index} of {num_folds} has no validation example")


def _joined_by(spec: DataSpec) -> str:
    return f"groups of {spec.group!r} and repeated texts" if spec.group else "repeated texts"
