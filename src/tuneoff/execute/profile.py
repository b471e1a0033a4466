"""Size of a strategy on an encoder, from the encoder's config: parameters, blocks, operations per token.

The model is built on torch's meta device, without weights, and the strategy is applied to it. With the imports that
takes seconds, so that the result is cached by the content of the config, the versions of the libraries, and the source
files that determine it.
"""

import functools
import importlib.metadata
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuneoff import __version__
from tuneoff.cache import cached_folder, fingerprint
from tuneoff.encoder.config import config_file
from tuneoff.strategies import STRATEGIES, ParameterCounts, StrategyConfig, count_parameters, operations_by_block


@dataclass(frozen=True)
class Profile:
    """Numbers that estimates are made of."""

    counts: ParameterCounts
    hidden_size: int
    model_parameters: int  # before the strategy adds any
    block_parameters: list[int]  # of each block, before the strategy adds any
    first_trained_block: int  # number of blocks if none trains
    operations_per_token: list[float]  # of a training step, for each block from first_trained_block on
    embedding_parameters: int  # of the word embedding if it trains, else 0
    reads_first_tokens: bool  # the last block computes first tokens only
    saves_whole_model: bool


def profile(config: StrategyConfig, model_name: str, num_labels: int) -> Profile:
    """Return the profile of a strategy that uses an encoder. Raises ConfigError or ModelError if they do not fit."""
    file = config_file(model_name)
    if file is None:  # on the hub only: there is nothing to recognise it by
        return _profile(config, model_name, num_labels)

    @functools.cache
    def compute() -> Profile:
        return _profile(config, model_name, num_labels)

    def write(folder: Path) -> None:
        (folder / "profile.json").write_text(json.dumps(asdict(compute())), encoding="utf-8")

    versions = [__version__, *map(importlib.metadata.version, ("torch", "transformers", "peft"))]
    key = fingerprint(
        file,
        config.name,
        config.model_dump(mode="json", exclude={"recipe", "encoders"}),
        num_labels,
        versions,
        _source_fingerprint(),
    )
    try:
        folder = cached_folder(f"profile-{key}", write)
    except (OSError, NotImplementedError):  # a cache that cannot be written or locked
        return compute()
    try:
        return _read(folder / "profile.json")
    except (OSError, ValueError, TypeError, KeyError):
        shutil.rmtree(folder, ignore_errors=True)  # damaged: it would be in the way of every later call
        return compute()


def _read(path: Path) -> Profile:
    stored = json.loads(path.read_text(encoding="utf-8"))
    return Profile(**{**stored, "counts": ParameterCounts(**stored["counts"])})


@functools.cache
def _source_fingerprint() -> str:
    """Return a fingerprint of the source files that determine a profile."""
    package = Path(__file__).parent.parent
    files = [*(package / "strategies").glob("*.py"), *(package / "encoder").glob("*.py"), package / "compat.py"]
    return fingerprint(*sorted(files), Path(__file__))


def _profile(config: StrategyConfig, model_name: str, num_labels: int) -> Profile:
    from tuneoff.encoder.anatomy import blocks
    from tuneoff.encoder.load import empty_model
    from tuneoff.encoder.packed import reads_first_tokens

    row, model = STRATEGIES[config.name], empty_model(model_name, num_labels)
    hidden_size, model_parameters = model.config.hidden_size, sum(p.numel() for p in model.parameters())
    block_parameters = [sum(p.numel() for p in block.parameters()) for block in blocks(model)]
    if row.fits_on == "embeddings":
        return Profile(
            counts=_classifier_counts(model, num_labels),
            hidden_size=hidden_size,
            model_parameters=model_parameters,
            block_parameters=block_parameters,
            first_trained_block=len(block_parameters),
            operations_per_token=[],
            embedding_parameters=0,
            reads_first_tokens=False,
            saves_whole_model=False,
        )
    adapted = row.apply(model, config)
    embedding = model.get_input_embeddings().weight
    return Profile(
        counts=count_parameters(adapted),
        hidden_size=hidden_size,
        model_parameters=model_parameters,
        block_parameters=block_parameters,
        first_trained_block=adapted.first_trained_block,
        operations_per_token=operations_by_block(adapted),
        embedding_parameters=embedding.numel() if embedding.requires_grad else 0,
        reads_first_tokens=reads_first_tokens(model),
        saves_whole_model=adapted.save is None,
    )


def _classifier_counts(model: Any, num_labels: int) -> ParameterCounts:
    """Count a linear classifier on embeddings, and the encoder below it."""
    from tuneoff.encoder.anatomy import encoder_of

    size = (1 if num_labels == 2 else num_labels) * (model.config.hidden_size + 1)  # one hyperplane for two classes
    encoder_size = sum(parameter.numel() for parameter in encoder_of(model).parameters())
    return ParameterCounts(trainable=size, added=0, head=size, total=encoder_size + size)
