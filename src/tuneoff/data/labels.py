"""Labels, from a user's column to ids: single labels, multi-label data, missing labels, label names, rare classes.

Multi-label data comes as lists of names or ids, as strings with a separator, or as columns of zeros and ones.
# N examples  C classes
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tuneoff.data.columns import MAX_LABEL_BYTES, MAX_TEXT_BYTES, plain_column
from tuneoff.data.dataset import label_counts, labels_of
from tuneoff.data.doctor.variants import label_variants
from tuneoff.errors import DataError, join_limited, short_repr

_MISSING = ("", "-")  # SNLI writes - where the annotators did not agree
_NULLS = ("nan", "null", "n/a", "<na>")  # missing values as other programs write them; compared in lower case
_MAX_NAMES = 12  # of labels in an error message


def is_list(column: pa.ChunkedArray) -> bool:
    """Tell whether a column holds lists, hence multi-label data."""
    return (
        pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type)
    )


def split_at_separator(column: pa.ChunkedArray, separator: str) -> pa.ChunkedArray:
    """Convert multi-label strings, news|sport, to lists of names. An empty string is an example without labels."""
    return pc.split_pattern(column.cast(pa.large_string()), separator)


def lists_from_columns(table: pa.Table, names: tuple[str, ...], split: str) -> pa.ChunkedArray:
    """Convert multi-label columns of zeros and ones, one per label, to one column of lists of their names.

    split: for the error message. Raises DataError if a column holds another value.
    """
    has_label = np.stack([_zeros_and_ones(table[name], name, split) for name in names], axis=1)  # (N, C)
    lists = [[names[index] for index in np.flatnonzero(row)] for row in has_label]
    return pa.chunked_array([pa.array(lists, pa.list_(pa.large_string()))])


def is_missing_label(labels: pa.ChunkedArray, classes: tuple[str, ...]) -> np.ndarray:
    """Mask of missing labels. (N,) bool. classes: values that are real labels even if they look missing.

    Missing are null, NaN, "", "-", and -1 if the other labels include 0 or there are none. Of lists, only null is
    missing: an empty list is an example without labels.
    """
    if is_list(labels):
        return pc.is_null(labels).to_numpy()
    is_null = pc.is_null(labels, nan_is_null=True).to_numpy()
    values = pc.fill_null(as_strings(labels), "")
    distinct = set(pc.unique(values.filter(pa.array(~is_null))).to_pylist())
    missing_values = [value for value in distinct if value in _MISSING or value.lower() in _NULLS]
    # the hub writes -1 where a label is withheld; -1 and 1 without 0 are two classes
    if distinct == {"-1"} or {"-1", "0"} <= distinct:
        missing_values.append("-1")
    missing_values = [value for value in missing_values if value not in classes]
    return is_null | pc.is_in(values, pa.array(missing_values, pa.large_string())).to_numpy()


def missing_label_hint(labels: pa.ChunkedArray, is_missing: np.ndarray) -> str:
    """Write the end of an error message about missing labels: how to keep a class that looks missing."""
    if is_list(labels):
        return ""
    values = [value for value in pc.unique(as_strings(labels).filter(pa.array(is_missing))).to_pylist() if value]
    return f"; if {values[0]!r} is a class, name all classes with labels (--labels)" if values else ""


def labels_to_ids(
    tables: dict[str, pa.Table], user_names: tuple[str, ...] | None, source_names: tuple[str, ...] | None
) -> tuple[dict[str, pa.Table], tuple[str, ...]]:
    """Replace single labels by ids 0..C-1 in every split; return the tables and the label names in the order of ids.

    Names are the user's, else the source's own, else the labels of train: integers by size, then the rest by
    alphabet. A source's integers are ids of its names, even if its names are numbers as well (1, 2, 3). A user's
    names that no label matches name the ids 0..C-1 in the data. Raises DataError for a label outside the names.
    """
    labels = {split: as_strings(table["label"]) for split, table in tables.items()}
    distinct = {label for column in labels.values() for label in pc.unique(column).to_pylist()}
    names = user_names or source_names
    if names is None:
        names = tuple(sorted(set(pc.unique(labels["train"]).to_pylist()), key=_sort_key))
    _check_names_are_distinct(names)
    ids = [str(index) for index in range(len(names))]
    holds_source_ids = (
        pa.types.is_integer(tables["train"]["label"].type) and user_names is None and source_names is not None
    )
    holds_ids = holds_source_ids or (not distinct & set(names) and distinct <= set(ids))
    allowed = pa.array(ids if holds_ids else names, pa.large_string())
    with_ids = {}
    for split, table in tables.items():
        indices = pc.index_in(labels[split], allowed)
        if indices.null_count:
            raise _outside_label_set(table, labels[split], indices, split, names)
        with_ids[split] = table.set_column(table.column_names.index("label"), "label", indices.cast(pa.int64()))
    return with_ids, tuple(names)


def label_lists_to_indicators(
    tables: dict[str, pa.Table], user_names: tuple[str, ...] | None, source_names: tuple[str, ...] | None, column: str
) -> tuple[dict[str, pa.Table], tuple[str, ...]]:
    """Replace multi-label lists by C zeros and ones in every split; return the tables and the label names in order.

    A list holds names, ids of the source's names, or C zeros and ones, which need names of the user or the source.
    Names are chosen as for single labels. column: name of the label column, for error messages. Raises DataError for
    a label outside the names, a split without labels, and data that are not multi-label.
    """
    lists = {split: table["label"].to_pylist() for split, table in tables.items()}
    if are_indicators(lists["train"]):
        names, length = user_names or source_names, len(lists["train"][0])
        if names is None or len(names) != length:
            raise DataError(
                f"label column {column!r} holds lists of {length} times 0 or 1; name the labels in their order with "
                "labels (--labels), or give lists of names"
            )
        lists = {split: [[names[i] for i in np.flatnonzero(row)] for row in rows] for split, rows in lists.items()}
    labels = {
        split: _label_lists_as_strings(rows, source_names if user_names is None else None)
        for split, rows in lists.items()
    }
    names = user_names or source_names
    if names is None:
        names = tuple(sorted({label for row in labels["train"] for label in row}, key=_sort_key))
    _check_names_are_distinct(names)
    if all(len(row) == 1 for rows in labels.values() for row in rows):
        raise DataError(
            f"label column {column!r} gives every example exactly one label; give one column of single labels instead"
        )
    ids, with_indicators = {name: index for index, name in enumerate(names)}, {}
    for split, table in tables.items():
        if not any(labels[split]):
            raise DataError(f"split {split} has no label in any row; use another split in its place (data.splits)")
        indicators = np.zeros((table.num_rows, len(names)), np.uint8)
        for number, row in enumerate(labels[split]):
            outside = [label for label in row if label not in ids]
            if outside:
                raise DataError(
                    f"split {split} has label {outside[0]!r} in row {table['row'][number].as_py()} (the first row is "
                    f"1), which is outside the label set; the labels are {join_limited(names, _MAX_NAMES)}"
                )
            indicators[number, [ids[label] for label in row]] = 1
        column_of_lists = pa.FixedSizeListArray.from_arrays(pa.array(indicators.ravel()), len(names))
        with_indicators[split] = table.set_column(table.column_names.index("label"), "label", column_of_lists)
    return with_indicators, tuple(names)


def check_classes(train: pa.Table, names: tuple[str, ...], column: str) -> None:
    """Raise DataError unless train has two classes or more, examples of each, and few classes for its size."""
    counts = label_counts(labels_of(train), len(names))
    if (counts > 0).sum() < 2:
        only = names[int(counts.argmax())]
        raise DataError(f"label column {column!r} has one class only, {only!r}; a classifier needs at least two")
    if (counts == 0).any():
        absent = [names[i] for i in np.flatnonzero(counts == 0)]
        raise DataError(f"train has no example of {join_limited(absent)}; every class needs some")
    if train.num_rows > 20 and len(names) > train.num_rows // 2:
        raise DataError(
            f"label column {column!r} has {len(names)} classes in {train.num_rows} examples; is it the label? "
            "Name another column with label (--label)"
        )


def rarest_label(labels: np.ndarray) -> np.ndarray:
    """Return the rarest label of each multi-label example, by which splits are stratified. (N, C) -> (N,) ids.

    An example without labels gets C, a class of its own.
    """
    counts = labels.sum(0)
    order = np.argsort(counts, kind="stable")  # rarest first
    ranked = labels[:, order].astype(bool)
    return np.where(ranked.any(1), order[ranked.argmax(1)], labels.shape[1])


def _zeros_and_ones(column: pa.ChunkedArray, name: str, split: str) -> np.ndarray:
    """Return a column of 0 and 1, or false and true, as (N,) bool."""
    column = plain_column(column, f"label column {name!r} of split {split}", MAX_LABEL_BYTES)
    if pa.types.is_nested(column.type):
        raise DataError(f"label column {name!r} of split {split} holds {column.type}; it may hold only 0 and 1")
    values = pc.utf8_lower(pc.utf8_trim_whitespace(column.cast(pa.large_string())))
    is_one = pc.is_in(values, pa.array(["1", "1.0", "true"], pa.large_string()))
    is_zero = pc.is_in(values, pa.array(["0", "0.0", "false"], pa.large_string()))
    invalid = np.flatnonzero(~pc.or_(is_one, is_zero).to_numpy())
    if len(invalid):
        value = column.take(pa.array(invalid[:1])).to_pylist()[0]
        raise DataError(
            f"label column {name!r} of split {split} holds {value!r} in row {invalid[0] + 1}; "
            "a column in label_columns may hold only 0 and 1"
        )
    return is_one.to_numpy().astype(bool)


def as_strings(labels: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return labels as trimmed strings, whole numbers without a fraction: 1, 1.0 and " 1" are the same label."""
    plain = plain_column(labels, "a column", MAX_TEXT_BYTES)
    if pa.types.is_nested(plain.type):
        raise DataError(f"a column holds {short_repr(str(labels.type))}, not strings or numbers; name another column")
    text = pc.utf8_trim_whitespace(plain.cast(pa.large_string()))
    return pc.replace_substring_regex(text, r"^([-+]?[0-9]+)\.0*$", r"\1")


