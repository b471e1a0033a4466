"""Fit an encoder with its head: adapt it, train what trains, and predict with the weights that validation selects."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit, softmax

from tuneoff.compat import attention_implementation
from tuneoff.data.batches import PackedBatch
from tuneoff.data.dataset import Dataset
from tuneoff.data.splits import parts_of
from tuneoff.data.tokens import TokenTable
from tuneoff.encoder.anatomy import blocks
from tuneoff.encoder.packed import forward
from tuneoff.engine.devices import DeviceGroup
from tuneoff.engine.inputs import SplitInputs, average_windows, cached_prefix_inputs, predict_logits
from tuneoff.engine.loop import Trained, TrainingSettings, Validation, train
from tuneoff.engine.movement import movement
from tuneoff.engine.precision import resolve
from tuneoff.errors import DivergedError
from tuneoff.execute.fitted import FitRequest, Fitted, classify_from_text, tables_and_model, throughput
from tuneoff.execute.inputs import JobInputs
from tuneoff.machine import busy_seconds, device
from tuneoff.spec.run import RunSpec
from tuneoff.strategies import GradientConfig, count_parameters, operations_per_token
from tuneoff.strategies.base import Adapted

_SAMPLE_TEXTS = 64  # whose throughput is measured with and without merged weights


def fit_model(request: FitRequest) -> Fitted:
    """Adapt the model, train it, and predict with the weights of the best epoch in fp32."""
    if request.devices is None or not isinstance(request.spec.config, GradientConfig):
        return _fit(request, None)
    announcement = {
        "spec": request.spec.model_dump(mode="json"),
        "eval_splits": list(request.eval_splits),
        "halvings": request.halvings,
    }
    with request.devices.training(announcement) as devices:
        return _fit(request, devices)


def take_part(devices: DeviceGroup, inputs: JobInputs) -> None:
    """Compute this device's part of every training that the first device announces, until there is none left."""
    while (announced := devices.from_first(lambda: None)) is not None:
        spec = RunSpec.model_validate(announced["spec"])
        dataset = inputs.dataset(spec)
        parts = parts_of(dataset, spec.fold, spec.subset, spec.seed, spec.division)
        splits, halvings = announced["eval_splits"], announced["halvings"]
        ignore: Any = lambda _: None  # noqa: E731  the first device reports and decides
        request = FitRequest(spec, dataset, inputs, splits, ignore, ignore, parts, None, halvings)
        adapted, tables, dtype = _adapted_model(request, ("train",))
        train_inputs = _ModelInputs(request, adapted, tables).of("train", dtype)
        validation = Validation(dict, spec.metric) if "validation" in parts else None
        with suppress(DivergedError):  # as on the first device, which stores it
            train(adapted, train_inputs, _settings(request, dtype), validation, devices=devices)


def _fit(request: FitRequest, devices: DeviceGroup | None) -> Fitted:
    """Fit a model, with the other devices if there are any."""
    model_fit, started = _ModelFit(request), busy_seconds()
    trained = model_fit.train(devices) if isinstance(request.spec.config, GradientConfig) else None
    predicting = busy_seconds()
    by_split = {split: model_fit.predict(model_fit.final_inputs[split]) for split in request.eval_splits}
    ended = busy_seconds()
    seconds = ended - started + (trained.earlier_seconds if trained else 0.0)
    costs = model_fit.input_costs | (model_fit.training_costs(trained) if trained else {"train_seconds": 0.0})
    costs["evaluate_seconds"] = seconds - costs["train_seconds"]
    costs |= throughput(by_split, ended - predicting + model_fit.encoding_seconds)
    adapted = model_fit.adapted
    return Fitted(
        by_split,
        costs,
        classify_from_text(request, adapted.model, model_fit.tables, model_fit.classify),
        model_fit.save,
        model_fit.parameters(),
        trained,
        predict_split=model_fit.predict_split,
        measure_movement=model_fit.movement if trained and "test" in request.eval_splits else None,
        merged=adapted.merged,
        classify_sample=model_fit.classify_sample if adapted.merged else None,
    )


