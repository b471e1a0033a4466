"""Load pretrained models with a head for classification. Only safetensors are read, and no code of a model is run."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

from tuneoff.compat import initialise_module
from tuneoff.encoder.anatomy import encoder_of, head_modules, is_head, output_layer
from tuneoff.encoder.config import (
    check_loadable,
    check_no_adapter,
    load_config,
    load_or_model_error,
    published_name,
    resolve,
)
from tuneoff.encoder.heads import head_labels, head_rows
from tuneoff.encoder.packed import use_packed_attention
from tuneoff.errors import ModelError


def load_model(
    name: str,
    label_names: tuple[str, ...],
    seed: int,
    dropout: float | None = None,
    is_multilabel: bool = False,
    head_dropout: float | None = None,
) -> Any:
    """Load a sequence classification model: a pretrained encoder, and a head that depends only on the seed.

    Parameters of the head that the checkpoint holds (BERT's pooler) are kept; its output layer is in the order of the
    data's labels, or is left out if it is for others (heads.py). Missing parameters are drawn from the seed, so that
    all strategies start from the same head. dropout: replaces every dropout rate of the model; head_dropout: those of
    the head. is_multilabel: stored in the config, so that libraries that load the saved model apply a sigmoid per
    label, not a softmax.
    """
    path = resolve(name)
    check_loadable(name, path)
    config = load_config(name, len(label_names))
    check_no_adapter(name, path)
    config.id2label = dict(enumerate(label_names))
    config.label2id = {label: index for index, label in enumerate(label_names)}
    config.problem_type = f"{'multi' if is_multilabel else 'single'}_label_classification"
    if dropout is not None:
        rates = [key for key, value in config.to_dict().items() if "dropout" in key and isinstance(value, (int, float))]
        config.update(dict.fromkeys(rates, dropout))
    with quiet(keeps_progress=not Path(path).is_dir()):  # of a download
        model, info = load_or_model_error(
            name,
            AutoModelForSequenceClassification.from_pretrained,
            path,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # a head for another number of classes is replaced
            output_loading_info=True,
        )
    not_loaded = set(info["missing_keys"]) | {key for key, *_ in info["mismatched_keys"]}
    missing = [key for key in not_loaded if not is_head(model, key)]
    if missing:
        raise ModelError(f"the weights of {name!r} lack {len(missing)} of the encoder's parameters, e.g. {missing[0]}")
    for key, parameter in encoder_of(model).named_parameters():
        if not torch.isfinite(parameter).all():
            raise ModelError(f"the weights of {name!r} hold NaN or infinite numbers in {key}; download them again")
    model.config.name_or_path = published_name(name)  # adapters name their base model by it
    initialise_head(model, seed, only=not_loaded | _fit_output_layer(model, head_labels(name), label_names))
    use_packed_attention(model)
    if head_dropout is not None:
        set_head_dropout(model, head_dropout)
    return model


def set_head_dropout(model: Any, rate: float) -> None:
    """Set the dropout rate of everything outside the encoder. Raises ModelError for a head without dropout."""
    encoder = {id(module) for module in encoder_of(model).modules()} - {
        id(module)
        for head in head_modules(model)
        for module in head.modules()  # BERT's pooler is inside its encoder
    }
    outside = [m for m in model.modules() if isinstance(m, torch.nn.Dropout) and id(m) not in encoder]
    if not outside:
        raise ModelError(f"the head of {model.config.model_type} has no dropout; leave out head_dropout")
    for module in outside:
        module.p = rate


def _fit_output_layer(model: Any, stored: tuple[str, ...] | None, label_names: tuple[str, ...]) -> set[str]:
    """Put the rows of a checkpoint's own output layer in the order of the data's labels.

    stored: labels of the checkpoint's head; None without one. Returns the names of the parameters to draw anew.
    """
    if stored is None:
        return set()
    output, rows = output_layer(model), head_rows(stored, label_names)
    own = {id(parameter) for parameter in output.parameters()}
    if rows is None:
        return {name for name, parameter in model.named_parameters() if id(parameter) in own}
    for parameter in output.parameters():
        parameter.data = parameter.data[rows]
    return set()


@contextmanager
def quiet(keeps_progress: bool = False) -> Iterator[None]:
    """A context without the progress bars of transformers and its advice to train a head, which is trained here."""
    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not keeps_progress:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()


def initialise_head(model: Any, seed: int, only: set[str] | None = None) -> None:
    """Initialise the head from a seed, as the model class does. The global random generator is left as it was.

    only: full names of the parameters to initialise; None for the whole head.
    """
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in (inner for head in head_modules(model) for inner in head.modules()):
            own = list(module.parameters(recurse=False))
            if own and (only is None or any(name_of[id(parameter)] in only for parameter in own)):
                initialise_module(model, module)


def empty_model(name: str, num_labels: int) -> Any:
    """Build a model from its config, without weights or memory (on torch's meta device), to count parameters."""
    config = load_config(name, num_labels)
    with torch.device("meta"):
        return load_or_model_error(name, AutoModelForSequenceClassification.from_config, config)
