"""Carving splits and taking subsets: classes in proportion, the same for the same seed."""

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from tuneoff.errors import ConfigError


class Subset(BaseModel):
    """Less than all of train: a share of it, or so many examples of each class. One point of a learning curve."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    fraction: float | None = Field(None, gt=0, lt=1)
    per_class: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _is_one_of_them(self) -> "Subset":
        if (self.fraction is None) == (self.per_class is None):
            raise ConfigError("a subset of train is either a fraction or a number per class")
        return self

    @property
    def label(self) -> str:
        """What people call it."""
        return f"{100 * self.fraction:g} %" if self.fraction else f"{self.per_class} a class"

    def of(self, strata: np.ndarray, seed: int) -> np.ndarray:
        """Which examples of train it is, sorted. strata: (N,) class of each.

        The same for every strategy; with one seed, a larger subset holds the smaller ones, but for an example or two
        that rounding shares to classes moves.
        """
        rng = np.random.default_rng([2, seed])
        if self.fraction:
            return subset(strata, max(1, round(self.fraction * len(strata))), rng)
        classes = np.unique(strata)
        return np.sort(
            np.concatenate([rng.permutation(np.flatnonzero(strata == c))[: self.per_class] for c in classes])
        )


def apportion(counts: np.ndarray, total: int) -> np.ndarray:
    """How many of each class to take so that shares are kept and the sum is exact. counts: (C,) -> (C,).

    Largest remainders (Hamilton's method).

    >>> apportion(np.array([50, 30, 20]), 10)
    array([5, 3, 2])
    """
    total = min(total, int(counts.sum()))
    exact = counts * total / max(1, counts.sum())
    taken = np.floor(exact).astype(np.int64)
    most_left_over = np.argsort(taken - exact, kind="stable")
    taken[most_left_over[: total - taken.sum()]] += 1
    return taken


def carve(labels: np.ndarray, total: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Take `total` examples, classes in proportion.

    labels: (N,) -> (taken, rest): sorted indices that together are all. A class keeps at least one example in the
    rest, so that what is left can still be learnt.
    """
    classes, counts = np.unique(labels, return_counts=True)
    wanted = np.minimum(apportion(counts, total), counts - 1)
    picked = [
        rng.permutation(np.flatnonzero(labels == label))[:count] for label, count in zip(classes, wanted, strict=True)
    ]
    taken = np.sort(np.concatenate(picked))
    return taken, np.setdiff1d(np.arange(len(labels)), taken)


def subset(labels: np.ndarray, total: int, rng: np.random.Generator) -> np.ndarray:
    """At most `total` examples, classes in proportion. labels: (N,) -> sorted indices."""
    classes, counts = np.unique(labels, return_counts=True)
    picked = [
        rng.permutation(np.flatnonzero(labels == label))[:count]
        for label, count in zip(classes, apportion(counts, total), strict=True)
    ]
    return np.sort(np.concatenate(picked))
