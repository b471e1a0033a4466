"""A strategy as a scikit-learn classifier: TextClassifier, for pipelines, cross-validation and grid searches.

A fit is a run without a results folder, a worker process or a test split. It calls the same function as a run does
(execute/fit.py), so that the same examples, options and seed give the same model.

# N examples  C classes
"""

import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import torch
from scipy.sparse import issparse
from scipy.special import logit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted

from tuneoff.cache import fingerprint, prune
from tuneoff.data.dataset import Dataset
from tuneoff.data.load import detect_text_columns
from tuneoff.data.spec import SPLITS
from tuneoff.data.splits import strata_of, stratified_split
from tuneoff.deliver.classifier import Classifier, as_texts, load_classifier
from tuneoff.deliver.saved import SavedModel
from tuneoff.encoder.heads import start_fingerprint
from tuneoff.encoder.load import quiet
from tuneoff.engine.recipe import Recipe
from tuneoff.errors import ConfigError, DataError, join_limited, one_line
from tuneoff.execute.fit import fit
from tuneoff.execute.fitted import Fitted
from tuneoff.execute.inputs import CachedInputs
from tuneoff.grid import check_length
from tuneoff.scoring.metrics import check_metric, metric_for, metric_options
from tuneoff.spec.run import Final, RunSpec
from tuneoff.spec.strategy import parse_strategy, recipe_of
from tuneoff.spec.study import DEFAULT_MODEL
from tuneoff.strategies import STRATEGIES, StrategyConfig
from tuneoff.validation import validated

if TYPE_CHECKING:
    from sklearn.utils import Tags

_TINY = np.finfo(np.float64).tiny  # the smallest probability whose logarithm is taken


