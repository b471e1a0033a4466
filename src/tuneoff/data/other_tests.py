"""Test sets from elsewhere: read with the labels of a study's data, and stored in the cache for worker processes.

They show what a trained model is worth on texts of another source. Nothing is trained or selected on them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tuneoff.cache import cached_folder, fingerprint, stored_folder
from tuneoff.data import sources
from tuneoff.data.dataset import Dataset, label_counts, labels_of
from tuneoff.data.labels import are_indicators, as_strings, is_list
from tuneoff.data.load import detect_text_columns, select_examples
from tuneoff.data.spec import DataSpec, OtherTestSpec
from tuneoff.data.splits import strata_of, stratified_sample
from tuneoff.errors import ConfigError, DataError, join_limited, unknown
from tuneoff.formats import counted, join_names

_MAX_NAMES = 8  # of labels in an error message


@dataclass(frozen=True)
class OtherTest:
    """A test set from elsewhere, with the label ids of the study's data."""

    name: str
    source: str
    table: pa.Table  # columns text, for pairs text_pair, and label
    fingerprint: str
    notes: tuple[str, ...]  # for readers

    @property
    def split(self) -> str:
        """Name among the splits of a dataset."""
        return split_name(self.name)


def split_name(name: str) -> str:
    """Return the name of a test set among the splits of a dataset: twitter -> test:twitter."""
    return f"test:{name}"


def with_other_tests(dataset: Dataset, tables: Mapping[str, pa.Table]) -> Dataset:
    """Return a dataset that also has test sets as splits. tables: by the names of the test sets."""
    return replace(dataset, splits=dataset.splits | {split_name(name): table for name, table in tables.items()})


def load_other_test(name: str, spec: OtherTestSpec, dataset: Dataset, data: DataSpec) -> OtherTest:
    """Read a test set for the models of a dataset. data: the options with which the dataset was read.

    Raises DataError or ConfigError, in one line that names the test set.
    """
    try:
        return _load(name, spec, dataset, data)
    except (DataError, ConfigError) as error:
        raise type(error)(f"test set {name!r}: {error}") from error


def _load(name: str, spec: OtherTestSpec, dataset: Dataset, data: DataSpec) -> OtherTest:
    table, label_names, split = sources.read_test(spec.source, spec.split)
    notes: list[str] = []
    options = _data_options(table, spec, dataset, data)
    examples, columns = select_examples(table, options, "test", notes)
    if ("text_pair" in examples.column_names) != dataset.is_pair:
        what = "pairs of texts, and it has single texts" if dataset.is_pair else "single texts, and it has pairs"
        raise DataError(f"the study has {what}; name its columns with text{' and text_pair' * dataset.is_pair}")
    source_names = label_names.get(columns["label"])
    examples = _with_label_ids(examples, spec, dataset, source_names, notes).drop_columns("row")
    if spec.limit and spec.limit < examples.num_rows:
        rows = stratified_sample(strata_of(examples), spec.limit, np.random.default_rng([5, data.split_seed]))
        notes.append(f"{spec.limit:,} of {examples.num_rows:,} examples were drawn, stratified by label")
        examples = examples.take(rows)
    if split != "train" or spec.split:
        notes.append(f"its split {split} is used")
    notes += _label_notes(examples, dataset) + _repeat_notes(examples, dataset)
    examples = examples.select([*columns]).combine_chunks()
    key = fingerprint("other test", examples, list(dataset.label_names))
    return OtherTest(name, spec.source, examples, key, tuple(notes))


def _data_options(table: pa.Table, spec: OtherTestSpec, dataset: Dataset, data: DataSpec) -> DataSpec:
    """Return the options to read a test set with: its own columns, else those of the study, else detected ones."""

    def column(name: str, own: str | None) -> str | None:
        of_study = dataset.columns.get(name)
        return own or (of_study if of_study in table.column_names else None)

    label_columns = () if spec.label else data.label_columns
    text, text_pair = column("text", spec.text), column("text_pair", spec.text_pair)
    if text is None and text_pair is None and not dataset.is_pair:
        text = detect_text_columns({name.lower(): name for name in reversed(table.column_names)})[0]
    return DataSpec(
        source=spec.source,
        text=text,
        text_pair=text_pair,
        label=None if label_columns else column("label", spec.label),
        label_columns=label_columns,
        label_separator=data.label_separator,
        drop_unlabelled=data.drop_unlabelled,
        drop_empty=data.drop_empty,
        labels=tuple(dataset.label_names),
    )


