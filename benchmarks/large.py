"""Data larger than usual: seconds and memory of inspect, of training a part of an epoch and of predict, by rows.

python benchmarks/large.py reviews.parquet --rows 100000,1000000,10000000

Rows are pairs of sentences of real reviews, drawn at random, so that most are distinct; they are a Parquet file, and
validation and test 1,000 rows each. Every stage is a command of its own, as a user would type it. Memory is the largest
sum over its processes, read five times a second: `own` is what the system cannot take back (RssAnon), `mapped` the
pages of files that it can (RssFile).
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet

_STEPS = 50
_BLOCK = 50_000
STAGES = ("inspect", "train", "predict")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reviews", type=Path, help="a Parquet file with columns text and label, e.g. of IMDb")
    parser.add_argument("--rows", default="100000,1000000")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    figures = []
    print(f"{'rows':>12}{'stage':>10}{'seconds':>10}{'rows/s':>10}{'own MiB':>10}{'mapped MiB':>12}")
    for size in map(int, options.rows.split(",")):
        with tempfile.TemporaryDirectory() as place:
            os.environ["TUNEOFF_CACHE"] = f"{place}/cache"
            write_data(options.reviews, size, Path(place, "data"))
            for stage in options.stages:
                figure = {"rows": size, "stage": stage, **measure(command(stage, Path(place)), Path(place, stage))}
                figures.append(figure)
                line = f"{size:>12,}{stage:>10}{figure['seconds']:>10.0f}{size / figure['seconds']:>10,.0f}"
                print(f"{line}{figure['own'] / 2**20:>10,.0f}{figure['mapped'] / 2**20:>12,.0f}", flush=True)
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1))


def command(stage: str, place: Path) -> list[str]:
    """Return the command of a stage."""
    arguments = {
        "inspect": ["inspect", "data"],
        "train": ["run", "full.yaml"],
        # a model that costs little, so that reading and writing are what is measured
        "predict": ["predict", "results/small", "data/train.parquet", "--out", "predicted.parquet"],
    }
    # without baselines: TF-IDF holds all texts in memory
    study = {"data": {"source": "data"}, "baselines": False, "seeds": 1, "search": None}
    full = {
        **study,
        "name": "full",
        "strategies": ["full"],
        "model": "packaged:minilm",
        "recipe": {"max_steps": _STEPS},
    }
    small = {**study, "name": "small", "strategies": ["tfidf"], "data": {"source": "data", "limits": {"train": 5000}}}
    for name, spec in (("full", full), ("small", small)):
        (place / f"{name}.yaml").write_text(json.dumps(spec))
    if stage == "predict":
        words = [sys.executable, "-m", "tuneoff", "run", "small.yaml"]
        subprocess.run(words, cwd=place, check=True, capture_output=True)
    return [sys.executable, "-m", "tuneoff", *arguments[stage]]


def write_data(reviews: Path, count: int, folder: Path) -> None:
    """Write train with a number of rows, and validation and test with 1,000."""
    table = pyarrow.parquet.read_table(reviews, columns=["text", "label"])
    sentences, labels = [], []
    for text, label in zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True):
        found = [s for s in re.split(r"(?<=[.!?])\s+", text) if 20 < len(s) < 300]
        sentences += found
        labels += [label] * len(found)
    rng, texts, of_text = np.random.default_rng(0), np.array(sentences, object), np.array(labels)
    folder.mkdir()
    for split, rows in (("train", count), ("validation", 1000), ("test", 1000)):
        schema = pa.schema({"text": pa.string(), "label": pa.int64()})
        with pyarrow.parquet.ParquetWriter(folder / f"{split}.parquet", schema) as writer:
            for start in range(0, rows, _BLOCK):
                first, second = rng.integers(len(texts), size=(2, min(_BLOCK, rows - start)))
                writer.write_table(pa.table([texts[first] + " " + texts[second], of_text[first]], schema=schema))


def measure(words: list[str], log: Path) -> dict[str, float]:
    """Run a command. Returns its seconds, and the largest memory of its processes in bytes."""
    largest, is_over = {"own": 0, "mapped": 0}, threading.Event()
    started = time.perf_counter()
    with open(log, "w") as output:
        process = subprocess.Popen(words, cwd=log.parent, stdout=output, stderr=subprocess.STDOUT)

        def watch() -> None:
            while not is_over.wait(0.2):
                own, mapped = memory_of(process.pid)
                largest.update(own=max(own, largest["own"]), mapped=max(mapped, largest["mapped"]))

        watcher = threading.Thread(target=watch)
        watcher.start()
        code = process.wait()
        is_over.set()
        watcher.join()
    if code:
        sys.exit(f"{' '.join(words[2:])} ended with {code}:\n{log.read_text()[-3000:]}")
    return {"seconds": time.perf_counter() - started, **largest}


def memory_of(pid: int) -> tuple[int, int]:
    """Return the anonymous and the mapped memory of a process and its children, in bytes."""
    own = mapped = 0
    try:
        processes = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return 0, 0
    for number in processes:
        try:
            status = Path(f"/proc/{number}/status").read_text()
        except OSError:
            continue
        fields = dict(re.findall(r"^(RssAnon|RssFile):\s+(\d+) kB", status, re.MULTILINE))
        own += 1024 * int(fields.get("RssAnon", 0))
        mapped += 1024 * int(fields.get("RssFile", 0))
    return own, mapped


if __name__ == "__main__":
    main()
