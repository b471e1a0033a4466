"""Seconds from Enter to a verdict, and the loss of its pick against the truth, by Tuneoff and by HF Trainer tuned.

The truth is a study of all strategies with five seeds on a large test split, of which the decisions see nothing: the
examples of test, and as many of train, that they do not use. Ways to decide: the default `compare`, `compare --race`,
`compare --time` with each of some times, and a script that does what `compare` does with HF `Trainer` and `peft` tuned,
without a race: four trials, three seeds, the best measured.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from tuneoff.spec.strategy import parse_strategy
from tuneoff.strategies import GradientConfig

STRATEGIES = ("head", "partial", "lora", "full")  # by gradient; compare adds the baselines and a probe
FACTORS = (1.0, 3.0, 1 / 3, 9.0)  # of the default learning rate, one for each trial
HF = "hf"
SPLITS = ("validation", "test")  # by which it decides


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with train.parquet, validation.parquet and test.parquet")
    parser.add_argument("--work", type=Path, required=True, help="folder for the data, the studies and the truth")
    parser.add_argument("--train", type=int, default=1000)
    parser.add_argument("--validation", type=int, default=300)
    parser.add_argument("--test", type=int, default=600)
    parser.add_argument("--truth-seeds", type=int, default=5)
    parser.add_argument("--truth-test", type=int, default=6000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    parser.add_argument("--ways", nargs="*", default=["default", "race", "1m", "3m", "10m", HF])
    parser.add_argument("--hf-process", nargs=2, help=argparse.SUPPRESS)  # internal: the script with Trainer
    options = parser.parse_args()
    if options.hf_process:
        decide_with_trainer(*options.hf_process, options.strategies, options.epochs)
        return
    small, large = write_data(options)
    truth = true_scores(options, large)
    best = max(truth, key=truth.__getitem__)
    rows = []
    for way in options.ways:
        seconds, total, pick = by_trainer(options, small) if way == HF else by_compare(options, small, way)
        loss = 100 * (truth[best] - truth[pick]) if pick in truth else float("nan")
        rows.append({"way": way, "seconds": seconds, "with_report": total, "pick": pick, "loss": loss, "best": best})
        print({k: round(v, 2) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
    (options.work / "verdict_time.json").write_text(json.dumps({"truth": truth, "ways": rows}, indent=1))


def write_data(options: argparse.Namespace) -> tuple[Path, Path]:
    """Draw the splits: with the test examples of the decisions, and with all the others of test for the truth."""
    frames = {split: pd.read_parquet(options.folder / f"{split}.parquet") for split in ("train", "validation", "test")}
    rng = np.random.default_rng(0)
    order = rng.permutation(len(frames["test"]))
    splits = {
        "train": frames["train"].sample(options.train, random_state=0),
        "validation": frames["validation"].sample(options.validation, random_state=0),
    }
    more = frames["train"].drop(splits["train"].index).sample(frac=1, random_state=0)  # stored by label
    unused = pd.concat([frames["test"].iloc[order[options.test :]], more])
    tests = {"small": frames["test"].iloc[order[: options.test]], "large": unused[: options.truth_test]}
    for name, test in tests.items():
        (options.work / name).mkdir(parents=True, exist_ok=True)
        for split, frame in {**splits, "test": test}.items():
            frame.to_parquet(options.work / name / f"{split}.parquet", index=False)
    return options.work / "small", options.work / "large"


def compare_command(options: argparse.Namespace, data: Path, name: str, *more: str) -> list[str]:
    """Return the command line of a comparison."""
    strategies = ",".join(["probe", *options.strategies])
    own = ["--strategies", strategies, "--epochs", str(options.epochs), "--name", name, "--folds", "none"]
    return [sys.executable, "-m", "tuneoff", "compare", str(data.resolve()), *own, *more]


def true_scores(options: argparse.Namespace, large: Path) -> dict[str, float]:
    """Return the accuracy of each strategy on the large test split, over the seeds of the truth."""
    command = compare_command(options, large, "truth", "--seeds", str(options.truth_seeds))
    subprocess.run(command, cwd=options.work, check=True, stdout=subprocess.DEVNULL)
    rows = json.loads((options.work / "results" / "truth" / "comparison.json").read_text())["leaderboard"]
    return {row["label"]: row["scores"]["accuracy"] for row in rows}


def by_compare(options: argparse.Namespace, small: Path, way: str) -> tuple[float, float, str]:
    """Run a comparison as a user: seconds until the verdict is on the screen, until the end, and the pick."""
    more = {"default": [], "race": ["--race"]}.get(way, ["--time", way])
    environment = {**os.environ, "TUNEOFF_CACHE": str((options.work / f"cache-{way}").resolve())}
    started, seconds = time.perf_counter(), float("nan")
    command = compare_command(options, small, way, *more)
    with subprocess.Popen(command, cwd=options.work, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout or ():
            if line.startswith(("Pick ", "Only ")):
                seconds = time.perf_counter() - started
    total = time.perf_counter() - started
    stored = json.loads((options.work / "results" / way / "comparison.json").read_text())
    picked = [row for row in stored["leaderboard"] if row["group"] == (stored["verdict"] or {}).get("recommended")]
    return seconds, total, picked[0]["label"] if picked else "none"


def by_trainer(options: argparse.Namespace, small: Path) -> tuple[float, float, str]:
    """Decide with HF Trainer in a process of its own: seconds, twice, and the pick.

    What was trained before an interruption is stored with its seconds, and counts: use a new --work for other data.
    """
    out = options.work / "hf.json"
    own = [str(options.folder), "--work", str(options.work), "--epochs", str(options.epochs)]
    command = [sys.executable, __file__, *own, "--strategies", *options.strategies]
    subprocess.run([*command, "--hf-process", str(small), str(out)], check=True)
    stored = json.loads(out.read_text())
    seconds = sum(part["seconds"] for part in stored["parts"].values())
    return seconds, seconds, stored["pick"]


def decide_with_trainer(data: str, out: str, strategies: list[str], epochs: int) -> None:
    """Tune each strategy by four learning rates on validation, train three seeds, and pick the best mean on test."""
    started = time.perf_counter()
    from trainer import finetune

    path, labels = Path(out), {split: pd.read_parquet(f"{data}/{split}.parquet")["label"] for split in SPLITS}
    stored = {"parts": {}} | (json.loads(path.read_text()) if path.exists() else {})
    stored["parts"].setdefault("imports", {"seconds": time.perf_counter() - started})

    def accuracy(strategy: str, split: str, seed: int = 0, **options: bool) -> float:
        key = f"{strategy} seed {seed} {split}"
        if key not in stored["parts"]:
            began = time.perf_counter()
            predicted = finetune(strategy, data, epochs, tuned=True, bf16=True, seed=seed, split=split, **options)
            right = float((predicted == labels[split].to_numpy()).mean())
            stored["parts"][key] = {"seconds": time.perf_counter() - began, "accuracy": right}
            path.write_text(json.dumps(stored, indent=1))
        return stored["parts"][key]["accuracy"]

    scores = {}
    for name in ["probe", *strategies]:
        config = parse_strategy(name)
        if not isinstance(config, GradientConfig):
            scores[name] = accuracy(name, "test")
            continue
        trials = [f"{name}:learning_rate={config.learning_rate * factor}" for factor in FACTORS]
        best = max(trials, key=lambda trial: accuracy(trial, "validation", keep_best=True))
        scores[name] = float(np.mean([accuracy(best, "test", seed, keep_best=True) for seed in range(3)]))
    path.write_text(json.dumps(stored | {"scores": scores, "pick": max(scores, key=scores.__getitem__)}, indent=1))


if __name__ == "__main__":
    main()
