"""Time and memory of the checks of the data, for up to a million texts made from real ones.

Texts are two sentences of the reviews in IMDb's training split, drawn at random, so that most texts are distinct and
many share one sentence. Some are leaks: copies of training texts in test. `--templates` makes texts from a template
instead, of which nearly every two are nearly equal: the worst case. Each measurement has its own process.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pyarrow as pa
import pyarrow.parquet

_SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
_LEAKED = 0.02  # of the test texts
_NUM_CLASSES = 151


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reviews", type=Path, help="a parquet file with a column text of reviews, e.g. of IMDb")
    parser.add_argument("--rows", default="10000,100000", help="numbers of texts")
    parser.add_argument("--templates", action="store_true", help="texts from one template")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # number of texts of a single measurement
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.reviews, options.one, options.templates)))
        return
    print(f"{'rows':>10}{'copies':>12}{'all checks':>12}{'processor':>12}{'memory':>12}  findings")
    for size in map(int, options.rows.split(",")):
        command = [sys.executable, __file__, str(options.reviews), "--one", str(size)]
        command += ["--templates"] if options.templates else []
        figures = json.loads(subprocess.check_output(command).splitlines()[-1])
        line = f"{size:>10,}{figures['copies_seconds']:>10.1f} s{figures['seconds']:>10.1f} s"
        line += f"{figures['cpu_seconds']:>10.1f} s{figures['bytes'] / 2**20:>8.0f} MiB"
        print(f"{line}  {'; '.join(figures['findings'][:3])}", flush=True)


def measure(reviews: Path, count: int, templates: bool) -> dict[str, object]:
    """Examine texts. Returns seconds, the processor's too, and bytes of memory that the checks added."""
    from tuneoff.data.dataset import Dataset
    from tuneoff.data.doctor.checks import examine
    from tuneoff.data.doctor.copies import copies_of

    splits = make_splits(template_texts(count) if templates else sentence_pairs(reviews, count))
    names = tuple(f"class {index}" for index in range(_NUM_CLASSES))
    dataset = Dataset("made", splits, names, (), "f" * 16)
    bytes_before, started, cpu_started = peak_bytes(), time.perf_counter(), time.process_time()
    copies = copies_of(splits)
    copies_seconds = time.perf_counter() - started
    findings = [finding.line for finding in examine(dataset, copies)]
    return {
        "copies_seconds": copies_seconds,
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu_started,
        "bytes": peak_bytes() - bytes_before,
        "findings": findings,
    }


def sentence_pairs(reviews: Path, count: int) -> list[str]:
    """Make texts of two sentences each."""
    texts = pyarrow.parquet.read_table(reviews, columns=["text"])["text"].to_pylist()
    sentences = [s for text in texts for s in re.split(r"(?<=[.!?])\s+", text) if 20 < len(s) < 300]
    drawn = np.random.default_rng(0).integers(len(sentences), size=(count, 2))
    return [f"{sentences[first]} {sentences[second]}" for first, second in drawn]


def template_texts(count: int) -> list[str]:
    """Make texts of one template with a place and a number."""
    shops = ["our shop", "the market", "the kiosk", "her office", "the depot", "the library", "a hall", "the port"]
    numbers = np.random.default_rng(0).integers(10**7, size=count)
    return [
        f"the box number {number} that you ordered from {shops[number % 8]} for a few euros and some cents will be "
        "sent to you by the end of the week as usual, please keep the number until it has arrived at your door"
        for number in numbers
    ]


def make_splits(texts: list[str]) -> dict[str, pa.Table]:
    """Divide texts into splits with random labels; some test texts are copies of training texts in capitals."""
    rng = np.random.default_rng(1)
    ends = np.cumsum([round(share * len(texts)) for share in _SHARES.values()])[:-1]
    parts = {split: part.tolist() for split, part in zip(_SHARES, np.split(np.array(texts, object), ends), strict=True)}
    for number in range(int(_LEAKED * len(parts["test"]))):
        parts["test"][number] = parts["train"][number].upper()
    return {
        split: pa.table(
            {"text": pa.array(part, pa.large_string()), "label": rng.integers(_NUM_CLASSES, size=len(part))}
        )
        for split, part in parts.items()
    }


def peak_bytes() -> int:
    """Peak resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
