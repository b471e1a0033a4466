"""Checks of a model's folder before anything loads it: links, file types, sizes, config and the headers of its weights.

A model may be somebody else's upload. Each limit is far above every published encoder, and is checked on the files
themselves, before transformers allocates or computes anything.
"""

import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuneoff.errors import ModelError
from tuneoff.formats import shorten, size

INDEX = "model.safetensors.index.json"
_READ = (".json", ".txt", ".model", ".jinja", ".safetensors")  # ends of the names of files that transformers reads
_MAX_FILE_BYTES = 100 * 2**20  # of any of them but weights; the largest published tokenizer.json has 64 MB
_MAX_JSON_BYTES = 4 * 2**20  # of config.json, an index, and the header of a file of weights
_MAX_LABELS = 100_000
# keys of a config -> smallest and largest value; architectures name the same size differently
_SIZES = {
    **dict.fromkeys(("num_hidden_layers", "n_layers", "num_layers"), (1, 256)),
    **dict.fromkeys(("hidden_size", "dim", "embedding_size"), (1, 2**16)),
    **dict.fromkeys(("intermediate_size", "hidden_dim", "pooler_hidden_size"), (1, 2**19)),
    **dict.fromkeys(("num_attention_heads", "n_heads"), (1, 2**12)),
    **dict.fromkeys(("num_hidden_groups", "inner_group_num"), (1, 256)),
    "vocab_size": (1, 10**7),
    "type_vocab_size": (0, 2**16),
    "max_position_embeddings": (-1, 2**24),  # -1 is no limit
    "num_labels": (1, _MAX_LABELS),
    "pad_token_id": (-1, 10**7),
    "position_buckets": (-1, 2**20),
    "max_relative_positions": (-1, 2**20),
    "relative_attention_num_buckets": (1, 2**20),
    "local_attention": (0, 2**24),
    "global_attn_every_n_layers": (1, 256),
    "conv_kernel_size": (0, 2**12),
}
_ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
# formats of floating-point numbers: the integers that hold them, and the bits of the exponent, all 1 in NaN and inf
_EXPONENT = {"F64": ("<u8", 0x7FF0 << 48), "F32": ("<u4", 0x7F800000), "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80)}
_CHUNK = 2**22  # numbers that are checked at a time


@dataclass(frozen=True)
class _Tensor:
    """One tensor of a file of weights."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int  # in the file, in bytes
    end: int


def check_folder(name: str, folder: Path) -> dict[str, Any]:
    """Check the files of a model's folder and return its config as plain data. Raises ModelError, in one line.

    name: of the model, for messages.
    """
    if (folder / "adapter_config.json").exists() or (folder / "adapter_config.json").is_symlink():
        raise ModelError(
            f"model {name!r} holds adapter_config.json: an adapter would be loaded into the encoder and trained with "
            "it; merge it (peft's merge_and_unload) and save the whole model, or remove the adapter's files"
        )
    for file in _files(name, folder):
        limit = _MAX_JSON_BYTES if file.name in ("config.json", INDEX) else _MAX_FILE_BYTES
        if file.suffix != ".safetensors" and file.stat().st_size > limit:
            raise ModelError(
                f"model {name!r}: {file.name} has {size(file.stat().st_size)}, and at most {size(limit)} are read"
            )
    config = read_config(name, folder / "config.json")
    for file in weight_files(name, folder):
        _tensors(name, file)
    return config


def _files(name: str, folder: Path) -> Iterator[Path]:
    """Yield the files that transformers may read, and weights that it must not read. Raises ModelError for the rest."""
    root = folder.resolve()
    # the snapshots of the hub's cache are links into the blobs of the same repository
    blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else None
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ModelError(f"model folder {name!r} cannot be read: {error.strerror}; check its permissions") from error
    for file in entries:
        if file.suffix not in _READ:
            continue
        target = Path(os.path.realpath(file))  # resolve() raises for a link to itself
        if file.is_symlink() and root not in target.parents and (blobs is None or blobs not in target.parents):
            raise ModelError(f"model {name!r}: {file.name} is a link out of its folder; copy the file into the folder")
        try:
            mode = file.stat().st_mode
        except OSError:
            raise ModelError(f"model {name!r}: {file.name} is a link to nothing; restore or remove it") from None
        if stat.S_ISDIR(mode):
            continue
        if not stat.S_ISREG(mode):
            raise ModelError(f"model {name!r}: {file.name} is a pipe or a device, not a file; remove it")
        if not os.access(file, os.R_OK):
            raise ModelError(f"model {name!r}: {file.name} cannot be read; check its permissions")
        yield file


def read_config(name: str, file: Path) -> dict[str, Any]:
    """Read a model's config.json as plain data. Raises ModelError for one that transformers should not see."""
    config = _read_json(name, file)
    for key, (smallest, largest) in _SIZES.items():
        value = config.get(key)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not smallest <= value <= largest:
            raise ModelError(
                f"model {name!r}: {key} of its config is {_short(value)}, and may be {smallest:,} to {largest:,}"
            )
    for key in ("id2label", "label2id"):
        if isinstance(config.get(key), (dict, list)) and len(config[key]) > _MAX_LABELS:
            raise ModelError(f"model {name!r}: {key} of its config has {len(config[key]):,} labels; at most 100,000")
    classes = config.get("architectures")
    if classes is not None and not (isinstance(classes, list) and all(isinstance(item, str) for item in classes)):
        raise ModelError(
            f"model {name!r}: architectures of its config is {_short(classes)}, and may be a list of names"
        )
    if "transformers_weights" in config:
        raise ModelError(
            f"model {name!r}: transformers_weights of its config names its weights; name them model.safetensors instead"
        )
    if config.get("quantization_config"):
        raise ModelError(f"model {name!r} is quantized, which cannot be trained; use the model that it was made from")
    for key, value in config.items():
        if key.endswith("_implementation") and ("/" in str(value) or ":" in str(value)):
            raise ModelError(f"model {name!r}: {key} of its config is {_short(value)}, code of the hub; remove the key")
    if config.get("is_decoder") is True or config.get("is_encoder_decoder") is True:
        raise ModelError(f"model {name!r} is a decoder by its config; use an encoder")
    return config


def weight_files(name: str, folder: Path) -> list[Path]:
    """Return the files of weights that transformers would load. Raises ModelError for an index that names others."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if not (folder / INDEX).is_file():
        return []
    index = _read_json(name, folder / INDEX).get("weight_map")
    if not isinstance(index, dict) or not index or not all(isinstance(file, str) for file in index.values()):
        raise ModelError(f"model {name!r}: {INDEX} has no weight_map of tensors to files; save the model again")
    files = sorted(set(index.values()))
    for file in files:
        if file != Path(file).name or "\\" in file or not file.endswith(".safetensors"):
            raise ModelError(
                f"model {name!r}: {INDEX} names {_short(file)}; only *.safetensors files of the same folder are loaded"
            )
        if not (folder / file).is_file():
            raise ModelError(f"model {name!r}: {INDEX} names {_short(file)}, which is missing; copy the whole model")
    return [folder / file for file in files]


def check_size(name: str, config: Any, folder: Path) -> None:
    """Raise ModelError if a config stands for more parameters than the weights hold.

    config: of transformers. Counted are the word embeddings and the four attention and two feed-forward matrices of
    each block, which every architecture has, so that the true number is larger.
    """
    files = weight_files(name, folder)
    if not files:
        return
    stored = sum(math.prod(tensor.shape) for file in files for tensor in _tensors(name, file))
    hidden = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or config.hidden_dim  # of DistilBERT
    blocks = getattr(config, "num_hidden_groups", config.num_hidden_layers)  # ALBERT shares its blocks
    needed = config.vocab_size * min(hidden, getattr(config, "embedding_size", hidden) or hidden)
    needed += blocks * (4 * hidden**2 + 2 * hidden * inner)
    if needed > stored:
        raise ModelError(
            f"model {name!r}: its config stands for at least {needed:,} parameters, and its weights hold {stored:,}; "
            "config.json and the weights are of different models"
        )


def check_finite(name: str, folder: Path) -> None:
    """Raise ModelError, naming the tensor, if a weight is NaN or infinite."""
    for file in weight_files(name, folder):
        content = np.memmap(file, np.uint8, mode="r")
        for tensor in _tensors(name, file):
            if tensor.dtype not in _EXPONENT or tensor.start == tensor.end:
                continue
            integers, exponent = _EXPONENT[tensor.dtype]
            numbers = content[tensor.start : tensor.end].view(integers)
            mask = np.dtype(integers).type(exponent)
            for start in range(0, len(numbers), _CHUNK):
                if ((numbers[start : start + _CHUNK] & mask) == mask).any():
                    raise ModelError(
                        f"model {name!r}: tensor {_short(tensor.name)} of {file.name} holds NaN or infinite numbers; "
                        "its training diverged, or the file is damaged: download or save the model again"
                    )


def _tensors(name: str, file: Path) -> list[_Tensor]:
    """Read the header of a file of weights. Raises ModelError for one that does not describe the file.

    Format: 8 bytes with the length of the header, the header in JSON, then the numbers of all tensors, end to end.
    """
    total = file.stat().st_size
    with open(file, "rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if total < 8 or length > total - 8:
            raise ModelError(f"model {name!r}: {file.name} is cut off, or is no safetensors file; copy it again")
        if length > _MAX_JSON_BYTES:
            limit = size(_MAX_JSON_BYTES)
            raise ModelError(
                f"model {name!r}: the header of {file.name} has {size(length)}, and at most {limit} are read"
            )
        header = _parsed(name, file, opened.read(length))
    tensors = []
    for key, value in header.items():
        if key != "__metadata__":
            tensors.append(_tensor(name, file, key, value, 8 + length))
    tensors.sort(key=lambda tensor: (tensor.start, tensor.end))
    position = 8 + length
    for tensor in tensors:
        if tensor.start != position:
            raise ModelError(f"model {name!r}: tensors of {file.name} overlap or leave gaps; save the model again")
        position = tensor.end
    if position != total:
        raise ModelError(f"model {name!r}: {file.name} is not as long as its header says; copy it again")
    return tensors


def _tensor(name: str, file: Path, key: str, value: Any, start: int) -> _Tensor:
    """Parse one entry of a header."""
    try:
        dtype, shape, (first, end) = str(value["dtype"]), tuple(value["shape"]), value["data_offsets"]
        is_valid = all(type(number) is int and 0 <= number < 2**48 for number in (*shape, first, end)) and first <= end
        is_valid = is_valid and len(shape) <= 8
        item = _ITEM_BYTES.get(dtype)
        is_valid = is_valid and (item is None or math.prod(shape) * item == end - first)
    except (KeyError, TypeError, ValueError):
        is_valid = False
    if not is_valid:
        raise ModelError(
            f"model {name!r}: the header of {file.name} describes {_short(key)} wrongly; save the model again"
        )
    return _Tensor(key, dtype, shape, start + first, start + end)


def _read_json(name: str, file: Path) -> dict[str, Any]:
    if file.stat().st_size > _MAX_JSON_BYTES:
        raise ModelError(
            f"model {name!r}: {file.name} has {size(file.stat().st_size)}; at most {size(_MAX_JSON_BYTES)} are read"
        )
    return _parsed(name, file, file.read_bytes())


def _parsed(name: str, file: Path, content: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # nested too deep
        reason = "is nested too deep" if isinstance(error, RecursionError) else "is not JSON"
        raise ModelError(f"model {name!r}: {file.name} {reason}; save the model again") from None
    if not isinstance(parsed, Mapping):
        raise ModelError(f"model {name!r}: {file.name} holds {type(parsed).__name__}, not keys; save the model again")
    return dict(parsed)


def _short(value: object) -> str:
    return shorten(repr(value), 80)
