"""Stored models in the layouts of other libraries: transformers, peft, AdapterHub and skops."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneoff.deliver.classifier import is_whole, read_skops, restored_model
from tuneoff.deliver.saved import SavedModel
from tuneoff.encoder.config import hub_name, load_tokenizer, published_name
from tuneoff.errors import ExportError, one_line, requires
from tuneoff.skops_file import SKOPS, save_skops
from tuneoff.strategies import STRATEGIES

# layouts of a run's model folder
TEXTS, PROBE, WHOLE, PEFT, BOTTLENECK = "texts", "probe", "whole", "peft", "bottleneck"


@dataclass(frozen=True)
class Source:
    """The stored model that is exported."""

    folder: Path
    saved: SavedModel
    encoder: str | None  # place of the pretrained encoder; None for a model without one

    @property
    def layout(self) -> str:
        """The layout in which the run has stored it."""
        fits_on = STRATEGIES[self.saved.strategy.name].fits_on
        if fits_on != "model":
            return TEXTS if fits_on == "texts" else PROBE
        if is_whole(self.folder):
            return WHOLE
        return PEFT if (self.folder / "adapter_model.safetensors").is_file() else BOTTLENECK


def write_merged(source: Source, target: Path) -> None:
    """Write one plain transformers model; what peft has added is merged into the encoder's weights."""
    if source.layout == WHOLE:
        for name in ("config.json", "model.safetensors"):
            shutil.copyfile(source.folder / name, target / name)
    else:
        plain_model(source).save_pretrained(target)
    write_tokenizer(source, target)


def write_stored(source: Source, target: Path) -> None:
    """Write the weights as they are stored: a whole transformers model, or an adapter in peft's layout."""
    if source.layout == WHOLE:
        write_merged(source, target)
        return
    assert source.encoder is not None
    shutil.copyfile(source.folder / "adapter_model.safetensors", target / "adapter_model.safetensors")
    _write_adapter_config(source, target, "base_model_name_or_path")
    write_tokenizer(source, target)


def write_adapterhub(source: Source, target: Path) -> None:
    """Write a bottleneck adapter as AdapterHub's library reads it."""
    for name in ("adapter.safetensors", "config.json"):
        shutil.copyfile(source.folder / name, target / name)
    _write_adapter_config(source, target, "model_name")
    write_tokenizer(source, target)


def write_skops(source: Source, target: Path) -> None:
    """Write a scikit-learn classifier that predicts names of labels; for a probe, also its encoder."""
    classifier = read_skops(source.folder)
    if not source.saved.is_multilabel:  # of multi-label data it predicts rows of 0 and 1
        _name_classes(classifier, source.saved.label_names)
    save_skops(classifier, target / SKOPS)
    if source.layout == PROBE:
        from tuneoff.encoder.anatomy import encoder_of

        encoder_of(pretrained_model(source)).save_pretrained(target / "encoder")  # type: ignore[operator]
        write_tokenizer(source, target / "encoder")


def plain_model(source: Source, attention: str = "sdpa") -> Any:
    """Return the trained model on the CPU without peft's layers, with an attention function of transformers.

    Bottleneck adapters stay: they compute between layers, and cannot be merged into one of them.
    """
    model = restored_model(source.folder, source.saved, source.encoder).cpu()
    if source.layout == PEFT:
        _merge(model, source.saved.strategy.label)
    return _with_attention(model, attention)


def pretrained_model(source: Source, attention: str = "sdpa") -> Any:
    """Return the pretrained model of a probe; its head is not used."""
    from tuneoff.encoder.load import load_model

    assert source.encoder is not None
    return _with_attention(load_model(source.encoder, ("0", "1"), seed=0).eval(), attention)


def write_tokenizer(source: Source, target: Path, has_rules: bool = False) -> None:
    """Write the tokenizer with the maximum length of training, from which truncation=True takes it.

    has_rules: also write truncation and padding into tokenizer.json, for readers that use the library tokenizers alone.
    """
    tokenizer = load_tokenizer(str(source.folder) if source.layout == WHOLE else str(source.encoder))
    policy = source.saved.truncation
    tokenizer.model_max_length = policy.max_length
    tokenizer.truncation_side = side = "left" if policy.long_texts == "tail" else "right"
    if has_rules:
        pad = {"pad_id": tokenizer.pad_token_id, "pad_token": tokenizer.pad_token}
        tokenizer.backend_tokenizer.enable_truncation(policy.max_length, direction=side)
        tokenizer.backend_tokenizer.enable_padding(**pad, pad_type_id=tokenizer.pad_token_type_id)
    tokenizer.save_pretrained(target)


def _with_attention(model: Any, attention: str) -> Any:
    from tuneoff.encoder.anatomy import anatomy

    if anatomy(model.config).relative is None:
        model.set_attn_implementation(attention)
    return model


def _merge(model: Any, label: str) -> None:
    """Replace every layer of peft by its base layer with the update merged into it, in place."""
    with requires("peft"):
        from peft.tuners.tuners_utils import BaseTunerLayer
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)]
    for name, layer in layers:
        parent, _, attribute = name.rpartition(".")
        try:
            layer.merge(safe_merge=True)  # raises ValueError for weights that are not finite
        except (NotImplementedError, ValueError, RuntimeError) as error:
            raise ExportError(
                f"the update of {label} cannot be merged into layer {name} ({one_line(error, 150)}); "
                "export it as safetensors, in peft's own layout"
            ) from error
        setattr(model.get_submodule(parent), attribute, layer.get_base_layer())


def _write_adapter_config(source: Source, target: Path, key: str) -> None:
    """Write adapter_config.json with the encoder's name on the hub, where it has one."""
    assert source.saved.model is not None
    config = json.loads((source.folder / "adapter_config.json").read_text(encoding="utf-8"))
    config[key] = hub_name(source.saved.model) or published_name(source.encoder or source.saved.model)
    (target / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def _name_classes(classifier: Any, label_names: tuple[str, ...]) -> None:
    """Make a fitted classifier of ids predict names."""
    import numpy as np

    last = classifier[-1] if hasattr(classifier, "steps") else classifier
    last.classes_ = np.array(label_names)[last.classes_]
