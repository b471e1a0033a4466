"""Data files that somebody prepared to do harm, and generators of random ones, for every reader of data.

`FILES` are named files, each of which gives a dataset or a refusal in one line. The strategies of hypothesis write tables
with any types and values, and files that are nearly right.
"""

import csv
import io
import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from hypothesis import strategies as st

from tuneoff.data.load import load_dataset
from tuneoff.data.spec import DataSpec
from tuneoff.data.stream import BadRows, format_of, read_batches
from tuneoff.deliver.texts import TextColumns, read_texts

ROWS = 40
TEXTS = [f"a text of {number} words" for number in range(ROWS)]
LABELS = ["good", "bad"] * (ROWS // 2)


def load(path: Path, **options: Any) -> None:
    """Read a file as a study does."""
    load_dataset(DataSpec(source=str(path), **options))


def stream(path: Path) -> None:
    """Read a file as `predict` does."""
    for _ in read_texts(str(path), format_of(str(path)), TextColumns(), BadRows()):
        pass
    for _ in read_batches(str(path), format_of(str(path)), BadRows()):
        pass


# ---- named files


def _text(content: str | bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content.encode() if isinstance(content, str) else content)


def _lines(*objects: Any) -> Callable[[Path], Any]:
    return _text("".join(json.dumps(row) + "\n" for row in objects))


def _table(**columns: Any) -> Callable[[Path], Any]:
    return lambda path: pa.parquet.write_table(pa.table({"text": TEXTS, "label": LABELS, **columns}), path)


def _repeated(value: Any, kind: pa.DataType) -> pa.Array:
    return pa.array([value] * ROWS, kind)


def _not_utf8(kind: pa.DataType) -> pa.Array:
    """Strings that are not UTF-8, which pyarrow's own functions would refuse to make."""
    content = pa.py_buffer(b"ok\xff\xfe" * ROWS)
    size = np.int64 if pa.types.is_large_string(kind) else np.int32
    offsets = pa.py_buffer(np.arange(ROWS + 1, dtype=size) * 4)
    return pa.Array.from_buffers(kind, ROWS, [None, offsets, content])


def _bomb(rows: int, value: str, codec: str = "gzip") -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        part = pa.array([value], pa.string())
        index = pa.array(np.zeros(min(rows, 10**6), np.int32))
        table = pa.table(
            {
                "text": pa.DictionaryArray.from_arrays(index, part),
                "label": pa.DictionaryArray.from_arrays(index, pa.array(["a"])),
            }
        )
        with pa.parquet.ParquetWriter(path, table.schema, compression=codec) as writer:
            for _ in range(max(1, rows // 10**6)):
                writer.write_table(table)

    return write


def _wide(count: int) -> Callable[[Path], Any]:
    names = [f"c{number}" for number in range(count)]
    return _text(",".join(["text", "label", *names]) + "\n" + (",".join(["a b", "x", *["1"] * count]) + "\n") * 4)


def _wide_table(count: int) -> Callable[[Path], Any]:
    return lambda path: pa.parquet.write_table(
        pa.table({"text": TEXTS, "label": LABELS, **{f"c{number}": np.zeros(ROWS) for number in range(count)}}), path
    )


_VIEW, _BINARY = pa.string_view(), pa.binary()
_DEEP = "[" * 50_000 + "]" * 50_000
_ODD_LABELS = ["²", "--5", "-", "½", "+", "1e5", "٣", "９", "0x1", "1_000", "nan", "inf"]

# name with the ending of the file -> writes it, options of the data
FILES: dict[str, tuple[Callable[[Path], Any], dict[str, Any]]] = {
    "null.json": (_text("null"), {}),
    "null.jsonl": (_text("null\n"), {}),
    "nulls.jsonl": (_text("null\nnull\n"), {}),
    "null-within.jsonl": (_text('{"text": "a", "label": "b"}\nnull\n'), {}),
    "number.json": (_text("3"), {}),
    "text.json": (_text('"a"'), {}),
    "true.jsonl": (_text("true\n"), {}),
    "bracket.json": (_text("]"), {}),
    "open.json": (_text("["), {}),
    "open.jsonl": (_text("{"), {}),
    "deep.json": (_text(_DEEP), {}),
    "deep.jsonl": (_text('{"text": ' + _DEEP + "}\n"), {}),
    "deep-objects.json": (_text('{"a":' * 50_000 + "1" + "}" * 50_000), {}),
    "deep-objects.jsonl": (_text('{"text": "x", "label": ' + '{"a":' * 50_000 + "1" + "}" * 50_001 + "\n"), {}),
    "deep-after-text.jsonl": (_text('{"text": "]]]]", "label": ' + _DEEP + "}\n"), {}),
    "deep-in-text.jsonl": (_lines(*[{"text": "[" * 3000 + text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]), {}),
    "escapes.jsonl": (_lines(*[{"text": '\\"[{' + text + "\\\\", "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]), {}),
    "mixed.json": (_text('[1, "a", {"text": "b"}, [2], null]'), {}),
    "numbers.json": (_text("[1, 2, 3]"), {}),
    "lists.json": (_text("[[1, 2], [3, 4]]"), {}),
    "nulls.json": (_text("[null, null]"), {}),
    "empty-array.json": (_text("[]"), {}),
    "empty-objects.json": (_text("[{}, {}]"), {}),
    "mixed-types.jsonl": (_lines({"text": "a", "label": 1}, {"text": 2, "label": "b"}), {}),
    "nested-label.jsonl": (_lines(*[{"text": text, "label": {"a": label}} for text, label in zip(TEXTS, LABELS, strict=True)]), {}),
    "nested-label-columns.jsonl": (_lines(*[{"text": text, "label": [[1]], "b": {"c": 1}} for text in TEXTS]), {"label_columns": ["label", "b"]}),
    "nested-label-separator.jsonl": (_lines(*[{"text": text, "label": {"c": "a|b"}} for text in TEXTS]), {"label_separator": "|"}),
    "list-of-lists.jsonl": (_lines(*[{"text": text, "label": [["a"]]} for text in TEXTS]), {}),
    "nested-text.jsonl": (_lines(*[{"text": [text], "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]), {}),
    "large-number.jsonl": (_text('{"text": "a", "label": ' + "9" * 5000 + "}\n"), {}),
    "infinite.jsonl": (_text('{"text": "a", "label": 1e999}\n{"text": "b", "label": 1}\n'), {}),
    "surrogate.jsonl": (_text('{"text": "\\ud800", "label": "a"}\n{"text": "b", "label": "c"}\n'), {}),
    "repeated-key.jsonl": (_text('{"text": "a", "text": "b", "label": "c"}\n'), {}),
    "keys.jsonl": (_lines({f"k{number}": number for number in range(50_000)}), {}),
    "nul.csv": (_text("text,label\na\0b,x\nc,y\n"), {}),
    "odd-labels.csv": (_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in zip(TEXTS, _ODD_LABELS * 4, strict=False))), {}),
    "odd-labels.jsonl": (_lines(*[{"text": text, "label": label} for text, label in zip(TEXTS, _ODD_LABELS * 4, strict=False)]), {}),
    "wide.csv": (_wide(11_000), {}),
    "wider.csv": (_wide(100_000), {}),
    "wide.parquet": (_wide_table(11_000), {}),
    "unclosed-quote.csv": (_text('text,label\n"a,b\n' * 100), {}),
    "no-newline.csv": (_text("text,label"), {}),
    "separators.csv": (_text(",;|\t" * 1000), {}),
    "empty.csv": (_text(""), {}),
    "empty.parquet": (_text(""), {}),
    "empty.json": (_text(""), {}),
    "space.json": (_text(" \n "), {}),
    "bom.json": (_text(b"\xef\xbb\xbf"), {}),
    "utf-16.csv": (_text("text,label\na,b\n".encode("utf-16")), {}),
    "long-header.csv": (_text("a" * 5_000_000 + ",label\nb,c\n"), {}),
    "long-label.csv": (_text("text,label\n" + f"a b,{'x' * 100_000}\nc d,y\n" * 10), {}),
    "cell-of-100-MB.csv": (lambda path: path.write_text("text,label\n" + "a " * (50 * 2**20) + ",x\nb,y\n"), {}),
    "cell-of-100-MB.jsonl": (lambda path: path.write_text('{"text": "' + "a " * (50 * 2**20) + '", "label": "x"}\n{"text": "b", "label": "y"}\n'), {}),
    "escapes.csv": (_text("text,label\n" + "\x1b[2Jclear,\x1b]0;x\x07\nb,y\n"), {}),
    "bomb-rows.parquet": (_bomb(200 * 10**6, "a text of some words"), {}),
    "bomb-cells.parquet": (_bomb(10**6, "x" * 2**20), {}),
    "bomb-cell.parquet": (lambda path: pa.parquet.write_table(pa.table({"text": ["a" * 2**29], "label": ["x"]}), path, compression="gzip"), {}),
    "not-utf8.parquet": (_table(text=_not_utf8(pa.string())), {}),
    "not-utf8-label.parquet": (_table(label=_not_utf8(pa.string())), {}),
    "not-utf8-large.parquet": (_table(label=_not_utf8(pa.large_string())), {}),
    "not-utf8-group.parquet": (_table(group=_not_utf8(pa.string())), {"group": "group"}),
    "not-utf8-slice.parquet": (_table(part=_not_utf8(pa.string())), {"slices": ["part"]}),
    "not-utf8-other.parquet": (_table(part=_not_utf8(pa.string())), {}),
    "binary-text.parquet": (_table(text=_repeated(b"\xff", _BINARY)), {}),
    "binary-label.parquet": (_table(label=_repeated(b"\xff", _BINARY)), {}),
    "binary-group.parquet": (_table(group=_repeated(b"\xff", _BINARY)), {"group": "group"}),
    "binary-slice.parquet": (_table(part=_repeated(b"\xff", _BINARY)), {"slices": ["part"]}),
    "binary-label-columns.parquet": (_table(a=_repeated(b"\xff", _BINARY)), {"label_columns": ["a"]}),
    "binary-separator.parquet": (_table(label=_repeated(b"\xff", _BINARY)), {"label_separator": "|"}),
    "fixed-binary-label.parquet": (_table(label=_repeated(b"\xff\x00", pa.binary(2))), {}),
    "view-text.parquet": (_table(text=pa.array(TEXTS, _VIEW)), {}),
    "view-label.parquet": (_table(label=pa.array(LABELS, _VIEW)), {}),
    "view-group.parquet": (_table(group=pa.array(TEXTS, _VIEW)), {"group": "group"}),
    "view-lists.parquet": (_table(label=pa.array([[label] for label in LABELS], pa.list_(_VIEW))), {}),
    "view-separator.parquet": (_table(label=pa.array([f"{label}|x" if i % 3 else label for i, label in enumerate(LABELS)], _VIEW)), {"label_separator": "|"}),
    "dictionary.parquet": (_table(label=pa.array(LABELS).dictionary_encode()), {}),
    "dictionary-lists.parquet": (_table(label=pa.array([[label] for label in LABELS], pa.list_(pa.string()))), {}),
    "struct-label.parquet": (_table(label=_repeated({"a": 1}, pa.struct({"a": pa.int64()}))), {}),
    "struct-columns.parquet": (_table(a=_repeated({"a": 1}, pa.struct({"a": pa.int64()}))), {"label_columns": ["a"]}),
    "struct-group.parquet": (_table(a=_repeated({"a": 1}, pa.struct({"a": pa.int64()}))), {"group": "a"}),
    "map-label.parquet": (_table(label=_repeated([("a", 1)], pa.map_(pa.string(), pa.int64()))), {}),
    "list-separator.parquet": (_table(label=_repeated([["a"]], pa.list_(pa.list_(pa.string())))), {"label_separator": "|"}),
    "time-label.parquet": (_table(label=pa.array(range(ROWS), pa.timestamp("ns"))), {}),
    "duration-label.parquet": (_table(label=pa.array([1, 2] * (ROWS // 2), pa.duration("s"))), {}),
    "decimal-label.parquet": (_table(label=pa.array([1, 2] * (ROWS // 2), pa.decimal128(5, 2))), {}),
    "half-label.parquet": (_table(label=pa.array(np.array([1, 2] * (ROWS // 2), np.float16))), {}),
    "null-label.parquet": (_table(label=pa.nulls(ROWS)), {}),
    "null-text.parquet": (_table(text=pa.nulls(ROWS)), {}),
    "bool-label.parquet": (_table(label=pa.array([True, False] * (ROWS // 2))), {}),
    "no-rows.parquet": (lambda path: pa.parquet.write_table(pa.table({"text": pa.array([], pa.string()), "label": pa.array([], pa.string())}), path), {}),
    "no-columns.parquet": (lambda path: pa.parquet.write_table(pa.table({}), path), {}),
    "odd-columns.parquet": (lambda path: pa.parquet.write_table(pa.table({"\x1b[31m": TEXTS, "": LABELS, "a\nb": LABELS}), path), {}),
    "cut.parquet": (lambda path: (_table()(path), path.write_bytes(path.read_bytes()[:-50]))[1], {}),
    "gzip.csv": (_text(b"\x1f\x8b\x08\x00" + b"\x00" * 100), {}),
    "zip.parquet": (_text(b"PK\x03\x04" + b"\x00" * 100), {}),
    "pickle.json": (_text(b"\x80\x04\x95\x10\x00"), {}),
}  # fmt: skip


# ---- random files

_WORDS = st.text(st.characters(codec="utf-8"), max_size=20) | st.sampled_from(
    ["good", "bad", "", "-1", "0", "1", "a|b", *_ODD_LABELS]
)
_NAMES = st.sampled_from(
    ["text", "label", "text_pair", "Label", "x", "review", "", "predicted", "example", "corrected", "row", "split"]
) | st.text(string.printable, max_size=6)
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | _WORDS
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=3), max_leaves=6
)
_TYPES = st.sampled_from(
    [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.binary_view(), pa.int8(), pa.int64(), pa.uint64(), pa.float16(),
     pa.float32(), pa.float64(), pa.bool_(), pa.null(), pa.date32(), pa.time64("us"), pa.timestamp("us", "UTC"), pa.duration("s"),
     pa.decimal128(10, 2), pa.list_(pa.string()), pa.large_list(pa.int64()), pa.list_(pa.int8(), 2), pa.list_(pa.list_(pa.string())),
     pa.list_(pa.string_view()), pa.list_(pa.binary()), pa.struct({"a": pa.string()}), pa.map_(pa.string(), pa.int64()),
     pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.binary()), pa.month_day_nano_interval()]
)  # fmt: skip


@st.composite
def _cells(draw: Any, kind: pa.DataType, rows: int) -> pa.Array:
    """A column of a type: values that fit it, else nulls."""
    pool = draw(st.lists(_VALUES, min_size=1, max_size=4))
    fitting = []
    if pa.types.is_map(kind):  # pyarrow aborts where a value does not fit
        return pa.array([[("a", 1)]] * rows, kind)
    for value in [*pool, "good", "bad", b"\xff\xfe", 0, 1, 1.5, [], ["a"], [0, 1], {"a": "b"}, None]:
        try:
            pa.array([value], kind)
        except Exception:  # pyarrow raises many types for values that do not fit
            continue
        fitting.append(value)
    chosen = draw(st.lists(st.sampled_from(fitting or [None]), min_size=rows, max_size=rows))
    try:
        return pa.array(chosen, kind)
    except Exception:  # values that fit one by one need not fit together
        return pa.nulls(rows, kind)


@st.composite
def parquet_files(draw: Any) -> bytes:
    """A Parquet file of any columns, perhaps damaged."""
    rows = draw(st.sampled_from([0, 1, 5, 30]))
    names = draw(st.lists(_NAMES, max_size=4, unique=True))
    names = draw(st.sampled_from([["text", "label", *names], names]))
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(names):
        plain = {"text": TEXTS[:rows], "label": LABELS[:rows]}.get(name)
        if plain is not None and draw(st.booleans()):
            columns[name] = pa.array(plain, pa.string())
        else:
            columns[name] = draw(_cells(draw(_TYPES), rows))
    target = io.BytesIO()
    try:
        pa.parquet.write_table(
            pa.table(columns), target, compression=draw(st.sampled_from(["none", "gzip", "snappy", "zstd"]))
        )
    except (pa.ArrowException, NotImplementedError):
        return b""
    return draw(damaged(target.getvalue()))


@st.composite
def damaged(draw: Any, content: bytes) -> bytes:
    """Content with some bytes changed, cut or inserted; unchanged in half of the cases."""
    if not content or draw(st.booleans()):
        return content
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        position = draw(st.integers(0, len(changed) - 1))
        what = draw(st.sampled_from(["set", "cut", "insert"]))
        if what == "set":
            changed[position] = draw(st.integers(0, 255))
        elif what == "cut":
            del changed[position : position + draw(st.integers(1, 100))]
        else:
            changed[position:position] = draw(st.binary(max_size=10))
        if not changed:
            break
    return bytes(changed)


@st.composite
def separated_files(draw: Any, separator: str) -> bytes:
    """A CSV or TSV file, perhaps damaged."""
    target = io.StringIO()
    writer = csv.writer(
        target, delimiter=separator, lineterminator=draw(st.sampled_from(["\n", "\r\n", "\r"])), escapechar="\\"
    )
    names = draw(st.lists(_NAMES, max_size=4))
    writer.writerow(draw(st.sampled_from([["text", "label", *names], names])))
    for index in range(draw(st.sampled_from([0, 1, 5, 30]))):
        row = draw(st.lists(_WORDS, max_size=4))
        writer.writerow(draw(st.sampled_from([[TEXTS[index], LABELS[index], *row][: 2 + len(names)], row])))
    return draw(damaged(target.getvalue().encode("utf-8", "replace")))


def _dumped(value: Any) -> str:
    return json.dumps(value, default=str)


@st.composite
def json_lines(draw: Any) -> bytes:
    """A JSONL file, perhaps damaged: rows of text and label, some of them with other values, or without."""
    extras = draw(st.lists(st.dictionaries(_NAMES, _VALUES, max_size=3), min_size=1, max_size=4))
    rows: list[Any] = []
    for index in range(draw(st.sampled_from([0, 1, 5, 30]))):
        plain, extra = {"text": TEXTS[index], "label": LABELS[index]}, extras[index % len(extras)]
        rows.append(draw(st.sampled_from([plain, {**plain, **extra}, extra])))
    if rows and not draw(st.integers(0, 3)):
        rows[draw(st.integers(0, len(rows) - 1))] = draw(_VALUES)
    return draw(damaged("\n".join(map(_dumped, rows)).encode()))


@st.composite
def json_files(draw: Any) -> bytes:
    """A JSON file of any value, mostly an array of objects, perhaps damaged."""
    rows = [{"text": TEXTS[index], "label": LABELS[index]} for index in range(draw(st.sampled_from([0, 1, 30, 30])))]
    extra = draw(st.lists(_VALUES, max_size=3))
    return draw(damaged(_dumped(draw(st.sampled_from([rows, rows, [*rows, *extra], extra, draw(_VALUES)]))).encode()))


CONTENTS = {
    "csv": separated_files(","),
    "tsv": separated_files("\t"),
    "jsonl": json_lines(),
    "json": json_files(),
    "parquet": parquet_files(),
}
OPTIONS = st.sampled_from(
    [{}, {}, {}, {"label_separator": "|"}, {"label_columns": ["label", "x"]}, {"group": "x"}, {"slices": ["x"]},
     {"drop_unlabelled": True, "drop_empty": True}, {"labels": ["good", "bad"]}, {"merge_labels": True}, {"drop_duplicates": True},
     {"limits": {"train": 10}}, {"text": "x", "label": "text"}]
)  # fmt: skip