def _label_lists_as_strings(lists: list[list[Any]], source_names: tuple[str, ...] | None) -> list[list[str]]:
    """Write the labels of each list as names, without empty ones. source_names: names that integers are ids of."""
    lists = [[label for label in row if label is not None and str(label).strip()] for row in lists]
    if source_names and all(
        isinstance(label, int) and 0 <= label < len(source_names) for row in lists for label in row
    ):
        return [[source_names[label] for label in row] for row in lists]
    return [[str(label).strip() for label in row] for row in lists]


def are_indicators(lists: list[list[object]]) -> bool:
    """Tell whether all lists are zeros and ones of one length, more than 1: an entry per class, not names or ids."""
    lengths = {len(row) for row in lists}
    is_binary = all(isinstance(value, (bool, int, float)) and value in (0, 1) for row in lists for value in row)
    return is_binary and len(lengths) == 1 and max(lengths) > 1


def _sort_key(label: str) -> tuple[int, int, str]:
    """Sort key: integers by size, then all other labels by alphabet: 9, 10, --5, ½.

    int() decides: "²".isdigit() and "--5".lstrip("-").isdigit() are true, but neither is an integer.
    """
    try:
        return (0, int(label), label)
    except ValueError:
        return (1, 0, label)


def _check_names_are_distinct(names: tuple[str, ...]) -> None:
    if len(set(names)) < len(names):
        raise DataError(f"label names repeat: {', '.join(names)}; give each name once")


def _outside_label_set(
    table: pa.Table, labels: pa.ChunkedArray, indices: pa.ChunkedArray, split: str, names: tuple[str, ...]
) -> DataError:
    """Error for labels that are no class. indices: (N,) class ids, null where a label has none."""
    outside = pa.array(np.flatnonzero(pc.is_null(indices).to_numpy()))
    values = dict.fromkeys(labels.take(outside).to_pylist())
    rows = table["row"].take(outside).to_pylist()
    # a name that is no label yet is as rare as a typo
    variants = label_variants({**dict.fromkeys(values, 1), **dict.fromkeys(names, 100)})
    hints = [
        f"{value!r} looks like {variants[value]!r}: --merge-labels merges them" for value in values if value in variants
    ]
    return DataError(
        f"split {split} has labels outside the label set in {len(rows)} rows (the first row is 1): "
        f"{join_limited(rows)} hold {join_limited(repr(value) for value in values)}; "
        f"the labels are {join_limited(names, _MAX_NAMES)}" + (f"; {hints[0]}" if hints else "")
    )
