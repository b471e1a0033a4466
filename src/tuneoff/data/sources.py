"""Data sources: files, folders, the hub and Python objects, read as raw Arrow tables, one per split."""

import codecs
import contextlib
import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from tuneoff import packaged
from tuneoff.cache import cache_folder, cached_folder, fingerprint, stored_folder
from tuneoff.data import large
from tuneoff.data.isolated import MAX_COLUMNS, read_whole
from tuneoff.data.spec import SPLITS, DataSpec
from tuneoff.errors import DataError, StoreError, one_line, unknown
from tuneoff.formats import shorten

# of .csv files, in order of preference; those of a spreadsheet in a language with decimal commas have semicolons
_SEPARATORS = (",", ";", "\t", "|")
_SAMPLE_CHARACTERS = 2**18  # of a file, to find its separator
SEPARATOR = b"separator"  # key in the metadata of a table that was read from a .csv file
# names by which the library datasets reads local files
_FILE_KINDS = (
    *("csv", "json", "pandas", "parquet", "arrow", "text", "imagefolder", "audiofolder", "videofolder", "pdffolder"),
    *("niftifolder", "webdataset", "xml", "hdf5", "lance", "sql", "spark", "generator", "cache", "eval"),
)
_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
# common names of each split
_SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "validation_matched"),
    "test": ("test", "testing", "eval"),
}


@dataclass(frozen=True)
class Source:
    """Raw tables by split name, and the label names that the source declares."""

    name: str
    tables: dict[str, pa.Table]
    label_names: dict[str, tuple[str, ...]]  # column -> names in the order of ids


def read(spec: DataSpec) -> Source:
    """Read the tables of a spec, by our split names. Raises DataError for a source that cannot be read."""
    files = {str(split): name for split, name in spec.splits.items() if Path(name).suffix.lower() in _SUFFIXES}
    user_names = {str(split): name for split, name in spec.splits.items() if split not in files}
    if spec.source is not None:
        source = _read_source(spec.source)
    elif "train" in files:
        source = Source(Path(files["train"]).stem, {}, {})
    else:
        raise DataError("data has no source and no train file; set data.source, or data.splits with train")
    tables = _pick_splits(source.tables, user_names, has_train="train" in files)
    tables |= {split: read_file(Path(file)) for split, file in files.items()}
    return Source(source.name, tables, source.label_names)


def read_test(name: str, split: str | None) -> tuple[pa.Table, dict[str, tuple[str, ...]], str]:
    """Read one table of a source to test on, the label names that the source declares, and the table's own name.

    split: its name in the source; by default that of its test split, else of its validation split, else the only one.
    """
    source = _read_source(name)
    if split is not None and split not in source.tables:
        raise DataError(unknown("split", split, source.tables))
    by_lower_name = {own.lower(): own for own in source.tables}
    common = [by_lower_name[n] for s in ("test", "validation") for n in _SPLIT_NAMES[s] if n in by_lower_name]
    if split is None and not common and len(source.tables) > 1:
        raise DataError(f"{name!r} has the splits {', '.join(source.tables)}; name one with split")
    chosen = split or next(iter(common), next(iter(source.tables)))
    return source.tables[chosen], source.label_names, chosen


def read_file(path: Path) -> pa.Table:
    """Read a CSV, TSV, JSONL, JSON or Parquet file. Columns of CSV and TSV are strings as written."""
    if not path.is_file():
        raise DataError(f"data file {str(path)!r} does not exist")
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise DataError(
            f"data file {path.name!r} ends in {path.suffix or 'nothing'}; give one of {', '.join(_SUFFIXES)}"
        )
    try:
        if suffix == ".parquet":
            return _read_isolated(path)
        _check_utf8(path)
        return _read_csv(path) if suffix in (".csv", ".tsv") else _read_isolated(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, (DataError, StoreError)):  # a full disk is no fault of the file
            raise
        raise DataError(f"data file {path.name!r} cannot be parsed: {one_line(error)}") from error


def from_memory(data: Any, name: str = "data") -> Source:
    """Convert a pandas DataFrame, pyarrow Table, datasets.Dataset, or a mapping of splits to one of them."""
    parts = data if isinstance(data, Mapping) else {"train": data}
    tables: dict[str, pa.Table] = {}
    label_names: dict[str, tuple[str, ...]] = {}
    for split, part in parts.items():
        tables[str(split)] = _as_table(part)
        for column, feature in getattr(part, "features", {}).items():
            feature = getattr(feature, "feature", feature)  # the entries of a list: multi-label data
            if getattr(feature, "names", None):
                label_names[column] = tuple(feature.names)
    return Source(name, tables, label_names)


def store_in_cache(source: Source) -> str:
    """Store tables that came from Python for worker processes and later studies. Returns 'memory:FINGERPRINT'."""
    key = fingerprint(*[fingerprint(split, table) for split, table in source.tables.items()], source.label_names)

    def write(folder: Path) -> None:
        for split, table in source.tables.items():
            names = {f"names:{column}": "\0".join(names) for column, names in source.label_names.items()}
            pyarrow.parquet.write_table(table.replace_schema_metadata(names), folder / f"{split}.parquet")

    cached_folder(f"memory-{key}", write)
    return f"memory:{key}"


