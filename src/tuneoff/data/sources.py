"""From where the user's data lies to raw Arrow tables, one a split, with the user's own columns."""

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from tuneoff import packaged
from tuneoff.cache import cache_folder, cached, fingerprint
from tuneoff.data.dataset import SPLITS, DataSpec
from tuneoff.errors import DataError, unknown

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
# names that others give to our splits
_SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "validation_matched"),
    "test": ("test", "testing", "eval"),
}


@dataclass(frozen=True)
class Source:
    """Raw tables by the source's own split names, and label names where the source knows them."""

    name: str
    tables: dict[str, pa.Table]
    label_names: dict[str, tuple[str, ...]]  # column -> names, where the source declares them


def read(spec: DataSpec) -> Source:
    """The tables that a spec names, by our split names. Raises DataError for whatever cannot be read."""
    wanted: dict[str, str] = {str(split): name for split, name in spec.splits.items()}
    files = {split: name for split, name in wanted.items() if Path(name).suffix.lower() in _ENDINGS}
    if spec.source is None:
        if "train" not in files:
            raise DataError("data names no source and no train file; set data.source, or data.splits with train")
        source = Source(Path(files["train"]).stem, {}, {})
    else:
        source = _read_source(spec.source)
    named = {split: name for split, name in wanted.items() if split not in files}
    tables = _our_splits(source.tables, named, is_complete="train" in files)
    tables |= {split: read_file(Path(file)) for split, file in files.items()}
    return Source(source.name, tables, source.label_names)


def _read_source(source: str) -> Source:
    kind, _, name = source.partition(":")
    if kind == "packaged":
        return _packaged(name)
    if kind == "hf":
        return _hub(name)
    if kind == "memory":
        return _stored(name)
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder(path)
    return Source(path.stem, {"train": read_file(path)}, {})


def read_file(path: Path) -> pa.Table:
    """A CSV, TSV, JSONL, JSON or Parquet file as a table; columns of text files are strings as written."""
    if not path.is_file():
        raise DataError(f"data file {str(path)!r} does not exist")
    if path.suffix.lower() not in _ENDINGS:
        raise DataError(
            f"data file {path.name!r} ends in {path.suffix or 'nothing'}; give one of {', '.join(_ENDINGS)}"
        )
    try:
        if path.suffix.lower() == ".parquet":
            return pyarrow.parquet.read_table(path, memory_map=True)
        _check_utf8(path)
        return _read_csv(path) if path.suffix.lower() in _DELIMITERS else _read_json(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"data file {path.name!r} cannot be parsed: {str(error).splitlines()[0]}") from error


def _read_csv(path: Path) -> pa.Table:
    if path.stat().st_size == 0:
        raise DataError(f"data file {path.name!r} is empty")
    quoted = _parse_csv(path, quote_char='"')
    if path.suffix.lower() != ".tsv":
        return quoted
    # GLUE's TSV files hold quotes that open nothing and would swallow the lines that follow; where lines split
    # well without quotes and are more, quotes are text. A line break inside a quoted field would not split well.
    try:
        plain = _parse_csv(path, quote_char=False)
    except pa.ArrowInvalid:
        return quoted
    return plain if plain.num_rows > quoted.num_rows else quoted


def _parse_csv(path: Path, quote_char: str | bool) -> pa.Table:
    """Every column as strings as written: a label "01" stays "01". Quoted fields may hold line breaks."""
    parse = pyarrow.csv.ParseOptions(
        delimiter=_DELIMITERS[path.suffix.lower()], newlines_in_values=bool(quote_char), quote_char=quote_char
    )
    with pyarrow.csv.open_csv(path, parse_options=parse) as reader:
        names = reader.schema.names
    convert = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    return pyarrow.csv.read_csv(path, parse_options=parse, convert_options=convert)


def _read_json(path: Path) -> pa.Table:
    with open(path, encoding="utf-8-sig") as file:
        is_array = file.read(1024).lstrip().startswith("[")
    if is_array:
        return _as_table(pd.read_json(path))
    # one block, so that types are inferred from all of it
    options = pyarrow.json.ReadOptions(block_size=max(1, min(path.stat().st_size, 2**31 - 1)))
    return pyarrow.json.read_json(path, read_options=options)


def _check_utf8(path: Path) -> None:
    """Raise DataError with the byte position if a text file is not UTF-8."""
    with open(path, "rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise DataError(f"data file {path.name!r} is UTF-16 (its first two bytes say so); save it as UTF-8")
        file.seek(0)
        decoder, position = codecs.getincrementaldecoder("utf-8")(), 0
        while chunk := file.read(2**20):
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                raise _not_utf8(path, error, position - pending) from None
            position += len(chunk)
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise _not_utf8(path, error, position - len(error.object)) from None


def _not_utf8(path: Path, error: UnicodeDecodeError, base: int) -> DataError:
    byte = error.object[error.start]
    return DataError(
        f"data file {path.name!r} is not UTF-8: byte 0x{byte:02x} at position {base + error.start}; "
        "save it as UTF-8 (it may be Windows-1252 or Latin-1)"
    )


def _folder(path: Path) -> Source:
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in _ENDINGS)
    if not files:
        raise DataError(
            f"folder {str(path)!r} holds no data files; expected train{_ENDINGS[0]} or another of {_ENDINGS}"
        )
    twice = {file.stem for file in files if sum(other.stem == file.stem for other in files) > 1}
    if twice:
        raise DataError(f"folder {str(path)!r} holds {min(twice)!r} in two formats; keep one")
    return Source(path.name, {file.stem: read_file(file) for file in files}, {})


