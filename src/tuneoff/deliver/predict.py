"""Predict the texts of a file of any size, batch by batch.

The output has the columns of the input, then `predicted`, `confidence` (the probability of the predicted class) and one
probability for each class. Rows that cannot be classified keep their place, without a prediction.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tuneoff.data.stream import PLAIN_TSV, BadRows, decoded, format_of, table_writer
from tuneoff.deliver.classifier import Classifier
from tuneoff.deliver.saved import SavedModel
from tuneoff.deliver.texts import TextBatch, TextColumns, read_texts
from tuneoff.errors import ConfigError, DataError

# labels that submissions to GLUE hold as names (MNLI, QNLI, RTE); SST-2, CoLA, MRPC, QQP and WNLI have ids
_GLUE_NAMES = frozenset({"entailment", "not_entailment", "neutral", "contradiction"})
GLUE = "glue"  # output format: a TSV file with the columns index and prediction


@dataclass
class Predicted:
    """What became of the rows of a file."""

    rows: int = 0
    answered: int = 0  # rows with a prediction
    unsure: int = 0  # rows whose confidence was too low
    seconds: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)  # predicted label -> rows
    bad: BadRows = field(default_factory=BadRows)


@dataclass(frozen=True)
class Output:
    """What to write for each row."""

    format: str | None = None  # csv, tsv, jsonl, parquet or glue; by the name of the file
    prefix: str = ""  # of the new columns
    has_texts: bool = True  # write the texts of the input too
    min_confidence: float | None = None  # predict nothing below it

    def __post_init__(self) -> None:
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise ConfigError(f"min_confidence {self.min_confidence:g} is not from 0 to 1; write 0.9 for 90 %")


def predict_file(
    classifier: Classifier,
    source: str,
    target: str,
    columns: TextColumns | None = None,
    output: Output | None = None,
    input_format: str | None = None,
    on_progress: Callable[[int], None] = lambda rows: None,
) -> Predicted:
    """Predict the texts of a file and write another one; "-" stands for standard input and output.

    input_format: by the name of the file. on_progress: called with the number of rows so far.
    Raises DataError, ConfigError or StoreError, in one line; then there is no output file.
    """
    output, columns = output or Output(), replace(columns or TextColumns(), is_pair=classifier.saved.is_pair)
    if output.min_confidence is not None and classifier.saved.is_multilabel:
        raise ConfigError("min_confidence is for one label per text; of several labels, each has its own threshold")
    is_glue = output.format == GLUE
    target_format = PLAIN_TSV if is_glue else format_of(target, output.format)
    done, started = Predicted(), time.perf_counter()
    with table_writer(target, target_format) as writer:
        for texts in read_texts(source, format_of(source, input_format), columns, done.bad):
            predictions = _predictions(classifier, texts, output, done)
            writer.write(
                _as_glue(texts, predictions, classifier.saved) if is_glue else _joined(texts, predictions, output)
            )
            done.rows += texts.batch.num_rows
            on_progress(done.rows)
    done.seconds = time.perf_counter() - started
    return done


@dataclass(frozen=True)
class _Predictions:
    """Predictions of the rows of a batch; null for those without one."""

    predicted: pa.Array  # of strings, or for multi-label data of lists
    confidence: pa.Array | None  # None for multi-label data
    probabilities: dict[str, pa.Array]  # by class


def _predictions(classifier: Classifier, texts: TextBatch, output: Output, done: Predicted) -> _Predictions:
    saved, names = classifier.saved, classifier.saved.label_names
    probabilities = classifier.predict_proba(texts.table)
    labels = classifier.labels_from(probabilities)
    # of several labels it is not used
    confidence = probabilities[np.arange(len(labels)), labels] if labels.ndim == 1 else probabilities.max(1, initial=0)
    is_sure = confidence >= (output.min_confidence or 0)
    chosen: list[list[str] | None] = [None] * texts.batch.num_rows
    for row, label in zip(texts.rows[is_sure], labels[is_sure], strict=True):
        chosen[row] = [names[index] for index in np.flatnonzero(label)] if saved.is_multilabel else [names[label]]
        done.counts.update(chosen[row])
    done.answered += int(is_sure.sum())
    done.unsure += int((~is_sure).sum())
    single = [None if labels is None else labels[0] for labels in chosen] if not saved.is_multilabel else []
    return _Predictions(
        pa.array(chosen, pa.list_(pa.string())) if saved.is_multilabel else pa.array(single, pa.string()),
        None if saved.is_multilabel else texts.at_rows(confidence),
        {name: texts.at_rows(column) for name, column in zip(names, probabilities.T, strict=True)},
    )


def _joined(texts: TextBatch, predictions: _Predictions, output: Output) -> pa.Table:
    """Return the columns of a batch with those of its predictions."""
    left_out = () if output.has_texts else texts.names
    columns = {name: decoded(texts.batch[name])[0] for name in texts.batch.column_names if name not in left_out}
    new: dict[str, pa.Array] = {"predicted": predictions.predicted}
    if predictions.confidence is not None:
        new["confidence"] = predictions.confidence
    new |= {f"p_{name}": column for name, column in predictions.probabilities.items()}
    new = {f"{output.prefix}{name}": column for name, column in new.items()}
    present = [name for name in new if name in columns]
    if present:
        raise DataError(f"the data has a column {present[0]!r} already; name the new ones differently with --prefix")
    return pa.table(columns | new)


def _as_glue(texts: TextBatch, predictions: _Predictions, saved: SavedModel) -> pa.Table:
    """Return the columns of a submission to GLUE: index and prediction, a label's id unless GLUE has names for it."""
    index = next((name for name in ("index", "idx") if name in texts.batch.column_names), None)
    rows = pa.array(range(texts.start, texts.start + texts.batch.num_rows))
    labels = predictions.predicted
    if not saved.is_multilabel and not _GLUE_NAMES.issuperset(saved.label_names):
        labels = pc.index_in(labels, pa.array(saved.label_names))
    return pa.table({"index": rows if index is None else texts.batch[index], "prediction": labels})
