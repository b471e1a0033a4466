"""Fitting a strategy of each kind: what it then says of the splits that are judged, and what that took."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit, softmax
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline

from tuneoff import metrics
from tuneoff.data.batches import PackedBatch, pack
from tuneoff.data.carve import chosen_examples
from tuneoff.data.dataset import Dataset, labels_of
from tuneoff.data.encode import TokenTable, encode_split
from tuneoff.decide import best_thresholds, decide
from tuneoff.encoder.anatomy import blocks
from tuneoff.encoder.load import load_model, load_tokenizer
from tuneoff.encoder.packed import final_states, forward, pool
from tuneoff.engine.feed import Feed, embeddings, merged, predict, with_prefix
from tuneoff.engine.loop import Trained, train
from tuneoff.engine.precision import inference, resolve
from tuneoff.errors import DivergedError
from tuneoff.machine import device
from tuneoff.spec import RunSpec
from tuneoff.strategies import GradientConfig, count_parameters, operations_per_token
from tuneoff.strategies.probe import probabilities

Progress = Callable[[float], None]
IsOver = Callable[[float], bool]
JUDGED = ("validation", "test")  # the splits that a run predicts and is scored on


@dataclass
class Fitted:
    """What fitting a strategy gives, of whatever kind it is."""

    probabilities: dict[str, np.ndarray]  # split -> (N, C)
    costs: dict[str, float]
    answer: Callable[[int], Any]  # classify one test example, from its text on
    save: Callable[[Path], None]
    parameters: dict[str, int] = field(default_factory=dict)
    trained: Trained | None = None
    thresholds: np.ndarray | None = None  # (C,) found on validation, where an example may have several labels

    def predicted(self, split: str) -> np.ndarray:
        """What is predicted of a split. (N,) ids, or (N, C) of 0 and 1."""
        return decide(self.probabilities[split], self.thresholds)


def fit(
    spec: RunSpec,
    dataset: Dataset,
    judged: Sequence[str] = JUDGED,
    on_progress: Callable[[float], None] = lambda share: None,
    is_over: Callable[[float], bool] = lambda score: False,
) -> Fitted:
    """Fit a strategy on train. judged: the splits that are looked at beside it; a search never sees test.

    is_over: of a strategy that trains by epochs, asked after each with validation's score whether to stop.
    """
    fitted = _FIT[spec.kind.kind](spec, dataset, judged, on_progress, is_over)
    if not all(np.isfinite(chances).all() for chances in fitted.probabilities.values()):
        raise DivergedError("the model gives no finite probabilities; lower the learning rate, or check the encoder")
    fitted.thresholds = best_thresholds(labels_of(dataset.splits["validation"]), fitted.probabilities["validation"])
    return fitted


def _fit_text(spec: RunSpec, dataset: Dataset, judged: Sequence[str], on_progress: Progress, is_over: IsOver) -> Fitted:
    """Fit on the texts themselves."""
    started = time.perf_counter()
    chosen, train_table = chosen_examples(dataset, spec.subset, spec.seed), dataset.splits["train"]
    train_table = train_table if chosen is None else train_table.take(chosen)
    classifier = spec.kind.apply(
        _joined_texts(train_table), labels_of(train_table), spec.config, spec.recipe.class_weight
    )
    trained = time.perf_counter()
    chances = {split: classifier.predict_proba(_joined_texts(dataset.splits[split])) for split in judged}
    costs = {"train_seconds": trained - started, "evaluate_seconds": time.perf_counter() - trained}
    size = _num_coefficients(classifier)
    return Fitted(
        chances,
        costs,
        answer=lambda index: classifier.predict(_joined_texts(dataset.splits["test"].slice(index, 1))),
        save=lambda folder: _save_sklearn(classifier, folder),
        parameters={"trainable": size, "added": 0, "head": 0, "total": size},
    )


def _joined_texts(table: Any) -> list[str]:
    texts = table["text"].to_pylist()
    if "text_pair" not in table.column_names:
        return texts
    return [f"{first}\n{second}" for first, second in zip(texts, table["text_pair"].to_pylist(), strict=True)]


def _fit_features(
    spec: RunSpec, dataset: Dataset, judged: Sequence[str], on_progress: Progress, is_over: IsOver
) -> Fitted:
    """Fit on the frozen encoder's embeddings."""
    assert spec.model is not None
    assert spec.model_fingerprint is not None
    tables, model = _tables_and_model(spec, dataset, ("train", *judged))
    vectors: dict[str, np.ndarray] = {}
    costs = {"encode_seconds": sum(table.seconds for table in tables.values()), "prefix_seconds": 0.0}
    pooling, dtype = spec.config.pooling, resolve(spec.recipe.precision, device())  # type: ignore[attr-defined]
    for split, table in tables.items():
        own = torch.float32 if split in judged else dtype
        states, seconds = embeddings(model, table, pooling, spec.model_fingerprint, own)
        vectors[split] = _by_example(states.numpy(), table)
        costs["prefix_seconds"] += seconds
        on_progress((len(vectors) - 0.5) / len(tables))
    started = time.perf_counter()
    validation = (vectors["validation"], tables["validation"].labels)
    chosen = chosen_examples(dataset, spec.subset, spec.seed)
    learnt = slice(None) if chosen is None else chosen
    classifier = spec.kind.apply(
        vectors["train"][learnt],
        tables["train"].labels[learnt],
        validation,
        spec.config,
        spec.metric,
        spec.recipe.class_weight,
    )
    trained = time.perf_counter()
    chances = {split: probabilities(classifier, vectors[split], validation) for split in judged}
    costs |= {"train_seconds": trained - started, "evaluate_seconds": time.perf_counter() - trained}

    def answer(text: PackedBatch) -> None:
        classifier.predict(merged(pool(model, final_states(model, text), text, pooling)[:, 0], text).cpu().numpy())

    size = _num_coefficients(classifier)
    encoder_size = sum(p.numel() for p in model.base_model.parameters())
    counts = {"trainable": size, "added": 0, "head": size, "total": encoder_size + size}
    return Fitted(
        chances,
        costs,
        answer=_from_text(spec, model, tables, dataset, answer),
        save=lambda folder: _save_sklearn(classifier, folder),
        parameters=counts,
    )


