"""Detectable differences of a planned study: the examples that it takes, for some numbers of seeds and with folds."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tuneoff.runs import stored_labels
from tuneoff.scoring.power import (
    TYPICAL,
    DifferenceVariances,
    Repeats,
    detectable_gap,
    measured_variances,
    required_examples,
)

if TYPE_CHECKING:
    from tuneoff.comparison.result import Comparison

_SEED_COUNTS = (2, 3, 5, 10)  # that a plan shows


@dataclass(frozen=True)
class Detection:
    """Examples that detect a difference in accuracy with 80 % power, at a significance level of 5 %."""

    gap: float
    variances: DifferenceVariances
    is_measured: bool  # the variances are those of the study's stored runs; else of earlier studies
    required: dict[str, int | None]  # "3 seeds" -> test examples, "5 folds" -> labelled; None: no practical number
    num_examples: int  # of the study: test examples, with folds labelled ones
    repeats: str  # of the study: "3 seeds"
    detectable: float | None  # by the study as it is

    def to_json(self) -> dict[str, object]:
        """Return the sizes as plain data."""
        return asdict(self)


def detection(gap: float, num_examples: int, repeats: Repeats, comparison: "Comparison | None" = None) -> Detection:
    """Plan the detection of a difference.

    num_examples, repeats: of the study. comparison: of its stored runs, whose variances are used if they show them.
    """
    measured = _variances_of(comparison) if comparison else None
    variances = measured or TYPICAL
    num_strategies = repeats.num_strategies
    candidates: Sequence[Repeats] = [
        *(Repeats(num_seeds=count, num_strategies=num_strategies) for count in _SEED_COUNTS),
        Repeats(num_folds=repeats.num_folds or 5, num_strategies=num_strategies),
    ]
    return Detection(
        gap=gap,
        variances=variances,
        is_measured=measured is not None,
        required={candidate.name: required_examples(gap, variances, candidate) for candidate in candidates},
        num_examples=num_examples,
        repeats=repeats.name,
        detectable=detectable_gap(num_examples, variances, repeats),
    )


def _variances_of(comparison: "Comparison") -> DifferenceVariances | None:
    """Measure the variances of a comparison's strategies with several seeds; None if there are fewer than two."""
    if comparison.examples is None:
        return None
    labels = stored_labels(comparison.examples["label"])
    runs = [
        ~comparison.predictions[row.group].is_wrong(labels)
        for row in comparison.rows
        if row.learns and row.is_seeded and len(comparison.predictions[row.group].predicted) > 1
    ]
    num_seeds = min((len(is_right) for is_right in runs), default=0)
    return measured_variances([is_right[:num_seeds] for is_right in runs])
