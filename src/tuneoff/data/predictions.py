"""Predictions of the test split that no run made: read from a table, matched with the test examples and checked.

# N test examples  M rows of the table  C classes
"""

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tuneoff.data.columns import MAX_LABEL_BYTES, MAX_TEXT_BYTES, plain_column
from tuneoff.data.dataset import is_multilabel
from tuneoff.data.labels import are_indicators, as_strings, is_list, split_at_separator
from tuneoff.data.load import detect_text_columns
from tuneoff.data.sources import read_file
from tuneoff.data.spec import DataSpec
from tuneoff.errors import DataError, join_limited, one_line, short_repr
from tuneoff.formats import shorten
from tuneoff.scoring.metrics import display_name, needs_probabilities

EXAMPLE = "example"  # column of row numbers in the test split, from 0, as in a run's predictions.parquet
# columns of predicted labels in order of preference: where a file has predicted, its label column is the true one
_LABEL_COLUMNS = ("predicted", "prediction", "predictions", "label", "labels")
_SEPARATOR = "|"  # of multi-label predictions, unless the data has its own
_MAX_NAMES = 12  # of labels in an error message
_LEFT_OUT = "rows left out"  # key of the metadata of a stored table


@dataclass(frozen=True)
class TestPredictions:
    """Predictions of every test example."""

    __test__ = False  # not a test, whatever pytest makes of its name

    predicted: np.ndarray  # (N,) ids, or (N, C) of 0 and 1
    probabilities: np.ndarray | None  # (N, C); None if only labels are known
    num_left_out: int = 0  # rows of the file that match no test example

    def table(self, test: pa.Table, label_names: tuple[str, ...]) -> pa.Table:
        """Return a table for match_predictions that needs no other file: numbers, texts, labels and probabilities."""
        if self.predicted.ndim == 1:
            labels = pa.array([label_names[index] for index in self.predicted], pa.large_string())
        else:
            lists = [[label_names[index] for index in np.flatnonzero(row)] for row in self.predicted]
            labels = pa.array(lists, pa.list_(pa.large_string()))
        texts = {name: test[name] for name in ("text", "text_pair") if name in test.column_names}
        columns = {EXAMPLE: pa.array(range(test.num_rows)), **texts, "predicted": labels}
        if self.probabilities is not None:
            columns |= {f"p{index}": pa.array(column) for index, column in enumerate(self.probabilities.T)}
        return pa.table(columns).replace_schema_metadata({_LEFT_OUT: str(self.num_left_out)})


def read_predictions(
    name: str, file: str, test: pa.Table, label_names: tuple[str, ...], spec: DataSpec, metric: str
) -> TestPredictions:
    """Read a CSV, TSV, JSONL, JSON or Parquet file of predictions. Raises DataError: match_predictions."""
    try:
        table = read_file(Path(file).expanduser())
    except DataError as error:
        raise DataError(f"predictions {name}: {error}") from error
    return match_predictions(name, table, test, label_names, spec, metric)


def match_predictions(
    name: str, table: pa.Table, test: pa.Table, label_names: tuple[str, ...], spec: DataSpec, metric: str
) -> TestPredictions:
    """Match a table of predictions with the test examples, by the column example or by the texts.

    Predicted labels are names or ids in a column predicted, prediction or label; multi-label data has lists, strings
    with a separator, or columns of 0 and 1. Probabilities are columns named after the classes, or p0, p1, ... Rows that
    match no test example are left out. spec: of the data, for the names of its text columns and its separator.
    metric: of the study.

    Raises DataError, in one line, if an example has no prediction or several, or a label is outside the label set.
    """
    try:
        matched = _match(table, test, label_names, spec)
    except (DataError, pa.ArrowException) as error:
        raise DataError(f"predictions {name}: {one_line(error, 1000)}") from error
    if needs_probabilities(metric) and matched.probabilities is None:
        raise DataError(
            f"predictions {name}: {display_name(metric)} needs probabilities; add a column for each class, or choose "
            "another metric"
        )
    return matched


