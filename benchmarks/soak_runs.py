"""Many runs of one study: memory, open files and processes after the first fifty and at the end."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

WARM = 50  # runs after which caches and libraries are loaded
GROWTH_BYTES = 32 * 2**20  # more than this in a process is a leak: about 70 kB a run
STRATEGIES = ["full", "lora", "bitfit", "head", "adapter"]


def main() -> None:
    """Run the study, look at its processes twice a second, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="folder of a tiny encoder")
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=25.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        study = {
            "name": "runs",
            "data": {"source": "packaged:rotten-tomatoes", "limits": {"train": 24, "validation": 10, "test": 10}},
            "model": str(Path(args.model).resolve()),
            "baselines": False,
            "strategies": STRATEGIES,
            "seeds": args.runs // len(STRATEGIES),
            "search": "none",
            "recipe": {"epochs": 1, "batch_size": 8, "max_length": 16, "precision": "fp32"},
        }
        (Path(place) / "runs.yaml").write_text(json.dumps(study), encoding="utf-8")
        process = psutil.Popen(
            [sys.executable, "-m", "tuneoff", "run", "runs.yaml", "--quiet"],
            cwd=place,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        done, samples, zombies = watch(process, Path(place) / "results/runs/runs", args.runs, 60 * args.minutes)
        if process.poll() not in (0, None):
            print(process.stderr.read().decode()[-1000:], file=sys.stderr)
        is_over = process.poll() == 0
        if process.poll() is None:
            process.kill()
    wrong, details = judge(samples, zombies)
    details += "" if is_over else "; not done in time"
    print(json.dumps([{"name": "runs of one study", "done": done, "wrong": wrong, "details": details}]))
    sys.exit(bool(wrong))


def watch(
    process: psutil.Popen, folder: Path, runs: int, seconds: float
) -> "tuple[int, list[tuple[int, dict[str, tuple[int, int]]]], int]":
    """Return the number of runs, samples of (runs, process -> bytes and open files), and the most lasting zombies."""
    samples: list[tuple[int, dict[str, tuple[int, int]]]] = []
    done, most_zombies, earlier = 0, 0, set[int]()
    started = time.monotonic()
    while process.poll() is None and time.monotonic() - started < seconds:
        time.sleep(0.5)
        done = len(list(folder.glob("[!.]*"))) if folder.is_dir() else 0
        try:
            worker = next((p for p in process.children() if "tuneoff.execute.worker" in p.cmdline()), None)
            both = {"study": process, **({"worker": worker} if worker else {})}
            now = {name: (memory(p), p.num_fds()) for name, p in both.items()}
            dead = {p.pid for p in process.children(recursive=True) if p.status() == psutil.STATUS_ZOMBIE}
        except psutil.Error:
            continue
        most_zombies, earlier = max(most_zombies, len(dead & earlier)), dead
        if done < runs:  # before the report
            samples.append((done, now))
    return done, samples, most_zombies


def memory(process: psutil.Process) -> int:
    """Return the bytes of a process that it shares with no other."""
    return process.memory_full_info().uss


def judge(samples: "list[tuple[int, dict[str, tuple[int, int]]]]", zombies: int) -> tuple[int, str]:
    """Compare the largest of the tenth of the samples after the warm-up with that of the last tenth."""
    warm = [now for done, now in samples if done >= WARM and "worker" in now]
    if len(warm) < 20:
        return 1, "too few runs to compare"
    part = len(warm) // 10
    wrong, texts = int(zombies > 0), []
    for name in ("study", "worker"):
        (bytes_before, files_before), (bytes_after, files_after) = (
            tuple(max(values) for values in zip(*(now[name] for now in some), strict=True))
            for some in (warm[:part], warm[-part:])
        )
        wrong += (bytes_after - bytes_before > GROWTH_BYTES) + (files_after > files_before)
        texts.append(
            f"{name} {bytes_before / 2**20:.0f} to {bytes_after / 2**20:.0f} MB, {files_before} to {files_after} files"
        )
    return wrong, f"{'; '.join(texts)}; {zombies} zombies"


if __name__ == "__main__":
    main()