def _read_source(source: str) -> Source:
    kind, _, name = source.partition(":")
    if kind == "packaged":
        return _read_packaged(name)
    if kind == "hf":
        return _read_hub(name)
    if kind == "memory":
        return _read_from_cache(name)
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path)
    return Source(path.stem, {"train": read_file(path)}, {})


def _read_packaged(name: str) -> Source:
    table = _read_csv(packaged.reviews_file(name))
    table = table.filter(pc.equal(table["source"], packaged.DATASETS[name])).select(["text", "label"])
    table = table.set_column(1, "label", pc.cast(table["label"], pa.int64()))
    return Source(name, {"train": table}, {"label": ("negative", "positive")})


def _read_hub(name: str) -> Source:
    """Read a dataset of the Hugging Face hub: NAME or OWNER/NAME, optionally with /CONFIG."""
    import datasets  # slow to import, and used only for the hub

    parts = name.split("/")
    # the library would read a folder of that name, or search the working folder for files of that kind
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*){0,2}", name) or Path("/".join(parts[:2])).exists():
        raise DataError(
            f"hf:{shorten(name, 80)} is no dataset of the Hugging Face hub; for a file or a folder, leave out hf:"
        )
    if len(parts) < 3 and parts[0] in _FILE_KINDS:
        raise DataError(f"hf:{name} is a kind of files, no dataset of the Hugging Face hub; give the file itself")
    repository, config = "/".join(parts[:2]), "/".join(parts[2:]) or None
    try:
        try:
            loaded = datasets.load_dataset(repository, config)
        except datasets.exceptions.DatasetNotFoundError:
            if len(parts) != 2:
                raise
            loaded = datasets.load_dataset(parts[0], parts[1])  # NAME/CONFIG of a dataset without an owner
    except Exception as error:  # the hub's client raises many types; each becomes one line
        if "Couldn't reach" in str(error):
            raise DataError(
                f"hub dataset {name!r} is not in the cache of the Hugging Face hub, which does not answer; check the "
                "network, or give a file or packaged:rotten-tomatoes, which need none"
            ) from error
        raise DataError(f"hub dataset {name!r} cannot be loaded: {one_line(error)}") from error
    return from_memory(loaded, repository.replace("/", "-"))


def _read_from_cache(key: str) -> Source:
    """Read tables that store_in_cache has stored."""
    folder = cache_folder() / f"memory-{key}"
    if not re.fullmatch("[0-9a-f]+", key):
        raise DataError(f"memory:{shorten(key, 40)} is no data that was passed in from Python; give a file or a folder")
    if not folder.is_dir():
        raise DataError("this study's data was passed in from Python and is no longer in the cache; pass it in again")
    folder = stored_folder(f"memory-{key}", needs_checksums=False)
    tables = {file.stem: pyarrow.parquet.read_table(file) for file in sorted(folder.glob("*.parquet"))}
    metadata = next(iter(tables.values())).schema.metadata or {}
    names = {
        field.decode().removeprefix("names:"): tuple(value.decode().split("\0"))
        for field, value in metadata.items()
        if field.startswith(b"names:")
    }
    return Source("data", tables, names)


def _read_folder(path: Path) -> Source:
    """Read a folder with one data file per split."""
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
    if not files:
        suffixes = ", ".join(_SUFFIXES)
        raise DataError(f"folder {str(path)!r} holds no data files; expected train.csv or another of {suffixes}")
    stems = [file.stem for file in files]
    repeated = {stem for stem in stems if stems.count(stem) > 1}
    if repeated:
        raise DataError(f"folder {str(path)!r} holds {min(repeated)!r} in two formats; keep one")
    return Source(path.name, {file.stem: read_file(file) for file in files}, {})


def _read_isolated(path: Path) -> pa.Table:
    batches = read_whole(path)
    first = next(batches)
    return large.table_of(chain([first], batches), first.schema)


def _read_csv(path: Path) -> pa.Table:
    """Read a CSV file with quotes; a TSV file with or without them, whichever gives more rows.

    A quote at the start of a field opens a quoted field, which may hold delimiters and line breaks. GLUE's TSV files
    do not follow that rule: a text may start with a quote that is never closed, and a parser of quotes then reads
    the lines up to the next quote as one field, silently (one file lost a third of its rows: docs/log.md, "A review
    with small nasty files"). Therefore a TSV file is parsed both ways. If parsing without quotes fails, a line break
    inside a quoted field has left lines with too few fields: quotes are quotes. If it gives more rows, quotes have
    swallowed lines: quotes are text. The price is that every TSV file is parsed twice.
    """
    if path.stat().st_size == 0:
        raise DataError(f"data file {path.name!r} is empty")
    if path.suffix.lower() != ".tsv":
        separator = find_separator(path)
        return _parse_csv(path, separator, quote_char='"').replace_schema_metadata({SEPARATOR: separator})
    quoted = _parse_csv(path, "\t", quote_char='"')
    try:
        unquoted = _parse_csv(path, "\t", quote_char=False)
    except pa.ArrowInvalid:
        return quoted
    return unquoted if unquoted.num_rows > quoted.num_rows else quoted


