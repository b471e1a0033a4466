"""Tokenization speed and memory against `datasets.map` with the same fast tokenizer, for up to a million texts.

The texts repeat the training split of Rotten Tomatoes. Each measurement has its own process, with all cores. Seconds
cover tokenization only; memory is the growth of the peak resident size during it.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pyarrow as pa
import pyarrow.parquet

MAX_LENGTH = 128
LIBRARIES = ("tuneoff", "datasets")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="10000,100000,1000000", help="numbers of texts")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts; the largest size runs once")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # library and file of a single measurement
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one)))
        return
    path, figures = Path(tempfile.mkdtemp()) / "texts.parquet", []
    sizes = [int(size) for size in options.rows.split(",")]
    print(f"{'rows':>10}{'Tuneoff':>12}{'rows/s':>10}{'memory':>10}{'datasets.map':>16}{'rows/s':>10}{'ratio':>8}")
    for size in sizes:
        write_texts(size, path)
        repeats = options.repeats if size < max(sizes) or len(sizes) == 1 else 1
        fastest = {}
        for library in LIBRARIES:
            command = [sys.executable, __file__, "--one", library, str(path)]
            runs = [json.loads(subprocess.check_output(command).splitlines()[-1]) for _ in range(repeats)]
            fastest[library] = min(runs, key=lambda run: run["seconds"])
        figures.append({"rows": size, **fastest})
        ours, theirs = (fastest[library] for library in LIBRARIES)
        line = f"{size:>10,}{ours['seconds']:>10.2f} s{size / ours['seconds']:>10,.0f}{ours['bytes'] / 2**20:>6.0f} MiB"
        line += f"{theirs['seconds']:>14.2f} s{size / theirs['seconds']:>10,.0f}"
        print(f"{line}{theirs['seconds'] / ours['seconds']:>8.1f}", flush=True)
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1))


def write_texts(count: int, path: Path) -> None:
    """Write a number of texts with labels to a Parquet file."""
    from tuneoff.data.load import load_dataset
    from tuneoff.data.spec import DataSpec

    table = load_dataset(DataSpec(source="packaged:rotten-tomatoes")).splits["train"].select(["text", "label"])
    indices = pa.array(np.arange(count) % len(table))
    with pyarrow.parquet.ParquetWriter(path, table.schema) as writer:
        for start in range(0, count, 50_000):
            writer.write_table(table.take(indices[start : start + 50_000]))


def measure(library: str, path: str) -> dict[str, float]:
    """Tokenize every text of a file with one of LIBRARIES. Returns seconds, and bytes of memory that it added."""
    os.environ["TUNEOFF_CACHE"] = tempfile.mkdtemp()
    from tuneoff.encoder.config import load_tokenizer

    tokenizer = load_tokenizer("packaged:minilm")
    if library == "tuneoff":
        from tuneoff.data.tokens import tokenize_split

        table = pyarrow.parquet.read_table(path, memory_map=True)
        bytes_before, started = peak_bytes(), time.perf_counter()
        assert len(tokenize_split(table, tokenizer, MAX_LENGTH)) == len(table)
    else:
        import datasets

        datasets.disable_progress_bars()
        dataset = datasets.load_dataset("parquet", data_files=path, cache_dir=tempfile.mkdtemp())["train"]
        bytes_before, started = peak_bytes(), time.perf_counter()
        dataset.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=MAX_LENGTH), batched=True)
    return {"seconds": time.perf_counter() - started, "bytes": peak_bytes() - bytes_before}


def peak_bytes() -> int:
    """Peak resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
