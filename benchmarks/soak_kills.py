"""Kill a small study at random moments, let it go on, and compare every file of its runs with an undisturbed study."""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pandas as pd

# facts of a run that are times, or hold times and places
TIMES = {"costs", "finished_at", "movement"}
STUDY = {
    "name": "soak",
    "data": {"source": "packaged:rotten-tomatoes", "limits": {"train": 80, "validation": 20, "test": 20}},
    "baselines": False,
    "strategies": ["full", "partial:layers=1", "lora", "bitfit", "adapter", "head", "peft:type=ia3", "probe", "tfidf"],
    "seeds": [0, 1],  # of a smaller study most time would pass at its start and end
    "keep": "all",
    "recipe": {"epochs": 3, "batch_size": 8, "max_length": 32, "precision": "fp32"},
}


def main() -> None:
    """Kill until the number of kills or the time is reached; print one table; exit 1 if a file differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="folder of a tiny encoder")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=25.0)
    args = parser.parse_args()
    random.seed(0)
    kills, differing, compared, studies = 0, Counter[str](), Counter[str](), 0
    deadline = time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        started = time.monotonic()
        start(root / "whole", args.model).wait()
        whole_seconds = time.monotonic() - started
        while kills < args.kills and time.monotonic() < deadline:
            folder, studies = root / f"study{studies}", studies + 1
            is_done = False
            while not is_done:
                study = start(folder, args.model)
                try:
                    # past the time, the study is left to finish
                    is_late = time.monotonic() > deadline
                    is_done = study.wait(600.0 if is_late else random.uniform(0.1, 0.45) * whole_seconds) == 0
                except subprocess.TimeoutExpired:
                    study.kill()
                    study.wait()
                    kills += 1
            for name, is_equal in comparison(root / "whole", folder):
                compared[name] += 1
                differing[name] += not is_equal
    print(f"{'file':32}{'compared':>10}{'differ':>8}")
    for name in sorted(compared):
        print(f"{name:32}{compared[name]:10}{differing[name]:8}")
    details = f"of {studies} studies; {compared.total():,} files compared"
    print(json.dumps([{"name": "kills", "done": kills, "wrong": differing.total(), "details": details}]))
    sys.exit(bool(differing.total()))


def start(folder: Path, model: str) -> "subprocess.Popen[bytes]":
    """Start or continue the study in a folder, with a checkpoint after each tenth of a second."""
    folder.mkdir(exist_ok=True)
    (folder / "soak.yaml").write_text(json.dumps({**STUDY, "model": str(Path(model).resolve())}), encoding="utf-8")
    environment = {**os.environ, "TUNEOFF_CHECKPOINT_SECONDS": "0.1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "tuneoff", "run", "soak.yaml", "--quiet"]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)


def comparison(whole: Path, folder: Path) -> "list[tuple[str, bool]]":
    """Compare every file of every run: bytes; of records and histories, everything but times."""
    compared = []
    expected = sorted((whole / "results/soak/runs").rglob("*"))
    for path in (path for path in expected if path.is_file()):
        other = folder / path.relative_to(whole)
        compared.append((path.name, other.is_file() and content(path) == content(other)))
    extra = [path for path in (folder / "results/soak/runs").iterdir() if path.name.startswith(".")]
    return [*compared, ("left over", not extra)]


def content(path: Path) -> object:
    """Return what has to be equal of a file: its bytes, but for times and what depends on them."""
    if path.name == "run.json":
        record = json.loads(path.read_text(encoding="utf-8"))
        return {name: value for name, value in record.items() if name not in TIMES}
    if path.name == "history.parquet":
        return pd.read_parquet(path).drop(columns="seconds").to_json(double_precision=15)
    if path.name == "checksums.json":
        sums = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {name: value for name, value in sums.items() if name not in ("run.json", "history.parquet")}
    return path.read_bytes()


if __name__ == "__main__":
    main()
