"""Load a Dataset: read raw tables, choose columns, check texts, convert labels to ids and make missing splits."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tuneoff.cache import cached_folder, fingerprint, stored_folder
from tuneoff.data import large, sources
from tuneoff.data.columns import MAX_LABEL_BYTES, MAX_TEXT_BYTES, plain_column
from tuneoff.data.corrections import apply_corrections
from tuneoff.data.dataset import GROUP, ROW, SLICE, SOURCE_SPLIT, Dataset, is_multilabel, labels_of
from tuneoff.data.doctor.columns import leaking_columns
from tuneoff.data.doctor.finding import Finding
from tuneoff.data.doctor.mend import drop_leaks, drop_repeated, merge_labels
from tuneoff.data.folds import fold_or_split
from tuneoff.data.labels import (
    check_classes,
    is_list,
    is_missing_label,
    label_lists_to_indicators,
    labels_to_ids,
    lists_from_columns,
    missing_label_hint,
    split_at_separator,
)
from tuneoff.data.spec import ONE_SPLIT, SPLITS, DataSpec, Evaluation
from tuneoff.data.splits import pool_splits, pool_to_divide
from tuneoff.errors import DataError, join_limited, unknown

# common column names in order of preference, compared in lower case
_TEXT_COLUMNS = (
    "text",
    "sentence",
    "review",
    "content",
    "tweet",
    "comment",
    "document",
    "body",
    "message",
    "utterance",
)
_PAIR_COLUMNS = (
    ("text", "text_pair"),
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("query", "passage"),
)
_LABEL_COLUMNS = ("label", "labels", "target", "class", "category", "sentiment", "gold_label", "rating", "stars", "y")


def load_dataset(
    spec: DataSpec, evaluate: Evaluation | None = ONE_SPLIT, pools: bool = False, keeps_rows: bool = False
) -> Dataset:
    """Load the dataset of a spec. Raises DataError, in one line, for data that cannot be used.

    evaluate: folds or one split; None chooses by the data. pools: join train and validation, for runs that divide them.
    keeps_rows: keep the split and the row of the source of each example, for a review of the labels.
    """
    source = sources.read(spec)
    columns = _choose_columns(source.tables["train"], spec)
    notes: list[str] = []
    tables = {split: _select_columns(table, columns, split, spec) for split, table in source.tables.items()}
    tables = {split: _drop_incomplete(table, split, spec, notes) for split, table in tables.items()}
    source_names = source.label_names.get(columns["label"])
    tables, replaced = merge_labels(tables, spec, notes)
    if is_list(tables["train"]["label"]):
        user_names = _without(spec.labels or spec.label_columns, replaced)
        tables, names = label_lists_to_indicators(tables, user_names, source_names, columns["label"])
        labels_per_example = labels_of(tables["train"]).sum(1).mean()
        notes.append(f"multi-label: an example of train has {labels_per_example:.2f} labels on average")
    else:
        tables, names = labels_to_ids(tables, _without(spec.labels, replaced), source_names)
    if spec.corrections:
        if is_multilabel(tables["train"]):
            raise DataError("corrections are for single labels, and the data is multi-label; leave corrections out")
        tables = apply_corrections(tables, names, spec.corrections, notes)
    tables = drop_repeated(tables, spec, notes)
    check_classes(tables["train"], names, columns["label"])
    tables = {
        split: _with_source(table, split) if keeps_rows else table.drop_columns(ROW) for split, table in tables.items()
    }
    if spec.ignore_splits:
        tables = pool_splits(tables, notes)
    division = fold_or_split(tables, names, spec, evaluate, notes)
    tables = drop_leaks(division.tables, names, spec, notes)
    tables = pool_to_divide(tables, spec, notes) if pools else tables
    parts = [fingerprint(split, table.select(_columns_of_runs(table))) for split, table in tables.items()]
    return Dataset(
        source.name,
        tables,
        names,
        tuple(notes),
        fingerprint(*parts, list(names)),
        division.folds,
        columns,
        separator=(source.tables["train"].schema.metadata or {}).get(sources.SEPARATOR, b",").decode(),
        held_out=tuple(s for s in tables if s not in source.tables or (spec.ignore_splits and s != "train")),
        left_out=division.left_out,
        findings=tuple(_column_findings(source.tables["train"], columns, spec)),
    )


def _with_source(table: pa.Table, split: str) -> pa.Table:
    """Return a split of the source with its name in each row, which divisions into other splits keep."""
    return table.append_column(SOURCE_SPLIT, pa.repeat(split, table.num_rows))


def _column_findings(train: pa.Table, columns: dict[str, str], spec: DataSpec) -> list[Finding]:
    """Check the columns that no strategy reads; of multi-label data there are none."""
    if spec.label_columns or spec.label_separator:
        return []
    return leaking_columns(train, train[columns["label"]], set(columns.values()), spec.group)


def store_dataset(dataset: Dataset) -> None:
    """Store a dataset in the cache, where worker processes open it by its fingerprint."""

    def write(folder: Path) -> None:
        for split, table in dataset.splits.items():
            with pa.OSFile(str(folder / f"{split}.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
        names = ("name", "label_names", "notes", "folds")
        description = {name: getattr(dataset, name) for name in names}
        (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")

    cached_folder(f"dataset-{dataset.fingerprint}", write)


def open_dataset(fingerprint: str) -> Dataset:
    """Open a stored dataset, memory-mapped. Raises StoreError if it is missing or damaged."""
    folder = stored_folder(f"dataset-{fingerprint}")
    description = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    files = {split: folder / f"{split}.arrow" for split in SPLITS}
    splits = {
        split: pa.ipc.open_file(pa.memory_map(str(file))).read_all() for split, file in files.items() if file.is_file()
    }
    names, notes = tuple(description["label_names"]), tuple(description["notes"])
    return Dataset(description["name"], splits, names, notes, fingerprint, description.get("folds"))


def select_examples(table: pa.Table, spec: DataSpec, split: str, notes: list[str]) -> tuple[pa.Table, dict[str, str]]:
    """Return the examples of one raw table with our columns, labels as they are and row numbers; and their columns."""
    columns = _choose_columns(table, spec)
    return _drop_incomplete(_select_columns(table, columns, split, spec), split, spec, notes), columns


def _choose_columns(table: pa.Table, spec: DataSpec) -> dict[str, str]:
    """Map text, label and for pairs text_pair to the user's columns, as the spec says or by common names."""
    names = table.column_names
    by_lower_name = {name.lower(): name for name in reversed(names)}
    for name in (spec.text, spec.text_pair, spec.label, *spec.label_columns, spec.group, *spec.slices):
        if name is not None and name not in names:
            raise DataError(unknown("column", name, names))
    column, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise DataError(f"column {column!r} occurs {count} times; rename one of them")
    label = spec.label or next((by_lower_name[name] for name in _LABEL_COLUMNS if name in by_lower_name), None)
    if spec.label_columns:
        if spec.label or spec.label_separator:
            raise DataError("label_columns does not go with label or label_separator; use one of them")
        label = ", ".join(spec.label_columns)  # for error messages
    if label is None:
        raise DataError(f"no label column found among {', '.join(names)}; name it with label (--label)")
    text, text_pair = spec.text, spec.text_pair
    if text is None and text_pair is None:
        text, text_pair = detect_text_columns(by_lower_name)
    if text is None:
        text = _only_text_column(table, (label, *spec.label_columns, text_pair))
    return {"text": text, **({"text_pair": text_pair} if text_pair else {}), "label": label}


