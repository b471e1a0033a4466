"""Parcels: folders as bytes, which an executor sends to the machines of a cluster, and back.

There go entries of the cache (dataset, tokens, test sets) and folders of encoders, once to each machine, by the name of
the entry that they become in its cache. Back come the folders of runs. Nothing needs a disk that machines share.

Nothing slow is imported: every process of a machine's agent and tasks imports this.
"""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from tuneoff.cache import cache_folder, cached_folder, stored_folder
from tuneoff.errors import StoreError

ENCODER = "encoder-"  # start of the names of entries that hold encoders


def pack(folder: Path) -> bytes:
    """Return the files of a folder as an uncompressed tar archive; links are followed."""
    buffer = io.BytesIO()
    with tarfile.TarFile(fileobj=buffer, mode="w", dereference=True) as archive:
        archive.add(folder, arcname=".")
    return buffer.getvalue()


def unpack(parcel: bytes, folder: Path) -> None:
    """Write the files of a parcel into a folder. Raises tarfile.FilterError for a path that leaves it."""
    with tarfile.TarFile(fileobj=io.BytesIO(parcel), mode="r") as archive:
        archive.extractall(folder, filter="data")


def install(name: str, parcel: bytes) -> None:
    """Make a parcel an entry of this machine's cache."""
    cached_folder(name, lambda into: unpack(parcel, into / "files" if name.startswith(ENCODER) else into))


def is_installed(name: str) -> bool:
    """Return True if this machine's cache has an entry, which is whole."""
    try:
        stored_folder(name)
    except StoreError:
        return False
    return True


def brought_encoders(entries: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Describe encoders that are entries of this machine's cache, as $TUNEOFF_ENCODERS does. entries: by names."""
    return {
        name: {"folder": str(cache_folder() / entry / "files"), "fingerprint": entry.removeprefix(ENCODER)}
        for name, entry in entries.items()
    }
