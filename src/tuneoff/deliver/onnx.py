"""ONNX models: encoder, adapters, pooling and classifier in one graph with any batch and length; 8-bit weights.

torch.export traces the model as transformers runs it, forward hooks included, with transformers' own attention; torch's
exporter translates the graph to ONNX, with onnxscript.

# B texts  L tokens  H hidden  C classes
"""

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tuneoff.deliver.classifier import read_skops
from tuneoff.deliver.layouts import PROBE, WHOLE, Source, plain_model, pretrained_model, write_tokenizer
from tuneoff.encoder.config import load_tokenizer
from tuneoff.errors import LibraryError

MODEL = "model.onnx"
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_EXTERNAL_BYTES = 1_500_000_000  # larger weights are in a file of their own: a protobuf file holds 2 GB


class _WithLogits(nn.Module):
    """A classifier of transformers that returns its logits alone."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Compute the logits. (B, L) each -> (B, C)."""
        segments = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        return self.model(input_ids=input_ids, attention_mask=attention_mask, **segments).logits


class _Probe(nn.Module):
    """A frozen encoder, pooling, and a linear classifier whose softmax (multi-label: sigmoid) gives probabilities."""

    def __init__(self, encoder: nn.Module, pooling: str, classifier: Any) -> None:
        super().__init__()
        self.encoder, self.pooling = encoder, pooling
        # standardized first: weights with the scale in them may be so large that 8 bits hold nothing else (an embedding
        # of MiniLM has dimensions with a standard deviation of 1e-30)
        weight, bias = linear_map(classifier)
        size = weight.shape[1]
        mean, scale = (
            (classifier[0].mean_, classifier[0].scale_) if len(classifier) > 1 else (np.zeros(size), np.ones(size))
        )
        self.mean = nn.Buffer(torch.from_numpy(mean.astype(np.float32)))
        self.scale = nn.Buffer(torch.from_numpy(scale.astype(np.float32)))
        self.linear = nn.Linear(weight.shape[1], weight.shape[0])
        self.linear.weight.data, self.linear.bias.data = torch.from_numpy(weight), torch.from_numpy(bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Compute the logits. (B, L) each -> (B, C)."""
        segments = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **segments).last_hidden_state
        mask = attention_mask[..., None].to(states.dtype)  # (B, L, 1)
        pooled = (states * mask).sum(1) / mask.sum(1) if self.pooling == "mean" else states[:, 0]
        return self.linear((pooled - self.mean) / self.scale)


def linear_map(classifier: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights, (C, H), and the biases, (C,), of a fitted probe on (standardized) embeddings, in fp32.

    Two classes of single-label data share one row w, b of scikit-learn: theirs are half of it, with both signs, whose
    softmax is the logistic function of w x + b.
    """
    last = classifier[-1]
    rows = [_coefficients(one, classifier.n_features_in_) for one in getattr(last, "estimators_", [last])]
    weight, bias = (np.concatenate(part) for part in zip(*rows, strict=True))
    if len(weight) == 1 and not hasattr(last, "estimators_"):
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight.astype(np.float32), bias.astype(np.float32)


def _coefficients(estimator: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    if hasattr(estimator, "coef_"):
        return estimator.coef_, estimator.intercept_
    # a label that every training example has, or none: scikit-learn's constant predictor
    return np.zeros((1, size)), np.where(np.asarray(estimator.y_).ravel()[:1] > 0, 30.0, -30.0)


def write_onnx(source: Source, target: Path) -> None:
    """Write model.onnx with its config and tokenizer. Inputs (B, L): input_ids, ...; output logits (B, C)."""
    require_onnx()
    if source.layout == PROBE:
        whole = pretrained_model(source, "eager")
        model: nn.Module = _Probe(whole.base_model, source.saved.strategy.pooling, read_skops(source.folder))  # type: ignore[attr-defined]
    else:
        whole = plain_model(source, "eager")
        model = _WithLogits(whole)
    _write_graph(model.eval(), _input_names(whole, source), target / MODEL)
    config, names = whole.config, source.saved.label_names
    config.id2label, config.label2id = dict(enumerate(names)), {name: index for index, name in enumerate(names)}
    config.problem_type = f"{'multi' if source.saved.is_multilabel else 'single'}_label_classification"
    config.save_pretrained(target)
    write_tokenizer(source, target, has_rules=True)


def require_onnx() -> None:
    """Raise LibraryError, in one line, if a library of the extra onnx is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise LibraryError(f"{error.name} is not installed; install it with: pip install 'tuneoff[onnx]'") from error


def _input_names(model: Any, source: Source) -> list[str]:
    place = source.encoder if source.layout != WHOLE else str(source.folder)
    known = load_tokenizer(str(place)).model_input_names
    taken = inspect.signature(model.base_model.forward).parameters
    return [name for name in _INPUTS if name in known and name in taken]


def _write_graph(model: nn.Module, names: Sequence[str], path: Path) -> None:
    """Trace a model and write it. Batch and length are dynamic; the traced values only give the types."""
    # a tensor for each input: torch.export takes one tensor in two places for one input
    examples = [torch.full((2, 7), int(name != "token_type_ids"), dtype=torch.int64) for name in names]
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    with quiet():
        torch.onnx.export(
            model,
            tuple(examples),
            path,
            input_names=list(names),
            output_names=["logits"],
            dynamic_shapes=tuple({0: "batch", 1: "length"} for _ in names),
            dynamo=True,
            external_data=size > _EXTERNAL_BYTES,
            verbose=False,
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep advice of the exporters off the screen; what they write is checked."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
