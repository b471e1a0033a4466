"""Review of labels: a ranked list of doubtful ones as a CSV file with a column to correct.

The probabilities are those of a probe on the frozen encoder's vectors, which are cached as for the strategy probe, or
of TF-IDF; both cross-fitted (data/doctor/noise.py). --corrections applies the reviewed file (data/corrections.py).

# N examples  H hidden
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from tuneoff.data.corrections import TEXT_LENGTH
from tuneoff.data.dataset import ROW, SOURCE_SPLIT, Dataset
from tuneoff.data.doctor.finding import Finding
from tuneoff.data.doctor.noise import doubtful_labels, noise_findings, tfidf_features
from tuneoff.data.spec import TruncationPolicy
from tuneoff.data.tokens import tokenize_split
from tuneoff.errors import ConfigError, DataError, unknown
from tuneoff.formats import shorten
from tuneoff.tables import COUNT, LONG_TEXT, SCORE, TEXT, Column, Table, write_csv

BY = ("encoder", "tfidf")
_ENCODER_BELOW = 20_000  # examples; an encoder reads more in minutes, TF-IDF in seconds
# examples times classes, so that the classifiers take minutes at most for any data: 13,000 examples of 151 classes
_MAX_CELLS, _MAX_EXAMPLES = 2_000_000, 50_000
_MAX_LENGTH = 128  # tokens, as in a study by default
# shares of a sample that the splits may take: labels that decide are reviewed first
_SHARES = {"test": 0.5, "validation": 0.25, "train": 1.0}
_USED_AS = "used_as"


@dataclass(frozen=True)
class Review:
    """Doubtful labels of a dataset, worst first."""

    table: Table
    findings: list[Finding]
    by: str  # a value of BY
    examples: int  # that were examined
    total: int

    def write(self, path: Path) -> None:
        """Write the table as CSV, in which no text is a formula of a spreadsheet."""
        write_csv(self.table, path)


def review_labels(dataset: Dataset, model: str, by: str | None = None, seed: int = 0) -> Review:
    """List the doubtful labels of all splits. dataset: loaded with keeps_rows.

    by: vectors of the encoder, or TF-IDF; None chooses TF-IDF for many examples. Raises an error for
    multi-label data and for an unknown way.
    """
    if by is not None and by not in BY:
        raise ConfigError(unknown("--review-by", by, BY))
    if dataset.is_multilabel:
        raise DataError("a review needs single labels, and the data is multi-label; leave --review out")
    total = sum(map(dataset.num_examples, dataset.splits))
    examples = _sample(dataset, min(_MAX_EXAMPLES, _MAX_CELLS // dataset.num_labels), np.random.default_rng(seed))
    by = by or ("encoder" if examples.num_rows <= _ENCODER_BELOW else "tfidf")
    texts, labels = _joined(examples), examples["label"].to_numpy()
    features = tfidf_features(texts) if by == "tfidf" else _vectors(examples, dataset, model)
    doubtful, accuracy = doubtful_labels(features, labels, texts, dataset.num_labels)
    splits = np.array(examples[_USED_AS].to_pylist(), object)
    advice = "correct them in the file of --review and apply it with --corrections"
    findings = noise_findings(doubtful["example"].to_numpy(int), accuracy, splits, dataset.scored_split, advice)
    return Review(_table(examples, doubtful, dataset.label_names), findings, by, examples.num_rows, total)


def _sample(dataset: Dataset, limit: int, rng: np.random.Generator) -> pa.Table:
    """Return all examples, or a random part of each split; with the name of their split in a column."""
    columns = [SOURCE_SPLIT, ROW, "text", *(["text_pair"] if dataset.is_pair else []), "label"]
    parts, left = [], limit
    is_whole = sum(map(dataset.num_examples, dataset.splits)) <= limit
    for split in [name for name in _SHARES if name in dataset.splits]:
        table = dataset.splits[split].select(columns)
        if not is_whole:
            count = min(table.num_rows, left if split == "train" else int(_SHARES[split] * limit))
            table = table.take(pa.array(np.sort(rng.choice(table.num_rows, count, replace=False))))
        left -= table.num_rows
        parts.append(table.append_column(_USED_AS, pa.repeat(split, table.num_rows)))
    return pa.concat_tables(parts).combine_chunks()


def _joined(table: pa.Table) -> list[str]:
    texts = table["text"].to_pylist()
    if "text_pair" not in table.column_names:
        return texts
    return [f"{first}\n{second}" for first, second in zip(texts, table["text_pair"].to_pylist(), strict=True)]


def _vectors(examples: pa.Table, dataset: Dataset, model: str) -> np.ndarray:
    """Return the frozen encoder's vectors, the mean over tokens, from the cache. (N, H)."""
    import torch  # takes seconds to import

    from tuneoff.encoder.config import check_token_ids, load_tokenizer
    from tuneoff.encoder.heads import start_fingerprint
    from tuneoff.encoder.load import load_model
    from tuneoff.engine.inputs import embeddings
    from tuneoff.machine import device

    table = tokenize_split(examples, load_tokenizer(model), TruncationPolicy(_MAX_LENGTH))
    loaded = load_model(model, dataset.label_names, seed=0).to(device()).eval()
    check_token_ids(model, table.ids, loaded.config.vocab_size)
    fingerprint = start_fingerprint(model, dataset.label_names)
    return embeddings(loaded, table, "mean", fingerprint, torch.float32)[0].numpy()


def _table(examples: pa.Table, doubtful: pd.DataFrame, names: Sequence[str]) -> Table:
    """Return the list to review; the last column is empty, for the reviewer."""
    is_pair = "text_pair" in examples.column_names
    columns = (
        Column("split", "split", TEXT),
        Column("row", "row", COUNT),
        Column(_USED_AS, "used as", TEXT),
        Column("text", "text", LONG_TEXT),
        *([Column("text_pair", "second text", LONG_TEXT)] if is_pair else []),
        Column("label", "label", TEXT),
        Column("suggested", "suggested", TEXT),
        Column("label_probability", "probability of label", SCORE),
        Column("suggested_probability", "of suggested", SCORE),
        Column("corrected", "corrected", TEXT),
    )
    rows = []
    for line in doubtful.to_dict("records"):
        example = {name: examples[name][int(line["example"])].as_py() for name in examples.column_names}
        texts = [shorten(example[name], TEXT_LENGTH) for name in ("text", *(["text_pair"] if is_pair else []))]
        places = [example[SOURCE_SPLIT], example[ROW], example[_USED_AS]]
        likely = [round(line["label_probability"], 4), round(line["likely_probability"], 4)]
        rows.append([*places, *texts, names[int(line["label"])], names[int(line["likely"])], *likely, None])
    return Table("review", columns, rows)
