"""A fine-tuned text classifier, ready to use: predict, predict_proba and classes_, as in scikit-learn.

It computes what the training run computed for its final predictions: the same tokens, windows of long texts and
pooling, in fp32 on packed batches, and the thresholds of multi-label data.

# N examples  C classes  H hidden
"""

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.special import expit, softmax

from tuneoff.damage import check_model
from tuneoff.deliver.saved import SavedModel
from tuneoff.errors import ConfigError, DataError, ModelError, StoreError, TuneoffError, one_line
from tuneoff.formats import show_control_characters
from tuneoff.scoring.thresholds import labels_from_probabilities
from tuneoff.strategies import STRATEGIES

# texts that are tokenized and sorted by length at a time: enough to fill batches with texts of similar length, few
# enough for any memory
CHUNK_TEXTS = 8192
# a classifier.skops unpacks to more than both of them only if somebody made it to fill the memory
_UNPACKED_BYTES, _UNPACKED_TIMES = 2**28, 20

Predict = Callable[[pa.Table], np.ndarray]  # columns text, for pairs text_pair -> probabilities (N, C)


class Classifier:
    """Classifies texts with one model, or with the mean probabilities of several (an ensemble of seeds)."""

    def __init__(self, members: Sequence[Predict], saved: SavedModel) -> None:
        self._members, self.saved = members, saved

    @property
    def classes_(self) -> np.ndarray:
        """The names of the labels, in the order of the columns of predict_proba. (C,)."""
        return np.array(self.saved.label_names, dtype=object)

    def predict_proba(self, texts: Any) -> np.ndarray:
        """Return the probability of each class, or of each label of multi-label data. (N, C).

        texts: a sequence of texts, of pairs of texts where the model was trained on pairs, a pandas Series, or a
        DataFrame or Arrow table with the columns text and text_pair. Raises DataError for anything else.
        """
        parts = list(self.probabilities_of_chunks(as_texts(texts, self.saved.is_pair)))
        return np.concatenate([np.empty((0, len(self.saved.label_names))), *parts])

    def predict(self, texts: Any) -> np.ndarray:
        """Return the name of the most probable class of each text, (N,); for multi-label data (N, C) of 0 and 1."""
        labels = self.labels_from(self.predict_proba(texts))
        return labels if self.saved.is_multilabel else self.classes_[labels]

    def labels_from(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the labels that probabilities stand for: (N,) ids, or for multi-label data (N, C) of 0 and 1."""
        thresholds = np.array(self.saved.thresholds) if self.saved.thresholds else None
        if thresholds is None and self.saved.is_multilabel:
            thresholds = np.full(len(self.saved.label_names), 0.5)
        return labels_from_probabilities(probabilities, thresholds)

    def probabilities_of_chunks(self, texts: pa.Table) -> Iterator[np.ndarray]:
        """Yield the probabilities of a table of texts, in chunks of at most CHUNK_TEXTS."""
        for start in range(0, texts.num_rows, CHUNK_TEXTS):
            chunk = texts.slice(start, CHUNK_TEXTS)
            yield np.mean([member(chunk) for member in self._members], axis=0)

    def __repr__(self) -> str:
        saved, names = self.saved, ", ".join(self.saved.label_names)
        where = f" on {saved.model}" if saved.model else ""
        of = f"{len(self._members)} runs" if len(self._members) > 1 else saved.repeat
        return f"<Classifier {saved.strategy.label}{where}, {of}; classes: {names}>"

    def _repr_html_(self) -> str:
        """Return a table for notebooks; names from the data are escaped."""
        saved, num = self.saved, len(self._members)
        rows = {
            "strategy": saved.strategy.label,
            "encoder": saved.model or "none",
            "trained": f"{num} runs, whose probabilities are averaged"
            if num > 1
            else f"{saved.run_id}, {saved.repeat}",
            "labels, any number of them" if saved.is_multilabel else "classes": ", ".join(saved.label_names),
            "reads": f"{'pairs of texts' if saved.is_pair else 'texts'}"
            + (f"; of each {saved.truncation.describe()}" if saved.model else ""),
        }
        cells = "".join(
            f'<tr><th style="text-align: left">{name}</th>'
            f'<td style="text-align: left">{escape(show_control_characters(value))}</td></tr>'
            for name, value in rows.items()
        )
        return f"<table><caption>tuneoff.Classifier</caption>{cells}</table>"


def load_classifier(folders: Sequence[Path], encoder: str | None = None) -> Classifier:
    """Load the models in some folders as one classifier; of several, the probabilities are averaged.

    encoder: place of the pretrained encoder, for a probe or an adapter, if it is not where it was at training.
    Raises StoreError or ModelError, in one line.
    """
    for folder in folders:
        check_model(folder)
    saved = [SavedModel.read(folder) for folder in folders]
    names = {one.label_names for one in saved}
    if len(names) > 1:
        raise StoreError("models with different labels cannot be averaged; choose runs of one study")
    return Classifier([_load(folder, one, encoder) for folder, one in zip(folders, saved, strict=True)], saved[0])


def _load(folder: Path, saved: SavedModel, encoder: str | None) -> Predict:
    if (folder / "model.onnx").is_file():
        raise StoreError(f"{folder} is an ONNX export, which onnxruntime reads (its README.md shows how); load the run")
    kind = STRATEGIES[saved.strategy.name].fits_on
    return {"texts": _load_text_model, "embeddings": _load_probe, "model": _load_model}[kind](folder, saved, encoder)


def _load_text_model(folder: Path, saved: SavedModel, encoder: str | None) -> Predict:
    """Load a scikit-learn pipeline on texts."""
    classifier = read_skops(folder)
    return lambda texts: classifier.predict_proba(joined_texts(texts))


def _load_probe(folder: Path, saved: SavedModel, encoder: str | None) -> Predict:
    """Load a scikit-learn classifier on the embeddings of the frozen encoder."""
    from tuneoff.deliver.embed import Embedder

    classifier, probabilities = read_skops(folder), STRATEGIES[saved.strategy.name].probabilities
    assert probabilities is not None
    embedder = Embedder(verified_encoder(saved, encoder), saved.strategy.pooling, saved.truncation)  # type: ignore[attr-defined]
    return lambda texts: probabilities(classifier, embedder.vectors(texts))


def _load_model(folder: Path, saved: SavedModel, encoder: str | None) -> Predict:
    """Load a transformers model: a whole one, or the pretrained encoder and what the strategy added to it."""
    from tuneoff.data.tokens import tokenize_in_memory
    from tuneoff.encoder.config import check_token_ids, load_tokenizer
    from tuneoff.engine.inputs import SplitInputs, predict_logits

    model = restored_model(folder, saved, encoder)
    tokenizer = load_tokenizer(str(folder) if is_whole(folder) else verified_encoder(saved, encoder))

    def predict(texts: pa.Table) -> np.ndarray:
        table = tokenize_in_memory(texts, tokenizer, saved.truncation)
        check_token_ids(saved.model or str(folder), table.ids, model.config.vocab_size)
        logits = predict_logits(model, SplitInputs(table)).astype(np.float64)
        return expit(logits) if saved.is_multilabel else softmax(logits, axis=1)

    return predict


def restored_model(folder: Path, saved: SavedModel, encoder: str | None = None) -> Any:
    """Return the trained transformers model of a strategy that fits on one, on this machine's device, in fp32."""
    from tuneoff.encoder.load import load_model
    from tuneoff.machine import device

    if is_whole(folder):
        return load_model(str(folder), saved.label_names, seed=0, is_multilabel=saved.is_multilabel).to(device()).eval()
    model = load_model(verified_encoder(saved, encoder), saved.label_names, seed=0, is_multilabel=saved.is_multilabel)
    adapted = STRATEGIES[saved.strategy.name].apply(model, saved.strategy)
    if adapted.load is None:
        raise StoreError(f"folder {str(folder)!r} holds no model.safetensors; restore it, or run the study again")
    try:
        adapted.load(model, folder)
    except TuneoffError:
        raise
    except FileNotFoundError as error:
        raise StoreError(f"{error.filename or folder} is missing; restore it, or run the study again") from error
    except Exception as error:  # safetensors, json, peft and torch raise many types for a damaged file
        raise StoreError(
            f"the weights in {folder} cannot be read ({one_line(error, 200)}); restore them, or run the study again"
        ) from error
    return model.to(device()).eval()


def is_whole(folder: Path) -> bool:
    """Return True if a folder holds a whole transformers model, which needs no pretrained encoder besides."""
    return (folder / "model.safetensors").is_file()


def verified_encoder(saved: SavedModel, encoder: str | None) -> str:
    """Return the name of the pretrained encoder, if its weights are those of the training run."""
    from tuneoff.encoder.heads import start_fingerprint

    name = encoder or saved.model
    assert name is not None
    if start_fingerprint(name, saved.label_names) != saved.model_fingerprint:
        raise ModelError(
            f"encoder {name!r} has other weights than the one that {saved.run_id} was trained on; give that one "
            "(--encoder FOLDER, or encoder=...)"
        )
    return name


def read_skops(folder: Path) -> Any:
    """Read a scikit-learn model without running code from it. Raises StoreError, in one line."""
    import skops.io

    file = folder / "classifier.skops"
    if not file.is_file():
        raise StoreError(f"{file} is missing; restore it, or run the study again")
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > max(_UNPACKED_BYTES, _UNPACKED_TIMES * file.stat().st_size):
            raise StoreError(f"{file} would unpack to {unpacked:,} bytes, far more than it has; it is not loaded")
        unknown_types = skops.io.get_untrusted_types(file=file)
        if unknown_types:
            raise StoreError(
                f"{file} holds types that no strategy stores ({', '.join(unknown_types)}); it is not loaded"
            )
        return skops.io.load(file)
    except StoreError:
        raise
    except Exception as error:  # skops raises many types for a damaged file
        raise StoreError(f"{file} cannot be read ({one_line(error, 200)})") from error


def joined_texts(texts: pa.Table) -> list[str]:
    """Return one text of each example; the two texts of a pair joined by a line break."""
    columns = [column.to_pylist() for column in texts.columns]
    return columns[0] if len(columns) == 1 else [f"{first}\n{second}" for first, second in zip(*columns, strict=True)]


def as_texts(texts: Any, is_pair: bool) -> pa.Table:
    """Return texts as an Arrow table with the columns text and, for pairs, text_pair. Raises DataError."""
    wanted = ["text", "text_pair"] if is_pair else ["text"]
    if hasattr(texts, "columns") and hasattr(texts, "iloc"):  # a DataFrame, without importing pandas
        texts = pa.Table.from_pandas(texts, preserve_index=False)
    if isinstance(texts, pa.Table):
        return _text_columns(texts, wanted)
    if isinstance(texts, (str, Mapping)) or not hasattr(texts, "__len__") or not hasattr(texts, "__iter__"):
        example = "[(first, second), ...]" if is_pair else "[text, ...]"
        raise ConfigError(f"texts is a {type(texts).__name__}; give a list: {example}")
    rows = [tuple(row) if is_pair and not isinstance(row, str) else (row,) for row in texts]
    wrong = next(
        (i for i, row in enumerate(rows) if len(row) != len(wanted) or not all(isinstance(x, str) for x in row)), None
    )
    if wrong is not None:
        what = "a pair of texts" if is_pair else "a text"
        raise DataError(f"texts[{wrong}] is not {what}, but {texts[wrong]!r:.80}")
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(wanted)
    return pa.table({name: pa.array(column, pa.large_string()) for name, column in zip(wanted, columns, strict=True)})


def _text_columns(table: pa.Table, wanted: list[str]) -> pa.Table:
    """Return the columns with the wanted names, or all columns of a table that has as many."""
    names = wanted if set(wanted) <= set(table.column_names) else table.column_names
    if len(names) != len(wanted):
        missing = next(name for name in wanted if name not in table.column_names)
        raise DataError(f"the table has no column {missing!r}; it has {', '.join(map(str, table.column_names))}")
    wrong = [n for n in names if not (pa.types.is_string(table[n].type) or pa.types.is_large_string(table[n].type))]
    if wrong or any(table[name].null_count for name in names):
        raise DataError(f"column {(wrong or names)[0]!r} holds {'no texts' if wrong else 'missing values'}")
    return pa.table({ours: table[name].cast(pa.large_string()) for ours, name in zip(wanted, names, strict=True)})
