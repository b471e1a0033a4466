"""Parcels: folders as bytes, which an executor sends to the machines of a cluster, and back.

There go entries of the cache (dataset, tokens, test sets) and folders of encoders, once to each machine, by the name of
the entry that they become in its cache. Back come the folders of runs. Nothing needs a disk that machines share.
"""

import io
import tarfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from tuneoff.cache import cache_folder, cached_folder, stored_folder
from tuneoff.encoder.config import encoder_folder, model_fingerprint
from tuneoff.errors import StoreError
from tuneoff.execute.inputs import CachedInputs
from tuneoff.spec.run import RunSpec

_ENCODER = "encoder-"  # start of the names of entries that hold encoders


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
    cached_folder(name, lambda into: unpack(parcel, into / "files" if name.startswith(_ENCODER) else into))


def is_installed(name: str) -> bool:
    """Return True if this machine's cache has an entry, which is whole."""
    try:
        stored_folder(name)
    except StoreError:
        return False
    return True


def needed(runs: Iterable[RunSpec]) -> dict[str, Callable[[], bytes]]:
    """Return what some runs need: name of an entry of the cache -> function that packs it."""
    runs = list(runs)
    inputs, is_tokenized = CachedInputs(), set[tuple[object, ...]]()
    # a model of the hub that is not on this machine is left out: other machines ask the hub, as this one would
    encoders = {name: (entry, encoder_folder(name)) for name, entry in encoder_entries(runs).items()}
    folders = {entry: folder for entry, folder in encoders.values() if folder}
    for run in runs:
        names = [f"dataset-{run.data_fingerprint}", *[f"test-{fingerprint}" for fingerprint in run.tests.values()]]
        key = (run.model, run.data_fingerprint, run.recipe.truncation)
        if run.model and key not in is_tokenized:
            is_tokenized.add(key)
            dataset = inputs.dataset(run)
            names += [
                f"tokens-{table.fingerprint}" for table in inputs.tokens(run, dataset, [*dataset.splits]).values()
            ]
        folders |= {name: cache_folder() / name for name in names}
    return {name: partial(pack, folder) for name, folder in folders.items()}


def encoder_entries(runs: Iterable[RunSpec]) -> dict[str, str]:
    """Return the entries that encoders become in the cache of another machine, by the encoders' names."""
    names = dict.fromkeys(run.model for run in runs if run.model)
    return {name: f"{_ENCODER}{model_fingerprint(name)}" for name in names}


def brought_encoders(entries: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Describe encoders that are entries of this machine's cache, as $TUNEOFF_ENCODERS does. entries: by names."""
    return {
        name: {"folder": str(cache_folder() / entry / "files"), "fingerprint": entry.removeprefix(_ENCODER)}
        for name, entry in entries.items()
    }
