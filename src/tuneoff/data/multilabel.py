"""Several labels an example: from lists, parted words or columns of 0 and 1 to rows of 0 and 1."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tuneoff.errors import DataError, listed


def is_list(column: pa.ChunkedArray) -> bool:
    """Whether a column holds lists."""
    return (
        pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type)
    )


def parted(column: pa.ChunkedArray, separator: str) -> pa.ChunkedArray:
    """A column of words, news|sport, as lists of words; an empty one is an example without labels."""
    return pc.split_pattern(column.cast(pa.large_string()), separator)


def from_columns(table: pa.Table, names: tuple[str, ...], split: str) -> pa.ChunkedArray:
    """Columns of 0 and 1, one a label, as one column of lists of their names."""
    given = np.stack([_zeros_and_ones(table[name], name, split) for name in names], axis=1)  # (N, C)
    words = [[names[index] for index in np.flatnonzero(row)] for row in given]
    return pa.chunked_array([pa.array(words, pa.list_(pa.large_string()))])


def _zeros_and_ones(column: pa.ChunkedArray, name: str, split: str) -> np.ndarray:
    words = pc.utf8_lower(pc.utf8_trim_whitespace(column.cast(pa.large_string())))
    is_one = pc.is_in(words, pa.array(["1", "1.0", "true"], pa.large_string()))
    is_zero = pc.is_in(words, pa.array(["0", "0.0", "false"], pa.large_string()))
    strange = ~pc.or_(is_one, is_zero).to_numpy()
    if strange.any():
        came = column.take(pa.array(np.flatnonzero(strange)[:1])).to_pylist()[0]
        raise DataError(
            f"label column {name!r} of split {split} holds {came!r} in row {np.flatnonzero(strange)[0] + 1}; "
            "columns that are labels hold 0 or 1"
        )
    return is_one.to_numpy().astype(bool)


def numbered(
    tables: dict[str, pa.Table], given: tuple[str, ...] | None, declared: tuple[str, ...] | None, column: str
) -> tuple[dict[str, pa.Table], tuple[str, ...]]:
    """Lists of labels as rows of 0 and 1 in every split, and the label names in the order of their ids.

    given: the user's names; declared: the source's own, whose integers are ids. Without either, what train holds.
    """
    rows = {split: table["label"].to_pylist() for split, table in tables.items()}
    if _are_zeros_and_ones(rows["train"]):
        names, length = given or declared, len(rows["train"][0])
        if names is None or len(names) != length:
            raise DataError(
                f"label column {column!r} holds lists of {length} times 0 or 1; name the labels in their order with "
                "labels (--labels), or give lists of names"
            )
        rows = {
            split: [[names[i] for i in np.flatnonzero(row)] for row in of_split] for split, of_split in rows.items()
        }
    words = {split: _words(of_split, declared if given is None else None) for split, of_split in rows.items()}
    found = sorted({word for row in words["train"] for word in row}, key=_by_size_or_alphabet)
    names = given or declared or tuple(found)
    ids = {name: index for index, name in enumerate(names)}
    if len(ids) < len(names):
        raise DataError(f"label names repeat: {', '.join(names)}")
    if all(len(row) == 1 for of_split in words.values() for row in of_split):
        raise DataError(
            f"label column {column!r} gives every example exactly one label; give one column of single labels instead"
        )
    made = {}
    for split, table in tables.items():
        if not any(words[split]):
            raise DataError(f"split {split} has no label in any row; name another in its place (data.splits)")
        indicators = np.zeros((table.num_rows, len(names)), np.uint8)
        for number, row in enumerate(words[split]):
            strange = [word for word in row if word not in ids]
            if strange:
                where = table["row"][number].as_py()
                raise DataError(
                    f"split {split} has label {strange[0]!r} in row {where} (the first row is 1), which is outside the "
                    f"label set; the labels are {listed(names, 12)}"
                )
            indicators[number, [ids[word] for word in row]] = 1
        labels = pa.FixedSizeListArray.from_arrays(pa.array(indicators.ravel()), len(names))
        made[split] = table.set_column(table.column_names.index("label"), "label", labels)
    return made, tuple(names)


def _are_zeros_and_ones(rows: list[list[object]]) -> bool:
    """Whether lists say of each label whether it is given, instead of naming those that are."""
    lengths = {len(row) for row in rows}
    is_number = all(isinstance(value, (bool, int, float)) and value in (0, 1) for row in rows for value in row)
    return is_number and len(lengths) == 1 and max(lengths) > 1


def _words(rows: list[list[Any]], declared: tuple[str, ...] | None) -> list[list[str]]:
    """The labels of each example as words. declared: names of the ids that integers are."""
    rows = [[label for label in row if label is not None and str(label).strip()] for row in rows]
    if declared and all(isinstance(label, int) and 0 <= label < len(declared) for row in rows for label in row):
        return [[declared[label] for label in row] for row in rows]
    return [[str(label).strip() for label in row] for row in rows]


def strata(labels: np.ndarray) -> np.ndarray:
    """A class for each example, so that splits keep the share of every label: its rarest label. (N, C) -> (N,).

    An example without labels has a class of its own.
    """
    counts = labels.sum(0)
    order = np.argsort(counts, kind="stable")  # rarest first
    ranked = labels[:, order].astype(bool)
    return np.where(ranked.any(1), order[ranked.argmax(1)], labels.shape[1])


def _by_size_or_alphabet(word: str) -> tuple[int, int, str]:
    return (0, int(word), word) if word.lstrip("-").isdigit() else (1, 0, word)
