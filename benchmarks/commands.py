"""Time from Enter to the answer of each command, and to the first run that computes.

Usage: python benchmarks/commands.py [--repeats 5]. Every command runs in a process of its own, after one warm-up that
fills the file system's cache. `first` is a call without Tuneoff's cache, `again` one with it. The last row is the time
from `tuneoff compare` of 1,000 texts until a worker reports the first progress of a run, with the packaged encoder.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

COMMANDS = {
    "--version": ["--version"],
    "strategies": ["strategies"],
    "studies": ["studies"],
    "doctor": ["doctor"],
    "params": ["params", "distilbert-base-uncased"],
    "inspect, 1,000 rows": ["inspect", "reviews.csv"],
}
TARGETS = {
    "--version": 0.5,
    "strategies": 0.5,
    "studies": 0.5,
    "doctor": 0.5,
    "params": 1.5,
    "inspect, 1,000 rows": 2.5,
}
FIRST_RUN_TARGET = 4.0


def main() -> None:
    """Print a row per command: target, and the median without and with the cache."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        _write_reviews()
        print(f"{'command':24} {'target':>8} {'first':>8} {'again':>8}")
        for name, arguments in COMMANDS.items():
            _seconds(arguments, "warm-up")
            first = statistics.median(_seconds(arguments, f"cache-{name}-{i}") for i in range(repeats))
            again = statistics.median(_seconds(arguments, "warm-up") for _ in range(repeats))
            print(f"{name:24} {TARGETS[name]:7.1f}s {first:7.2f}s {again:7.2f}s", flush=True)
        _seconds_to_first_run("warm-up", 0)
        first = statistics.median(_seconds_to_first_run(f"cache-run-{i}", 2 * i + 1) for i in range(repeats))
        again = statistics.median(_seconds_to_first_run("warm-up", 2 * i + 2) for i in range(repeats))
        print(f"{'first run computes':24} {FIRST_RUN_TARGET:7.1f}s {first:7.2f}s {again:7.2f}s")


def _write_reviews() -> None:
    from tuneoff.data.load import load_dataset
    from tuneoff.data.spec import DataSpec

    train = load_dataset(DataSpec(source="packaged:rotten-tomatoes", limits={"train": 1000})).splits["train"]
    train.to_pandas()[["text", "label"]].to_csv("reviews.csv", index=False)


def _environment(cache: str) -> dict[str, str]:
    return {**os.environ, "TUNEOFF_CACHE": str(Path(cache).absolute()), "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}


def _seconds(arguments: list[str], cache: str) -> float:
    started = time.perf_counter()
    command = [sys.executable, "-m", "tuneoff", *arguments]
    subprocess.run(command, env=_environment(cache), stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def _seconds_to_first_run(cache: str, number: int) -> float:
    """Start a study without searches and wait until one of its runs has used a tenth of a second of its processor."""
    command = [
        sys.executable,
        "-m",
        "tuneoff",
        "compare",
        "reviews.csv",
        "--search",
        "none",
        "--name",
        f"study{number}",
    ]
    started = time.perf_counter()
    with subprocess.Popen(command, env=_environment(cache), stdout=subprocess.DEVNULL) as study:
        process = psutil.Process(study.pid)
        while study.poll() is None:
            time.sleep(0.01)
            # the worker process is the study's child, and its children are runs
            runs = [run for worker in process.children() for run in worker.children()]
            if any(_processor_seconds(run) > 0.1 for run in runs):
                break
        else:
            raise RuntimeError("the study ended before a run computed")
        seconds = time.perf_counter() - started
        study.kill()
    return seconds


def _processor_seconds(process: psutil.Process) -> float:
    try:
        return process.cpu_times().user
    except psutil.NoSuchProcess:
        return 0.0


if __name__ == "__main__":
    main()
