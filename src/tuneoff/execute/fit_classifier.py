"""Fit a classifier of scikit-learn: on texts, or on the vectors of a frozen encoder."""

import numpy as np

# strategies import these inside functions; imported here, no fit is timed with an import in it
import sklearn.dummy
import sklearn.feature_extraction.text
import sklearn.linear_model
import sklearn.metrics
import sklearn.preprocessing
import sklearn.svm  # noqa: F401
import torch
from sklearn.base import BaseEstimator
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline

from tuneoff.data.batches import PackedBatch
from tuneoff.data.dataset import Dataset
from tuneoff.data.tokens import TokenTable
from tuneoff.encoder.packed import final_states, pool
from tuneoff.engine.inputs import average_windows, embeddings
from tuneoff.execute.fitted import FitRequest, Fitted, classify_from_text, joined_texts, tables_and_model, throughput
from tuneoff.machine import busy_seconds
from tuneoff.skops_file import SKOPS, save_skops
from tuneoff.strategies import EmbeddingsConfig


def fit_on_texts(request: FitRequest) -> Fitted:
    """Fit a scikit-learn pipeline on the texts."""
    spec, dataset = request.spec, request.dataset
    started = busy_seconds()
    classifier = spec.definition.apply(
        request.texts("train"), request.labels("train"), spec.config, spec.recipe.class_weight
    )
    trained = busy_seconds()
    texts = {split: request.texts(split) for split in request.eval_splits}
    predicting = busy_seconds()
    by_split = {split: classifier.predict_proba(of_split) for split, of_split in texts.items()}
    ended = busy_seconds()
    costs = {"train_seconds": trained - started, "evaluate_seconds": ended - trained}
    costs |= throughput(by_split, ended - predicting)
    size = _num_coefficients(classifier)
    timed = request.timed.table(dataset)
    return Fitted(
        by_split,
        costs,
        classify_one=lambda index: classifier.predict(joined_texts(timed.slice(index, 1))),
        save=lambda folder: save_skops(classifier, folder / SKOPS),
        parameters={"trainable": size, "added": 0, "head": 0, "total": size},
        predict_split=lambda data, split: classifier.predict_proba(joined_texts(data.splits[split])),
    )


def fit_on_embeddings(request: FitRequest) -> Fitted:
    """Fit a scikit-learn classifier on the frozen encoder's embeddings."""
    spec, parts = request.spec, request.parts
    config, probabilities = spec.config, spec.definition.probabilities
    assert spec.model_fingerprint is not None
    assert isinstance(config, EmbeddingsConfig)
    assert probabilities is not None
    tables, model = tables_and_model(request, ("train", *request.eval_splits))
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
    started = busy_seconds()

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
    trained = busy_seconds()
    by_split = {split: probabilities(classifier, vectors_of(split)) for split in request.eval_splits}
    ended = busy_seconds()
    costs |= {"train_seconds": trained - started, "evaluate_seconds": ended - trained}
    # with the encoder's share of the time in which the cached vectors were computed
    encoding = sum(len(by_class) * seconds_per_text[parts[split].split] for split, by_class in by_split.items())
    costs |= throughput(by_split, ended - trained + encoding)

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
        classify_one=classify_from_text(request, model, tables, classify),
        save=lambda folder: save_skops(classifier, folder / SKOPS),
        parameters={"trainable": size, "added": 0, "head": size, "total": encoder_size + size},
        selected_options=spec.definition.selected_options(classifier) if spec.definition.selected_options else {},
        predict_split=predict_split,
    )


def _mean_over_windows(vectors: np.ndarray, table: TokenTable) -> np.ndarray:
    """Average the vectors of each example's windows. (W, H) -> (N, H)."""
    if table.windows is None:
        return vectors
    return np.add.reduceat(vectors, table.windows[:-1]) / table.counts[:, None]


def _num_coefficients(classifier: BaseEstimator) -> int:
    """Count the coefficients of a scikit-learn classifier, or of a pipeline's last step; 0 if it has none."""
    last = classifier[-1] if isinstance(classifier, Pipeline) else classifier
    estimators = last.estimators_ if isinstance(last, OneVsRestClassifier) else [last]
    names = ("coef_", "intercept_")
    return sum(int(getattr(one, name).size) for one in estimators for name in names if hasattr(one, name))
