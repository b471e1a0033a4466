"""Code that uses a stored model, for its card: correct for its layout, and runs in its folder without Tuneoff.

Names of labels are read from tuneoff.json: no text of the data is in the code.
"""

import json
from pathlib import Path

from tuneoff.deliver.saved import SavedModel
from tuneoff.encoder.config import published_name

# the first of these files or folders that a model's folder has decides its kind
_KINDS = {
    "model.onnx": "onnx",
    "adapter_model.safetensors": "peft",
    "adapter.safetensors": "adapters",
    "model.safetensors": "transformers",
}
LIBRARIES = {  # kind -> name of the library on the hub
    "onnx": "onnx",
    "peft": "peft",
    "adapters": "adapter-transformers",
    "transformers": "transformers",
    "probe": "sklearn",
    "texts": "sklearn",
}


def kind_of(folder: Path, saved: SavedModel) -> str:
    """Return the kind of a stored model: a key of LIBRARIES."""
    if (folder / "classifier.skops").is_file():
        return "texts" if saved.model is None else "probe"
    return next(kind for name, kind in _KINDS.items() if (folder / name).is_file())


def snippet(folder: Path, saved: SavedModel) -> str:
    """Return the code. It sets `probabilities`, (examples, labels), and `labels`: names."""
    kind = kind_of(folder, saved)
    body = {
        "texts": _texts,
        "probe": lambda saved: _probe(saved, has_encoder=(folder / "encoder").is_dir()),
        "onnx": _onnx,
        "peft": lambda saved: _transformers(saved, is_adapter=True),
        "adapters": _adapters,
        "transformers": lambda saved: _transformers(saved, is_adapter=False),
    }
    return "\n".join([*_head(kind), "", *_examples(saved), *body[kind](saved), *_labels(saved)])


_NUMPY, _TORCH, _SCIPY = "import numpy as np", "import torch", "from scipy.special import expit, softmax"
_CLASSIFIER = "from transformers import AutoModelForSequenceClassification, AutoTokenizer"
_IMPORTS = {
    "texts": ["import skops.io"],
    "probe": [_NUMPY, "import skops.io", _TORCH, _SCIPY, "from transformers import AutoModel, AutoTokenizer"],
    "onnx": [_NUMPY, "import onnxruntime", _SCIPY, "from tokenizers import Tokenizer"],
    "peft": [_TORCH, "from peft import PeftModel", _CLASSIFIER],
    "transformers": [_TORCH, _CLASSIFIER],
    "adapters": ["import tuneoff"],
}


def _head(kind: str) -> list[str]:
    return ["import json", "from pathlib import Path", "", *_IMPORTS[kind]]


def _examples(saved: SavedModel) -> list[str]:
    lines = [
        'folder = Path(".")  # with the files of this model',
        'described = json.loads((folder / "tuneoff.json").read_text(encoding="utf-8"))',
        'names = described["label_names"]',
        'texts = ["a first text", "another one, which is longer"]',
    ]
    return [*lines, 'second_texts = ["its pair", "and the pair of the other"]'] if saved.is_pair else lines


def _columns(saved: SavedModel) -> str:
    return "texts, second_texts" if saved.is_pair else "texts"


def _texts(saved: SavedModel) -> list[str]:
    joined = '[f"{a}\\n{b}" for a, b in zip(texts, second_texts, strict=True)]' if saved.is_pair else "texts"
    return [
        'classifier = skops.io.load(folder / "classifier.skops")',
        f"probabilities = classifier.predict_proba({joined})",
    ]


def _tokenize(place: str, saved: SavedModel) -> list[str]:
    side = ', truncation_side="left"' if saved.truncation.long_texts == "tail" else ""
    length = f"padding=True, truncation=True, max_length={saved.truncation.max_length}"
    return [
        f"tokenizer = AutoTokenizer.from_pretrained({place}{side})",
        f'batch = tokenizer({_columns(saved)}, {length}, return_tensors="pt")',
    ]


