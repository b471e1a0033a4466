"""Parcels: folders as bytes, which an executor sends to the machines of a cluster, and back.

There go entries of the cache (dataset, tokens, test sets) and folders of encoders, once to each machine, by the name of
the entry that they become in its cache. Back come the folders of runs. Nothing needs a disk that machines share.
"""

import io
import tarfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from tuneoff.cache import cache_folder, cached_folder
from tuneoff.encoder.config import encoder_folder
from tuneoff.execute.inputs import CachedInputs
from tuneoff.spec.run import RunSpec


def pack(folder: Path) -> bytes:
    """Return the files of a folder as an uncompressed tar archive; links are followed."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as archive:
        archive.add(folder, arcname=".")
    return buffer.getvalue()


def unpack(parcel: bytes, folder: Path) -> None:
    """Write the files of a parcel into a folder. Raises tarfile.FilterError for a path that leaves it."""
    with tarfile.open(fileobj=io.BytesIO(parcel), mode="r") as archive:
        archive.extractall(folder, filter="data")


def install(name: str, parcel: bytes) -> None:
    """Make a parcel an entry of this machine's cache."""
    cached_folder(name, lambda into: unpack(parcel, into))


def is_installed(name: str) -> bool:
    """Return True if this machine's cache has an entry."""
    return (cache_folder() / name).is_dir()


def needed(runs: Iterable[RunSpec]) -> dict[str, Callable[[], bytes]]:
    """Return what some runs need: name of an entry of the cache -> function that packs it."""
    inputs, folders, is_tokenized = CachedInputs(), dict[str, Path](), set[tuple[object, ...]]()
    for run in runs:
        names = [f"dataset-{run.data_fingerprint}", *[f"test-{fingerprint}" for fingerprint in run.tests.values()]]
        key = (run.model, run.data_fingerprint, run.recipe.truncation)
        if run.model and (folder := encoder_folder(run.model)):  # otherwise machines ask the hub, as this one would
            folders[encoder_entry(run)] = folder
        if run.model and key not in is_tokenized:
            is_tokenized.add(key)
            dataset = inputs.dataset(run)
            names += [
                f"tokens-{table.fingerprint}" for table in inputs.tokens(run, dataset, [*dataset.splits]).values()
            ]
        folders |= {name: cache_folder() / name for name in names}
    return {name: partial(pack, folder) for name, folder in folders.items()}


def encoder_entry(run: RunSpec) -> str:
    """Return the name that an encoder's folder has in the cache of another machine."""
    return f"encoder-{run.model_fingerprint}"