def _fit_gradient(
    spec: RunSpec, dataset: Dataset, judged: Sequence[str], on_progress: Progress, is_over: IsOver
) -> Fitted:
    """Adapt the model, train it, and predict with the weights of the best epoch in fp32."""
    tables, model = _tables_and_model(spec, dataset, ("train", *judged))
    torch.manual_seed(spec.seed)  # what a strategy adds
    adapted = spec.kind.apply(model, spec.config)
    dtype = resolve(spec.recipe.precision, device())
    first = adapted.first_trained_block
    feeds = {}
    for split, table in tables.items():
        # where no block trains, the last predictions are made from these very vectors
        own = torch.float32 if split in judged and first == len(blocks(model)) else dtype
        feeds[split] = with_prefix(model, table, first, spec.model_fingerprint or "", own)
    feeds["train"] = replace(feeds["train"], chosen=chosen_examples(dataset, spec.subset, spec.seed))
    costs = {
        "encode_seconds": sum(table.seconds for table in tables.values()),
        "prefix_seconds": sum(feed.seconds for feed in feeds.values()),
    }
    trained, started = None, time.perf_counter()
    if isinstance(spec.config, GradientConfig):

        def validate() -> dict[str, float]:
            chances, labels = _chances(predict(model, feeds["validation"]), dataset), tables["validation"].labels
            return metrics.evaluate(labels, decide(chances, best_thresholds(labels, chances)), chances)

        def stop(scores: dict[str, float]) -> bool:
            return is_over(scores[spec.metric])

        rate = spec.config.learning_rate
        trained = train(
            adapted, feeds["train"], spec.recipe, rate, spec.seed, dtype, validate, spec.metric, on_progress, stop
        )
        costs |= {
            "train_seconds": trained.train_seconds,
            "examples_per_second": trained.examples / trained.train_seconds,
            "tokens_per_second": trained.tokens / trained.train_seconds,
            "operations": operations_per_token(adapted) * trained.tokens,
        }
    else:
        costs["train_seconds"] = 0.0
    # fp32, so that any library that loads the saved model gives the stored predictions
    final = {split: feeds[split] if feeds[split].is_pooled else Feed(tables[split]) for split in judged}
    chances = {split: _chances(predict(model, final[split]), dataset) for split in judged}
    costs["evaluate_seconds"] = time.perf_counter() - started - costs["train_seconds"]

    def save(folder: Path) -> None:
        model.set_attn_implementation("sdpa") if model.config._attn_implementation == "tuneoff_packed" else None
        (adapted.saves or (lambda whole, into: whole.save_pretrained(into)))(model, folder)
        load_tokenizer(spec.model or "").save_pretrained(folder)

    counts = asdict(count_parameters(adapted))
    answer = _from_text(spec, model, tables, dataset, lambda text: merged(forward(model, text), text))
    return Fitted(chances, costs, answer, save, counts, trained)