def _transformers(saved: SavedModel, is_adapter: bool) -> list[str]:
    """A whole model of transformers, or an adapter of peft on its encoder."""
    activation = "sigmoid()" if saved.is_multilabel else "softmax(-1)"
    load = ["model = AutoModelForSequenceClassification.from_pretrained(folder).eval()"]
    if is_adapter:
        assert saved.model is not None
        load = [
            f"base = {json.dumps(published_name(saved.model))}",
            "encoder = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(names))",
            "model = PeftModel.from_pretrained(encoder, folder).eval()",
        ]
    return [
        *_tokenize("folder", saved),
        *load,
        "with torch.no_grad():",
        f"    probabilities = model(**batch).logits.{activation}.numpy()",
    ]


def _probe(saved: SavedModel, has_encoder: bool) -> list[str]:
    """A linear classifier on the pooled states of a frozen encoder."""
    assert saved.model is not None
    place = 'folder / "encoder"' if has_encoder else "base"
    base = [] if has_encoder else [f"base = {json.dumps(published_name(saved.model))}"]
    pooled = "states[:, 0]"
    if saved.strategy.pooling == "mean":  # type: ignore[attr-defined]
        pooled = "(states * mask).sum(1) / mask.sum(1)"
    if saved.strategy.classifier != "svm":  # type: ignore[attr-defined]
        scores = ["probabilities = classifier.predict_proba(vectors)"]
    else:
        scores = [
            "margins = classifier.decision_function(vectors)",
            "margins = np.stack([-margins, margins], 1) / 2 if margins.ndim == 1 else margins",
            f"probabilities = {'expit(margins)' if saved.is_multilabel else 'softmax(margins, axis=1)'}",
        ]
    return [
        *base,
        *_tokenize(place, saved),
        f"encoder = AutoModel.from_pretrained({place}).eval()",
        'mask = batch["attention_mask"][..., None]',
        "with torch.no_grad():",
        "    states = encoder(**batch).last_hidden_state",
        f"vectors = ({pooled}).numpy()",
        'classifier = skops.io.load(folder / "classifier.skops")',
        *scores,
    ]


def _onnx(saved: SavedModel) -> list[str]:
    batch = "list(zip(texts, second_texts, strict=True))" if saved.is_pair else "texts"
    return [
        'tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))  # it truncates and pads',
        'session = onnxruntime.InferenceSession(folder / "model.onnx")',
        f"encodings = tokenizer.encode_batch({batch})",
        "columns = {",
        '    "input_ids": [encoding.ids for encoding in encodings],',
        '    "attention_mask": [encoding.attention_mask for encoding in encodings],',
        '    "token_type_ids": [encoding.type_ids for encoding in encodings],',
        "}",
        "inputs = {value.name: np.array(columns[value.name]) for value in session.get_inputs()}",
        '(logits,) = session.run(["logits"], inputs)',
        f"probabilities = {'expit(logits)' if saved.is_multilabel else 'softmax(logits, axis=1)'}",
    ]


def _adapters(saved: SavedModel) -> list[str]:
    """A bottleneck adapter: by Tuneoff, because AdapterHub's library needs an older transformers."""
    texts = "list(zip(texts, second_texts, strict=True))" if saved.is_pair else "texts"
    return [f"probabilities = tuneoff.load(folder).predict_proba({texts})"]


def _labels(saved: SavedModel) -> list[str]:
    if not saved.is_multilabel and saved.thresholds:  # of the second of two classes
        return [
            '(threshold,) = described["thresholds"]',
            "labels = [names[int(row[1] >= threshold)] for row in probabilities]",
            "print(labels)",
        ]
    if not saved.is_multilabel:
        return ["labels = [names[row.argmax()] for row in probabilities]", "print(labels)"]
    return [
        'thresholds = described["thresholds"] or [0.5] * len(names)',
        "labels = [[name for name, p, t in zip(names, row, thresholds) if p >= t] for row in probabilities]",
        "print(labels)",
    ]
