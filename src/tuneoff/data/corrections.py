"""Corrections of labels: a reviewed CSV file, written by `tuneoff inspect --review`, applied to the data.

# N examples
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from tuneoff.data import large
from tuneoff.data.sources import find_separator
from tuneoff.errors import DataError, unknown
from tuneoff.formats import counted, join_names, shorten
from tuneoff.tables import without_formula

COLUMNS = ("split", "row", "text", "corrected")  # that a file of corrections must have
DROP = ("drop", "-")  # in place of a label: the example is removed
TEXT_LENGTH = 1000  # characters of a text in the file


@dataclass(frozen=True)
class _Correction:
    """One filled line of the file."""

    place: str  # for error messages
    split: str
    row: int  # in the split of the source; the first row is 1
    text: str
    corrected: str


def apply_corrections(
    tables: dict[str, pa.Table], names: tuple[str, ...], file: str, notes: list[str]
) -> dict[str, pa.Table]:
    """Change the labels that a file corrects, and remove the examples that it drops. Appends a note.

    tables: splits of the source with the columns text, label (ids) and row. Raises DataError, with the line of the
    file, for an example that is not there and for a label outside the names.
    """
    corrections = list(_read(Path(file).expanduser()))
    corrected, counts = dict(tables), {"changed": 0, "dropped": 0}
    for split in dict.fromkeys(correction.split for correction in corrections):
        own = [correction for correction in corrections if correction.split == split]
        if split not in tables:
            raise DataError(f"{own[0].place}: {unknown('split', split, tables)}")
        corrected[split] = _corrected_split(tables[split], names, own, counts)
    parts = [f"{counts[what]:,} {what}" for what in counts]
    notes.append(f"{counted(len(corrections), 'label')} of {Path(file).name} corrected: {join_names(parts)}")
    return corrected


def _corrected_split(
    table: pa.Table, names: tuple[str, ...], corrections: list[_Correction], counts: dict[str, int]
) -> pa.Table:
    position = {row: index for index, row in enumerate(table["row"].to_pylist())}
    labels, is_kept = table["label"].to_numpy().copy(), np.ones(table.num_rows, bool)
    for correction in corrections:
        index = position.get(correction.row)
        if index is None:
            raise DataError(
                f"{correction.place}: split {correction.split} has no example in row {correction.row} (the first row "
                "is 1); write the file anew with tuneoff inspect --review"
            )
        text = table["text"][index].as_py()
        if _comparable(text) != _comparable(correction.text):
            raise DataError(
                f"{correction.place}: row {correction.row} of split {correction.split} has another text, "
                f"{shorten(text, 60)!r}; write the file anew with tuneoff inspect --review"
            )
        if correction.corrected in names:
            counts["changed"] += int(labels[index] != names.index(correction.corrected))
            labels[index] = names.index(correction.corrected)
        elif correction.corrected.lower() in DROP:
            counts["dropped"] += 1
            is_kept[index] = False
        else:
            wrong = unknown("label", correction.corrected, [*names[:12], DROP[0]])
            raise DataError(f"{correction.place}: {wrong}")
    changed = table.set_column(table.column_names.index("label"), "label", pa.array(labels))
    return large.kept(changed, is_kept)


def _comparable(text: str) -> str:
    """Return a text without what the file and a spreadsheet change: its end, formulas, white space."""
    return re.sub(r"\s+", " ", without_formula(shorten(text, TEXT_LENGTH)).removeprefix("'")).strip()


def _read(path: Path) -> Iterator[_Correction]:
    """Yield the filled lines of a file of corrections."""
    if not path.is_file():
        raise DataError(
            f"corrections file {str(path)!r} does not exist; tuneoff inspect DATA --review {path} writes it"
        )
    seen: dict[tuple[str, int], str] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=find_separator(path))
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(
                    f"corrections file {path.name!r} has no column {missing[0]!r}; it needs {', '.join(COLUMNS)}, as "
                    "tuneoff inspect --review writes them"
                )
            for number, line in enumerate(reader, start=1):
                if not all(value is None or isinstance(value, str) for value in line.values()):
                    raise DataError(f"corrections file {path.name!r}, line {number + 1}: more fields than the header")
                label = (line["corrected"] or "").strip().removeprefix("'")
                if not label:
                    continue
                place = f"corrections file {path.name!r}, line {number + 1}"
                row = (line["row"] or "").strip()
                if not re.fullmatch("[0-9]{1,18}", row):
                    raise DataError(f"{place}: row {shorten(row, 40)!r} is not a number")
                key = (line["split"] or "").strip(), int(row)
                if seen.setdefault(key, label) != label:
                    raise DataError(
                        f"{place}: row {row} of {key[0]} is corrected twice, to {seen[key]!r} and {label!r}"
                    )
                yield _Correction(place, *key, line["text"] or "", label)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"corrections file {path.name!r} cannot be read: {error}; save it as CSV in UTF-8") from None
