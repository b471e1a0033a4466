"""Same results: test accuracy of Tuneoff beside HF Trainer's tuned recipe, over several seeds.

Both train full fine-tuning and LoRA on the same examples with the same rate, warm-up, decay and epochs, and keep the
epoch that validation likes best. They differ in batches (theirs by length), rounding and random numbers. Prints each
seed's accuracy, the difference of the means and its 95 % interval over examples and seeds.
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

from tuneoff.data.dataset import DataSpec
from tuneoff.data.load import load_dataset
from tuneoff.spec import study_from
from tuneoff.stats import Runs, difference, example_weights, interval
from tuneoff.study import Study

RESAMPLES = 5000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, help="training examples; all of them if not given")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--strategies", default="full,lora")
    parser.add_argument("--bf16", action="store_true", help="let HF Trainer use bf16")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    given = parser.parse_args()
    limits = {"train": given.examples} if given.examples else {}
    dataset = load_dataset(DataSpec(source="packaged:rotten-tomatoes", limits=limits))
    folder = Path(tempfile.mkdtemp())
    for split, table in dataset.splits.items():
        pyarrow.parquet.write_table(table, folder / f"{split}.parquet")
    labels = dataset.splits["test"]["label"].to_numpy()
    strategies = given.strategies.split(",")
    ours = with_tuneoff(strategies, limits, given.epochs, given.seeds)
    found = {}
    for name in strategies:
        predicted = [
            finetune(name, str(folder), given.epochs, tuned=True, bf16=given.bf16, seed=seed, keep_best=True)
            for seed in range(given.seeds)
        ]
        found[name] = compare(name, ours[name], np.stack([part == labels for part in predicted]))
    if given.out:
        given.out.write_text(json.dumps(found, indent=1))


def with_tuneoff(strategies: list[str], limits: dict[str, int], epochs: int, seeds: int) -> dict[str, np.ndarray]:
    """Which test examples each seed gets right. -> strategy -> (S, N)."""
    spec = study_from(
        {
            "data": {"source": "packaged:rotten-tomatoes", "limits": limits},
            "baselines": False,
            "strategies": strategies,
            "recipe": {"epochs": epochs, "batch_size": BATCH, "max_length": LENGTH},
            "seeds": seeds,
            "save_models": False,
        }
    )
    study = Study(spec, Path(tempfile.mkdtemp()))
    comparison = study.run()
    assert not comparison.failures, comparison.failures[0].error
    right: dict[str, list[np.ndarray]] = {name: [] for name in strategies}
    for folder in sorted(study.store.folder.iterdir()):
        test = study.store.predictions(folder.name, "test")
        right[study.store.record(folder.name).strategy].append((test["predicted"] == test["label"]).to_numpy())
    return {name: np.stack(rows) for name, rows in right.items()}


def compare(name: str, ours: np.ndarray, theirs: np.ndarray) -> dict[str, object]:
    """Print and give both accuracies a seed, the difference of the means and its interval. ours, theirs: (S, N)."""
    num_examples = ours.shape[1]
    weights = example_weights(num_examples, RESAMPLES, np.random.default_rng(0)) / num_examples
    # each side has seeds of its own: equal numbers give other random draws
    one, other = (
        Runs(right.mean(1), right @ weights.T, seeds=tuple(f"{side} {seed}" for seed in range(len(right))))
        for side, right in (("ours", ours), ("theirs", theirs))
    )
    gap = difference(one, other, num_examples)
    low, high = interval(gap)
    print(f"{name}: Tuneoff {np.round(ours.mean(1), 4)} mean {ours.mean():.4f}")
    print(f"{name}: Trainer {np.round(theirs.mean(1), 4)} mean {theirs.mean():.4f}")
    inside = "inside" if low < 0 < high else "OUTSIDE"
    print(f"{name}: difference {gap.value:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}: zero is {inside}", flush=True)
    return {
        "tuneoff": ours.mean(1).tolist(),
        "trainer": theirs.mean(1).tolist(),
        "difference": gap.value,
        "interval": [low, high],
    }


if __name__ == "__main__":
    main()
