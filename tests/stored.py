"""Stored studies with synthetic runs: no training, any size, written by the real stores. For tests of comparisons and reports."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa

from tests.storage import forget_checksums
from tuneoff.data.dataset import Dataset
from tuneoff.data.describe import Histogram, LengthSummary, describe
from tuneoff.runs import FAILED, OK, RunPredictions, RunRecord, Session, StudyStore
from tuneoff.scoring import metrics
from tuneoff.seeds import cell_number, crossed
from tuneoff.spec.file import study_from, write_study
from tuneoff.strategies import STRATEGIES
from tuneoff.study import Study


def stored_study(folder, strategies, label_names=("negative", "positive"), seeds=2, texts=None, num_test=80, **changes):
    """Store a study and open it. strategies: (name, label, accuracy) each; an accuracy of None is a failed run.

    seeds: how many, or for each source of randomness how many.
    """
    rng = np.random.default_rng(0)
    num_labels = len(label_names)
    dataset = stored_dataset("f" * 16, label_names, texts, num_test)
    splits = dataset.splits
    folder.mkdir(parents=True, exist_ok=True)
    spec = study_from(
        {
            "name": "made",
            "data": {"source": "made.csv"},
            "strategies": list(dict.fromkeys(name for name, *_ in strategies)),
            "seeds": seeds,
            **changes,
        }
    )
    write_study(spec, folder / "study.yaml")
    store, run_ids = StudyStore(folder), []
    for number, (name, label, share) in enumerate(strategies):
        row = STRATEGIES[name]
        grid = spec.seed_grid and crossed(spec.seed_grid, row.seed_sources)
        for cell in grid or [{"seed": seed} for seed in range(seeds if row.is_seeded else 1)]:
            record = _record(name, label, number, cell, OK if share is not None else FAILED)
            run_ids.append(record.run_id)
            if share is None:
                store.runs.write(RunRecord(**{**vars(record), "error": "Traceback\nValueError: <b>it broke</b>"}))
                continue
            probabilities = {split: _probabilities(splits[split]["label"].to_numpy(), num_labels, share, rng) for split in ("validation", "test")}  # fmt: skip
            store.runs.write(*_filled(record, splits, probabilities, tuple(label_names)))
    description = replace(describe(dataset, {}), lengths={"m": dict.fromkeys(splits, _lengths())})
    store.write_data(description, splits["test"], run_ids, [])
    store.add_session(Session(runs=len(run_ids), workers=2, threads=1, joules=7200.0, seconds=60.0))
    forget_checksums(folder)
    return Study.open(folder)


def stored_dataset(fingerprint="f" * 16, label_names=("negative", "positive"), texts=None, num_test=80):
    """The data of a stored study."""
    texts, num_labels = (
        texts or [f"text {i} of words like {'good' if i % 2 else 'bad'}" for i in range(num_test)],
        len(label_names),
    )

    def table(count):
        return pa.table(
            {"text": pa.array([texts[i % len(texts)] for i in range(count)], pa.large_string()), "label": np.arange(count) % num_labels}
        )  # fmt: skip

    splits = {"train": table(max(10, num_labels)), "validation": table(max(20, num_labels)), "test": table(num_test)}
    return Dataset("made", splits, tuple(label_names), ("made up",), fingerprint)


def _record(name, label, number, cell, status):
    sources = {} if "seed" in cell else cell
    seed = cell_number(cell) if sources else cell.get("seed", 0)
    return RunRecord(
        run_id=f"{name}-{number:08x}-s{seed}",
        group=f"{name}-{number:08x}",
        strategy=name,
        label=label,
        model=None if name in ("majority", "tfidf") else "m",
        seed=seed,
        status=status,
        spec={"model_fingerprint": "abc", "sources": sources},
        versions={"python": "3", "torch": "2"},
        machine={"processor": "p", "cores": 2, "threads": 1, "memory_bytes": 2**30, "gpu": None},
    )


def _probabilities(labels, num_labels, share, rng):
    """Probabilities that are right in about a share of the examples, (N, C)."""
    target = np.where(rng.random(len(labels)) < share, labels, (labels + 1) % num_labels)
    probabilities = rng.dirichlet(np.full(num_labels, 0.3), len(labels))
    probabilities[np.arange(len(labels)), target] += 1
    return probabilities / probabilities.sum(1, keepdims=True)


def _filled(record, splits, probabilities, label_names):
    labels = {split: splits[split]["label"].to_numpy() for split in probabilities}
    predicted = {split: probabilities.argmax(1) for split, probabilities in probabilities.items()}
    number = int(record.group.rpartition("-")[2], 16)
    full = RunRecord(
        **{
            **vars(record),
            "metrics": {s: metrics.evaluate(labels[s], predicted[s], probabilities[s]) for s in probabilities},
            "confusion": {s: metrics.confusion(labels[s], predicted[s], len(label_names)).tolist() for s in probabilities},
            "costs": {"train_seconds": 10.0 + 5 * number, "prefix_seconds": 1.0, "tokenize_seconds": 0.1, "evaluate_seconds": 1.0, "run_seconds": 12.0, "peak_bytes": 1e9, "model_bytes": 9e7, "latency_seconds": 0.01, "operations": 1e12, "peak_operations_per_second": 4e11},
            "parameters": {"trainable": 10, "added": 2, "head": 8, "total": 100},
        }
    )  # fmt: skip
    history = pd.DataFrame(
        {
            "kind": ["step"] * 40 + ["epoch"],
            "step": [*range(1, 41), None],
            "epoch": 1,
            "loss": [*np.linspace(1, 0.1, 40), None],
            **{f"validation_{name}": [None] * 40 + [value] for name, value in full.metrics["validation"].items()},
        }
    )
    return full, RunPredictions(labels, predicted, probabilities), history if record.model else None


def _lengths():
    histogram = Histogram(edges=[0, 4, 8, 12], examples=[3, 5, 2])
    return LengthSummary(5.0, 5.0, 9.0, 10, truncated=0.1, box=[1, 3.0, 5.0, 7.0, 10], histogram=histogram)