class TextClassifier(ClassifierMixin, BaseEstimator):
    """Fine-tunes an encoder on texts, or fits a classifier on them, by one of the strategies of a study.

    strategy: a name ("lora"), a name with options ("lora:rank=16") or a config (LoRA(rank=16)). model: the encoder, a
    folder, packaged:NAME or a hub name. epochs, batch_size, max_length: of the recipe; recipe: its other fields, as a
    dictionary ({"class_weights": "balanced"}). validation_fraction: share of the examples that are held out,
    stratified, to select the epoch (for a probe C, for multi-label data the thresholds); None trains on all of them for
    all epochs. metric: by which they are selected; by default accuracy, for multi-label data micro F1. random_state:
    the seed; None draws one.

    After fit: classes_, (C,), labels as in y; for multi-label data the columns of y. model_: the trained model,
    in the formats in which a run stores it; a pickle of the classifier holds these files. For a probe and an adapter
    they do not include the encoder, which has to be where it was at fit. selected_epoch_: counted from 1, None for a
    strategy without epochs. There are no features, hence no n_features_in_.
    sample_weight is not supported; against class imbalance there are class_weights and sampling of the recipe.
    """

    def __init__(
        self,
        strategy: str | StrategyConfig = "lora",
        model: str = DEFAULT_MODEL,
        *,
        epochs: int = 3,
        batch_size: int = 16,
        max_length: int = 128,
        recipe: dict[str, Any] | None = None,
        validation_fraction: float | None = 0.1,
        metric: str | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.strategy = strategy
        self.model = model
        self.epochs = epochs
        self.batch_size = batch_size
        self.max_length = max_length
        self.recipe = recipe
        self.validation_fraction = validation_fraction
        self.metric = metric
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Train on texts and their labels.

        X: N texts, as a sequence, array, Series or one column of a DataFrame; pairs of texts as a sequence of pairs or
        two columns. y: labels of any kind, (N,), or for multi-label data 0 and 1, (N, C).
        Raises ConfigError, DataError or ModelError, in one line.
        """
        texts = _texts(X)
        if y is None:
            raise DataError("TextClassifier requires y to be passed, but the target y is None; give one label per text")
        check_consistent_length(texts["text"], y)
        # as arrays of scikit-learn: the classes, and ids (N,) or 0 and 1 (N, C)
        self.classes_, labels = _classes_and_ids(y)
        self._y_dtype = np.asarray(y).dtype if labels.ndim == 2 else self.classes_.dtype
        seed = self._seed()
        dataset = self._dataset(texts, labels, seed)
        spec = self._run_spec(dataset, seed)
        with torch.random.fork_rng(devices=[]):  # a fit seeds torch's generator
            fitted = fit(spec, dataset, CachedInputs())
        self.selected_epoch_ = fitted.trained.best_epoch if fitted.trained else None
        self.model_ = _saved(fitted, spec, dataset)
        prune()
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each text, (N,); for multi-label data 0 and 1, (N, C)."""
        probabilities = self.predict_proba(X)
        labels = self.model_.classifier.labels_from(probabilities)
        return labels.astype(self._y_dtype) if labels.ndim == 2 else self.classes_[labels]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, or of each label of multi-label data. (N, C)."""
        check_is_fitted(self)
        return self.model_.classifier.predict_proba(_texts(X))

    def decision_function(self, X: Any) -> np.ndarray:
        """Return log odds, (N,), above 0 for the second of two classes; of more classes log probabilities, (N, C).

        For multi-label data, (N, C): log odds above those of the label's threshold, so that above 0 it is predicted.
        """
        probabilities = self.predict_proba(X)
        if self.model_.saved.is_multilabel:
            thresholds = np.array(self.model_.saved.thresholds or [0.5] * len(self.classes_))
            highest = 1 - np.finfo(np.float64).epsneg
            return logit(probabilities.clip(_TINY, highest)) - logit(thresholds.clip(_TINY, highest))
        logs = np.log(probabilities.clip(min=_TINY))
        return logs[:, 1] - logs[:, 0] if len(self.classes_) == 2 else logs

    def save(self, folder: str | Path) -> None:
        """Write the trained model into a new folder, which tuneoff.load and other libraries read."""
        check_is_fitted(self)
        self.model_.write(Path(folder))

    def __sklearn_tags__(self) -> "Tags":
        """Tell scikit-learn that X is texts."""
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array, tags.input_tags.two_d_array, tags.input_tags.string = True, False, True
        assert tags.classifier_tags is not None
        tags.classifier_tags.multi_label = True
        return tags

    def _seed(self) -> int:
        if isinstance(self.random_state, (int, np.integer)) and not isinstance(self.random_state, bool):
            if self.random_state < 0:
                raise ConfigError(f"random_state {self.random_state} is negative; give 0 or more")
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _dataset(self, texts: pa.Table, labels: np.ndarray, seed: int) -> Dataset:
        """Divide the examples into train and validation. labels: (N,) ids or (N, C) of 0 and 1."""
        column = pa.array(labels) if labels.ndim == 1 else _indicator_column(labels)
        table, fraction = texts.append_column("label", column), self.validation_fraction
        splits = {"train": table}
        if fraction is not None:
            if not 0 < fraction < 1:
                raise ConfigError(
                    f"validation_fraction {fraction} is not between 0 and 1; give e.g. 0.1, or None for no validation"
                )
            strata = strata_of(table)
            num_strata = len(np.unique(strata))
            # as a study holds out validation
            rng = np.random.default_rng([seed, SPLITS.index("validation")])
            held_out, rest = stratified_split(strata, max(num_strata, round(fraction * len(strata))), rng)
            if len(held_out) == 0:
                raise DataError(
                    f"n_samples = {len(strata)} of {num_strata} classes are too few to hold out validation examples; "
                    "give more, or validation_fraction=None"
                )
            splits = {"train": table.take(rest), "validation": table.take(held_out)}
        names = tuple(map(str, self.classes_))
        parts = [fingerprint(split, part) for split, part in splits.items()]
        return Dataset("data", splits, names, (), fingerprint(*parts, list(names)))

    def _run_spec(self, dataset: Dataset, seed: int) -> RunSpec:
        strategy = parse_strategy(self.strategy)
        options = {"epochs": self.epochs, "batch_size": self.batch_size, "max_length": self.max_length}
        twice = sorted(options.keys() & (self.recipe or {}).keys())
        if twice:
            raise ConfigError(f"recipe has {twice[0]!r}, which is a parameter of its own; leave it out of recipe")
        recipe = recipe_of(strategy, validated(Recipe, {**options, **(self.recipe or {})}, "recipe"))
        roles = metric_options(dataset.label_names, dataset.is_multilabel)
        has_validation = "validation" in dataset.splits
        if not has_validation and strategy.num_fits > 1:
            raise ConfigError(
                f"{strategy.name} selects one of {strategy.num_fits} values on validation; give one value "
                "(probe:C=0.1), or a validation_fraction"
            )
        uses_encoder = STRATEGIES[strategy.name].uses_encoder
        if uses_encoder:
            check_length(self.model, recipe.max_length)
        return RunSpec(
            strategy=strategy,
            model=self.model if uses_encoder else None,
            model_fingerprint=start_fingerprint(self.model, dataset.label_names) if uses_encoder else None,
            data_fingerprint=dataset.fingerprint,
            recipe=recipe,
            metric=metric_for(self.metric and check_metric(self.metric), roles),
            positive=roles.positive_name or None,
            seed=seed,
            final=None if has_validation else Final(),
        )


class FittedModel:
    """A trained model: the files that a run stores of it. What is loaded from them is not pickled."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files  # path within the model's folder -> content

    @functools.cached_property
    def classifier(self) -> Classifier:
        """The model, ready to predict."""
        # Windows does not remove files that are still mapped into memory
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            self._write_into(Path(folder))
            return load_classifier([Path(folder)])

    @property
    def saved(self) -> SavedModel:
        """Its description."""
        return self.classifier.saved

    def write(self, folder: Path) -> None:
        """Write the files into a new folder. Raises ConfigError if it exists and is not empty."""
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{str(folder)!r} exists; give a folder that does not")
        folder.mkdir(parents=True, exist_ok=True)
        self._write_into(folder)

    def _write_into(self, folder: Path) -> None:
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files}


