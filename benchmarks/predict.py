"""Throughput of `tuneoff predict` beside transformers' pipeline and transformers at its best setting; memory.

All three classify the same texts with the same model, from raw texts to labels, in this process and with the same
threads, in turns. The weights do not matter for speed: the head is random.

- pipeline: pipeline("text-classification", batch_size=32), as most people use it.
- best: transformers with everything that helps: texts sorted by length, batches padded to their longest text, sdpa
  attention, inference mode, the fastest of several batch sizes (found on a part of the texts first).
- tuneoff: Classifier.predict_proba, which `tuneoff predict` calls for each batch of rows.

`--rows N` predicts a CSV file of N rows by the command itself, and prints its largest memory use.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from tuneoff.data.load import load_dataset
from tuneoff.data.spec import DataSpec, TruncationPolicy
from tuneoff.data.stream import table_writer
from tuneoff.deliver.classifier import load_classifier
from tuneoff.deliver.saved import SavedModel
from tuneoff.encoder.config import load_tokenizer, model_fingerprint
from tuneoff.encoder.load import load_model

MAX_LENGTH = 128
BATCH_SIZES = (8, 16, 32, 64, 128)


def save_model(encoder: str, folder: Path) -> None:
    """Save an encoder with a random head as a run saves it."""
    names = ("negative", "positive")
    model = load_model(encoder, names, seed=0)
    model.set_attn_implementation("sdpa")
    model.save_pretrained(folder)
    load_tokenizer(encoder).save_pretrained(folder)
    SavedModel(
        run_id="speed", repeat="seed 0", strategy="full", model=encoder, model_fingerprint=model_fingerprint(encoder),
        label_names=names, is_multilabel=False, is_pair=False, truncation=TruncationPolicy(MAX_LENGTH),
    ).write(folder)  # fmt: skip


class Best:
    """transformers with sorted texts and dynamic padding."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="sdpa").eval()
        self.batch_size = 32

    def __call__(self, texts: list[str]) -> np.ndarray:
        encoded = self.tokenizer(texts, truncation=True, max_length=MAX_LENGTH, padding=False)
        order = np.argsort([-len(ids) for ids in encoded["input_ids"]], kind="stable")
        probabilities = np.empty((len(texts), 2), np.float32)
        with torch.inference_mode():
            for start in range(0, len(order), self.batch_size):
                rows = order[start : start + self.batch_size]
                batch = self.tokenizer.pad(
                    {name: [encoded[name][row] for row in rows] for name in encoded}, return_tensors="pt"
                )
                probabilities[rows] = self.model(**batch).logits.softmax(-1).numpy()
        return probabilities

    def tune(self, texts: list[str]) -> None:
        """Choose the fastest batch size."""
        seconds = {}
        for size in BATCH_SIZES:
            self.batch_size = size
            self(texts[:32])
            seconds[size] = timed(lambda: self(texts))[0]
        self.batch_size = min(seconds, key=lambda size: seconds[size])


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that a call takes, and its result."""
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def compare(encoder: str, num_texts: int, repeats: int) -> None:
    """Print the throughput of each way."""
    table = load_dataset(DataSpec(source="packaged:rotten-tomatoes", limits={"train": num_texts})).splits["train"]
    texts = table["text"].to_pylist()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(encoder, folder)
        classifier, best = load_classifier([folder]), Best(folder)
        classify = pipeline("text-classification", model=str(folder), batch_size=32, device="cpu")
        best.tune(texts[:512])
        ways: dict[str, Callable[[], Any]] = {
            "pipeline, batch_size=32": lambda: np.array(
                [
                    [1 - row["score"], row["score"]] if row["label"] == "positive" else [row["score"], 1 - row["score"]]
                    for row in classify(texts, truncation=True, max_length=MAX_LENGTH)
                ]
            ),
            f"transformers at its best, batches of {best.batch_size}": lambda: best(texts),
            "tuneoff": lambda: classifier.predict_proba(texts),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        results = {}
        for _ in range(repeats):
            for way, call in ways.items():
                spent, results[way] = timed(call)
                seconds[way].append(spent)
    reference = results["pipeline, batch_size=32"]
    first = median(seconds["pipeline, batch_size=32"])
    print(f"{len(texts):,} texts, {encoder}, {torch.get_num_threads()} threads, {repeats} repeats, medians")
    print("| way | seconds | texts a second | times the pipeline | largest difference |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for way, spent in seconds.items():
        ratio, gap = first / median(spent), float(np.abs(results[way] - reference).max())
        print(f"| {way} | {median(spent):.2f} | {len(texts) / median(spent):,.0f} | {ratio:.2f} | {gap:.1e} |")


def stream(encoder: str, num_rows: int) -> None:
    """Predict a CSV file of many rows by the command, and print its time and memory."""
    table = load_dataset(DataSpec(source="packaged:rotten-tomatoes")).splits["train"].select(["text"])
    with tempfile.TemporaryDirectory() as name:
        model, rows = Path(name) / "model", Path(name) / "rows.csv"
        model.mkdir()
        save_model(encoder, model)
        with table_writer(str(rows), "csv") as writer:
            for start in range(0, num_rows, table.num_rows):
                writer.write(table.slice(0, min(table.num_rows, num_rows - start)))
        command = [
            sys.executable,
            "-m",
            "tuneoff",
            "predict",
            str(model),
            str(rows),
            "--out",
            str(Path(name) / "out.parquet"),
        ]
        seconds, done = timed(lambda: subprocess.run(command, capture_output=True, text=True, check=True))
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(done.stdout.strip())
        print(f"{num_rows:,} rows, {rows.stat().st_size / 2**20:.0f} MiB: {seconds:.1f} s, at most {peak:.0f} MiB")


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="packaged:minilm")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, help="predict a file of so many rows instead")
    arguments = parser.parse_args()
    if arguments.rows:
        stream(arguments.encoder, arguments.rows)
    else:
        compare(arguments.encoder, arguments.texts, arguments.repeats)


if __name__ == "__main__":
    main()
