"""Files of skops: a scikit-learn model, in the same bytes whenever it is the same model.

skops names objects, and the arrays in its archive, by their addresses in memory, and zip stores the time. Both are
replaced: by numbers in the order in which they appear, and by a constant.
"""

import io
import re
import zipfile
from pathlib import Path
from typing import Any

from tuneoff.files import write_bytes

SKOPS = "classifier.skops"  # in a model's folder
_SCHEMA = "schema.json"
# plain values get a number of their own each: whether two equal ones are one object depends on the interpreter
_ID = re.compile(r'("is_json": true,\s*)?"__id__": (\d+)')
_STOP_WORDS = re.compile(r'("_stop_words_id": \{[^{}]*"content": ")\d+')  # another address, by which fit skips a check
_FILE = re.compile(r'"file": "(\d+)(\.\w+)"')


def save_skops(model: Any, path: Path) -> None:
    """Save a scikit-learn model."""
    import skops.io  # slow to import

    write_bytes(path, _same_bytes(skops.io.dumps(model)), is_synced=False)


def _same_bytes(archive: bytes) -> bytes:
    source = zipfile.ZipFile(io.BytesIO(archive))
    numbers: dict[str, int] = {}
    count = 0

    def number(address: str, is_plain: bool = False) -> int:
        nonlocal count
        if is_plain or address not in numbers:
            count += 1
            if is_plain:
                return count
            numbers[address] = count
        return numbers[address]

    renamed: dict[str, str] = {}

    def rename(match: re.Match[str]) -> str:
        name, suffix = match.groups()
        renamed[name + suffix] = f"{number(name)}{suffix}"
        return f'"file": "{renamed[name + suffix]}"'

    schema = _STOP_WORDS.sub(r"\g<1>0", source.read(_SCHEMA).decode())
    schema = _ID.sub(lambda match: f'{match[1] or ""}"__id__": {number(match[2], bool(match[1]))}', schema)
    schema = _FILE.sub(rename, schema)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as written:
        for name in source.namelist():
            if name != _SCHEMA:
                written.writestr(_entry(renamed.get(name, name)), source.read(name))
        written.writestr(_entry(_SCHEMA), schema)
    return target.getvalue()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)  # of 1 January 1980
    entry.external_attr = 0o600 << 16
    return entry
