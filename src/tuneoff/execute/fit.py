"""Fit a strategy of each kind, and evaluate it: probabilities, costs, and functions that save and classify."""

import time
from collections.abc import Callable, Sequence
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
from tuneoff.data.dataset import Dataset, labels_of
from tuneoff.data.splits import subset_indices
from tuneoff.data.tokens import TokenTable
from tuneoff.encoder.anatomy import blocks
from tuneoff.encoder.packed import final_states, forward, pool
from tuneoff.engine.inputs import SplitInputs, average_windows, cached_prefix_inputs, embeddings, predict_logits
from tuneoff.engine.loop import Trained, TrainingSettings, Validation, train
from tuneoff.engine.precision import inference, resolve
from tuneoff.errors import DivergedError
from tuneoff.execute.inputs import JobInputs
from tuneoff.machine import device
from tuneoff.scoring import metrics
from tuneoff.scoring.thresholds import best_thresholds, labels_from_probabilities
from tuneoff.spec import RunSpec
from tuneoff.strategies import EmbeddingsConfig, GradientConfig, count_parameters, operations_per_token

EVAL_SPLITS = ("validation", "test")  # predicted and scored by every run


@dataclass
class Fitted:
    """A fitted strategy."""

    probabilities: dict[str, np.ndarray]  # split -> (N, C)
    costs: dict[str, float]  # keys of costs.py
    classify_one: Callable[[int], object]  # classify the i-th test example, starting from its text; for timing
    save: Callable[[Path], None]
    parameters: dict[str, int] = field(default_factory=dict)
    trained: Trained | None = None
    thresholds: np.ndarray | None = None  # (C,) chosen on validation, for multi-label data

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


def fit(
    spec: RunSpec,
    dataset: Dataset,
    inputs: JobInputs,
    eval_splits: Sequence[str] = EVAL_SPLITS,
    on_progress: Callable[[float], None] = lambda share: None,
    should_stop: Callable[[float], bool] = lambda score: False,
) -> Fitted:
    """Fit a strategy on train and predict the evaluation splits.

    eval_splits: a search passes validation alone, and so never reads test. should_stop: for a strategy that trains in
    epochs, called with the validation score after each; True ends training.
    Raises DivergedError if a probability is not finite.
    """
    request = _Request(spec, dataset, inputs, eval_splits, on_progress, should_stop)
    fitted = _FIT[spec.definition.fits_on](request)
    if not all(np.isfinite(values).all() for values in fitted.probabilities.values()):
        raise DivergedError("the model gives no finite probabilities; lower the learning rate, or check the encoder")
    fitted.thresholds = best_thresholds(labels_of(dataset.splits["validation"]), fitted.probabilities["validation"])
    return fitted


def _fit_on_texts(request: _Request) -> Fitted:
    """Fit a scikit-learn pipeline on the texts."""
    spec, dataset = request.spec, request.dataset
    started = time.perf_counter()
    indices, train_table = subset_indices(dataset, spec.subset, spec.seed), dataset.splits["train"]
    train_table = train_table if indices is None else train_table.take(indices)
    classifier = spec.definition.apply(
        _joined_texts(train_table), labels_of(train_table), spec.config, spec.recipe.class_weight
    )
    trained = time.perf_counter()
    by_split = {split: classifier.predict_proba(_joined_texts(dataset.splits[split])) for split in request.eval_splits}
    costs = {"train_seconds": trained - started, "evaluate_seconds": time.perf_counter() - trained}
    size = _num_coefficients(classifier)
    return Fitted(
        by_split,
        costs,
        classify_one=lambda index: classifier.predict(_joined_texts(dataset.splits["test"].slice(index, 1))),
        save=lambda folder: _save_sklearn(classifier, folder),
        parameters={"trainable": size, "added": 0, "head": 0, "total": size},
    )


def _joined_texts(table: pa.Table) -> list[str]:
    """Return the texts of a split; the two texts of a pair as one, joined by a line break."""
    texts = table["text"].to_pylist()
    if "text_pair" not in table.column_names:
        return texts
    return [f"{first}\n{second}" for first, second in zip(texts, table["text_pair"].to_pylist(), strict=True)]


def _fit_on_embeddings(request: _Request) -> Fitted:
    """Fit a scikit-learn classifier on the frozen encoder's embeddings."""
    spec, dataset = request.spec, request.dataset
    config, probabilities = spec.config, spec.definition.probabilities
    assert spec.model_fingerprint is not None
    assert isinstance(config, EmbeddingsConfig)
    assert probabilities is not None
    tables, model = _tables_and_model(request)
    vectors: dict[str, np.ndarray] = {}
    costs = {"tokenize_seconds": sum(table.seconds for table in tables.values()), "prefix_seconds": 0.0}
    pooling, dtype = config.pooling, resolve(spec.recipe.precision, device())
    for split, table in tables.items():
        split_dtype = torch.float32 if split in request.eval_splits else dtype
        states, seconds = embeddings(model, table, pooling, spec.model_fingerprint, split_dtype)
        vectors[split] = _mean_over_windows(states.numpy(), table)
        costs["prefix_seconds"] += seconds
        request.on_progress((len(vectors) - 0.5) / len(tables))
    started = time.perf_counter()
    validation = (vectors["validation"], tables["validation"].labels)
    indices = subset_indices(dataset, spec.subset, spec.seed)
    rows = slice(None) if indices is None else indices
    classifier = spec.definition.apply(
        vectors["train"][rows],
        tables["train"].labels[rows],
        validation,
        spec.config,
        spec.metric,
        spec.recipe.class_weight,
    )
    trained = time.perf_counter()
    by_split = {split: probabilities(classifier, vectors[split], validation) for split in request.eval_splits}
    costs |= {"train_seconds": trained - started, "evaluate_seconds": time.perf_counter() - trained}

    def classify(batch: PackedBatch) -> None:
        pooled = pool(model, final_states(model, batch), batch, pooling)[:, 0]
        classifier.predict(average_windows(pooled, batch).cpu().numpy())

    size = _num_coefficients(classifier)
    encoder_size = sum(p.numel() for p in model.base_model.parameters())
    return Fitted(
        by_split,
        costs,
        classify_one=_classify_from_text(request, model, tables, classify),
        save=lambda folder: _save_sklearn(classifier, folder),
        parameters={"trainable": size, "added": 0, "head": size, "total": encoder_size + size},
    )


