"""Names of encoders -> their config files, configs and tokenizers, from a local folder, a package or the hub.

transformers, which takes seconds to import, is imported inside the functions that need it.
"""

import json
import os
from pathlib import Path
from typing import Any

from tuneoff import packaged
from tuneoff.cache import fingerprint
from tuneoff.encoder.anatomy import ARCHITECTURES, anatomy
from tuneoff.encoder.folder import check_finite, check_folder, check_size, read_config, weight_files
from tuneoff.encoder.tokenizer_file import check_tokenizer
from tuneoff.errors import ModelError, StopRequested, one_line

# configs of well-known models, named as on the hub, so that parameters can be counted without a network
_CONFIGS = Path(__file__).parent / "configs"
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "spm.model", "sentencepiece.bpe.model", "spiece.model")


def resolve(name: str) -> str:
    """Return the folder, or the name on the hub, that transformers reads a model from.

    name: a folder, packaged:NAME, hf:NAME, or a name on the hub. An executor may have brought the model to this
    machine: then it is in $TUNEOFF_ENCODERS, a JSON file.
    Raises ModelError for a folder that does not exist or has no config.json.
    """
    if name in _brought():
        return _brought()[name]["folder"]
    if name.startswith("packaged:"):
        return str(packaged.model_folder(name.removeprefix("packaged:")))
    if not _looks_local(name):
        return name.removeprefix("hf:")
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise ModelError(f"model folder {name!r} does not exist; give a folder, packaged:minilm or a name on the hub")
    if not (folder / "config.json").is_file():
        raise ModelError(f"model folder {name!r} has no config.json; save the model with save_pretrained")
    return str(folder)


def _brought() -> dict[str, dict[str, str]]:
    """Return folder and fingerprint of the models that an executor brought to this machine, by their names."""
    file = os.environ.get("TUNEOFF_ENCODERS")
    return json.loads(Path(file).read_text(encoding="utf-8")) if file else {}


def hub_name(name: str) -> str | None:
    """Return the name of a model on the hub, also of a packaged one; None for a local folder."""
    if name.startswith("packaged:"):
        return packaged.HUB_NAMES.get(name.removeprefix("packaged:"))
    return None if _looks_local(name) else name.removeprefix("hf:")


def published_name(name: str) -> str:
    """Return the name of a model for files that others read: its name on the hub, else its folder.

    A path into the packages of one environment would mean nothing in another one.
    """
    return hub_name(name) or str(Path(name).expanduser())


def _looks_local(name: str) -> bool:
    is_path = name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1
    return is_path or Path(name).expanduser().is_dir()


def config_file(name: str) -> Path | None:
    """Return the local config.json of a model, also of one in the hub's cache; None if it is not on this machine."""
    path = resolve(name)
    if Path(path).is_dir():
        return Path(path) / "config.json"
    if _shipped_config(path).is_file():
        return _shipped_config(path)
    import huggingface_hub

    cached = huggingface_hub.try_to_load_from_cache(path, "config.json")
    return Path(cached) if isinstance(cached, str) else None


def encoder_folder(name: str) -> Path | None:
    """Return the folder with all files of a model; None for a model of the hub that this machine has not downloaded."""
    config = config_file(name)
    return config.parent if config and list(config.parent.glob("*.safetensors")) else None


def _shipped_config(hub_name: str) -> Path:
    return _CONFIGS / f"{hub_name.replace('/', '--')}.json"


def load_config(name: str, num_labels: int = 2) -> Any:
    """Load the transformers config of a model, without weights. Raises ModelError with a message of one line."""
    return _load_config(name, num_labels=num_labels)


def why_padded(name: str) -> str:
    """Say that a model cannot run without padding, and why; empty if it can."""
    config = load_config(name)
    reason = anatomy(config).why_padded(config)
    return f"{name} cannot run packed, because {reason}: its steps take longer" if reason else ""


def load_checkpoint_config(name: str) -> Any:
    """Load a config with the checkpoint's own labels."""
    return _load_config(name)


def _load_config(name: str, **changes: int) -> Any:
    from transformers import AutoConfig
    from transformers.utils import cached_file

    path = resolve(name)
    source = str(_shipped_config(path)) if _shipped_config(path).is_file() else path
    if source == path and not Path(path).is_dir():  # checked before transformers reads it
        read_config(name, Path(load_or_model_error(name, cached_file, path, "config.json")))
    folder = local_folder(path)
    if folder is not None:
        check_folder(name, folder)
    config = load_or_model_error(name, AutoConfig.from_pretrained, source, trust_remote_code=False, **changes)
    anatomy(config)  # raises for an unsupported architecture
    if folder is not None:
        check_size(name, config, folder)
    config.chunk_size_feed_forward = 0  # chunks save memory on long texts, and fail for most numbers of tokens
    return config


