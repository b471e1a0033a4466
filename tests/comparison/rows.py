"""Rows of a comparison for tests of the verdict and of the advice on more labels."""

from dataclasses import replace
from typing import Any

from tuneoff.comparison.rows import BEST, UNDECIDED, WORSE, Row


def row(name: str, score: float, fit_seconds: float, is_worse: bool = False, **changes: Any) -> Row:
    """A row of two seeds whose difference is to a best score of 0.9. changes: of its other fields."""
    defaults = Row(
        group=f"{name}-1",
        label=name,
        strategy=name,
        model="m",
        seeds=(0, 1),
        score=score,
        seed_sd=0.01,
        interval=(score - 0.02, score + 0.02),
        sd_from_examples=0.01,
        sd_from_seeds=0.005,
        validation=score,
        scores={"accuracy": score, "macro_f1": score},
        difference=score - 0.9,
        difference_interval=(score - 0.92, score - 0.88 if is_worse else 0.01),
        p_value=0.001 if is_worse else 0.4,
        standing=BEST if score == 0.9 else WORSE if is_worse else UNDECIDED,
        loss_bound=max(0.0, 0.92 - score),
        costs={"fit_seconds": fit_seconds, "peak_bytes": 2e9, "model_bytes": 9e7, "run_seconds": fit_seconds + 1},
        parameters={"trainable": 10, "added": 2, "head": 8, "total": 100},
    )
    return replace(defaults, **changes)
