"""Raw tables -> a Dataset: columns found, labels checked and numbered; splits come from carve.py."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tuneoff.cache import cache_folder, cached, fingerprint
from tuneoff.data import multilabel, sources
from tuneoff.data.carve import carve, limited
from tuneoff.data.dataset import GROUP, SLICE, SPLITS, Dataset, DataSpec, label_counts, labels_of
from tuneoff.errors import DataError, listed, unknown

_TEXTS = ("text", "sentence", "review", "content", "tweet", "comment", "document", "body", "message", "utterance")
_PAIRS = (
    ("text", "text_pair"),
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("query", "passage"),
)
_LABELS = ("label", "labels", "target", "class", "category", "sentiment", "gold_label", "rating", "stars", "y")
_MISSING = ("", "-")  # SNLI writes - where the annotators did not agree
_NULLS = ("nan", "null", "n/a", "<na>")  # what tools write for nothing


def load_dataset(spec: DataSpec) -> Dataset:
    """The dataset that a spec asks for. Raises DataError, in one line, for what cannot be used."""
    source = sources.read(spec)
    columns = _columns(source.tables["train"], spec)
    tables = {split: _select(table, columns, split, spec) for split, table in source.tables.items()}
    notes: list[str] = []
    tables = {split: _complete(table, split, spec, notes) for split, table in tables.items()}
    declared = source.label_names.get(columns["label"])
    if multilabel.is_list(tables["train"]["label"]):
        names_given = spec.labels or spec.label_columns or None
        tables, names = multilabel.numbered(tables, names_given, declared, columns["label"])
        several = labels_of(tables["train"]).sum(1).mean()
        notes.append(f"an example may have several labels, or none: {several:.2f} on average in train")
    else:
        tables, names = _numbered(tables, spec.labels, declared)
    _check_classes(tables["train"], names, columns["label"])
    tables = {split: table.drop_columns("row") for split, table in tables.items()}
    tables = limited(carve(tables, spec, notes), spec, notes)
    # what says who wrote a text, or where, changes no run
    parts = [fingerprint(split, table.select(_seen(table))) for split, table in tables.items()]
    return Dataset(source.name, tables, names, tuple(notes), fingerprint(*parts, list(names)))


def _columns(table: pa.Table, spec: DataSpec) -> dict[str, str]:
    """Our column -> the user's."""
    names = table.column_names
    lower = {name.lower(): name for name in reversed(names)}
    for asked in (spec.text, spec.text_pair, spec.label, *spec.label_columns, spec.group, *spec.slices):
        if asked is not None and asked not in names:
            raise DataError(unknown("column", asked, names))
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"column {twice[0]!r} stands there {names.count(twice[0])} times; rename one")
    label = spec.label or next((lower[name] for name in _LABELS if name in lower), None)
    if spec.label_columns:
        if spec.label or spec.label_separator:
            raise DataError("label_columns does not go with label or label_separator; give one of them")
        label = ", ".join(spec.label_columns)  # what messages call it
    if label is None:
        raise DataError(f"no label column found among {', '.join(names)}; name it with label (--label)")
    text, pair = spec.text, spec.text_pair
    if text is None and pair is None:
        found = next(((lower[a], lower[b]) for a, b in _PAIRS if a in lower and b in lower), None)
        text, pair = found or (next((lower[name] for name in _TEXTS if name in lower), None), None)
    if text is None:
        labels = (label, *spec.label_columns)
        others = [name for name in names if name not in (*labels, pair) and _is_text(table[name].type)]
        if len(others) != 1:
            raise DataError(f"no text column found among {', '.join(names)}; name it with text (--text)")
        text = others[0]
    return {"text": text, **({"text_pair": pair} if pair else {}), "label": label}


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _select(table: pa.Table, columns: dict[str, str], split: str, spec: DataSpec) -> pa.Table:
    labels = spec.label_columns or (columns["label"],)
    for theirs in (*[theirs for ours, theirs in columns.items() if ours != "label"], *labels):
        if theirs not in table.column_names:
            raise DataError(f"split {split} has no column {theirs!r}; it has {', '.join(table.column_names)}")
    if table.num_rows == 0:
        raise DataError(f"split {split} has no examples")
    chosen = {}
    for ours, theirs in columns.items():
        if ours == "label" and spec.label_columns:
            chosen[ours] = multilabel.from_columns(table, spec.label_columns, split)
            continue
        column = table[theirs]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if ours != "label":
            column = _texts(column, theirs, split)
        elif spec.label_separator and not multilabel.is_list(column):
            column = multilabel.parted(column, spec.label_separator)
        elif pa.types.is_nested(column.type) and not multilabel.is_list(column):
            raise DataError(f"label column {theirs!r} holds {column.type}; give a label an example, or lists of labels")
        chosen[ours] = column
    beside = {SLICE + name: name for name in spec.slices} | ({GROUP: spec.group} if spec.group else {})
    for ours, theirs in beside.items():
        if theirs not in table.column_names:
            if ours == GROUP:
                continue  # of splits that are given, groups need not be known
            raise DataError(f"split {split} has no column {theirs!r}; it has {', '.join(table.column_names)}")
        chosen[ours] = _words_of(table[theirs], theirs)
    return pa.table({**chosen, "row": pa.array(range(1, table.num_rows + 1))})  # for messages: the first row is 1


