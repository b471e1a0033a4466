"""Load configs, tokenizers and models by name, from a local folder, a package or the hub.

Only safetensors are read, and no code that comes with a model is run.
"""

import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from tuneoff import packaged
from tuneoff.cache import fingerprint
from tuneoff.compat import hub_commit, initialise_module
from tuneoff.encoder.anatomy import ARCHITECTURES, anatomy, head_modules, is_head
from tuneoff.encoder.packed import use_packed_attention
from tuneoff.errors import ModelError

# configs of well-known models, named as on the hub, so that parameters can be counted without a network
_CONFIGS = Path(__file__).parent / "configs"
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spm.model", "sentencepiece.bpe.model", "spiece.model")


def resolve(name: str) -> str:
    """Return the folder, or the name on the hub, that transformers reads a model from.

    name: a folder, packaged:NAME, hf:NAME, or a name on the hub.
    Raises ModelError for a folder that does not exist or has no config.json.
    """
    if name.startswith("packaged:"):
        return str(packaged.model_folder(name.removeprefix("packaged:")))
    folder = Path(name).expanduser()
    looks_local = folder.is_dir() or name.startswith((".", "/", "~")) or name.count("/") > 1
    if not looks_local:
        return name.removeprefix("hf:")
    if not folder.is_dir():
        raise ModelError(f"model folder {name!r} does not exist; give a folder, packaged:minilm or a name on the hub")
    if not (folder / "config.json").is_file():
        raise ModelError(f"model folder {name!r} has no config.json; save the model with save_pretrained")
    return str(folder)


def _check_loadable(name: str, path: str) -> None:
    """Raise ModelError if a local folder lacks weights in safetensors, or a tokenizer."""
    folder = Path(path)
    if not folder.is_dir():
        return
    if not list(folder.glob("*.safetensors")):
        pickles = [file.name for file in folder.glob("*.bin")]
        reason = f"; {pickles[0]} is a pickle, which is not loaded" if pickles else ""
        raise ModelError(f"model folder {name!r} has no *.safetensors{reason}; save the model with save_pretrained")
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise ModelError(f"model folder {name!r} has no tokenizer; save one in it with tokenizer.save_pretrained")


def load_config(name: str, num_labels: int = 2) -> Any:
    """Load the transformers config of a model, without weights. Raises ModelError with a message of one line."""
    path = resolve(name)
    packaged_config = _CONFIGS / f"{path.replace('/', '--')}.json"
    source = str(packaged_config) if not Path(path).is_dir() and packaged_config.is_file() else path
    config = _load_or_model_error(
        name, AutoConfig.from_pretrained, source, num_labels=num_labels, trust_remote_code=False
    )
    anatomy(config)  # raises for an unsupported architecture
    return config


def load_tokenizer(name: str) -> Any:
    """Load the fast tokenizer of a model. Raises ModelError if it has none."""
    path = resolve(name)
    _check_loadable(name, path)
    tokenizer = _load_or_model_error(name, AutoTokenizer.from_pretrained, path, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise ModelError(f"the tokenizer of {name!r} has no fast version; save it as tokenizer.json")
    return tokenizer


def load_model(
    name: str, label_names: tuple[str, ...], seed: int, dropout: float | None = None, is_multilabel: bool = False
) -> Any:
    """Load a sequence classification model: a pretrained encoder, and a head that depends only on the seed.

    Parameters of the head that the checkpoint holds (BERT's pooler) are kept. Missing ones are drawn from the seed, so
    that all strategies start from the same head. dropout: replaces every dropout rate of the model. is_multilabel:
    stored in the config, so that libraries that load the saved model apply a sigmoid per label, not a softmax.
    """
    path = resolve(name)
    _check_loadable(name, path)
    config = load_config(name, len(label_names))
    config.id2label = dict(enumerate(label_names))
    config.label2id = {label: index for index, label in enumerate(label_names)}
    config.problem_type = f"{'multi' if is_multilabel else 'single'}_label_classification"
    if dropout is not None:
        rates = [key for key, value in config.to_dict().items() if "dropout" in key and isinstance(value, (int, float))]
        config.update(dict.fromkeys(rates, dropout))
    model, info = _load_or_model_error(
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
    initialise_head(model, seed, only=not_loaded)
    use_packed_attention(model)
    return model


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
        return AutoModelForSequenceClassification.from_config(config)


def model_fingerprint(name: str) -> str:
    """Return a fingerprint of the pretrained weights: of a local folder's files, or of the commit on the hub."""
    path = resolve(name)
    if Path(path).is_dir():
        files = sorted(file for file in Path(path).iterdir() if file.suffix in (".safetensors", ".json", ".txt"))
        return fingerprint(*[file.name for file in files], *files)
    config = load_config(name)
    return fingerprint(path, hub_commit(config))


def _load_or_model_error(name: str, load: Any, *arguments: Any, **options: Any) -> Any:
    """Call a loader of transformers, and turn any exception into a ModelError with a message of one line."""
    try:
        return load(*arguments, **options)
    except Exception as error:  # transformers and the hub's client raise many types
        if isinstance(error, ModelError):
            raise
        text = " ".join(str(error).split())
        if "model type" in text and "does not recognize" in text:
            allowed = ", ".join(ARCHITECTURES)
            raise ModelError(
                f"model {name!r} has an architecture that transformers does not support; choose a model of {allowed}"
            ) from error
        is_hub = not os.path.isdir(resolve(name))
        hint = "; check the name and the network, or use a local folder or packaged:minilm, which need no network"
        raise ModelError(f"model {name!r} cannot be loaded: {text[:200]}{hint if is_hub else ''}") from error