def _with_label_ids(
    table: pa.Table,
    spec: OtherTestSpec,
    dataset: Dataset,
    source_names: tuple[str, ...] | None,
    notes: list[str],
) -> pa.Table:
    """Replace the labels by the ids of the dataset's labels; leave out the examples that the mapping leaves out."""
    column, names = table["label"], dataset.label_names
    if dataset.is_multilabel != is_list(column):
        kind = "lists of labels" if dataset.is_multilabel else "single labels"
        raise DataError(f"the study's data has {kind}, and its label column has not; name another with label")
    if is_list(column):
        lists = _as_names(column.to_pylist(), names, source_names)
        ids_of = _ids_of({label for row in lists for label in row}, spec, names, notes)
        indicators = np.zeros((len(lists), len(names)), np.uint8)
        for row, labels in enumerate(lists):
            indicators[row, [index for label in labels if (index := ids_of[label]) is not None]] = 1
        ids = pa.FixedSizeListArray.from_arrays(pa.array(indicators.ravel()), len(names))
        return table.set_column(table.column_names.index("label"), "label", ids)
    if source_names and pa.types.is_integer(column.type):
        column = pa.chunked_array([_as_names([column.to_pylist()], names, source_names)[0]], pa.large_string())
    labels = as_strings(column)
    ids_of = _ids_of(set(pc.unique(labels).to_pylist()), spec, names, notes)
    indices = pa.array([ids_of[label] for label in labels.to_pylist()], pa.int64())
    table = table.set_column(table.column_names.index("label"), "label", indices)
    kept = table.filter(pc.is_valid(indices))
    if kept.num_rows == 0:
        raise DataError("labels leaves out every example; map at least one label to one of the study")
    if kept.num_rows < table.num_rows:
        left_out = [label for label, ours in spec.labels.items() if ours is None]
        num_left_out = counted(table.num_rows - kept.num_rows, "example")
        notes.append(f"{num_left_out} with the label {join_names(left_out)} left out")
    return kept


def _as_names(
    lists: list[list[object]], names: tuple[str, ...], source_names: tuple[str, ...] | None
) -> list[list[str]]:
    """Write labels as names: ids of a source's own names by these, lists of C zeros and ones by the study's."""
    if len(names) > 1 and lists and len(lists[0]) == len(names) and are_indicators(lists):
        return [[names[index] for index, value in enumerate(row) if value] for row in lists]
    if source_names:
        return [
            [source_names[x] if isinstance(x, int) and 0 <= x < len(source_names) else str(x).strip() for x in row]
            for row in lists
        ]
    return [[str(label).strip() for label in row if str(label).strip()] for row in lists]


def _ids_of(labels: set[str], spec: OtherTestSpec, names: tuple[str, ...], notes: list[str]) -> dict[str, int | None]:
    """Return the id of each label of a test set: by the mapping, by name, by name in another case, or as an id.

    Raises DataError, with the labels that the study has not.
    """
    absent = [label for label in spec.labels if label not in labels]
    if absent:
        raise ConfigError(f"labels names {absent[0]!r}, which is no label there; it has {_listed(labels)}")
    for ours in spec.labels.values():
        if ours is not None and ours not in names:
            raise ConfigError(unknown("label of the study", ours, names))
    ids = {name: index for index, name in enumerate(names)}
    by_case = {name.casefold(): name for name in names} if len({n.casefold() for n in names}) == len(names) else {}
    are_ids = not spec.labels and not labels & set(names) and labels <= {str(index) for index in range(len(names))}
    mapped: dict[str, int | None] = {}
    unmatched = []
    for label in sorted(labels):
        if label in spec.labels:
            ours = spec.labels[label]
            mapped[label] = None if ours is None else ids[ours]
        elif label in ids:
            mapped[label] = ids[label]
        elif label.casefold() in by_case:
            mapped[label] = ids[by_case[label.casefold()]]
        elif are_ids:
            mapped[label] = int(label)
        else:
            unmatched.append(label)
    if unmatched:
        raise DataError(
            f"it has labels that the study has not: {_listed(unmatched)}; the study's labels are {_listed(names)}. Map "
            f"them with labels: {{{unmatched[0]}: {names[0]}}} (:labels={unmatched[0]}={names[0]}), or leave their "
            f"examples out with labels: {{{unmatched[0]}: null}} (:labels={unmatched[0]}=)"
        )
    if are_ids:
        read = join_names([f"{label} as {names[int(label)]}" for label in sorted(labels, key=int)])
        notes.append(f"its labels are read as ids of the study's: {read}")
    return mapped


def _listed(labels: object) -> str:
    return join_limited([repr(label) for label in sorted(labels)], _MAX_NAMES)  # type: ignore[call-overload]


def _label_notes(table: pa.Table, dataset: Dataset) -> list[str]:
    """Note on the labels of the study that a test set has no example of."""
    counts = label_counts(labels_of(table), dataset.num_labels)
    absent = [name for name, count in zip(dataset.label_names, counts, strict=True) if count == 0]
    if not absent:
        return []
    return [f"it has no example of {join_limited(absent)}, so that its scores are of the other labels"]


def _repeat_notes(table: pa.Table, dataset: Dataset) -> list[str]:
    """Note on the texts of a test set that also stand in train, which no longer show what generalises."""
    columns = ["text", "text_pair"] if dataset.is_pair else ["text"]
    seen = set(zip(*[dataset.splits["train"][name].to_pylist() for name in columns], strict=True))
    repeats = sum(texts in seen for texts in zip(*[table[name].to_pylist() for name in columns], strict=True))
    if not repeats:
        return []
    return [f"{repeats:,} of its {table.num_rows:,} texts also stand in train, which raises its scores"]


def store_other_test(test: OtherTest) -> None:
    """Store a test set in the cache, where worker processes open it by its fingerprint."""

    def write(folder: Path) -> None:
        with pa.OSFile(str(folder / "test.arrow"), "wb") as file, pa.ipc.new_file(file, test.table.schema) as writer:
            writer.write_table(test.table)

    cached_folder(f"test-{test.fingerprint}", write)


def open_other_test(fingerprint: str) -> pa.Table:
    """Open a stored test set, memory-mapped. Raises StoreError if it is missing or damaged."""
    return pa.ipc.open_file(pa.memory_map(str(stored_folder(f"test-{fingerprint}") / "test.arrow"))).read_all()
