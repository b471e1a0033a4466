"""The texts of a file: which columns they are in, and which rows can be used."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tuneoff.data.columns import MAX_TEXT_BYTES
from tuneoff.data.load import detect_text_columns
from tuneoff.data.stream import BadRows, decoded, read_batches
from tuneoff.errors import ConfigError, DataError, unknown


@dataclass(frozen=True)
class TextBatch:
    """Rows of a file, and the texts among them that can be used."""

    batch: pa.Table  # every column of the file
    start: int  # number of rows before it
    names: tuple[str, ...]  # of the text columns
    table: pa.Table  # columns text, for pairs text_pair; usable rows only
    rows: np.ndarray  # indices of the usable rows in the batch

    def at_rows(self, values: np.ndarray) -> pa.Array:
        """Return values of the usable rows at their places in the batch; null for the other rows. -> float32."""
        whole, is_missing = np.zeros(self.batch.num_rows, np.float32), np.ones(self.batch.num_rows, bool)
        whole[self.rows], is_missing[self.rows] = values, False
        return pa.array(whole, mask=is_missing)


@dataclass(frozen=True)
class TextColumns:
    """Which columns of a file hold the texts."""

    text: str | None = None  # as asked for; None: as in training, else by common names
    text_pair: str | None = None
    in_training: tuple[str, ...] = ()
    is_pair: bool = False

    def of(self, names: list[str]) -> tuple[str, ...]:
        """Return the text columns among the columns of a file: one, or for pairs two."""
        count = 1 + self.is_pair
        asked = tuple(name for name in (self.text, self.text_pair) if name)
        for name in asked:
            if name not in names:
                raise DataError(unknown("column", name, names))
        if asked and len(asked) != count:
            kind, needed = (
                ("pairs of texts", "--text and --text-pair") if count == 2 else ("single texts", "--text alone")
            )
            raise ConfigError(f"the model classifies {kind}; name {needed}")
        common = tuple(name for name in detect_text_columns({n.lower(): n for n in reversed(names)}) if name)
        for candidate in (asked, self.in_training, common[:count]):
            if len(candidate) == count and all(name in names for name in candidate):
                return candidate
        if count == 1 and len(names) == 1:
            return (names[0],)
        options = "--text and --text-pair" if count == 2 else "--text"
        where = f" (in training: {', '.join(self.in_training)})" if self.in_training else ""
        raise DataError(f"no text column among {', '.join(names)}{where}; name it with {options}")


def read_texts(source: str, format_name: str, columns: TextColumns, bad: BadRows) -> Iterator[TextBatch]:
    """Yield the texts of a file, or of standard input ("-"), batch by batch; rows without a text are counted in bad."""
    start = 0
    for batch in read_batches(source, format_name, bad):
        yield _text_batch(batch, start, columns.of(batch.column_names), bad)
        start += batch.num_rows


def _text_batch(batch: pa.Table, start: int, names: tuple[str, ...], bad: BadRows) -> TextBatch:
    texts, is_bad = {}, np.zeros(batch.num_rows, bool)
    for ours, name in zip(("text", "text_pair"), names, strict=False):
        column, wrong = decoded(batch[name])
        if pa.types.is_null(column.type):
            column = column.cast(pa.large_string())
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise DataError(f"text column {name!r} holds {column.type}, not text; name another column with --text")
        filled = pc.fill_null(column.cast(pa.large_string()), "")
        is_empty = pc.equal(pc.utf8_trim_whitespace(filled), "").to_numpy()
        bad.add("a text that is not UTF-8", bad.numbers_of(start + wrong + 1))
        bad.add("an empty text", bad.numbers_of(start + np.flatnonzero(is_empty & ~is_bad) + 1))
        is_long = pc.greater(pc.binary_length(filled), MAX_TEXT_BYTES).to_numpy()
        bad.add("a text of more than 8 MB", bad.numbers_of(start + np.flatnonzero(is_long & ~is_bad) + 1))
        is_bad |= is_empty | is_long
        is_bad[wrong] = True
        texts[ours] = filled
    rows, table = np.flatnonzero(~is_bad), pa.table(texts)
    return TextBatch(batch, start, names, table.take(pa.array(rows)) if is_bad.any() else table, rows)