def local_folder(path: str) -> Path | None:
    """Return the folder of a model on this machine, also in the hub's cache; None if it is not on this machine.

    path: of resolve().
    """
    if Path(path).is_dir():
        return Path(path)
    import huggingface_hub

    cached = huggingface_hub.try_to_load_from_cache(path, "config.json")
    return Path(cached).parent if isinstance(cached, str) else None


def load_tokenizer(name: str) -> Any:
    """Load the fast tokenizer of a model. Raises ModelError if it has none."""
    from transformers import AutoTokenizer

    path = resolve(name)
    check_loadable(name, path)
    folder = local_folder(path)
    if folder is not None:
        check_folder(name, folder)
        if not name.startswith("packaged:"):  # its files are verified
            check_tokenizer(name, folder / "tokenizer.json")
    tokenizer = load_or_model_error(name, AutoTokenizer.from_pretrained, path, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise ModelError(f"the tokenizer of {name!r} has no fast version; save it as tokenizer.json")
    return tokenizer


def check_token_ids(name: str, ids: Any, vocab_size: int) -> None:
    """Raise ModelError if a tokenizer gave a token that the encoder has no embedding of. ids: (T,)."""
    if len(ids) and (ids.max() >= vocab_size or ids.min() < 0):
        wrong = ids.max() if ids.max() >= vocab_size else ids.min()
        raise ModelError(
            f"the tokenizer of {name!r} gives token {wrong:,}, and the encoder has embeddings of {vocab_size:,}; "
            "give the tokenizer that belongs to it"
        )


def model_fingerprint(name: str) -> str:
    """Return a fingerprint of the pretrained weights: of a local folder's files, or of the commit on the hub.

    Raises ModelError for weights that are NaN or infinite: no run would succeed.
    """
    if name in _brought():  # as on the machine that it came from; the cache has checksums of its files
        return _brought()[name]["fingerprint"]
    path = resolve(name)
    folder = local_folder(path)
    if folder is not None:
        check_folder(name, folder)
        check_finite(name, folder)
    if Path(path).is_dir():
        files = sorted(file for file in Path(path).iterdir() if file.suffix in (".safetensors", ".json", ".txt"))
        return fingerprint(*[file.name for file in files], *files)
    from tuneoff.compat import hub_commit

    return fingerprint(path, hub_commit(load_config(name)))


def check_loadable(name: str, path: str) -> None:
    """Raise ModelError if a local folder lacks weights in safetensors, or a tokenizer."""
    folder = Path(path)
    if not folder.is_dir():
        return
    if not weight_files(name, folder):
        pickles = [file.name for file in folder.glob("*.bin")]
        reason = f"; {pickles[0]} is a pickle, which is not loaded" if pickles else ""
        raise ModelError(f"model folder {name!r} has no *.safetensors{reason}; save the model with save_pretrained")
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise ModelError(f"model folder {name!r} has no tokenizer; save one in it with tokenizer.save_pretrained")


def check_no_adapter(name: str, path: str) -> None:
    """Raise ModelError for a model of the hub with an adapter; a folder is checked by check_folder."""
    if Path(path).is_dir():
        return
    from transformers.utils import find_adapter_config_file

    if load_or_model_error(name, find_adapter_config_file, path):
        raise ModelError(
            f"model {name!r} holds adapter_config.json: it is an adapter, or has one; give the whole model it was "
            "merged into"
        )


def load_or_model_error(name: str, load: Any, *arguments: Any, **options: Any) -> Any:
    """Call a loader of transformers, and turn any exception into a ModelError with a message of one line."""
    try:
        return load(*arguments, **options)
    except BaseException as error:  # transformers and the hub's client raise many types, tokenizers a PanicException
        if isinstance(error, (ModelError, StopRequested, KeyboardInterrupt, SystemExit)):
            raise
        text = " ".join(str(error).split())
        if "model type" in text and "does not recognize" in text:
            allowed = ", ".join(ARCHITECTURES)
            raise ModelError(
                f"model {name!r} has an architecture that transformers does not support; choose a model of {allowed}"
            ) from error
        if "couldn't connect to" in text:
            raise ModelError(
                f"model {name!r} is not in the cache of the Hugging Face hub, which does not answer; check the "
                "network, or use a local folder or packaged:minilm, which need none"
            ) from error
        is_hub = not os.path.isdir(resolve(name))
        hint = "; check the name and the network, or use a local folder or packaged:minilm, which need no network"
        raise ModelError(f"model {name!r} cannot be loaded: {one_line(text, 200)}{hint if is_hub else ''}") from error
