"""Raw tables -> a Dataset: columns found, labels checked and numbered, missing splits carved, subsets taken."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tuneoff.cache import cache_folder, cached, fingerprint
from tuneoff.data import multilabel, sources, splits
from tuneoff.data.dataset import SPLITS, Dataset, DataSpec, label_counts, labels_of
from tuneoff.data.splits import Subset
from tuneoff.errors import ConfigError, DataError, listed, unknown
from tuneoff.metrics import as_rows

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
    tables = _limit(_carve(tables, spec, notes), spec, notes)
    parts = [fingerprint(split, table) for split, table in tables.items()]
    return Dataset(source.name, tables, names, tuple(notes), fingerprint(*parts, list(names)))


def _columns(table: pa.Table, spec: DataSpec) -> dict[str, str]:
    """Our column -> the user's."""
    names = table.column_names
    lower = {name.lower(): name for name in reversed(names)}
    for asked in (spec.text, spec.text_pair, spec.label, *spec.label_columns):
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
    return pa.table({**chosen, "row": pa.array(range(1, table.num_rows + 1))})  # for messages: the first row is 1


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
    for name in [name for name in table.column_names if name not in ("label", "row")]:
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


def _carve(tables: dict[str, pa.Table], spec: DataSpec, notes: list[str]) -> dict[str, pa.Table]:
    """Take a missing test split, then a missing validation split, off train."""
    train = tables["train"]
    num_all, num_classes = train.num_rows, _num_strata(train)
    for split, share in (("test", spec.test_fraction), ("validation", spec.validation_fraction)):
        if split in tables:
            continue
        labels = strata_of(train)
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
            f"{split} was carved from train: {len(taken):,} of {num_all:,} examples, "
            f"classes in proportion, seed {spec.split_seed}"
        )
    return {"train": train, "validation": tables["validation"], "test": tables["test"]}


def _limit(tables: dict[str, pa.Table], spec: DataSpec, notes: list[str]) -> dict[str, pa.Table]:
    limited = dict(tables)
    for split, limit in spec.limits.items():
        num_all, num_classes = tables[split].num_rows, _num_strata(tables["train"])
        if limit < num_classes:
            raise DataError(f"limit {limit} for {split} is below the number of classes, {num_classes}")
        if limit < num_all:
            chosen = splits.subset(
                strata_of(tables[split]), limit, np.random.default_rng([spec.split_seed, 1, SPLITS.index(split)])
            )
            limited[split] = tables[split].take(chosen)
            notes.append(f"{split} is a subset: {limit:,} of {num_all:,} examples, classes in proportion")
    _check_all_classes_left(limited["train"], tables["train"])
    return limited


def _check_all_classes_left(limited: pa.Table, whole: pa.Table) -> None:
    kept, all_of_it = (as_rows(labels_of(table), _most(whole)).any(0) for table in (limited, whole))
    if (kept < all_of_it).any():
        raise DataError("the limit for train leaves out a class; raise it, or merge rare classes")


def check_subset(dataset: Dataset, chosen: Subset) -> None:
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
    left = label_counts(labels[chosen.of(strata_of(train), 0)], dataset.num_labels)
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


def _num_strata(table: pa.Table) -> int:
    return len(np.unique(strata_of(table)))


def _most(table: pa.Table) -> int:
    """Labels of a split, at most."""
    labels = labels_of(table)
    return labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1


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