def _words_of(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    if pa.types.is_nested(column.type):
        raise DataError(f"column {name!r} holds {column.type}; groups and slices are words or numbers")
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return pc.fill_null(column.cast(pa.large_string()), "")


def _seen(table: pa.Table) -> list[str]:
    """The columns that runs see."""
    return [name for name in table.column_names if name != GROUP and not name.startswith(SLICE)]


def _texts(column: pa.ChunkedArray, name: str, split: str) -> pa.ChunkedArray:
    if not _is_text(column.type) and not pa.types.is_null(column.type):
        raise DataError(
            f"text column {name!r} of split {split} holds {column.type}, not text; name another with --text"
        )
    texts = pc.fill_null(column.cast(pa.large_string()), "")
    is_number = pc.match_substring_regex(texts, r"^\s*[-+]?[0-9]*[.,]?[0-9]+([eE][-+]?[0-9]+)?\s*$")
    if pc.all(pc.or_(is_number, pc.equal(texts, ""))).as_py() and pc.any(is_number).as_py():
        raise DataError(f"text column {name!r} of split {split} holds only numbers, not text; name another with --text")
    return texts


def _complete(table: pa.Table, split: str, spec: DataSpec, notes: list[str]) -> pa.Table:
    """Examples with a text and a label; the others dropped if asked for, else an error with their rows."""
    is_missing = _is_missing(table["label"], spec.labels or ())
    if is_missing.all():
        raise DataError(
            f"split {split} is unlabelled; name another one in its place (data.splits, e.g. {split}: validation)"
        )
    is_empty = np.zeros(table.num_rows, bool)
    for name in [name for name in ("text", "text_pair") if name in table.column_names]:
        stripped = pc.utf8_trim_whitespace(table[name])
        is_empty |= pc.equal(stripped, "").to_numpy()
    for found, is_dropped, what, option in (
        (is_missing, spec.drop_unlabelled, "no label", "drop_unlabelled"),
        (is_empty, spec.drop_empty, "an empty text", "drop_empty"),
    ):
        rows = np.flatnonzero(found) + 1
        if len(rows) and not is_dropped:
            raise DataError(
                f"split {split} has {what} in {len(rows)} of {table.num_rows} rows (the first row is 1): "
                f"{listed(rows)}; mend them, or leave them out with {option}: true (--{option.replace('_', '-')})"
                + (_if_a_class(table["label"], found) if option == "drop_unlabelled" else "")
            )
        if len(rows):
            notes.append(f"{len(rows):,} examples with {what} were left out of {split}")
    kept = table.filter(pa.array(~(is_missing | is_empty)))
    if kept.num_rows == 0:
        raise DataError(f"split {split} has no example with both text and label")
    return kept


def _is_missing(labels: pa.ChunkedArray, classes: tuple[str, ...]) -> np.ndarray:
    """Which labels stand for none: null, NaN, nothing, "-", and -1 beside 0 or alone. classes: what does not."""
    if multilabel.is_list(labels):
        return pc.is_null(labels).to_numpy()
    missing = pc.is_null(labels, nan_is_null=True).to_numpy()
    words = pc.fill_null(_words(labels), "")
    present = set(pc.unique(words.filter(pa.array(~missing))).to_pylist())
    blanks = [word for word in present if word in _MISSING or word.lower() in _NULLS]
    # the hub writes -1 where a label is withheld; -1 and 1 alone are two classes
    if present == {"-1"} or {"-1", "0"} <= present:
        blanks.append("-1")
    blanks = [word for word in blanks if word not in classes]
    return missing | pc.is_in(words, pa.array(blanks, pa.large_string())).to_numpy()


def _if_a_class(labels: pa.ChunkedArray, is_missing: np.ndarray) -> str:
    """How to keep a label that we take for none."""
    if multilabel.is_list(labels):
        return ""
    found = [word for word in pc.unique(_words(labels).filter(pa.array(is_missing))).to_pylist() if word]
    return f"; if {found[0]!r} is a class, name all classes with labels (--labels)" if found else ""


def _words(labels: pa.ChunkedArray) -> pa.ChunkedArray:
    """Labels as the words by which we know them: trimmed strings, whole numbers without a fraction."""
    text = pc.utf8_trim_whitespace(labels.cast(pa.large_string()))
    return pc.replace_substring_regex(text, r"^([-+]?[0-9]+)\.0*$", r"\1")


def _numbered(
    tables: dict[str, pa.Table], given: tuple[str, ...] | None, declared: tuple[str, ...] | None
) -> tuple[dict[str, pa.Table], tuple[str, ...]]:
    """Labels as ids 0..C-1 in every split, and the class names in the order of their ids.

    given: the user's names; declared: the source's own, whose integers are ids. Without either, names are what train
    holds, numbers by size and words by alphabet.
    """
    words = {split: _words(table["label"]) for split, table in tables.items()}
    found = {word for column in words.values() for word in pc.unique(column).to_pylist()}
    names = given or declared
    if names is None:
        names = tuple(sorted(set(pc.unique(words["train"]).to_pylist()), key=_by_size_or_alphabet))
    if len(set(names)) < len(names):
        raise DataError(f"label names repeat: {', '.join(names)}")
    ids_as_words = [str(index) for index in range(len(names))]
    is_id = pa.types.is_integer(tables["train"]["label"].type) and given is None and declared is not None
    # under names that the data does not use, numbers are ids
    are_ids = is_id or (not found & set(names) and found <= set(ids_as_words))
    known = pa.array(ids_as_words if are_ids else names, pa.large_string())
    numbered = {}
    for split, table in tables.items():
        ids = pc.index_in(words[split], known)
        if ids.null_count:
            raise _outside(table, words[split], ids, split, names)
        numbered[split] = table.set_column(table.column_names.index("label"), "label", ids.cast(pa.int64()))
    return numbered, tuple(names)


def _by_size_or_alphabet(word: str) -> tuple[int, int, str]:
    try:
        return (0, int(word), word)
    except ValueError:
        return (1, 0, word)


def _outside(
    table: pa.Table, words: pa.ChunkedArray, ids: pa.ChunkedArray, split: str, names: tuple[str, ...]
) -> DataError:
    strange = np.flatnonzero(pc.is_null(ids).to_numpy())
    values = dict.fromkeys(words.take(pa.array(strange)).to_pylist())
    return DataError(
        f"split {split} has labels outside the label set in {len(strange)} rows (the first row is 1): "
        f"{listed(table['row'].take(pa.array(strange)).to_pylist())} hold {listed(repr(value) for value in values)}; "
        f"the labels are {listed(names, 12)}"
    )


def _check_classes(train: pa.Table, names: tuple[str, ...], column: str) -> None:
    counts = label_counts(labels_of(train), len(names))
    if (counts > 0).sum() < 2:
        only = names[int(counts.argmax())]
        raise DataError(f"label column {column!r} has one class only, {only!r}; a classifier needs at least two")
    if (counts == 0).any():
        absent = [names[i] for i in np.flatnonzero(counts == 0)]
        raise DataError(f"train has no example of {listed(absent)}; every class needs some")
    if train.num_rows > 20 and len(names) > train.num_rows // 2:
        raise DataError(
            f"label column {column!r} has {len(names)} classes in {train.num_rows} examples; is it the label? "
            "Name another with label (--label)"
        )


def store_dataset(dataset: Dataset) -> None:
    """Put a dataset where worker processes find it by its fingerprint."""

    def write(into: Path) -> None:
        for split, table in dataset.splits.items():
            with pa.OSFile(str(into / f"{split}.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
        described = {"name": dataset.name, "label_names": dataset.label_names, "notes": dataset.notes}
        (into / "dataset.json").write_text(json.dumps(described))

    cached(f"dataset-{dataset.fingerprint}", write)


def open_dataset(fingerprint: str) -> Dataset:
    """A stored dataset, memory-mapped."""
    folder = cache_folder() / f"dataset-{fingerprint}"
    described = json.loads((folder / "dataset.json").read_text())
    splits = {split: pa.ipc.open_file(pa.memory_map(str(folder / f"{split}.arrow"))).read_all() for split in SPLITS}
    return Dataset(described["name"], splits, tuple(described["label_names"]), tuple(described["notes"]), fingerprint)