def detect_text_columns(by_lower_name: dict[str, str]) -> tuple[str | None, str | None]:
    """Return the columns with common names of texts and of second texts. by_lower_name: columns by lower case."""
    for first, second in _PAIR_COLUMNS:
        if first in by_lower_name and second in by_lower_name:
            return by_lower_name[first], by_lower_name[second]
    return next((by_lower_name[name] for name in _TEXT_COLUMNS if name in by_lower_name), None), None


def _only_text_column(table: pa.Table, excluded: tuple[str | None, ...]) -> str:
    """Return the only column of strings that is not excluded. Raises DataError if there are none or several."""
    names = [name for name in table.column_names if name not in excluded and _is_text(table[name].type)]
    if len(names) != 1:
        raise DataError(f"no text column found among {', '.join(table.column_names)}; name it with text (--text)")
    return names[0]


def _select_columns(table: pa.Table, columns: dict[str, str], split: str, spec: DataSpec) -> pa.Table:
    """Return our columns of a split, converted, and `row`, the row numbers for error messages (the first row is 1)."""
    texts = {ours: theirs for ours, theirs in columns.items() if ours != "label"}
    labels = spec.label_columns or (columns["label"],)
    for name in (*texts.values(), *labels):
        _check_has_column(table, name, split)
    if table.num_rows == 0:
        raise DataError(f"split {split} has no examples")
    selected = {ours: _text_column(table[theirs], theirs, split) for ours, theirs in texts.items()}
    if spec.label_columns:
        selected["label"] = lists_from_columns(table, spec.label_columns, split)
    else:
        selected["label"] = _label_column(table[columns["label"]], columns["label"], split, spec)
    for name in spec.slices:
        _check_has_column(table, name, split)
        selected[SLICE + name] = _string_column(table[name], name)
    if spec.group and spec.group in table.column_names:  # a split that the user gives need not have groups
        selected[GROUP] = _string_column(table[spec.group], spec.group)
    return pa.table({**selected, "row": pa.array(np.arange(1, table.num_rows + 1))})


