"""Fit a strategy of each kind, and evaluate it: probabilities, costs, and functions that save and classify."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

# strategies import these inside functions; imported here, no fit is timed with an import in it
import sklearn.dummy
import sklearn.feature_extraction.text
import sklearn.linear_model
import sklearn.metrics
import sklearn.preprocessing
import sklearn.svm  # noqa: F401
import torch
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline

from tuneoff.compat import attention_implementation
from tuneoff.data.batches import PackedBatch, pack
from tuneoff.data.dataset import Dataset
from tuneoff.data.splits import Part, parts_of
from tuneoff.data.tokens import TokenTable
from tuneoff.encoder.anatomy import blocks
from tuneoff.encoder.packed import final_states, forward, pool
from tuneoff.engine.devices import DeviceGroup
from tuneoff.engine.inputs import SplitInputs, average_windows, cached_prefix_inputs, embeddings, predict_logits
from tuneoff.engine.loop import Trained, TrainingSettings, Validation, train
from tuneoff.engine.movement import movement
from tuneoff.engine.precision import inference, resolve
from tuneoff.engine.resume import Checkpoint
from tuneoff.engine.training_state import State
from tuneoff.errors import DivergedError
from tuneoff.execute.devices import Devices
from tuneoff.execute.inputs import JobInputs
from tuneoff.machine import device
from tuneoff.scoring.selection import Selection
from tuneoff.scoring.thresholds import labels_from_probabilities
from tuneoff.skops_file import SKOPS, save_skops
from tuneoff.spec.run import RunSpec
from tuneoff.strategies import EmbeddingsConfig, GradientConfig, count_parameters, operations_per_token
from tuneoff.strategies.base import Adapted

SAMPLE_TEXTS = 64  # whose throughput is measured with and without merged weights
EVAL_SPLITS = ("validation", "test")  # predicted and scored by a run that has them


@dataclass
class Fitted:
    """A fitted strategy."""

    probabilities: dict[str, np.ndarray]  # split -> (N, C)
    costs: dict[str, float]  # keys of costs.py
    classify_one: Callable[[int], object]  # classify the i-th timed example, starting from its text
    save: Callable[[Path], None]
    parameters: dict[str, int] = field(default_factory=dict)
    trained: Trained | None = None
    thresholds: np.ndarray | None = None  # (C,) chosen on validation, for multi-label data; (1,) for two classes
    selected_options: dict[str, Any] = field(default_factory=dict)  # of the strategy, selected on validation
    # probabilities of another split of a dataset, in fp32 as the final predictions
    predict_split: Callable[[Dataset, str], np.ndarray] | None = None
    # how far training moved the encoder's representations; None for a strategy that trains none of it
    measure_movement: Callable[[], dict[str, Any]] | None = None
    # a context with the added weights merged into the encoder's; None for a strategy that has none
    merged: Callable[[], AbstractContextManager[None]] | None = None
    classify_sample: Callable[[], int] | None = None  # classify some examples in batches; returns their number

    def predicted(self, split: str) -> np.ndarray:
        """Return the predicted labels of a split: (N,) ids, or (N, C) of 0 and 1."""
        return labels_from_probabilities(self.probabilities[split], self.thresholds)


@dataclass(frozen=True)
class _Request:
    """Arguments that every kind of fit takes."""

    spec: RunSpec
    dataset: Dataset
    inputs: JobInputs
    eval_splits: Sequence[str]
    on_progress: Callable[[float], None]
    should_stop: Callable[[float], bool]
    parts: dict[str, Part]  # the examples that the run reads, by purpose
    checkpoint: Checkpoint | None
    halvings: int
    on_end: Callable[[State], None] | None = None
    devices: Devices | None = None

    def labels(self, purpose: str) -> np.ndarray:
        """Return the labels of the examples of a purpose, (N,) or (N, C)."""
        return self.parts[purpose].labels(self.dataset)

    def texts(self, purpose: str) -> list[str]:
        """Return the texts of the examples of a purpose; the two texts of a pair as one, joined by a line break."""
        return _joined_texts(self.parts[purpose].table(self.dataset))

    @property
    def selection(self) -> Selection:
        """How the run selects on validation."""
        return self.spec.selection(self.dataset.label_names, self.dataset.is_multilabel)

    @property
    def timed(self) -> Part:
        """The examples whose classification is timed: test, or without a test split, train."""
        return timed_part(self.parts)

    def dtype_of(self, split: str) -> torch.dtype:
        """Return the precision of vectors of a stored split from an encoder that is frozen as a whole.

        fp32 where they are the inputs of final predictions, and for all labelled examples where each run divides them,
        so that every run reads the same cached vectors.
        """
        is_pool = self.spec.fold is not None or self.spec.final is not None or self.dataset.is_pooled
        if is_pool or split in {self.parts[purpose].split for purpose in self.eval_splits}:
            return torch.float32
        return resolve(self.spec.recipe.precision, device())


def timed_part(parts: dict[str, Part]) -> Part:
    """Return the examples whose classification is timed: test, or without a test split, train."""
    return parts["test"] if "test" in parts else parts["train"]


def fit(
    spec: RunSpec,
    dataset: Dataset,
    inputs: JobInputs,
    eval_splits: Sequence[str] = EVAL_SPLITS,
    on_progress: Callable[[float], None] = lambda share: None,
    should_stop: Callable[[float], bool] = lambda score: False,
    checkpoint: Checkpoint | None = None,
    halvings: int = 0,
    on_end: Callable[[State], None] | None = None,
    devices: Devices | None = None,
) -> Fitted:
    """Fit a strategy on train and predict the evaluation splits, as far as the run has them.

    eval_splits: a search passes validation alone, and so never reads test. should_stop: for a strategy that trains in
    epochs, called with the validation score after each; True ends training. checkpoint, halvings: of a training by
    gradient, which goes on from the checkpoint; halvings of the micro-batch, for lack of memory. on_end: of one by
    gradient too, called with its state at the end, from which a run goes on that should_stop does not end. devices:
    that make such a training together; None for one.
    Raises DivergedError if a probability is not finite.
    """
    parts = parts_of(dataset, spec.fold, spec.subset, spec.seed, spec.division)
    present = [purpose for purpose in eval_splits if purpose in parts]
    request = _Request(
        spec, dataset, inputs, present, on_progress, should_stop, parts, checkpoint, halvings, on_end, devices
    )
    fitted = _FIT[spec.definition.fits_on](request)
    if not all(np.isfinite(values).all() for values in fitted.probabilities.values()):
        raise DivergedError("the model gives no finite probabilities; lower the learning rate, or check the encoder")
    if spec.final:
        fitted.thresholds = np.array(spec.final.thresholds) if spec.final.thresholds else None
    else:
        fitted.thresholds = request.selection.thresholds(
            request.labels("validation"), fitted.probabilities["validation"]
        )
    return fitted


def _fit_on_texts(request: _Request) -> Fitted:
    """Fit a scikit-learn pipeline on the texts."""
    spec, dataset = request.spec, request.dataset
    started = time.perf_counter()
    classifier = spec.definition.apply(
        request.texts("train"), request.labels("train"), spec.config, spec.recipe.class_weight
    )
    trained = time.perf_counter()
    texts = {split: request.texts(split) for split in request.eval_splits}
    predicting = time.perf_counter()
    by_split = {split: classifier.predict_proba(of_split) for split, of_split in texts.items()}
    ended = time.perf_counter()
    costs = {"train_seconds": trained - started, "evaluate_seconds": ended - trained}
    costs |= _throughput(by_split, ended - predicting)
    size = _num_coefficients(classifier)
    timed = request.timed.table(dataset)
    return Fitted(
        by_split,
        costs,
        classify_one=lambda index: classifier.predict(_joined_texts(timed.slice(index, 1))),
        save=lambda folder: save_skops(classifier, folder / SKOPS),
        parameters={"trainable": size, "added": 0, "head": 0, "total": size},
        predict_split=lambda data, split: classifier.predict_proba(_joined_texts(data.splits[split])),
    )


def _joined_texts(table: pa.Table) -> list[str]:
    texts = table["text"].to_pylist()
    if "text_pair" not in table.column_names:
        return texts
    return [f"{first}\n{second}" for first, second in zip(texts, table["text_pair"].to_pylist(), strict=True)]


def _fit_on_embeddings(request: _Request) -> Fitted:
    """Fit a scikit-learn classifier on the frozen encoder's embeddings."""
    spec, parts = request.spec, request.parts
    config, probabilities = spec.config, spec.definition.probabilities
    assert spec.model_fingerprint is not None
    assert isinstance(config, EmbeddingsConfig)
    assert probabilities is not None
    tables, model = _tables_and_model(request, ("train", *request.eval_splits))
    vectors: dict[str, np.ndarray] = {}
    seconds_per_text: dict[str, float] = {}  # of the encoder, by split
    costs = {"tokenize_seconds": sum(table.seconds for table in tables.values()), "prefix_seconds": 0.0}
    pooling = config.pooling
    for split, table in tables.items():
        states, seconds = embeddings(model, table, pooling, spec.model_fingerprint, request.dtype_of(split))
        vectors[split] = _mean_over_windows(states.numpy(), table)
        costs["prefix_seconds"] += seconds
        seconds_per_text[split] = seconds / len(vectors[split])
        request.on_progress((len(vectors) - 0.5) / len(tables))
    started = time.perf_counter()

    def vectors_of(purpose: str) -> np.ndarray:
        part = parts[purpose]
        return vectors[part.split] if part.rows is None else vectors[part.split][part.rows]

    validation = (vectors_of("validation"), request.labels("validation")) if "validation" in parts else None
    classifier = spec.definition.apply(
        vectors_of("train"),
        request.labels("train"),
        validation,
        spec.config,
        request.selection,
        spec.recipe.class_weight,
    )
    trained = time.perf_counter()
    by_split = {split: probabilities(classifier, vectors_of(split)) for split in request.eval_splits}
    ended = time.perf_counter()
    costs |= {"train_seconds": trained - started, "evaluate_seconds": ended - trained}
    # with the encoder's share of the time in which the cached vectors were computed
    encoding = sum(len(by_class) * seconds_per_text[parts[split].split] for split, by_class in by_split.items())
    costs |= _throughput(by_split, ended - trained + encoding)

    def classify(batch: PackedBatch) -> None:
        pooled = pool(model, final_states(model, batch), batch, pooling)[:, 0]
        classifier.predict(average_windows(pooled, batch).cpu().numpy())

    def predict_split(data: Dataset, split: str) -> np.ndarray:
        table = request.inputs.tokens(spec, data, [split])[split]
        states, _ = embeddings(model, table, pooling, spec.model_fingerprint or "", torch.float32)
        return probabilities(classifier, _mean_over_windows(states.numpy(), table))

    size = _num_coefficients(classifier)
    encoder_size = sum(p.numel() for p in model.base_model.parameters())
    return Fitted(
        by_split,
        costs,
        classify_one=_classify_from_text(request, model, tables, classify),
        save=lambda folder: save_skops(classifier, folder / SKOPS),
        parameters={"trainable": size, "added": 0, "head": size, "total": encoder_size + size},
        selected_options=spec.definition.selected_options(classifier) if spec.definition.selected_options else {},
        predict_split=predict_split,
    )