def _fit_model(request: _Request) -> Fitted:
    """Adapt the model, train it, and predict with the weights of the best epoch in fp32."""
    spec, dataset, eval_splits = request.spec, request.dataset, request.eval_splits
    tables, model = _tables_and_model(request)
    torch.manual_seed(spec.seed)  # initialises the parameters that a strategy adds
    adapted = spec.definition.apply(model, spec.config)
    dtype = resolve(spec.recipe.precision, device())
    first = adapted.first_trained_block
    split_inputs = {}
    for split, table in tables.items():
        # where no block trains, the final predictions are made from these very vectors
        split_dtype = torch.float32 if split in eval_splits and first == len(blocks(model)) else dtype
        split_inputs[split] = cached_prefix_inputs(model, table, first, spec.model_fingerprint or "", split_dtype)
    split_inputs["train"] = replace(split_inputs["train"], subset=subset_indices(dataset, spec.subset, spec.seed))
    costs = {
        "tokenize_seconds": sum(table.seconds for table in tables.values()),
        "prefix_seconds": sum(inputs.seconds for inputs in split_inputs.values()),
    }
    trained, started = None, time.perf_counter()
    if isinstance(spec.config, GradientConfig):

        def evaluate() -> dict[str, float]:
            labels = tables["validation"].labels
            by_class = _probabilities(predict_logits(model, split_inputs["validation"]), dataset)
            predicted = labels_from_probabilities(by_class, best_thresholds(labels, by_class))
            return metrics.evaluate(labels, predicted, by_class)

        trained = train(
            adapted,
            split_inputs["train"],
            TrainingSettings(spec.recipe, spec.config.learning_rate, spec.seed, dtype),
            Validation(evaluate, spec.metric, lambda scores: request.should_stop(scores[spec.metric])),
            request.on_progress,
        )
        costs |= {
            "train_seconds": trained.train_seconds,
            "examples_per_second": trained.examples / trained.train_seconds,
            "tokens_per_second": trained.tokens / trained.train_seconds,
            "operations": operations_per_token(adapted) * trained.tokens,
        }
    else:
        costs["train_seconds"] = 0.0
    # fp32, so that any library that loads the saved model reproduces the stored predictions
    final = {
        split: split_inputs[split] if split_inputs[split].is_pooled else SplitInputs(tables[split])
        for split in eval_splits
    }
    by_split = {split: _probabilities(predict_logits(model, final[split]), dataset) for split in eval_splits}
    costs["evaluate_seconds"] = time.perf_counter() - started - costs["train_seconds"]

    def save(folder: Path) -> None:
        if attention_implementation(model.config) == "tuneoff_packed":
            model.set_attn_implementation("sdpa")
        (adapted.save or (lambda whole, into: whole.save_pretrained(into)))(model, folder)
        request.inputs.tokenizer(spec).save_pretrained(folder)

    counts = asdict(count_parameters(adapted))
    classify = _classify_from_text(request, model, tables, lambda batch: average_windows(forward(model, batch), batch))
    return Fitted(by_split, costs, classify, save, counts, trained)


_FIT: dict[str, Callable[[_Request], Fitted]] = {
    "texts": _fit_on_texts,
    "embeddings": _fit_on_embeddings,
    "model": _fit_model,
}


def _classify_from_text(
    request: _Request, model: Any, tables: dict[str, TokenTable], classify: Callable[[PackedBatch], object]
) -> Callable[[int], None]:
    """Return a function that classifies the i-th test example in fp32, tokenization included."""
    tokenizer, where = request.inputs.tokenizer(request.spec), device()
    max_length = request.spec.recipe.max_length

    def classify_one(index: int) -> None:
        test = request.dataset.splits["test"]
        texts = test.select([c for c in ("text", "text_pair") if c in test.column_names])
        # tokenized for the time it takes; the same tokens are in the table already
        tokenizer(*texts.slice(index, 1).to_pylist()[0].values(), truncation=True, max_length=max_length)
        model.eval()
        with inference():
            classify(pack(tables["test"], np.array([index])).to(where))

    return classify_one


def _tables_and_model(request: _Request) -> tuple[dict[str, TokenTable], Any]:
    spec, dataset = request.spec, request.dataset
    tables = request.inputs.tokens(spec, dataset, ("train", *request.eval_splits))
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


def _save_sklearn(classifier: BaseEstimator, folder: Path) -> None:
    import skops.io  # slow to import, and only here

    skops.io.dump(classifier, folder / "classifier.skops")