def _saved(fitted: Fitted, spec: RunSpec, dataset: Dataset) -> FittedModel:
    """Return a fitted strategy as the files that a run stores of it."""
    saved = SavedModel(
        run_id=spec.run_id,
        repeat=spec.repeat,
        strategy=spec.config,
        model=spec.model,
        model_fingerprint=spec.model_fingerprint,
        label_names=dataset.label_names,
        is_multilabel=dataset.is_multilabel,
        is_pair=dataset.is_pair,
        truncation=spec.recipe.truncation,
        thresholds=None if fitted.thresholds is None else tuple(fitted.thresholds.tolist()),
    )
    with tempfile.TemporaryDirectory() as name, quiet():
        folder = Path(name)
        fitted.save(folder)
        saved.write(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return FittedModel({path.relative_to(folder).as_posix(): path.read_bytes() for path in files})


def _texts(X: Any) -> pa.Table:
    """Return texts, or pairs of texts, as an Arrow table. Raises DataError or ConfigError, in one line."""
    if issparse(X):
        raise DataError("X is a sparse matrix; give texts")
    if hasattr(X, "columns") and hasattr(X, "to_numpy"):  # a DataFrame, whose iteration would give its columns' names
        names = list(map(str, X.columns))
        if len(names) != 1 and detect_text_columns({name.lower(): name for name in names})[1] is None:
            raise DataError(
                f"X has the columns {join_limited(names)}; give one column of texts, or for pairs two "
                "named text and text_pair, premise and hypothesis, ..."
            )
        X = X.to_numpy()
    if not hasattr(X, "__len__") and hasattr(X, "__array__"):
        X = np.asarray(X)
    if isinstance(X, np.ndarray) and X.ndim != 1:
        if X.ndim != 2 or X.shape[1] not in (1, 2):
            raise DataError(
                f"X has shape {X.shape}; Reshape your data: (N,) or (N, 1) for texts, (N, 2) for pairs of texts"
            )
        X = X[:, 0] if X.shape[1] == 1 else list(map(tuple, X))
    if isinstance(X, pa.Table):
        return as_texts(X, "text_pair" in X.column_names)
    first = next(iter(X), None) if hasattr(X, "__len__") and hasattr(X, "__iter__") else None
    return as_texts(X, isinstance(first, (tuple, list)))


def _classes_and_ids(y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes, (C,), and ids, (N,); for multi-label data the numbers of the columns, and 0 and 1, (N, C)."""
    try:
        check_classification_targets(y)
        if type_of_target(y) == "multilabel-indicator":
            indicators = y.toarray() if issparse(y) else np.asarray(y)
            _check_indicators(indicators)
            return np.arange(indicators.shape[1]), indicators.astype(np.uint8)
        classes, ids = np.unique(column_or_1d(y, warn=True), return_inverse=True)
    except (TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"y cannot be used as labels: {one_line(error)}") from error
    if len(classes) < 2:
        only = f"one class only, {str(classes[0])!r}" if len(classes) else "no labels"
        raise DataError(f"y has {only}; a classifier needs at least two classes")
    return classes, ids.astype(np.int64)


def _check_indicators(indicators: np.ndarray) -> None:
    """Raise DataError for a label that no example has. indicators: (N, C)."""
    absent = np.flatnonzero(indicators.sum(0) == 0)
    if len(absent):
        raise DataError(f"y has no example of label {absent[0]}; every label needs some: leave out its column")


def _indicator_column(indicators: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(indicators.ravel()), indicators.shape[1])