def _match(table: pa.Table, test: pa.Table, label_names: tuple[str, ...], spec: DataSpec) -> TestPredictions:
    repeated = [column for column in table.column_names if table.column_names.count(column) > 1]
    if repeated:
        raise DataError(f"column {repeated[0]!r} occurs {table.column_names.count(repeated[0])} times; rename one")
    num_left_out = int((table.schema.metadata or {}).get(_LEFT_OUT.encode(), 0))
    if _is_of_run(table):
        table = _with_names(table.filter(pc.equal(table["split"], "test")), label_names)
        _check_true_labels(table, test)
    row_keys, example_keys = _keys(table, test, spec)
    wanted = set(example_keys)
    rows = np.array([row for row, key in enumerate(row_keys) if key in wanted], np.int64)
    first: dict[Hashable, int] = {}  # key -> its first row among those that match
    for index, row in enumerate(rows):
        first.setdefault(row_keys[row], index)
    _check_complete(first, row_keys, example_keys, test, len(rows))
    predicted, probabilities = _predictions(table.take(pa.array(rows)), rows, label_names, is_multilabel(test), spec)
    first_of_row = np.array([first[row_keys[row]] for row in rows])
    values = predicted if probabilities is None else np.column_stack([predicted, probabilities])
    differs = (values != values[first_of_row]).reshape(len(rows), -1).any(1)
    if differs.any():
        raise DataError(
            f"an example is predicted differently from an earlier row in {_num_rows(differs.sum())} (the first row is "
            f"1): {join_limited(rows[differs] + 1)}; give one prediction of each"
        )
    chosen = np.array([first[key] for key in example_keys])
    return TestPredictions(
        predicted[chosen],
        None if probabilities is None else probabilities[chosen],
        num_left_out + table.num_rows - len(rows),
    )


def _is_of_run(table: pa.Table) -> bool:
    """Return True for the predictions.parquet of a run."""
    return {"split", EXAMPLE, "label", "predicted", "p0"} <= set(table.column_names)


def _with_names(table: pa.Table, label_names: tuple[str, ...]) -> pa.Table:
    """Return the predictions of a run with the names of the labels: ids could be names, where names are numbers."""
    column = table["predicted"]
    is_number = pa.types.is_integer(column.type) and len(column) > column.null_count
    if not is_number or pc.min(column).as_py() < 0 or pc.max(column).as_py() >= len(label_names):
        return table
    names = pa.array(label_names, pa.large_string()).take(column.combine_chunks())
    return table.set_column(table.column_names.index("predicted"), "predicted", names)


def _check_true_labels(table: pa.Table, test: pa.Table) -> None:
    """Raise DataError if a run's true labels are not those of the test split: it was tested on another one."""
    pairs = zip(table["label"].to_pylist(), test["label"].to_pylist(), strict=False)
    wrong = [number for number, (theirs, ours) in enumerate(pairs) if theirs != ours]
    if wrong:
        raise DataError(
            f"{len(wrong)} of {test.num_rows} test examples have another true label in the file (the first example is "
            f"0): {join_limited(wrong)}; give predictions of the same test split"
        )


def _keys(table: pa.Table, test: pa.Table, spec: DataSpec) -> tuple[Sequence[Hashable], Sequence[Hashable]]:
    """Return what rows and test examples are matched by: numbers, or texts. (M,) and (N,)."""
    has_numbers = EXAMPLE in table.column_names
    columns = _text_columns(table, test, spec, are_detected=not has_numbers)
    texts = None if columns is None else _texts(table, columns)
    test_texts = _texts(test, [name for name in ("text", "text_pair") if name in test.column_names])
    if not has_numbers:
        if texts is None:
            needed = "text and text_pair" if "text_pair" in test.column_names else "text"
            raise DataError(
                f"no column {EXAMPLE} (row number in the test split, from 0) or {needed} among "
                f"{', '.join(table.column_names)}; rename a column"
            )
        return texts, test_texts
    numbers = _example_numbers(table[EXAMPLE])
    if texts is not None:
        wrong = [
            n for n, text in zip(numbers, texts, strict=True) if 0 <= n < len(test_texts) and text != test_texts[n]
        ]
        if wrong:
            raise DataError(
                f"{len(wrong)} of {test.num_rows} test examples have another text in the file (the first example is "
                f"0): {join_limited(wrong)}; correct the column {EXAMPLE}, or leave it out to match by text"
            )
    return numbers, range(test.num_rows)


