"""Parity: test accuracy of Tuneoff and of HF Trainer's tuned recipe over several seeds.

Both train full fine-tuning and LoRA on the same examples with the same learning rate, warm-up, weight decay and epochs,
and keep the epoch with the best validation accuracy. They differ in batches (theirs grouped by length), rounding and
random numbers. Prints the accuracy of each seed, and the difference of the means with its 95 % confidence interval over
examples and seeds.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pyarrow.parquet
from trainer import BATCH, LENGTH, finetune

from tuneoff.data.load import load_dataset
from tuneoff.data.spec import DataSpec
from tuneoff.scoring.stats import RunScores, difference, example_weights, interval
from tuneoff.spec.file import study_from
from tuneoff.study import Study

RESAMPLES = 5000


def main() -> None:
    """Train on both sides and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, help="training examples; all of them if not given")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--strategies", default="full,lora")
    parser.add_argument("--bf16", action="store_true", help="let HF Trainer use bf16")
    parser.add_argument("--out", type=Path, help="write the results to this file as JSON")
    args = parser.parse_args()
    limits = {"train": args.examples} if args.examples else {}
    dataset = load_dataset(DataSpec(source="packaged:rotten-tomatoes", limits=limits))
    folder = Path(tempfile.mkdtemp())
    for split, table in dataset.splits.items():
        pyarrow.parquet.write_table(table, folder / f"{split}.parquet")
    labels = dataset.splits["test"]["label"].to_numpy()
    strategies = args.strategies.split(",")
    ours = with_tuneoff(strategies, limits, args.epochs, args.seeds)
    results = {}
    for name in strategies:
        predicted = [
            finetune(name, str(folder), args.epochs, tuned=True, bf16=args.bf16, seed=seed, keep_best=True)
            for seed in range(args.seeds)
        ]
        results[name] = compare(name, ours[name], np.stack([part == labels for part in predicted]))
    if args.out:
        args.out.write_text(json.dumps(results, indent=1))


def with_tuneoff(strategies: list[str], limits: dict[str, int], epochs: int, seeds: int) -> dict[str, np.ndarray]:
    """Map each strategy to a mask of correctly predicted test examples by seed, (S, N) bool."""
    spec = study_from(
        {
            "data": {"source": "packaged:rotten-tomatoes", "limits": limits},
            "baselines": False,
            "strategies": strategies,
            "recipe": {"epochs": epochs, "batch_size": BATCH, "max_length": LENGTH},
            "seeds": seeds,
            "keep": "none",
        }
    )
    study = Study(spec, Path(tempfile.mkdtemp()))
    comparison = study.run()
    assert not comparison.failures, comparison.failures[0].error
    runs = study.store.runs
    is_correct: dict[str, list[np.ndarray]] = {name: [] for name in strategies}
    for folder in sorted(runs.folder.iterdir()):
        test = runs.predictions(folder.name, "test")
        is_correct[runs.record(folder.name).strategy].append((test["predicted"] == test["label"]).to_numpy())
    return {name: np.stack(masks) for name, masks in is_correct.items()}


def compare(name: str, ours: np.ndarray, theirs: np.ndarray) -> dict[str, object]:
    """Print and return the accuracies of each seed, and the difference of their means with its interval.

    ours, theirs: (S, N) bool.
    """
    num_examples = ours.shape[1]
    weights = example_weights(num_examples, RESAMPLES, np.random.default_rng(0)) / num_examples
    # seeds are not paired: the same seed draws other random numbers in the other library
    our_scores, their_scores = (
        RunScores(mask.mean(1), mask @ weights.T, seeds=tuple(f"{side} {seed}" for seed in range(len(mask))))
        for side, mask in (("ours", ours), ("theirs", theirs))
    )
    gap = difference(our_scores, their_scores, num_examples)
    low, high = interval(gap)
    print(f"{name}: Tuneoff {np.round(ours.mean(1), 4)} mean {ours.mean():.4f}")
    print(f"{name}: Trainer {np.round(theirs.mean(1), 4)} mean {theirs.mean():.4f}")
    place = "inside" if low < 0 < high else "OUTSIDE"
    print(f"{name}: difference {gap.value:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}: zero is {place}", flush=True)
    return {
        "tuneoff": ours.mean(1).tolist(),
        "trainer": theirs.mean(1).tolist(),
        "difference": gap.value,
        "interval": [low, high],
    }


if __name__ == "__main__":
    main()