def _fit_model(request: _Request) -> Fitted:
    """Adapt the model, train it, and predict with the weights of the best epoch in fp32."""
    if request.devices is None or not isinstance(request.spec.config, GradientConfig):
        return _fit_model_on(request, None)
    announcement = {
        "spec": request.spec.model_dump(mode="json"),
        "eval_splits": list(request.eval_splits),
        "halvings": request.halvings,
    }
    with request.devices.training(announcement) as devices:
        return _fit_model_on(request, devices)


def take_part(devices: DeviceGroup, inputs: JobInputs) -> None:
    """Compute this device's part of every training that the first device announces, until there is none left."""
    while (announced := devices.from_first(lambda: None)) is not None:
        spec = RunSpec.model_validate(announced["spec"])
        dataset = inputs.dataset(spec)
        parts = parts_of(dataset, spec.fold, spec.subset, spec.seed, spec.division)
        splits, halvings = announced["eval_splits"], announced["halvings"]
        ignore: Any = lambda _: None  # noqa: E731  the first device reports and decides
        request = _Request(spec, dataset, inputs, splits, ignore, ignore, parts, None, halvings)
        adapted, tables, dtype = _adapted_model(request, ("train",))
        train_inputs = _ModelInputs(request, adapted, tables).of("train", dtype)
        validation = Validation(dict, spec.metric) if "validation" in parts else None
        with suppress(DivergedError):  # as on the first device, which stores it
            train(adapted, train_inputs, _settings(request, dtype), validation, devices=devices)


