"""Check of an export: a new process reloads it with the target library alone and gives the same probabilities.

# N examples  C classes
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from tuneoff.data.dataset import labels_of
from tuneoff.data.tokens import tokenize_in_memory
from tuneoff.deliver.classifier import joined_texts, load_classifier
from tuneoff.deliver.find import Found
from tuneoff.deliver.layouts import WHOLE, Source
from tuneoff.encoder.config import load_tokenizer
from tuneoff.errors import ExportError, one_line
from tuneoff.formats import shorten, show_control_characters

SCRIPTS = Path(__file__).parent / "checks"
TOLERANCE = 1e-4  # largest accepted difference of a probability in fp32
MAX_EXAMPLES = 1000  # that are compared: plain libraries pad batches, so that all of a large test split take long
_SAMPLES = ("a good film", "it was dull, and far too long", "what do you think?", "the quick brown fox " * 8)


@dataclass(frozen=True)
class Reference:
    """Examples, and the probabilities of the model that an export must reproduce."""

    texts: pa.Table  # columns text, for pairs text_pair
    probabilities: np.ndarray  # (N, C)
    labels: np.ndarray | None  # (N,) or (N, C); None if they are unknown
    numbers: np.ndarray  # (N,) number of each example in its split
    origin: str  # phrase for readers: "the probabilities that the run stored for 1,000 test examples"

    def take(self, rows: np.ndarray, origin: str) -> "Reference":
        """Return some of the examples."""
        labels = None if self.labels is None else self.labels[rows]
        return Reference(self.texts.take(rows), self.probabilities[rows], labels, self.numbers[rows], origin)


def reference(source: Source, run: Found) -> Reference:
    """Return the run's stored test probabilities; where it has none, those that Classifier computes."""
    record = run.runs[0] if run.runs else None
    columns = ["text", "text_pair"] if source.saved.is_pair else ["text"]
    if record is None or run.store is None:
        texts = pa.table({name: pa.array(_SAMPLES, pa.large_string()) for name in columns})
        computed = load_classifier([source.folder], source.encoder).predict_proba(texts)
        origin = f"probabilities that Tuneoff computes for {len(_SAMPLES)} sample texts"
        return Reference(texts, computed, None, np.arange(len(_SAMPLES)), origin)
    table = run.store.test_table()
    if run.is_final or record.spec.get("final"):
        table = table.slice(0, MAX_EXAMPLES)
        computed = load_classifier([source.folder], source.encoder).predict_proba(table)
        origin = f"probabilities that Tuneoff computes for {table.num_rows:,} labelled examples, its training examples"
        return Reference(table.select(columns), computed, labels_of(table), np.arange(table.num_rows), origin)
    stored = run.store.runs.predictions(record.run_id, "test")
    by_class = stored[[f"p{index}" for index in range(len(source.saved.label_names))]].to_numpy()
    rows = stored["example"].to_numpy()
    table = table.take(rows)
    origin = f"probabilities that the run stored for {len(rows):,} test examples"
    return Reference(table.select(columns), by_class, labels_of(table), rows, origin)


def comparable(source: Source, expected: Reference, limit: int = MAX_EXAMPLES) -> Reference:
    """Return the first examples that other libraries tokenize in the same way."""
    rows, policy = np.arange(len(expected.numbers)), source.saved.truncation
    what = ""
    if source.encoder is not None and policy.long_texts in ("head_tail", "windows"):
        tokenizer = load_tokenizer(str(source.folder) if source.layout == WHOLE else source.encoder)
        rows = np.flatnonzero(
            ~tokenize_in_memory(expected.texts, tokenizer, replace(policy, long_texts="head")).is_truncated
        )
        what = f" of at most {policy.max_length} tokens"
        if not len(rows):
            raise ExportError(
                f"nothing can be checked: this format reads {policy.max_length} tokens of a text, and every example "
                "has more; --no-check exports it without the check"
            )
    kept = rows[:limit]
    is_all = len(kept) == len(expected.numbers)
    return expected if is_all else expected.take(kept, f"{expected.origin}, the first {len(kept):,}{what}")


def reloaded(script: str, folder: Path, texts: pa.Table, base: Sequence[str] = ()) -> np.ndarray:
    """Return the probabilities of a folder as a new process computes them with the target library. (N, C)."""
    examples = [list(row) for row in zip(*(column.to_pylist() for column in texts.columns), strict=True)]
    with tempfile.TemporaryDirectory() as name:
        inputs, output = Path(name) / "examples.json", Path(name) / "probabilities.json"
        inputs.write_text(json.dumps(examples), encoding="utf-8")
        command = [sys.executable, "-P", str(SCRIPTS / script), str(folder), str(inputs), str(output), *base]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        ended = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, check=False)
        if ended.returncode != 0:
            reason = (ended.stderr.strip().splitlines() or [f"it ended with code {ended.returncode}"])[-1]
            raise ExportError(f"the export does not load in a new process ({script}): {one_line(reason, 200)}")
        return np.array(json.loads(output.read_text(encoding="utf-8")), np.float64).reshape(len(examples), -1)


def compare(given: np.ndarray, expected: Reference, library: str) -> float:
    """Return the largest difference between probabilities. Raises ExportError that names the first that differs."""
    if given.shape != expected.probabilities.shape:
        num_labels = expected.probabilities.shape[1]
        raise ExportError(f"{library} gives {given.shape[1]} probabilities for a text, but the model has {num_labels}")
    gaps = np.abs(given - expected.probabilities).max(1)
    is_wrong = ~(gaps <= TOLERANCE)  # also for NaN
    if is_wrong.any():
        row = int(is_wrong.argmax())
        text = shorten(show_control_characters(" ".join(joined_texts(expected.texts.slice(row, 1))[0].split())), 60)
        label = int(np.abs(given[row] - expected.probabilities[row]).argmax())
        raise ExportError(
            f"{library} gives other probabilities than the model for {int(is_wrong.sum())} of {len(gaps)} examples; "
            f"first for example {expected.numbers[row]}, {text!r}: {given[row, label]:.5f} instead of "
            f"{expected.probabilities[row, label]:.5f} for label {label}; nothing was exported"
        )
    return float(gaps.max())
