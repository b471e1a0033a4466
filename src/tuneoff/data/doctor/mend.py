"""Mend the data as its options ask: merge label variants, drop duplicates, contradicting labels and leaks."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tuneoff.data import large
from tuneoff.data.dataset import label_counts, labels_of
from tuneoff.data.doctor.copies import copies_of
from tuneoff.data.doctor.variants import label_variants
from tuneoff.data.labels import are_indicators, as_strings, is_list
from tuneoff.data.spec import SPLITS, DataSpec
from tuneoff.errors import DataError, join_limited, unknown


def merge_labels(tables: dict[str, pa.Table], spec: DataSpec, notes: list[str]) -> tuple[dict[str, pa.Table], set[str]]:
    """Replace labels by others, as the spec says or, if it says so, variants by the spelling that is most frequent.

    tables: with labels as the user wrote them. Returns the tables, and the labels that were replaced. Raises DataError
    for a label that no example has.
    """
    if not spec.merge_labels:
        return tables, set()
    columns = {split: table["label"] for split, table in tables.items()}
    if is_list(columns["train"]) and are_indicators(columns["train"].to_pylist()):
        raise DataError("merge_labels does not go with lists of 0 and 1; give lists of names")
    counts: Counter[str] = Counter()
    for column in columns.values():
        counts.update(_strings(column).to_pylist())
    merged = label_variants(counts) if spec.merge_labels is True else spec.merge_labels
    for label in merged:
        if label not in counts:
            raise DataError(f"merge_labels: {unknown('label', label, counts)}")
    if not merged:
        notes.append("merge_labels: no label looks like a variant of another")
        return tables, set()
    changes = [f"{label!r} ({counts[label]:,}) into {kept!r}" for label, kept in merged.items()]
    notes.append(f"labels were merged: {join_limited(changes)}")
    replaced = {
        split: table.set_column(table.column_names.index("label"), "label", _replaced(columns[split], merged))
        for split, table in tables.items()
    }
    return replaced, set(merged)


def _strings(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return all labels of a column, or of its lists, as strings without nulls."""
    values = pc.list_flatten(column) if is_list(column) else column
    return pc.drop_null(as_strings(values))


def _replaced(column: pa.ChunkedArray, merged: Mapping[str, str]) -> pa.ChunkedArray:
    if is_list(column):
        lists = [None if row is None else [as_written(label) for label in row] for row in column.to_pylist()]
        renamed = [None if row is None else [merged.get(label, label) for label in row] for row in lists]
        return pa.chunked_array([pa.array(renamed, pa.list_(pa.large_string()))])
    strings = as_strings(column).combine_chunks()
    codes = pc.index_in(strings, pa.array(list(merged), pa.large_string()))
    kept = pa.array(list(merged.values()), pa.large_string()).take(codes)
    return pa.chunked_array([pc.coalesce(kept, strings)])


def as_written(label: object) -> str:
    """Return a label of a list as a trimmed string."""
    return "" if label is None else str(label).strip()


def drop_repeated(tables: dict[str, pa.Table], spec: DataSpec, notes: list[str]) -> dict[str, pa.Table]:
    """Drop examples with contradicting labels, then those that repeat an earlier one, within each split, if asked.

    Texts are compared after folding; of duplicates the first is kept, of contradicting ones none.
    """
    for option, noun in (("drop_contradicting", "with contradicting labels"), ("drop_duplicates", "of repeated texts")):
        if not getattr(spec, option):
            continue
        copies, counts = copies_of(tables, with_near=False), {}
        for split, table in tables.items():
            is_contradicting = option == "drop_contradicting"
            is_dropped = copies.contradicting(split) if is_contradicting else copies.repeats(split).is_equal
            tables, counts[split] = {**tables, split: large.kept(table, ~is_dropped)}, int(is_dropped.sum())
            if not tables[split].num_rows:
                raise DataError(f"{option} leaves no example in {split}; leave it out")
        notes.append(_dropped(noun, counts))
    return tables


def _dropped(noun: str, counts: Mapping[str, int]) -> str:
    """Write a note on the examples that were dropped from each split."""
    parts = [f"{count:,} of {split}" for split, count in counts.items() if count]
    return f"examples {noun} dropped: {', '.join(parts) or 'none'}"


def drop_leaks(
    tables: dict[str, pa.Table], names: tuple[str, ...], spec: DataSpec, notes: list[str]
) -> dict[str, pa.Table]:
    """Drop from train what is also in validation or test, and from validation what is also in test, if asked.

    Texts are compared after folding; nearly equal ones are dropped too. names: of the labels.
    """
    if not spec.drop_leaks:
        return tables
    copies, counts = copies_of(tables), {}
    kept = dict(tables)
    for number, split in enumerate(SPLITS[:-1]):
        later = [name for name in SPLITS[number + 1 :] if name in tables]
        if split not in tables or not later:
            continue
        is_leaked, places = copies.twins(split, later).is_copied, " or ".join(later)
        kept[split] = large.kept(tables[split], ~is_leaked)
        counts[split] = int(is_leaked.sum())
        if not kept[split].num_rows:
            raise DataError(f"drop_leaks leaves no example in {split}: all are also in {places}; leave it out")
    notes.append(_dropped("of texts that a later split has too", counts))
    left = label_counts(labels_of(kept["train"]), len(names))
    if not left.all():
        absent = [names[index] for index in np.flatnonzero(left == 0)]
        raise DataError(f"drop_leaks leaves no training example of {join_limited(absent)}; leave it out")
    return kept