def _adapted_model(request: _Request, purposes: Sequence[str]) -> tuple[Adapted, dict[str, TokenTable], torch.dtype]:
    """Return the adapted model, the tokens of the stored splits with some purposes, and the training's dtype."""
    spec = request.spec
    tables, model = _tables_and_model(request, purposes)
    torch.manual_seed(spec.seed_of("head"))  # initialises the parameters that a strategy adds
    adapted = spec.definition.apply(model, spec.config)
    dtype = resolve(spec.recipe.precision, device())
    return adapted, tables, dtype


class _ModelInputs:
    """Inputs of an adapted model by purpose. Those of one split are computed once, or come from the cache."""

    def __init__(self, request: _Request, adapted: Adapted, tables: dict[str, TokenTable]) -> None:
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


def _settings(request: _Request, dtype: torch.dtype) -> TrainingSettings:
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


def _fit_model_on(request: _Request, devices: DeviceGroup | None) -> Fitted:
    """Fit a model, with the other devices if there are any. See _fit_model."""
    spec, dataset, parts, eval_splits = request.spec, request.dataset, request.parts, request.eval_splits
    adapted, tables, dtype = _adapted_model(request, ("train", *eval_splits))
    model, first = adapted.model, adapted.first_trained_block
    is_frozen = first == len(blocks(model))
    model_inputs = _ModelInputs(request, adapted, tables)
    part_inputs = {purpose: model_inputs.of(purpose, dtype) for purpose in ("train", *eval_splits)}
    # fp32, so that any library that loads the saved model reproduces the stored predictions
    final = {purpose: model_inputs.of(purpose, torch.float32) for purpose in eval_splits}
    costs = {
        "tokenize_seconds": sum(table.seconds for table in tables.values()),
        "prefix_seconds": model_inputs.seconds,
    }
    trained, started = None, time.perf_counter()
    if isinstance(spec.config, GradientConfig):

        def evaluate() -> dict[str, float]:
            by_class = _probabilities(predict_logits(model, part_inputs["validation"]), dataset)
            return request.selection.evaluate(part_inputs["validation"].labels, by_class)

        validation = Validation(evaluate, spec.metric, lambda scores: request.should_stop(scores[spec.metric]))
        trained = train(
            adapted,
            part_inputs["train"],
            _settings(request, dtype),
            validation if "validation" in parts else None,
            request.on_progress,
            request.checkpoint,
            request.on_end,
            devices,
        )
        started -= trained.earlier_seconds
        costs |= {
            "train_seconds": trained.train_seconds,
            "examples_per_second": trained.examples / trained.train_seconds,
            "tokens_per_second": trained.tokens / trained.train_seconds,
            "operations": operations_per_token(adapted) * trained.tokens,
            **{f"{phase}_seconds": seconds for phase, seconds in asdict(trained.phases).items()},
        }
    else:
        costs["train_seconds"] = 0.0
    predicting = time.perf_counter()
    by_split = {split: _probabilities(predict_logits(model, final[split]), dataset) for split in eval_splits}
    ended = time.perf_counter()
    costs["evaluate_seconds"] = ended - started - costs["train_seconds"]
    # outputs of frozen blocks come from the cache: with their share of the time in which they were computed
    encoding = sum(len(inputs) * inputs.seconds / len(inputs.table) for inputs in final.values())
    costs |= _throughput(by_split, ended - predicting + encoding)
    timed = request.timed
    sample = timed.row_numbers(dataset)[:: max(1, timed.num_examples(dataset) // SAMPLE_TEXTS)][:SAMPLE_TEXTS]

    def classify_sample() -> int:
        return len(predict_logits(model, SplitInputs(tables[timed.split], subset=sample)))

    def save(folder: Path) -> None:
        if attention_implementation(model.config) == "tuneoff_packed":
            model.set_attn_implementation("sdpa")
        (adapted.save or (lambda whole, into: whole.save_pretrained(into)))(model, folder)
        request.inputs.tokenizer(spec).save_pretrained(folder)

    def predict_split(data: Dataset, split: str) -> np.ndarray:
        table = request.inputs.tokens(spec, data, [split])[split]
        inputs = SplitInputs(table)
        if is_frozen:
            inputs = cached_prefix_inputs(model, table, first, spec.model_fingerprint or "", torch.float32)
        return _probabilities(predict_logits(model, inputs), dataset)

    def measure_movement() -> dict[str, Any]:
        part = parts["test"]
        return movement(
            model,
            lambda: request.inputs.model(spec, dataset).to(device()),
            tables[part.split],
            part.row_numbers(dataset),
            spec.model_fingerprint or "",
        )

    counts = asdict(count_parameters(adapted))
    shapes = {name: parameter.ndim for name, parameter in model.named_parameters()}
    counts["added_matrices"] = sum(shapes[name] > 1 for name in adapted.added)
    classify = _classify_from_text(request, model, tables, lambda batch: average_windows(forward(model, batch), batch))
    merging: dict[str, Any] = {"merged": adapted.merged, "classify_sample": classify_sample} if adapted.merged else {}
    return Fitted(
        by_split,
        costs,
        classify,
        save,
        counts,
        trained,
        predict_split=predict_split,
        measure_movement=measure_movement if trained and "test" in eval_splits else None,
        **merging,
    )


def _throughput(by_split: dict[str, np.ndarray], seconds: float) -> dict[str, float]:
    """Return the throughput of predictions that took some seconds; nothing for none."""
    count = sum(map(len, by_split.values()))
    return {"predictions_per_second": count / seconds} if count and seconds > 0 else {}


_FIT: dict[str, Callable[[_Request], Fitted]] = {
    "texts": _fit_on_texts,
    "embeddings": _fit_on_embeddings,
    "model": _fit_model,
}


def _classify_from_text(
    request: _Request, model: Any, tables: dict[str, TokenTable], classify: Callable[[PackedBatch], object]
) -> Callable[[int], None]:
    """Return a function that classifies the i-th timed example in fp32, tokenization included."""
    tokenizer, where = request.inputs.tokenizer(request.spec), device()
    max_length = request.spec.recipe.max_length
    timed, dataset = request.timed, request.dataset
    rows, stored = timed.row_numbers(dataset), dataset.splits[timed.split]

    def classify_one(index: int) -> None:
        texts = stored.select([c for c in ("text", "text_pair") if c in stored.column_names])
        # tokenized for the time it takes; the same tokens are in the table already
        tokenizer(*texts.slice(rows[index], 1).to_pylist()[0].values(), truncation=True, max_length=max_length)
        model.eval()
        with inference():
            classify(pack(tables[timed.split], rows[index : index + 1]).to(where))

    return classify_one


def _tables_and_model(request: _Request, purposes: Sequence[str]) -> tuple[dict[str, TokenTable], Any]:
    """Return the tokens of the stored splits with some purposes, and the pretrained model."""
    spec, dataset = request.spec, request.dataset
    splits = dict.fromkeys(request.parts[purpose].split for purpose in purposes)
    tables = request.inputs.tokens(spec, dataset, tuple(splits))
    return tables, request.inputs.model(spec, dataset).to(device())


def _mean_over_windows(vectors: np.ndarray, table: TokenTable) -> np.ndarray:
    """Average the vectors of each example's windows. (W, H) -> (N, H)."""
    if table.windows is None:
        return vectors
    return np.add.reduceat(vectors, table.windows[:-1]) / table.counts[:, None]


def _probabilities(logits: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Softmax over the classes, or for multi-label data a sigmoid per label. (N, C) -> (N, C)."""
    return expit(logits.astype(np.float64)) if dataset.is_multilabel else softmax(logits.astype(np.float64), axis=1)


def _num_coefficients(classifier: BaseEstimator) -> int:
    """Count the coefficients of a scikit-learn classifier, or of a pipeline's last step; 0 if it has none."""
    last = classifier[-1] if isinstance(classifier, Pipeline) else classifier
    estimators = last.estimators_ if isinstance(last, OneVsRestClassifier) else [last]
    names = ("coef_", "intercept_")
    return sum(int(getattr(one, name).size) for one in estimators for name in names if hasattr(one, name))