def find_separator(path: Path) -> str:
    """Return the character that separates the fields of a .csv file: comma, semicolon, tab or |.

    It is the first one by which the first records have as many fields as the header, at least two; where that is none
    (a record is broken), the first one that divides the header. A file of one column has commas.
    """
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        sample = file.read(_SAMPLE_CHARACTERS)
        is_whole = not file.read(1)
    counts = {separator: _field_counts(sample, separator, is_whole) for separator in _SEPARATORS}
    even = [separator for separator in counts if len(set(counts[separator])) == 1 and counts[separator][0] > 1]
    dividing = [separator for separator in counts if counts[separator] and counts[separator][0] > 1]
    return (even or dividing or [","])[0]


def _field_counts(sample: str, separator: str, is_whole: bool) -> list[int]:
    """Return the number of fields of each record of a sample. is_whole: it is a whole file."""
    counts = []
    with contextlib.suppress(csv.Error):  # a field of more than 128 kB ends the sample
        for record in csv.reader(io.StringIO(sample), delimiter=separator):
            counts += [len(record)] if record else []
    return counts if is_whole or len(counts) < 2 else counts[:-1]  # the last record may be cut


def _parse_csv(path: Path, separator: str, quote_char: str | bool) -> pa.Table:
    """Parse all columns as strings, so that a label "01" stays "01". quote_char: False for no quoted fields."""
    parse = pyarrow.csv.ParseOptions(delimiter=separator, newlines_in_values=bool(quote_char), quote_char=quote_char)
    with pyarrow.csv.open_csv(path, parse_options=parse) as reader:
        names = reader.schema.names
    if len(names) > MAX_COLUMNS:
        raise DataError(f"data file {path.name!r} has {len(names):,} columns, and at most {MAX_COLUMNS:,} are read")
    convert = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    if path.stat().st_size <= large.LARGE_BYTES:
        return pyarrow.csv.read_csv(path, parse_options=parse, convert_options=convert)
    with pyarrow.csv.open_csv(path, parse_options=parse, convert_options=convert) as reader:
        return large.table_of(reader, reader.schema)


def _check_utf8(path: Path) -> None:
    """Raise DataError with the position of the first byte that is not UTF-8."""
    with open(path, "rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise DataError(f"data file {path.name!r} is UTF-16 (it starts with its byte order mark); save it as UTF-8")
        file.seek(0)
        decoder, position = codecs.getincrementaldecoder("utf-8")(), 0
        while chunk := file.read(2**20):
            num_pending = len(decoder.getstate()[0])  # bytes of a character that the last chunk has begun
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                raise _not_utf8(path, error, position - num_pending) from None
            position += len(chunk)
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise _not_utf8(path, error, position - len(error.object)) from None


def _not_utf8(path: Path, error: UnicodeDecodeError, offset: int) -> DataError:
    """Error for a byte that is not UTF-8. offset: position in the file of the bytes that were decoded."""
    byte = error.object[error.start]
    return DataError(
        f"data file {path.name!r} is not UTF-8: byte 0x{byte:02x} at position {offset + error.start}; "
        "save it as UTF-8 (it may be Windows-1252 or Latin-1)"
    )


def _as_table(part: Any) -> pa.Table:
    if isinstance(part, pa.Table):
        return part
    if type(part).__module__.partition(".")[0] == "pandas":  # a DataFrame, without importing pandas
        try:
            return pa.Table.from_pandas(part, preserve_index=False)
        except pa.ArrowException as error:
            raise DataError(f"the DataFrame cannot be read: {one_line(error)}") from error
    if hasattr(part, "with_format") and hasattr(part, "features"):  # datasets.Dataset, without importing datasets
        return part.with_format("arrow")[:]
    raise DataError(f"data is a {type(part).__name__}; give a file, a DataFrame, a pyarrow Table or a datasets.Dataset")


def _pick_splits(tables: dict[str, pa.Table], user_names: dict[str, str], has_train: bool) -> dict[str, pa.Table]:
    """Pick the tables of our splits by the user's names, else by common names; a single table of any name is train.

    user_names: our split -> name in the source. has_train: train is a file of its own, so the source need not have it.
    """
    for split, name in user_names.items():
        if name not in tables:
            raise DataError(unknown(f"split for {split}:", name, tables))
    if not user_names and len(tables) == 1 and not has_train:
        return {"train": next(iter(tables.values()))}
    by_lower_name = {name.lower(): name for name in tables}
    used = set(user_names.values())  # a table that the user names for one split is not used for another
    picked = {}
    for split in SPLITS:
        common = [by_lower_name[name] for name in _SPLIT_NAMES[split] if name in by_lower_name]
        names = [user_names[split]] if split in user_names else [name for name in common if name not in used]
        if names:
            picked[split] = tables[names[0]]
    if "train" not in picked and not has_train:
        first = next(iter(tables))
        raise DataError(f"no train split among {', '.join(tables)}; name one with data.splits, e.g. train: {first}")
    return picked
