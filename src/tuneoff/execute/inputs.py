"""Inputs of a job: its dataset, tokens and encoder.

Jobs ask through this protocol and assume nothing about where they run. On one machine the inputs come from the cache
on its disk; an executor on a cluster gives jobs an implementation that fetches them.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tuneoff.cache import add_check, cache_folder, fingerprint, is_checked
from tuneoff.data.dataset import Dataset
from tuneoff.data.load import open_dataset
from tuneoff.data.other_tests import open_other_test
from tuneoff.data.tokens import TokenTable, tokenize_split
from tuneoff.encoder.config import encoder_folder, load_tokenizer, model_fingerprint, resolve
from tuneoff.encoder.heads import start_fingerprint
from tuneoff.encoder.load import load_model
from tuneoff.errors import ModelError
from tuneoff.execute.parcels import ENCODER, pack
from tuneoff.spec.run import RunSpec

if TYPE_CHECKING:
    import pyarrow as pa
    from transformers import PreTrainedTokenizerFast


class JobInputs(Protocol):
    """Source of a job's inputs."""

    def dataset(self, run: RunSpec) -> Dataset:
        """Return the dataset that the run's data_fingerprint names."""

    def tokenizer(self, run: RunSpec) -> "PreTrainedTokenizerFast":
        """Return the encoder's fast tokenizer."""

    def tokens(self, run: RunSpec, dataset: Dataset, splits: Sequence[str]) -> dict[str, TokenTable]:
        """Return the tokens of some splits, truncated by the run's recipe."""

    def other_tests(self, run: RunSpec) -> "dict[str, pa.Table]":
        """Return the test sets from elsewhere that the run names, by their names."""

    def model(self, run: RunSpec, dataset: Dataset) -> Any:
        """Return the pretrained encoder with a head initialised from the run's seed of the head."""


class CachedInputs:
    """Inputs from this machine's cache and model folders."""

    def dataset(self, run: RunSpec) -> Dataset:
        """Map the stored dataset into memory."""
        return open_dataset(run.data_fingerprint)

    def tokenizer(self, run: RunSpec) -> "PreTrainedTokenizerFast":
        """Load the tokenizer by the encoder's name."""
        return load_tokenizer(_encoder_name(run))

    def tokens(self, run: RunSpec, dataset: Dataset, splits: Sequence[str]) -> dict[str, TokenTable]:
        """Map the stored tokens into memory; tokenize what is missing."""
        tokenizer = self.tokenizer(run)
        return {split: tokenize_split(dataset.splits[split], tokenizer, run.recipe.truncation) for split in splits}

    def other_tests(self, run: RunSpec) -> "dict[str, pa.Table]":
        """Map the stored test sets into memory."""
        return {name: open_other_test(fingerprint) for name, fingerprint in run.tests.items()}

    def model(self, run: RunSpec, dataset: Dataset) -> Any:
        """Load the model by the encoder's name. Raises ModelError if its files are not those of the study."""
        if run.model_fingerprint is not None:
            _check_is_unchanged(_encoder_name(run), run.model_fingerprint, dataset.label_names)
        seed, recipe = run.seed_of("head"), run.recipe
        return load_model(
            _encoder_name(run),
            dataset.label_names,
            seed,
            recipe.dropout,
            dataset.is_multilabel,
            recipe.head_dropout,
        )


def parcels_for(runs: Iterable[RunSpec]) -> dict[str, Callable[[], bytes]]:
    """Return what some runs need on a machine: name of an entry of the cache -> function that packs it."""
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
    return {name: f"{ENCODER}{model_fingerprint(name)}" for name in names}


def _check_is_unchanged(name: str, expected: str, label_names: Sequence[str]) -> None:
    """Raise ModelError for an encoder whose files are not those of the study.

    Hashed once by the processes of a study, and again only if sizes or times of its files have changed.
    """
    folder = Path(resolve(name))
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    mark = f"encoder-{fingerprint(name, expected, list(label_names), states)}"
    if states and is_checked(mark):
        return
    if start_fingerprint(name, label_names) != expected:
        raise ModelError(
            f"the files of encoder {name!r} have changed since this study began; run it again: it then trains with "
            "the new ones"
        )
    add_check(mark)


def _encoder_name(run: RunSpec) -> str:
    assert run.model is not None, f"strategy {run.strategy.name} uses no encoder"
    return run.model