def _check_has_column(table: pa.Table, name: str, split: str) -> None:
    if name not in table.column_names:
        raise DataError(f"split {split} has no column {name!r}; it has {', '.join(table.column_names)}")


def _text_column(column: pa.ChunkedArray, name: str, split: str) -> pa.ChunkedArray:
    """Return a column of texts without nulls. Raises DataError for other types and for numbers written as text."""
    if pa.types.is_dictionary(column.type) or _is_text(column.type):
        column = plain_column(column, f"text column {name!r} of split {split}", MAX_TEXT_BYTES)
    if not _is_text(column.type) and not pa.types.is_null(column.type):
        raise DataError(
            f"text column {name!r} of split {split} holds {column.type}, not text; name another column with --text"
        )
    texts = pc.fill_null(column.cast(pa.large_string()), "")
    is_number = pc.match_substring_regex(texts, r"^\s*[-+]?[0-9]*[.,]?[0-9]+([eE][-+]?[0-9]+)?\s*$")
    if pc.all(pc.or_(is_number, pc.equal(texts, ""))).as_py() and pc.any(is_number).as_py():
        raise DataError(
            f"text column {name!r} of split {split} holds only numbers, not text; name another column with --text"
        )
    return texts


def _is_text(column_type: pa.DataType) -> bool:
    return (
        pa.types.is_string(column_type) or pa.types.is_large_string(column_type) or pa.types.is_string_view(column_type)
    )


def _label_column(column: pa.ChunkedArray, name: str, split: str, spec: DataSpec) -> pa.ChunkedArray:
    """Return a label column: single labels as they are, multi-label data as lists."""
    labels = plain_column(column, f"label column {name!r} of split {split}", MAX_LABEL_BYTES)
    if pa.types.is_nested(labels.type) and not (is_list(labels) and not pa.types.is_nested(labels.type.value_type)):
        raise DataError(f"label column {name!r} holds {column.type}; it may hold single labels, or lists of labels")
    if spec.label_separator and not is_list(labels):
        return split_at_separator(labels, spec.label_separator)
    return labels


def _string_column(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return a group or slice column as strings without nulls."""
    if pa.types.is_nested(column.type):
        raise DataError(f"column {name!r} holds {column.type}; a group or slice column may hold strings or numbers")
    plain = plain_column(column, f"column {name!r}", MAX_LABEL_BYTES)
    if pa.types.is_nested(plain.type):  # of categories
        raise DataError(f"column {name!r} holds {column.type}; a group or slice column may hold strings or numbers")
    return pc.fill_null(plain.cast(pa.large_string()), "")


def _drop_incomplete(table: pa.Table, split: str, spec: DataSpec, notes: list[str]) -> pa.Table:
    """Drop examples without a label or text, if the spec allows it. Raises DataError, with their rows, if not."""
    is_missing = is_missing_label(table["label"], spec.labels or ())
    if is_missing.all():
        raise DataError(
            f"split {split} is unlabelled; use another split in its place (data.splits, e.g. {split}: validation)"
        )
    is_empty = np.zeros(table.num_rows, bool)
    for name in [name for name in ("text", "text_pair") if name in table.column_names]:
        # chunk after chunk, because stripped texts are a copy
        empty = [pc.equal(pc.utf8_trim_whitespace(chunk), "") for chunk in table[name].chunks]
        is_empty |= pa.chunked_array(empty, pa.bool_()).to_numpy()
    for is_incomplete, is_dropped, problem, option in (
        (is_missing, spec.drop_unlabelled, "no label", "drop_unlabelled"),
        (is_empty, spec.drop_empty, "an empty text", "drop_empty"),
    ):
        rows = np.flatnonzero(is_incomplete) + 1
        if len(rows) and not is_dropped:
            raise DataError(
                f"split {split} has {problem} in {len(rows)} of {table.num_rows} rows (the first row is 1): "
                f"{join_limited(rows)}; correct them, or drop them with {option}: true (--{option.replace('_', '-')})"
                + (missing_label_hint(table["label"], is_incomplete) if option == "drop_unlabelled" else "")
            )
        if len(rows):
            notes.append(f"{len(rows):,} examples with {problem} were dropped from {split}")
    kept = large.kept(table, ~(is_missing | is_empty))
    if kept.num_rows == 0:
        raise DataError(f"split {split} has no example with both text and label")
    return kept


def _without(names: tuple[str, ...] | None, replaced: set[str]) -> tuple[str, ...] | None:
    """Return the user's names of labels without those that were replaced by others; None if there are none."""
    return tuple(name for name in names or () if name not in replaced) or None


def _columns_of_runs(table: pa.Table) -> list[str]:
    """Return the columns that runs read. Groups, slices and places change no run, so they are not fingerprinted."""
    ignored = (GROUP, ROW, SOURCE_SPLIT)
    return [name for name in table.column_names if name not in ignored and not name.startswith(SLICE)]