_FIT: dict[str, Callable[[RunSpec, Dataset, Sequence[str], Progress, IsOver], Fitted]] = {
    "text": _fit_text,
    "features": _fit_features,
    "gradient": _fit_gradient,
}


def _from_text(
    spec: RunSpec, model: Any, tables: dict[str, TokenTable], dataset: Dataset, answer: Callable[[PackedBatch], Any]
) -> Callable[[int], None]:
    """A function that classifies one test example in fp32, tokenising included."""
    tokenizer, where = load_tokenizer(spec.model or ""), device()

    def classify(index: int) -> None:
        texts = dataset.splits["test"].select(
            [c for c in ("text", "text_pair") if c in dataset.splits["test"].column_names]
        )
        # tokenised for the sake of time: the table holds the same tokens
        tokenizer(*texts.slice(index, 1).to_pylist()[0].values(), truncation=True, max_length=spec.recipe.max_length)
        model.eval()
        with inference():
            answer(pack(tables["test"], np.array([index])).to(where))

    return classify


def _tables_and_model(spec: RunSpec, dataset: Dataset, splits: Sequence[str]) -> tuple[dict[str, TokenTable], Any]:
    assert spec.model is not None
    tokenizer = load_tokenizer(spec.model)
    tables = {split: encode_split(dataset.splits[split], tokenizer, spec.recipe.reading) for split in splits}
    model = load_model(spec.model, dataset.label_names, spec.seed, spec.recipe.dropout, dataset.is_multilabel)
    return tables, model.to(device())


def _by_example(vectors: np.ndarray, table: TokenTable) -> np.ndarray:
    """The mean over each example's windows. (W, H) -> (N, H)."""
    if table.windows is None:
        return vectors
    return np.add.reduceat(vectors, table.windows[:-1]) / table.counts[:, None]


def _chances(logits: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Probabilities: over the classes, or of each label by itself. (N, C) -> (N, C)."""
    return expit(logits.astype(np.float64)) if dataset.is_multilabel else softmax(logits.astype(np.float64), axis=1)


def _num_coefficients(classifier: Any) -> int:
    """What a scikit-learn classifier, or the last step of a pipeline, has learnt; 0 where it keeps no coefficients."""
    last = classifier[-1] if isinstance(classifier, Pipeline) else classifier
    each = last.estimators_ if isinstance(last, OneVsRestClassifier) else [last]
    return sum(int(getattr(one, name).size) for one in each for name in ("coef_", "intercept_") if hasattr(one, name))


def _save_sklearn(classifier: Any, folder: Path) -> None:
    import skops.io  # slow to import, and only here

    skops.io.dump(classifier, folder / "classifier.skops")