def _packaged(name: str) -> Source:
    table = _read_csv(packaged.reviews_file(name))
    table = table.filter(pc.equal(table["source"], packaged.DATASETS[name])).select(["text", "label"])
    table = table.set_column(1, "label", pc.cast(table["label"], pa.int64()))
    return Source(name, {"train": table}, {"label": ("negative", "positive")})


def _hub(name: str) -> Source:
    """A dataset of the Hugging Face hub: NAME or OWNER/NAME, perhaps /CONFIG."""
    import datasets  # slow to import, and only here

    parts = name.split("/")
    repository, config = "/".join(parts[:2]), "/".join(parts[2:]) or None
    try:
        try:
            loaded = datasets.load_dataset(repository, config)
        except datasets.exceptions.DatasetNotFoundError:
            if len(parts) != 2:
                raise
            loaded = datasets.load_dataset(parts[0], parts[1])  # NAME/CONFIG of a dataset without an owner
    except Exception as error:  # the hub's client raises many kinds; each becomes one line
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(f"hub dataset {name!r} cannot be loaded: {reason}") from error
    return from_memory(loaded, repository.replace("/", "-"))


def from_memory(data: Any, name: str = "data") -> Source:
    """A pandas DataFrame, pyarrow Table, datasets.Dataset, or a mapping of splits to one of them."""
    given = data if isinstance(data, Mapping) else {"train": data}
    tables: dict[str, pa.Table] = {}
    label_names: dict[str, tuple[str, ...]] = {}
    for split, part in given.items():
        tables[str(split)] = _as_table(part)
        for column, feature in getattr(part, "features", {}).items():
            if getattr(feature, "names", None):
                label_names[column] = tuple(feature.names)
    return Source(name, tables, label_names)


def _as_table(part: Any) -> pa.Table:
    if isinstance(part, pa.Table):
        return part
    if isinstance(part, pd.DataFrame):
        try:
            return pa.Table.from_pandas(part, preserve_index=False)
        except pa.ArrowException as error:
            raise DataError(f"the DataFrame cannot be read: {' '.join(str(error).split())[:200]}") from error
    if hasattr(part, "with_format") and hasattr(part, "features"):  # datasets.Dataset, without importing datasets
        return part.with_format("arrow")[:]
    raise DataError(f"data is a {type(part).__name__}; give a file, a DataFrame, a pyarrow Table or a datasets.Dataset")


def keep_in_cache(source: Source) -> str:
    """Store tables that came from Python, so that worker processes and later calls find them: 'memory:FINGERPRINT'."""
    key = fingerprint(*[fingerprint(split, table) for split, table in source.tables.items()], source.label_names)

    def write(into: Path) -> None:
        for split, table in source.tables.items():
            names = {f"names:{column}": "\0".join(names) for column, names in source.label_names.items()}
            pyarrow.parquet.write_table(table.replace_schema_metadata(names), into / f"{split}.parquet")

    cached(f"memory-{key}", write)
    return f"memory:{key}"


def _stored(key: str) -> Source:
    folder = cache_folder() / f"memory-{key}"
    if not folder.is_dir():
        raise DataError("this study's data was passed in from Python and is no longer in the cache; pass it in again")
    tables = {file.stem: pyarrow.parquet.read_table(file) for file in sorted(folder.glob("*.parquet"))}
    metadata = next(iter(tables.values())).schema.metadata or {}
    names = {
        key.decode().removeprefix("names:"): tuple(value.decode().split("\0"))
        for key, value in metadata.items()
        if key.startswith(b"names:")
    }
    return Source("data", tables, names)


def _our_splits(tables: dict[str, pa.Table], wanted: dict[str, str], is_complete: bool) -> dict[str, pa.Table]:
    """Pick by the names the user gave, else by common names; a single table of any name is train.

    is_complete: train comes from elsewhere, so that it need not be among these.
    """
    for split, theirs in wanted.items():
        if theirs not in tables:
            raise DataError(unknown(f"split given for {split}:", theirs, tables))
    if not wanted and len(tables) == 1 and not is_complete:
        return {"train": next(iter(tables.values()))}
    lower = {name.lower(): name for name in tables}
    taken = set(wanted.values())  # a split that was given another part plays no second one
    found = {}
    for split in SPLITS:
        common = [lower[name] for name in _SPLIT_NAMES[split] if name in lower and lower[name] not in taken]
        names = [wanted[split]] if split in wanted else common
        if names:
            found[split] = tables[names[0]]
    if "train" not in found and not is_complete:
        first = next(iter(tables))
        raise DataError(f"no train split among {', '.join(tables)}; name one with data.splits, e.g. train: {first}")
    return found
