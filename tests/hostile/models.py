"""Folders of models that somebody prepared to do harm: 150 changes of a tiny model, and whether each is refused.

`write(name, base, folder)` makes one; `VARIANTS` names them all. A variant that runs code leaves a file MARK behind.
"""

import json
import math
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

MARK = "TUNEOFF_HOSTILE_MARK"  # environment variable with the path of the file that code leaves behind


@dataclass(frozen=True)
class Variant:
    """A change of a model's folder. is_refused: False if the change is ignored, and the model as good as before."""

    change: Callable[[Path], None]
    is_refused: bool = True


class _Runs:
    """An object whose unpickling creates the file MARK."""

    def __reduce__(self) -> Any:
        return os.system, (f'touch "${MARK}"',)


_CODE = f"import os, pathlib\npathlib.Path(os.environ['{MARK}']).touch()\n"


def write(name: str, base: str, folder: Path) -> None:
    """Write the folder of a variant. base: the folder of a tiny model that is as it should be."""
    shutil.copytree(base, folder)
    VARIANTS[name].change(folder)


def _json(file: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / file
        content = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**content, **changes}))

    return change


def _config(**changes: Any) -> Callable[[Path], None]:
    return _json("config.json", **changes)


def _text(file: str, content: str | bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def _removed(*files: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for file in files:
            (folder / file).unlink()

    return change


def _both(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for each in changes:
            each(folder)

    return change


def _pickle(file: str) -> Callable[[Path], None]:
    return lambda folder: torch.save({"x": _Runs()}, folder / file) if file.endswith(".bin") else _dump(folder / file)


def _dump(path: Path) -> None:
    path.write_bytes(pickle.dumps(_Runs()))


def _link(file: str, target: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).symlink_to(target)

    return change


def _moved_out(file: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        outside = folder.parent / f"outside-{folder.name}"
        outside.mkdir(exist_ok=True)
        shutil.move(folder / file, outside / file)
        (folder / file).symlink_to(outside / file)

    return change


def _fifo(file: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        os.mkfifo(folder / file)

    return change


def _as_folder(file: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).mkdir()

    return change


def _index(target: str, weights: str | None = None) -> Callable[[Path], None]:
    """Weights named by an index instead of model.safetensors. weights: where they are moved to."""

    def change(folder: Path) -> None:
        names = list(load_file(folder / "model.safetensors"))
        place = (folder / (weights or target)).resolve()
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder / "model.safetensors", place)
        index = {"metadata": {}, "weight_map": dict.fromkeys(names, target)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return change


def _index_of(content: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "part.safetensors")
        (folder / "model.safetensors.index.json").write_text(
            content if isinstance(content, str) else json.dumps(content)
        )

    return change


def _weights(edit: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        edit(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def _set(key: str, value: float) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda weights: weights[key].view(-1)[3:4].fill_(value)


def _as_dtype(dtype: torch.dtype, value: float) -> Callable[[dict[str, torch.Tensor]], Any]:
    def edit(weights: dict[str, torch.Tensor]) -> None:
        for key in weights:
            weights[key] = weights[key].to(dtype)
        weights["pooler.dense.weight"][0, 0] = value

    return edit


def _header(edit: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """A header that was edited in place; the numbers stay."""

    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        content = path.read_bytes()
        length = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + length])
        edited = edit(header)
        text = json.dumps(header if edited is None else edited).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])

    return change


def _raw_header(text: bytes, length: int | None = None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text) if length is None else length) + text)

    return change


def _first(header: dict[str, Any]) -> dict[str, Any]:
    return next(value for key, value in header.items() if key != "__metadata__")


def _cut(share: float) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return change


def _sparse(file: str, num_bytes: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with open(folder / file, "r+b" if (folder / file).is_file() else "wb") as opened:
            opened.truncate(num_bytes)

    return change


def _tokenizer(edit: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))

    return change


def _split(pattern: str) -> Callable[[Path], None]:
    return _tokenizer(
        lambda content: content.update(
            pre_tokenizer={"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        )
    )


def _replace(pattern: dict[str, str], content: str, times: int = 1) -> Callable[[Path], None]:
    rule = {"type": "Replace", "pattern": pattern, "content": content}
    return _tokenizer(
        lambda tokenizer: tokenizer.update(normalizer={"type": "Sequence", "normalizers": [rule] * times})
    )


def _large_ids(content: dict[str, Any]) -> None:
    content["model"]["vocab"] = {word: index * 1000 for word, index in content["model"]["vocab"].items()}


def _added_token(**changes: Any) -> Callable[[Path], None]:
    token = {"content": "the", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return _tokenizer(
        lambda content: content["added_tokens"].append({"id": 9_000_000, **token, "special": False, **changes})
    )


_ADAPTER = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["query"], "base_model_name_or_path": None}
_SIZES = {
    "num_hidden_layers": (10**6, 0, -1, "2", 2.5, [2], True, 2**63, None),
    "hidden_size": (10**7, 0, -16, "16", 2**63),
    "vocab_size": (10**9, 0, -1, 10**12),
    "num_attention_heads": (0, -1, 10**9, 3),
    "intermediate_size": (10**9, 0, -1),
    "max_position_embeddings": (10**10, -7, "64"),
    "type_vocab_size": (10**9, -1),
    "num_labels": (10**9, -1, "3"),
    "pad_token_id": (10**9, 10**6, -5, "x"),
}
_WORD, _POOLER = "embeddings.word_embeddings.weight", "pooler.dense.weight"

VARIANTS: dict[str, Variant] = {
    # ---- adapters
    "adapter": Variant(_json("adapter_config.json", **_ADAPTER)),
    "adapter-of-another-model": Variant(
        _json("adapter_config.json", **{**_ADAPTER, "base_model_name_or_path": "evil/x"})
    ),
    "adapter-no-json": Variant(_text("adapter_config.json", "{")),
    "adapter-link": Variant(_link("adapter_config.json", "/etc/passwd")),
    "adapter-dangling-link": Variant(_link("adapter_config.json", "nowhere")),
    "adapter-with-pickle": Variant(_both(_json("adapter_config.json", **_ADAPTER), _pickle("adapter_model.bin"))),
    "adapter-fifo": Variant(_fifo("adapter_config.json")),
    # ---- indices
    "index-parent-folder": Variant(_index("../outside.safetensors")),
    "index-two-parents": Variant(_index("../../outside.safetensors", "../outside2.safetensors")),
    "index-absolute": Variant(_index_of({"weight_map": {_WORD: "/etc/passwd"}})),
    "index-absolute-safetensors": Variant(_index_of({"weight_map": {_WORD: "/tmp/x.safetensors"}})),
    "index-pickle": Variant(_both(_index_of({"weight_map": {_WORD: "evil.bin"}}), _pickle("evil.bin"))),
    "index-pickle-outside": Variant(_index_of({"weight_map": {_WORD: "../evil.bin"}})),
    "index-subfolder": Variant(_index("parts/model.safetensors")),
    "index-dot": Variant(_index_of({"weight_map": {_WORD: "./part.safetensors"}})),
    "index-backslash": Variant(_index_of({"weight_map": {_WORD: "..\\part.safetensors"}})),
    "index-missing-file": Variant(_index_of({"weight_map": {_WORD: "absent.safetensors"}})),
    "index-no-map": Variant(_index_of({"metadata": {}})),
    "index-empty-map": Variant(_index_of({"weight_map": {}})),
    "index-list-map": Variant(_index_of({"weight_map": ["part.safetensors"]})),
    "index-number": Variant(_index_of({"weight_map": {_WORD: 3}})),
    "index-null": Variant(_index_of("null")),
    "index-no-json": Variant(_index_of("{")),
    "index-deep": Variant(_index_of("[" * 50_000)),
    "index-url": Variant(_index_of({"weight_map": {_WORD: "https://example.org/a.safetensors"}})),
    "index-huge": Variant(_both(_index_of({}), _sparse("model.safetensors.index.json", 5 * 2**20))),
    "index-fifo": Variant(_both(_index_of({}), _fifo("model.safetensors.index.json"))),
    "index-link": Variant(_both(_index_of({}), _link("model.safetensors.index.json", "/etc/passwd"))),
    "index-incomplete": Variant(_index_of({"weight_map": {"x": "part.safetensors"}})),
    # ---- pickles and code
    "pickle-only": Variant(_both(_removed("model.safetensors"), _pickle("pytorch_model.bin"))),
    "pickle-next-to-weights": Variant(_pickle("pytorch_model.bin"), is_refused=False),
    "pickle-as-safetensors": Variant(_pickle("model.safetensors")),
    "pickle-index": Variant(
        _both(
            _removed("model.safetensors"),
            _json("pytorch_model.bin.index.json", weight_map={_WORD: "a.bin"}),
            _pickle("a.bin"),
        )
    ),
    "pickle-training-args": Variant(_pickle("training_args.bin"), is_refused=False),
    "config-names-pickle": Variant(_both(_config(transformers_weights="evil.bin"), _pickle("evil.bin"))),
    "config-names-weights": Variant(_config(transformers_weights="../outside.safetensors")),
    "config-names-number": Variant(_config(transformers_weights=3)),
    "code-of-config": Variant(
        _both(_config(auto_map={"AutoConfig": "evil.Evil"}), _text("evil.py", _CODE)), is_refused=False
    ),
    "code-of-model": Variant(
        _both(_config(auto_map={"AutoModelForSequenceClassification": "evil.Evil"}), _text("evil.py", _CODE)),
        is_refused=False,
    ),
    "code-of-unknown-architecture": Variant(
        _both(_config(model_type="evil", auto_map={"AutoConfig": "evil.Evil"}), _text("evil.py", _CODE))
    ),
    "code-of-tokenizer": Variant(
        _both(_json("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]}), _text("evil.py", _CODE)),
        is_refused=False,
    ),
    "code-as-init": Variant(_text("__init__.py", _CODE), is_refused=False),
    "code-as-conftest": Variant(_text("sitecustomize.py", _CODE), is_refused=False),
    "kernel-of-the-hub": Variant(_config(attn_implementation="evil/kernel")),
    "kernel-with-revision": Variant(_config(_attn_implementation="evil/kernel:forward")),
    "kernel-internal": Variant(_config(_attn_implementation_internal="evil/kernel"), is_refused=False),
    "template": Variant(_text("chat_template.jinja", "{{ ''.__class__.__mro__[1].__subclasses__() }}"), False),
    "generation-config": Variant(_json("generation_config.json", custom_generate="evil/x"), is_refused=False),
    "quantized": Variant(_config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})),
    "quantized-unknown": Variant(_config(quantization_config={"quant_method": "evil"})),
    # ---- links, pipes, devices
    **{
        f"link-out-{file}": Variant(_moved_out(file))
        for file in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
    },
    "link-etc-passwd": Variant(_link("vocab.txt", "/etc/passwd")),
    "link-dev-zero": Variant(_link("vocab.txt", "/dev/zero")),
    "link-dev-zero-weights": Variant(_link("model.safetensors", "/dev/zero")),
    "link-dev-random-config": Variant(_link("config.json", "/dev/urandom")),
    "link-proc": Variant(_link("vocab.txt", "/proc/self/environ")),
    "link-loop": Variant(_link("vocab.txt", "vocab.txt")),
    "link-dangling-weights": Variant(_link("model.safetensors", "absent.safetensors")),
    "link-dangling-tokenizer": Variant(_link("tokenizer.json", "absent.json")),
    "link-within": Variant(
        lambda folder: (
            (folder / "model.safetensors").rename(folder / "a.bin"),
            _link("model.safetensors", "a.bin")(folder),
        ),  # type: ignore[arg-type]
        is_refused=False,
    ),
    **{
        f"fifo-{file}": Variant(_fifo(file))
        for file in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
    },
    "fifo-of-another-name": Variant(_fifo("notes.txt")),
    "fifo-part": Variant(_both(_index("part-1.safetensors"), _fifo("part-1.safetensors"))),
    **{
        f"folder-as-{file}": Variant(_as_folder(file))
        for file in ("model.safetensors", "config.json", "tokenizer.json")
    },
    # ---- configs
    **{
        f"config-{key}={value!r}": Variant(_config(**{key: value}))
        for key, values in _SIZES.items()
        for value in values
        if not (key == "num_hidden_layers" and value is None)
    },
    "config-empty": Variant(_text("config.json", "")),
    "config-null": Variant(_text("config.json", "null")),
    "config-list": Variant(_text("config.json", "[]")),
    "config-no-json": Variant(_text("config.json", "{")),
    "config-deep": Variant(_text("config.json", '{"a":' * 50_000)),
    "config-long-number": Variant(_text("config.json", '{"model_type": "bert", "x": ' + "9" * 5000 + "}")),
    "config-latin-1": Variant(_text("config.json", b'{"model_type": "b\xe9rt"}')),
    "config-binary": Variant(_text("config.json", b"\x00" * 100)),
    "config-huge": Variant(_sparse("config.json", 5 * 2**20)),
    "config-no-type": Variant(_text("config.json", "{}")),
    "config-type-number": Variant(_config(model_type=3)),
    "config-type-path": Variant(_config(model_type="../../evil")),
    "config-type-decoder": Variant(_config(model_type="gpt2")),
    "config-decoder": Variant(_config(is_decoder=True)),
    "config-encoder-decoder": Variant(_config(is_encoder_decoder=True)),
    "config-many-labels": Variant(_config(id2label={str(i): "a" for i in range(150_000)})),
    "config-labels-text": Variant(_config(id2label="evil")),
    "config-labels-list": Variant(_config(architectures=["BertForSequenceClassification"], id2label=[1, 2])),
    "config-labels-keys": Variant(_config(architectures=["BertForSequenceClassification"], id2label={"a": "b"})),
    "config-architectures-number": Variant(_config(architectures=3)),
    "config-architectures-mixed": Variant(_config(architectures=[None, 3])),
    "config-activation": Variant(_config(hidden_act="os.system")),
    "config-activation-number": Variant(_config(hidden_act=3)),
    "config-norm": Variant(_config(layer_norm_eps="x")),
    "config-dropout": Variant(_config(hidden_dropout_prob=7)),
    "config-dropout-text": Variant(_config(hidden_dropout_prob="x")),
    "config-dtype": Variant(_config(dtype="os")),
    "config-chunk": Variant(_config(chunk_size_feed_forward=7), is_refused=False),
    "config-chunk-negative": Variant(_config(chunk_size_feed_forward=-3), is_refused=False),
    "config-chunk-text": Variant(_config(chunk_size_feed_forward="x"), is_refused=False),
    "config-pruned-heads": Variant(_config(pruned_heads={"0": [0, 1, 7]}), is_refused=False),
    "config-return-dict": Variant(_config(return_dict=False), is_refused=False),
    "config-hidden-states": Variant(_config(output_hidden_states=True, output_attentions=True), is_refused=False),
    "config-name": Variant(_config(_name_or_path="../../../etc/passwd"), is_refused=False),
    "config-other-sizes": Variant(_config(hidden_size=32, num_attention_heads=2)),
    "config-more-layers": Variant(_config(num_hidden_layers=64)),
    "config-more-words": Variant(_config(vocab_size=9_000_000)),
    "config-wide": Variant(_config(hidden_size=65_536, num_attention_heads=1, intermediate_size=262_144)),
    "config-control-characters": Variant(_config(model_type="\x1b[31mevil\x07")),
    # ---- headers and weights
    "weights-empty": Variant(_text("model.safetensors", b"")),
    "weights-seven-bytes": Variant(_text("model.safetensors", b"1234567")),
    "weights-cut": Variant(_cut(0.5)),
    "weights-cut-in-header": Variant(_cut(0.01)),
    "weights-longer": Variant(lambda folder: _append(folder / "model.safetensors", b"0" * 100)),
    "header-long": Variant(_raw_header(b"{}", 2**63)),
    "header-larger-than-file": Variant(_raw_header(b"{}", 10**6)),
    "header-spaces": Variant(_raw_header(b"{" + b" " * (6 * 2**20) + b"}")),
    "header-no-json": Variant(_raw_header(b"{]")),
    "header-null": Variant(_raw_header(b"null")),
    "header-list": Variant(_raw_header(b"[]")),
    "header-deep": Variant(_raw_header(b'{"a":' * 50_000)),
    "header-no-tensors": Variant(_raw_header(b"{}")),
    "header-shape": Variant(_header(lambda header: _first(header).update(shape=[10**6, 10**6]))),
    "header-shape-negative": Variant(_header(lambda header: _first(header).update(shape=[-1, 16]))),
    "header-shape-text": Variant(_header(lambda header: _first(header).update(shape="16"))),
    "header-shape-overflow": Variant(_header(lambda header: _first(header).update(shape=[2**40, 2**40]))),
    "header-dims": Variant(_header(lambda header: _first(header).update(shape=[1] * 1000))),
    "header-dtype": Variant(_header(lambda header: _first(header).update(dtype="F99"))),
    "header-dtype-other": Variant(_header(lambda header: _first(header).update(dtype="F64"))),
    "header-offsets-swapped": Variant(_header(lambda header: _first(header)["data_offsets"].reverse())),
    "header-offsets-outside": Variant(_header(lambda header: _first(header).update(data_offsets=[0, 2**50]))),
    "header-offsets-negative": Variant(_header(lambda header: _first(header).update(data_offsets=[-8, 8]))),
    "header-offsets-text": Variant(_header(lambda header: _first(header).update(data_offsets="ab"))),
    "header-overlap": Variant(_header(lambda header: _overlap(header))),
    "header-entry-number": Variant(_header(lambda header: header.update({_WORD: 3}))),
    "header-metadata": Variant(
        _header(lambda header: header.update(__metadata__={"format": "evil"})), is_refused=False
    ),
    **{
        f"weights-{value}-{dtype}".replace("torch.", ""): Variant(_weights(_as_dtype(dtype, value)))
        for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64)
        for value in (math.nan, math.inf, -math.inf)
    },
    "weights-nan-embedding": Variant(_weights(_set(_WORD, math.nan))),
    "weights-nan-norm": Variant(_weights(_set("encoder.layer.1.output.LayerNorm.bias", math.nan))),
    "weights-lack-a-layer": Variant(
        _weights(lambda weights: [weights.pop(key) for key in list(weights) if "layer.1" in key])
    ),
    "weights-of-another-shape": Variant(_weights(lambda weights: weights.update({_WORD: torch.zeros(40, 16)}))),
    "weights-other-names": Variant(
        _weights(lambda weights: [weights.update({f"../{key}": weights.pop(key)}) for key in list(weights)])
    ),
    "weights-integers": Variant(
        _weights(lambda weights: weights.update({_WORD: weights[_WORD].int()})), is_refused=False
    ),
    "weights-more": Variant(_weights(lambda weights: weights.update(evil=torch.zeros(3))), is_refused=False),
    # ---- tokenizers
    "tokenizer-none": Variant(_removed("tokenizer.json")),
    "tokenizer-empty": Variant(_text("tokenizer.json", "")),
    "tokenizer-null": Variant(_text("tokenizer.json", "null")),
    "tokenizer-no-json": Variant(_text("tokenizer.json", "{")),
    "tokenizer-deep": Variant(_text("tokenizer.json", '{"a":' * 50_000)),
    "tokenizer-huge": Variant(_sparse("tokenizer.json", 200 * 2**20)),
    "tokenizer-sparse-gigabytes": Variant(_sparse("tokenizer.json", 8 * 2**30)),
    "tokenizer-ids-beyond-vocabulary": Variant(_tokenizer(_large_ids)),
    "tokenizer-added-token": Variant(_added_token(), is_refused=False),
    "tokenizer-no-words": Variant(_tokenizer(lambda content: content["model"].update(vocab={}))),
    "tokenizer-unknown-model": Variant(_tokenizer(lambda content: content["model"].update(type="Evil"))),
    "tokenizer-negative-ids": Variant(_tokenizer(lambda content: content["model"]["vocab"].update(evil=-1))),
    "tokenizer-id-text": Variant(_tokenizer(lambda content: content["model"]["vocab"].update(evil="x"))),
    "tokenizer-pads-gigabytes": Variant(
        _tokenizer(
            lambda content: content.update(
                padding={
                    "strategy": {"Fixed": 10**9},
                    "direction": "Right",
                    "pad_to_multiple_of": None,
                    "pad_id": 0,
                    "pad_type_id": 0,
                    "pad_token": "[PAD]",
                }
            )
        ),
        is_refused=False,
    ),
    "tokenizer-truncates-to-nothing": Variant(
        _tokenizer(
            lambda content: content.update(
                truncation={"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 0}
            )
        ),
        is_refused=False,
    ),
    "tokenizer-pattern-nested": Variant(_split("(a+)+$")),
    "tokenizer-pattern-alternatives": Variant(_split("(a|aa)+$")),
    "tokenizer-pattern-pairs": Variant(_split("^(([a-z])+.)+[A-Z]([a-z])+$")),
    "tokenizer-pattern-backreference": Variant(_split(r"(.*)*\1!x"), is_refused=False),
    "tokenizer-pattern-invalid": Variant(_split("(")),
    "tokenizer-pattern-large": Variant(_split("(((a{1000}){1000}){1000})"), is_refused=False),
    "tokenizer-grows": Variant(_replace({"String": "a"}, "a" * 100, times=8)),
    "tokenizer-grows-once": Variant(_replace({"String": "a"}, "a" * 2**22)),
    "tokenizer-replaces-by-pattern": Variant(_replace({"Regex": "(a*)*b"}, "x"), is_refused=False),
    "tokenizer-many-rules": Variant(_replace({"String": "q"}, "x", times=200_000)),
    "tokenizer-removes-everything": Variant(_replace({"Regex": ".*"}, ""), is_refused=False),
    "tokenizer-config-null": Variant(_text("tokenizer_config.json", "null")),
    "tokenizer-config-no-json": Variant(_text("tokenizer_config.json", "{")),
    "tokenizer-config-class": Variant(_json("tokenizer_config.json", tokenizer_class="os.system"), is_refused=False),
    "tokenizer-config-file": Variant(_json("tokenizer_config.json", tokenizer_file="/etc/passwd"), is_refused=False),
    "tokenizer-config-deep": Variant(_text("tokenizer_config.json", "[" * 50_000)),
    "tokenizer-config-special": Variant(_json("tokenizer_config.json", pad_token={"evil": 3})),
    "special-tokens-list": Variant(_text("special_tokens_map.json", "[]")),
}


def _append(path: Path, content: bytes) -> None:
    with open(path, "ab") as file:
        file.write(content)


def _overlap(header: dict[str, Any]) -> None:
    first, second, *_ = [value for key, value in header.items() if key != "__metadata__"]
    second.update(first)


def random_bytes(path: Path, rng: np.random.Generator) -> None:
    """Replace some bytes of a file by others, for soaks beyond the named variants."""
    content = bytearray(path.read_bytes())
    for position in rng.integers(len(content), size=8):
        content[position] = rng.integers(256)
    path.write_bytes(bytes(content))