def _text_columns(table: pa.Table, test: pa.Table, spec: DataSpec, are_detected: bool) -> list[str] | None:
    """Return the columns of a table that hold the texts, named as in the data; None if it has none.

    are_detected: other common names count too. A column "comment" next to row numbers need not hold the text.
    """
    num_texts = 1 + ("text_pair" in test.column_names)
    candidates = [(spec.text, spec.text_pair), ("text", "text_pair")]
    if are_detected:
        candidates.append(detect_text_columns({name.lower(): name for name in reversed(table.column_names)}))
    for names in candidates:
        if all(name in table.column_names for name in names[:num_texts]):
            return [str(name) for name in names[:num_texts]]
    return None


def _texts(table: pa.Table, columns: Sequence[str]) -> list[Hashable]:
    """Return the texts of each row; white space is ignored, which files of other programs change."""
    texts = [plain_column(table[name], f"column {name!r}", MAX_TEXT_BYTES).cast(pa.large_string()) for name in columns]
    return [
        tuple(" ".join((text or "").split()) for text in row)
        for row in zip(*(column.to_pylist() for column in texts), strict=True)
    ]


def _example_numbers(column: pa.ChunkedArray) -> list[int]:
    texts = _strings(column)
    wrong = [row for row, text in enumerate(texts) if not re.fullmatch(r"-?[0-9]{1,18}", text)]
    if wrong:
        raise DataError(
            f"column {EXAMPLE} holds {shorten(texts[wrong[0]], 40)!r} in row {wrong[0] + 1} (the first row is 1); it "
            "may hold row numbers in the test split, from 0"
        )
    return [int(text) for text in texts]


def _check_complete(
    first: dict[Hashable, int],
    row_keys: Sequence[Hashable],
    example_keys: Sequence[Hashable],
    test: pa.Table,
    num_matches: int,
) -> None:
    """Raise DataError with the numbers of the test examples that have no row."""
    missing = [number for number, key in enumerate(example_keys) if key not in first]
    if not missing:
        return
    text = shorten(" ".join(test["text"][missing[0]].as_py().split()), 40)
    rest = len(row_keys) - num_matches
    extra = f"; no test example for {_num_rows(rest)}" if rest else ""
    raise DataError(
        f"{len(missing)} of {test.num_rows} test examples have no prediction (the first example is 0): "
        f"{join_limited(missing)}, beginning with {text!r}{extra}; predict the examples of test.parquet in the study's "
        "folder"
    )


