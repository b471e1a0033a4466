"""The sections of a report, in order. A section's module returns it, or None where a comparison has nothing for it."""

from collections.abc import Callable

from tuneoff.comparison.result import Comparison
from tuneoff.report.section import Section
from tuneoff.report.sections import (
    calibration,
    classes,
    compute,
    costs,
    curves,
    data,
    encoders,
    errors,
    generalises,
    imported,
    leaderboard,
    methods,
    mistakes,
    movement,
    phenomena,
    provenance,
    race,
    reported,
    search,
    slices,
    takeaways,
    training,
    words,
)

SECTIONS: list[Callable[[Comparison], Section | None]] = [
    leaderboard.section,
    takeaways.section,
    race.section,
    encoders.section,
    generalises.section,
    costs.section,
    data.section,
    curves.section,
    search.section,
    training.section,
    movement.section,
    classes.section,
    mistakes.section,
    errors.section,
    words.section,
    phenomena.section,
    slices.section,
    calibration.section,
    compute.section,
    reported.section,
    imported.section,
    methods.section,
    provenance.section,
]


def sections(comparison: Comparison) -> list[Section]:
    """Return the sections of a comparison's report."""
    return [section for make in SECTIONS if (section := make(comparison)) is not None]