class _ModelFit:
    """The model of a run and what it reads: trained and used by one fit."""

    def __init__(self, request: FitRequest) -> None:
        self.request = request
        self.adapted, self.tables, self.dtype = _adapted_model(request, ("train", *request.eval_splits))
        self._inputs = _ModelInputs(request, self.adapted, self.tables)
        self.training_inputs = {p: self._inputs.of(p, self.dtype) for p in ("train", *request.eval_splits)}
        # fp32, so that any library that loads the saved model reproduces the stored predictions
        self.final_inputs = {purpose: self._inputs.of(purpose, torch.float32) for purpose in request.eval_splits}

    @property
    def model(self) -> Any:
        """The model with everything that a strategy has added."""
        return self.adapted.model

    def train(self, devices: DeviceGroup | None) -> Trained:
        """Train the model. devices: this one among several that train it together."""
        request, metric = self.request, self.request.spec.metric

        def evaluate() -> dict[str, float]:
            inputs = self.training_inputs["validation"]
            return request.selection.evaluate(inputs.labels, self.predict(inputs))

        validation = Validation(evaluate, metric, lambda scores: request.should_stop(scores[metric]))
        return train(
            self.adapted,
            self.training_inputs["train"],
            _settings(request, self.dtype),
            validation if "validation" in request.parts else None,
            request.on_progress,
            request.checkpoint,
            request.on_end,
            devices,
        )

    def predict(self, inputs: SplitInputs) -> np.ndarray:
        """Return the probabilities of some inputs. (N, C)."""
        return _probabilities(predict_logits(self.model, inputs), self.request.dataset)

    def predict_split(self, data: Dataset, split: str) -> np.ndarray:
        """Return the probabilities of a split of a dataset, in fp32. (N, C)."""
        spec, first = self.request.spec, self.adapted.first_trained_block
        table = self.request.inputs.tokens(spec, data, [split])[split]
        inputs = SplitInputs(table)
        if first == len(blocks(self.model)):
            inputs = cached_prefix_inputs(self.model, table, first, spec.model_fingerprint or "", torch.float32)
        return self.predict(inputs)

    def classify(self, batch: PackedBatch) -> Any:
        """Return the logits of a batch. (B, C)."""
        return average_windows(forward(self.model, batch), batch)

    def classify_sample(self) -> int:
        """Classify some of the timed examples in batches. Returns their number."""
        timed, dataset = self.request.timed, self.request.dataset
        every = max(1, timed.num_examples(dataset) // _SAMPLE_TEXTS)
        sample = timed.row_numbers(dataset)[::every][:_SAMPLE_TEXTS]
        return len(predict_logits(self.model, SplitInputs(self.tables[timed.split], subset=sample)))

    def save(self, folder: Path) -> None:
        """Save the model, or what a strategy saves of it, and the tokenizer."""
        if attention_implementation(self.model.config) == "tuneoff_packed":
            self.model.set_attn_implementation("sdpa")
        (self.adapted.save or (lambda whole, into: whole.save_pretrained(into)))(self.model, folder)
        self.request.inputs.tokenizer(self.request.spec).save_pretrained(folder)

    def movement(self) -> dict[str, Any]:
        """Measure how far training moved the encoder's representations of the test texts."""
        request, part = self.request, self.request.parts["test"]
        return movement(
            self.model,
            lambda: request.inputs.model(request.spec, request.dataset).to(device()),
            self.tables[part.split],
            part.row_numbers(request.dataset),
            request.spec.model_fingerprint or "",
        )

    def parameters(self) -> dict[str, int]:
        """Count the parameters."""
        shapes = {name: parameter.ndim for name, parameter in self.model.named_parameters()}
        matrices = sum(shapes[name] > 1 for name in self.adapted.added)
        return {**asdict(count_parameters(self.adapted)), "added_matrices": matrices}

    @property
    def input_costs(self) -> dict[str, float]:
        """Seconds of tokens and of frozen blocks, in this run or an earlier one."""
        tokenizing = sum(table.seconds for table in self.tables.values())
        return {"tokenize_seconds": tokenizing, "prefix_seconds": self._inputs.seconds}

    @property
    def encoding_seconds(self) -> float:
        """Share of the final predictions in the time in which cached outputs of frozen blocks were computed."""
        return sum(len(inputs) * inputs.seconds / len(inputs.table) for inputs in self.final_inputs.values())

    def training_costs(self, trained: Trained) -> dict[str, float]:
        """Return what the steps of a training took."""
        return {
            "train_seconds": trained.train_seconds,
            "examples_per_second": trained.examples / trained.train_seconds,
            "tokens_per_second": trained.tokens / trained.train_seconds,
            "operations": operations_per_token(self.adapted) * trained.tokens,
            **{f"{phase}_seconds": seconds for phase, seconds in asdict(trained.phases).items()},
        }


class _ModelInputs:
    """Inputs of an adapted model by purpose. Those of one split are computed once, or come from the cache."""

    def __init__(self, request: FitRequest, adapted: Adapted, tables: dict[str, TokenTable]) -> None:
        self._request, self._adapted, self._tables = request, adapted, tables
        self._of_split: dict[tuple[str, torch.dtype], SplitInputs] = {}

    def of(self, purpose: str, dtype: torch.dtype) -> SplitInputs:
        """Return the inputs of the examples of a purpose, from frozen blocks that compute in a precision."""
        model, first, part = self._adapted.model, self._adapted.first_trained_block, self._request.parts[purpose]
        # where no block trains, the final predictions are made from the vectors of the training
        key = part.split, self._request.dtype_of(part.split) if first == len(blocks(model)) else dtype
        if key not in self._of_split:
            fingerprint = self._request.spec.model_fingerprint or ""
            self._of_split[key] = cached_prefix_inputs(model, self._tables[part.split], first, fingerprint, key[1])
        return replace(self._of_split[key], subset=part.rows)

    @property
    def seconds(self) -> float:
        """Seconds that the frozen blocks took."""
        return sum(inputs.seconds for inputs in self._of_split.values())


def _adapted_model(request: FitRequest, purposes: Sequence[str]) -> tuple[Adapted, dict[str, TokenTable], torch.dtype]:
    """Return the adapted model, the tokens of the stored splits with some purposes, and the training's dtype."""
    spec = request.spec
    tables, model = tables_and_model(request, purposes)
    torch.manual_seed(spec.seed_of("head"))  # initialises the parameters that a strategy adds
    adapted = spec.definition.apply(model, spec.config)
    dtype = resolve(spec.recipe.precision, device())
    return adapted, tables, dtype


def _settings(request: FitRequest, dtype: torch.dtype) -> TrainingSettings:
    """Return the settings of a training by gradient."""
    spec = request.spec
    assert isinstance(spec.config, GradientConfig)
    return TrainingSettings(
        spec.recipe,
        spec.config.learning_rate,
        spec.seed_of("order"),
        dtype,
        last_epoch=spec.final.epochs if spec.final else None,
        dropout_seed=spec.seed_of("dropout"),
        halvings=request.halvings,
    )


def _probabilities(logits: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Softmax over the classes, or for multi-label data a sigmoid per label. (N, C) -> (N, C)."""
    return expit(logits.astype(np.float64)) if dataset.is_multilabel else softmax(logits.astype(np.float64), axis=1)
