"""Embeddings of texts by a frozen encoder: the vectors that probes are trained on.

# N examples  H hidden
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from tuneoff.data.spec import TruncationPolicy
from tuneoff.data.stream import BadRows, format_of, table_writer
from tuneoff.data.tokens import tokenize_in_memory
from tuneoff.deliver.texts import TextColumns, read_texts
from tuneoff.encoder.config import check_token_ids, load_tokenizer
from tuneoff.encoder.load import load_model
from tuneoff.encoder.packed import POOLINGS
from tuneoff.engine.inputs import pooled_vectors
from tuneoff.errors import ConfigError, DataError, unknown
from tuneoff.machine import device

CHUNK_TEXTS = 8192  # tokenized and sorted by length at a time


class Embedder:
    """A frozen encoder with a pooling and a truncation."""

    def __init__(self, model: str, pooling: str = "mean", truncation: TruncationPolicy | None = None) -> None:
        if pooling not in POOLINGS:
            raise ConfigError(unknown("pooling", pooling, POOLINGS))
        # the head is not used: two labels, as good as any number
        self._model = load_model(model, ("0", "1"), seed=0).to(device()).eval()
        self._tokenizer = load_tokenizer(model)
        self._name = model
        self._pooling, self._truncation = pooling, truncation or TruncationPolicy(128)

    def vectors(self, texts: pa.Table) -> np.ndarray:
        """Return the vector of each text; of a text in windows, the mean over them. (N, H) in fp32."""
        parts = []
        for start in range(0, texts.num_rows, CHUNK_TEXTS):
            table = tokenize_in_memory(texts.slice(start, CHUNK_TEXTS), self._tokenizer, self._truncation)
            check_token_ids(self._name, table.ids, self._model.config.vocab_size)
            parts.append(pooled_vectors(self._model, table, self._pooling))
        return np.concatenate([np.empty((0, self._model.config.hidden_size), np.float32), *parts])


def embed(texts: Any, *, model: str = "packaged:minilm", pooling: str = "mean", max_length: int = 128) -> np.ndarray:
    """Embed texts with a frozen encoder: the vectors that probes of a study are trained on. (N, H) in fp32.

    texts: a sequence of texts, of pairs of texts, or an Arrow table with the columns text and perhaps text_pair.
    model: a folder, packaged:NAME or a hub name. pooling: mean or cls. max_length: tokens; longer texts are truncated.
    """
    from tuneoff.deliver.classifier import as_texts

    if isinstance(texts, pa.Table):
        is_pair = "text_pair" in texts.column_names
    else:
        is_pair = hasattr(texts, "__len__") and len(texts) > 0 and isinstance(next(iter(texts)), (tuple, list))
    return Embedder(model, pooling, TruncationPolicy(max_length)).vectors(as_texts(texts, is_pair))


def embed_file(embedder: Embedder, source: str, target: str, columns: TextColumns) -> int:
    """Embed the texts of a file, batch by batch; return their number. target: an .npy or .parquet file.

    Raises DataError for a row without a text: every vector stands for the row of its number.
    """
    suffix = Path(target).suffix.lower()
    if suffix not in (".npy", ".parquet"):
        raise ConfigError(f"file {Path(target).name!r} ends in {suffix or 'nothing'}; give .npy or .parquet")
    bad, rows = BadRows(), 0
    # a .npy file begins with its shape, which is known at the end: the vectors go to a Parquet file first
    parquet = target if suffix == ".parquet" else f"{target}.unfinished.parquet"
    try:
        with table_writer(parquet, "parquet") as writer:
            for texts in read_texts(source, format_of(source), columns, bad):
                if len(bad):
                    reason, wrong = next(iter(bad.by_reason.items()))
                    raise DataError(
                        f"{len(bad)} rows cannot be embedded, e.g. row {wrong[0]} with {reason}; remove them"
                    )
                vectors = embedder.vectors(texts.table)
                column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
                writer.write(pa.table({"embedding": column}))
                rows += len(vectors)
        if suffix == ".npy":
            _convert_to_npy(Path(parquet), Path(target), rows)
    finally:
        if parquet != target:
            Path(parquet).unlink(missing_ok=True)
    return rows


def _convert_to_npy(parquet: Path, target: Path, rows: int) -> None:
    """Convert a column of vectors to a .npy file without loading it into memory."""
    file = pyarrow.parquet.ParquetFile(parquet)
    size = file.schema_arrow.field("embedding").type.list_size
    unfinished = target.with_name(f".unfinished-{target.name}")
    vectors, start = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.float32, shape=(rows, size)), 0
    for batch in file.iter_batches(CHUNK_TEXTS):
        vectors[start : start + batch.num_rows] = batch["embedding"].flatten().to_numpy().reshape(-1, size)
        start += batch.num_rows
    vectors.flush()
    del vectors
    os.replace(unfinished, target)
