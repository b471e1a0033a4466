"""Encoding texts beside `datasets.map` with the same fast tokenizer, at 10,000, 100,000 and 1,000,000 rows.

Rows are made by repeating the training split of Rotten Tomatoes. Each measurement has a process of its own, both on
all cores; seconds are those of encoding alone, memory is the most that was resident beyond what it was before.
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

LENGTH = 128


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="10000,100000,1000000")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts; the largest size runs once")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(encode(*given.one)))
        return
    folder, found = Path(tempfile.mkdtemp()), []
    sizes = [int(size) for size in given.rows.split(",")]
    print(f"{'rows':>10}{'Tuneoff':>12}{'rows/s':>10}{'memory':>10}{'datasets.map':>16}{'rows/s':>10}{'ratio':>8}")
    for size in sizes:
        write_rows(size, folder / "rows.parquet")
        repeats = given.repeats if size < max(sizes) or len(sizes) == 1 else 1
        best = {}
        for who in ("tuneoff", "datasets"):
            command = [sys.executable, __file__, "--one", who, str(folder / "rows.parquet")]
            runs = [json.loads(subprocess.check_output(command).splitlines()[-1]) for _ in range(repeats)]
            best[who] = min(runs, key=lambda run: run["seconds"])
        found.append({"rows": size, **best})
        ours, theirs = best["tuneoff"], best["datasets"]
        line = f"{size:>10,}{ours['seconds']:>10.2f} s{size / ours['seconds']:>10,.0f}{ours['bytes'] / 2**20:>6.0f} MiB"
        line += f"{theirs['seconds']:>14.2f} s{size / theirs['seconds']:>10,.0f}"
        print(f"{line}{theirs['seconds'] / ours['seconds']:>8.1f}", flush=True)
    if given.out:
        given.out.write_text(json.dumps(found, indent=1))


def write_rows(count: int, path: Path) -> None:
    """So many real texts with labels."""
    from tuneoff.data.dataset import DataSpec
    from tuneoff.data.load import load_dataset

    table = load_dataset(DataSpec(source="packaged:rotten-tomatoes")).splits["train"].select(["text", "label"])
    rows = pa.array(np.arange(count) % len(table))
    with pyarrow.parquet.ParquetWriter(path, table.schema) as writer:
        for start in range(0, count, 50_000):
            writer.write_table(table.take(rows[start : start + 50_000]))


def encode(who: str, path: str) -> dict[str, float]:
    """Encode every row of a file; seconds, and bytes resident at most beyond those before."""
    os.environ["TUNEOFF_CACHE"] = tempfile.mkdtemp()
    from tuneoff.encoder.load import load_tokenizer

    tokenizer = load_tokenizer("packaged:minilm")
    if who == "tuneoff":
        from tuneoff.data.encode import encode_split

        table = pyarrow.parquet.read_table(path, memory_map=True)
        before, started = resident(), time.perf_counter()
        assert len(encode_split(table, tokenizer, LENGTH)) == len(table)
    else:
        import datasets

        datasets.disable_progress_bars()
        rows = datasets.load_dataset("parquet", data_files=path, cache_dir=tempfile.mkdtemp())["train"]
        before, started = resident(), time.perf_counter()
        rows.map(lambda part: tokenizer(part["text"], truncation=True, max_length=LENGTH), batched=True)
    return {"seconds": time.perf_counter() - started, "bytes": resident() - before}


def resident() -> int:
    """The most bytes that this process ever had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
