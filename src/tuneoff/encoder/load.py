"""Names -> configs, tokenizers and models, from a local folder, a package or the hub. Nothing unsafe is loaded."""

import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from tuneoff import packaged
from tuneoff.cache import fingerprint
from tuneoff.encoder.anatomy import ARCHITECTURES, anatomy, head_modules, is_head
from tuneoff.encoder.packed import use_packed_attention
from tuneoff.errors import ModelError, unknown

# configs of well-known models, so that parameters can be counted without a network
_CONFIGS = Path(__file__).parent / "configs"
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spm.model", "sentencepiece.bpe.model", "spiece.model")


def resolve(name: str) -> str:
    """A model's name as transformers reads it: a folder, or a name on the hub.

    Raises ModelError for a folder that does not exist or lacks what an encoder needs.
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
    folder = Path(path)
    if not folder.is_dir():
        return
    if not list(folder.glob("*.safetensors")):
        others = [file.name for file in folder.glob("*.bin")]
        found = f"; {others[0]} is a pickle, which is not loaded" if others else ""
        raise ModelError(f"model folder {name!r} has no *.safetensors{found}; save it with save_pretrained")
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise ModelError(f"model folder {name!r} has no tokenizer; save one there with tokenizer.save_pretrained")


def load_config(name: str, num_labels: int = 2) -> Any:
    """The transformers config of a model; needs no weights. Raises ModelError, in one line."""
    path = resolve(name)
    shipped = _CONFIGS / f"{path.replace('/', '--')}.json"
    source = str(shipped) if not Path(path).is_dir() and shipped.is_file() else path
    config = _or_model_error(name, AutoConfig.from_pretrained, source, num_labels=num_labels, trust_remote_code=False)
    anatomy(config)  # raises for an unsupported architecture
    return config


def load_tokenizer(name: str) -> Any:
    """The fast tokenizer of a model."""
    path = resolve(name)
    _check_loadable(name, path)
    tokenizer = _or_model_error(name, AutoTokenizer.from_pretrained, path, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise ModelError(f"the tokenizer of {name!r} has no fast version; save it as tokenizer.json")
    return tokenizer


def load_model(
    name: str, label_names: tuple[str, ...], seed: int, dropout: float | None = None, is_multilabel: bool = False
) -> Any:
    """A sequence classification model with pretrained encoder and a head that depends on the seed alone.

    What the checkpoint holds of the head (BERT's pooler) is kept; what it lacks is drawn from the seed, so that
    all strategies start from the same head. dropout: instead of every rate that the model comes with. is_multilabel:
    so that whoever loads the saved model knows what its logits are.
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
    model, info = _or_model_error(
        name,
        AutoModelForSequenceClassification.from_pretrained,
        path,
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,  # a head for another number of classes is drawn anew
        output_loading_info=True,
    )
    drawn_anew = set(info["missing_keys"]) | {key for key, *_ in info["mismatched_keys"]}
    lacking = [key for key in drawn_anew if not is_head(model, key)]
    if lacking:
        raise ModelError(f"the weights of {name!r} lack {len(lacking)} of the encoder's parameters, e.g. {lacking[0]}")
    initialise_head(model, seed, only=drawn_anew)
    use_packed_attention(model)
    return model


def initialise_head(model: Any, seed: int, only: set[str] | None = None) -> None:
    """Draw the head from a seed, as the model class itself would, whatever the state of the global generator.

    only: full names of the parameters to draw; None means the whole head.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in (inner for head in head_modules(model) for inner in head.modules()):
            own = list(module.parameters(recurse=False))
            if own and (only is None or any(names[id(parameter)] in only for parameter in own)):
                for parameter in own:
                    # else transformers takes it for loaded and leaves it
                    setattr(parameter, "_is_hf_initialized", False)  # noqa: B010
                model._init_weights(module)


def empty_model(name: str, num_labels: int) -> Any:
    """The model without memory or weights, for counting. Needs only a config."""
    config = load_config(name, num_labels)
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config)


def model_fingerprint(name: str) -> str:
    """What identifies the pretrained weights: a hash of a local folder's files, or the hub's commit."""
    path = resolve(name)
    if Path(path).is_dir():
        files = sorted(file for file in Path(path).iterdir() if file.suffix in (".safetensors", ".json", ".txt"))
        return fingerprint(*[file.name for file in files], *files)
    config = load_config(name)
    return fingerprint(path, getattr(config, "_commit_hash", None) or "")


def _or_model_error(name: str, load: Any, *arguments: Any, **options: Any) -> Any:
    """Call a loader of transformers; whatever it raises becomes one line."""
    try:
        return load(*arguments, **options)
    except Exception as error:  # transformers and the hub's client raise many kinds
        if isinstance(error, ModelError):
            raise
        text = " ".join(str(error).split())
        if "model type" in text and "does not recognize" in text:
            raise ModelError(
                unknown(f"the architecture of {name!r}", "not known to transformers", ARCHITECTURES)
            ) from error
        is_hub = not os.path.isdir(resolve(name))
        hint = (
            "; is it a name on the hub, and can the hub be reached? A local folder or packaged:minilm needs no network"
        )
        raise ModelError(f"model {name!r} cannot be loaded: {text[:200]}{hint if is_hub else ''}") from error
