"""Detectable differences of a planned study: the test examples, for some numbers of seeds, and what it has so far."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tuneoff.runs import stored_labels
from tuneoff.scoring.power import (
    SEED_COUNTS,
    TYPICAL,
    DifferenceVariances,
    detectable_gap,
    measured_variances,
    required_examples,
)

if TYPE_CHECKING:
    from tuneoff.comparison.result import Comparison


@dataclass(frozen=True)
class Detection:
    """Sizes that detect a difference in accuracy with 80 % power, at a significance level of 5 %."""

    gap: float
    variances: DifferenceVariances
    is_measured: bool  # the variances are those of the study's stored runs; else of earlier studies
    examples_by_seeds: dict[int, int | None]  # number of seeds -> test examples; None if no practical number is enough
    num_examples: int  # of the study's test split
    num_seeds: int
    detectable: float | None  # by the study as it is

    def to_json(self) -> dict[str, object]:
        """Return the sizes as plain data."""
        return asdict(self)


def detection(
    gap: float, num_examples: int, num_seeds: int, num_strategies: int, comparison: "Comparison | None" = None
) -> Detection:
    """Plan the detection of a difference. comparison: of the study's stored runs, whose variances are used if known.

    num_strategies: strategies with seeds, over which the variance from seeds is pooled.
    """
    measured = _variances_of(comparison) if comparison else None
    variances = measured or TYPICAL
    return Detection(
        gap=gap,
        variances=variances,
        is_measured=measured is not None,
        examples_by_seeds={
            seeds: required_examples(gap, seeds, variances, num_strategies)
            for seeds in sorted({*SEED_COUNTS[1:], num_seeds})
        },
        num_examples=num_examples,
        num_seeds=num_seeds,
        detectable=detectable_gap(num_examples, num_seeds, variances, num_strategies),
    )


def _variances_of(comparison: "Comparison") -> DifferenceVariances | None:
    """Measure the variances of a comparison's strategies with several seeds; None if there are fewer than two."""
    if comparison.examples is None:
        return None
    labels = stored_labels(comparison.examples["label"])
    runs = [
        ~comparison.predictions[row.group].is_wrong(labels)
        for row in comparison.rows
        if row.learns and row.is_seeded and len(row.seeds) > 1
    ]
    num_seeds = min((len(is_right) for is_right in runs), default=0)
    return measured_variances([is_right[:num_seeds] for is_right in runs])