def _predictions(
    table: pa.Table, rows: np.ndarray, label_names: tuple[str, ...], is_multilabel: bool, spec: DataSpec
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return predicted labels, (M,) or (M, C), and probabilities, (M, C), if there are any. rows: in the file."""
    by_lower_name = {name.lower(): name for name in reversed(table.column_names)}
    label = next((by_lower_name[name] for name in _LABEL_COLUMNS if name in by_lower_name), None)
    probabilities = _class_columns(table, rows, label_names, label)
    if label is not None:
        column = table[label]
        if is_multilabel:
            predicted = _label_rows(column, rows, label_names, spec.label_separator or _SEPARATOR)
        else:
            predicted = _ids(column, rows, label_names)
    elif probabilities is None:
        raise DataError(
            f"no column of labels among {', '.join(table.column_names)}; name it predicted, prediction or label"
        )
    elif is_multilabel:  # decisions, or probabilities that are decided at one half
        predicted = (probabilities >= 0.5).astype(np.int64)
        probabilities = None if np.isin(probabilities, (0, 1)).all() else probabilities
    else:
        predicted = probabilities.argmax(1)
    if probabilities is None or is_multilabel:
        return predicted, probabilities
    sums = probabilities.sum(1, keepdims=True)
    # rounded to two digits, the probabilities of C classes may miss 1 by C times 0.005
    wrong = np.flatnonzero(np.abs(sums[:, 0] - 1) > 0.01 + 0.005 * len(label_names))
    if len(wrong):
        raise DataError(
            f"probabilities do not sum to 1 in {_num_rows(len(wrong))} (the first row is 1): "
            f"{join_limited(rows[wrong] + 1)}; the first sum is {sums[wrong[0], 0]:.3g}"
        )
    return predicted, probabilities / sums


def _class_columns(
    table: pa.Table, rows: np.ndarray, label_names: tuple[str, ...], label: str | None
) -> np.ndarray | None:
    """Return the columns p0, p1, ... or else those named after the classes, (M, C), numbers from 0 to 1."""
    reserved = {label, EXAMPLE, "text", "text_pair", "split"}
    for names in ([f"p{index}" for index in range(len(label_names))], label_names):
        present = [name for name in names if name in table.column_names and name not in reserved]
        if present and len(present) < len(names):
            absent = [name for name in names if name not in present]
            raise DataError(
                f"probabilities of {len(present)} of {len(names)} classes; no column {join_limited(map(repr, absent))}"
            )
        if present:
            return np.column_stack([_shares(table[name], rows, name) for name in names])
    return None


def _shares(column: pa.ChunkedArray, rows: np.ndarray, name: str) -> np.ndarray:
    """Return a column of numbers from 0 to 1, or of false and true. (M,)."""
    texts = [{"true": "1", "false": "0"}.get(text.lower(), text) for text in _strings(column)]
    shares = np.array([_number(text) for text in texts])
    wrong = np.flatnonzero(~((shares >= 0) & (shares <= 1)))
    if len(wrong):
        raise DataError(
            f"column {name!r} holds {shorten(texts[wrong[0]], 40)!r} in row {rows[wrong[0]] + 1} (the first row is 1); "
            "a probability is a number from 0 to 1"
        )
    return shares


def _num_rows(count: int) -> str:
    return f"{count:,} {'row' if count == 1 else 'rows'}"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def _strings(column: pa.ChunkedArray) -> list[str]:
    """Return a column as trimmed strings, missing values as empty ones."""
    return [text or "" for text in as_strings(column).to_pylist()]


def _ids(column: pa.ChunkedArray, rows: np.ndarray, label_names: tuple[str, ...]) -> np.ndarray:
    """Return the ids of single labels, which are names or else ids. (M,)."""
    if is_list(column):
        raise DataError("the labels are lists, but the data has one label per example")
    return np.array([ids[0] for ids in _ids_of([[text] for text in _strings(column)], rows, label_names)], np.int64)


def _label_rows(column: pa.ChunkedArray, rows: np.ndarray, label_names: tuple[str, ...], separator: str) -> np.ndarray:
    """Return multi-label predictions, which are names, ids or C zeros and ones. (M, C) of 0 and 1."""
    column = plain_column(column, "the column of labels", MAX_LABEL_BYTES)
    if pa.types.is_nested(column.type) and (not is_list(column) or pa.types.is_nested(column.type.value_type)):
        raise DataError(f"the labels are {short_repr(str(column.type))}; give lists of names, or strings")
    lists = (column if is_list(column) else split_at_separator(column, separator)).to_pylist()
    lists = [row or [] for row in lists]
    if are_indicators(lists) and len(lists[0]) == len(label_names):
        return np.array(lists, np.int64)
    predicted = np.zeros((len(lists), len(label_names)), np.int64)
    texts = [[text for label in row if (text := str(label).strip())] for row in lists]
    for number, ids in enumerate(_ids_of(texts, rows, label_names)):
        predicted[number, ids] = 1
    return predicted


def _ids_of(labels: list[list[str]], rows: np.ndarray, label_names: tuple[str, ...]) -> list[list[int]]:
    """Return the ids of the labels of each row. Raises DataError with the rows of labels outside the label set."""
    distinct = {label for row in labels for label in row}
    ids = {name: index for index, name in enumerate(label_names)}
    numbers = {str(index): index for index in range(len(label_names))}
    if not distinct & set(ids) and distinct <= set(numbers):
        ids = numbers
    outside = [(row, label) for row, names in zip(rows, labels, strict=True) for label in names if label not in ids]
    if outside:
        distinct_rows = list(dict.fromkeys(int(row) + 1 for row, _ in outside))
        unknown_labels = dict.fromkeys(repr(shorten(label, 40)) for _, label in outside)
        raise DataError(
            f"labels outside the label set in {_num_rows(len(distinct_rows))} (the first row is 1): "
            f"{join_limited(distinct_rows)} hold {join_limited(unknown_labels)}; "
            f"the labels are {join_limited(label_names, _MAX_NAMES)}"
        )
    return [[ids[label] for label in row] for row in labels]
