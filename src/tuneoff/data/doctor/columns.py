"""Columns of the source that tell the label without the text: ids, dates, sources, authors.

No strategy reads them. But where one tells the label, the texts of a label were collected together, and a classifier
may learn where a text comes from instead of what it says.

# N rows
"""

import contextlib
import shlex
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tuneoff.data.doctor.finding import Finding
from tuneoff.formats import shorten

_SAMPLE = 20_000  # rows
_MIN_ROWS = 100
_MIN_GAIN = 0.5  # share of the errors of always predicting the most frequent label that a column must remove
_NUM_BINS = 50  # of a column with many values, in order; ids and dates tell by their ranges
_MAX_COLUMNS = 50
_MAX_FINDINGS = 3


def leaking_columns(
    table: pa.Table, labels: pa.ChunkedArray, used: set[str], group: str | None = None
) -> list[Finding]:
    """Return a finding for each column that tells the label, the best one first.

    table: raw rows of train, with labels, (N,), one each. used: columns that are read. group: column of groups.
    """
    if table.num_rows < _MIN_ROWS:
        return []
    rng = np.random.default_rng(0)
    rows = pa.array(np.sort(rng.choice(table.num_rows, min(_SAMPLE, table.num_rows), replace=False)))
    ids = _codes(labels.take(rows))
    if ids is None:
        return []
    half = rng.permutation(len(ids)) % 2
    base = float(np.bincount(ids).max() / len(ids))
    findings = []
    for name in [name for name in table.column_names if name not in used | {group}][:_MAX_COLUMNS]:
        finding = _finding(name, table[name].take(rows), ids, half, base)
        findings += [finding] if finding else []
    return sorted(findings, key=lambda finding: -finding.details["accuracy"])[:_MAX_FINDINGS]


def _finding(name: str, column: pa.ChunkedArray, ids: np.ndarray, half: np.ndarray, base: float) -> Finding | None:
    views = list(_views(column))
    # one value for each label and one label for each value: another name of the label
    if not views or base == 1 or any(_is_renamed(codes, ids) for _, codes in views):
        return None
    accuracy, kind = max((_accuracy(codes, ids, half), kind) for kind, codes in views)
    if accuracy - base < _MIN_GAIN * (1 - base):
        return None
    how = "the order of its values" if kind == "range" else "its values"
    return Finding(
        kind="column that tells the label",
        text=(
            f"{how} in “{shorten(name, 30)}” give the label of {100 * accuracy:.0f} % of the rows without the text "
            f"(the most frequent label: {100 * base:.0f} %)"
        ),
        advice=(
            "check whether texts were collected label by label: a classifier may then learn their time or source"
            if kind == "range"
            else "check whether each label has sources of its own, which a classifier may learn instead; --group "
            f"{shlex.quote(name)} keeps each of them in one split"
        ),
        # no strategy reads the column: the defect is a possible one
        harm=(accuracy - base) / 10,
        details={"column": name, "accuracy": accuracy, "most_frequent": base, "by": kind},
    )


def _views(column: pa.ChunkedArray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the column as numbers of values, and, if it has many, as numbers of ranges of values."""
    codes = _codes(column)
    if codes is None:
        return
    num_values = int(codes.max()) + 1
    if num_values > 1:
        yield "value", codes
    if num_values > _NUM_BINS:
        yield "range", codes * _NUM_BINS // num_values


def _codes(column: pa.ChunkedArray) -> np.ndarray | None:
    """Number the values of a column in their order, (N,); strings that are all numbers by size. None for lists etc."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_nested(column.type) or pa.types.is_null(column.type) or pa.types.is_binary(column.type):
        return None
    values = column.combine_chunks()
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        with contextlib.suppress(pa.ArrowException):
            values = values.cast(pa.large_string())
        with contextlib.suppress(pa.ArrowException):
            values = values.cast(pa.float64())
    try:
        return pc.rank(values, tiebreaker="dense").to_numpy().astype(np.int64) - 1
    except pa.ArrowException:
        return None


def _is_renamed(codes: np.ndarray, ids: np.ndarray) -> bool:
    pairs = np.unique(np.stack([codes, ids]), axis=1).shape[1]
    return pairs == len(np.unique(codes)) == len(np.unique(ids))


def _accuracy(codes: np.ndarray, ids: np.ndarray, half: np.ndarray) -> float:
    """Share of labels that are the most frequent one of their value in the other half of the rows."""
    num_labels, num_codes = int(ids.max()) + 1, int(codes.max()) + 1
    right = 0
    for part in (0, 1):
        seen, held_out = half != part, half == part
        default = np.bincount(ids[seen], minlength=num_labels).argmax()
        cells, counts = np.unique(codes[seen] * num_labels + ids[seen], return_counts=True)
        predicted = np.full(num_codes, default)
        order = np.argsort(counts, kind="stable")  # the most frequent label of a value is written last
        predicted[cells[order] // num_labels] = cells[order] % num_labels
        right += int((predicted[codes[held_out]] == ids[held_out]).sum())
    return right / len(ids)
