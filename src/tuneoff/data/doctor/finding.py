"""A finding of the data checks: a defect, how much it harms, and what to do."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_MAX_SHORT = 5  # findings on the console and on top of the report


@dataclass(frozen=True)
class Finding:
    """A defect of the data."""

    kind: str  # short name: "leakage from train into test"
    text: str  # one sentence with the numbers, without the kind and without a period
    advice: str = ""  # what to do, an imperative: "--drop-leaks removes them from train"
    harm: float = 0.0  # share of the scored examples whose score the defect may change, 0 to 1; ranks findings
    details: Mapping[str, Any] = field(default_factory=dict)  # numbers for --json

    @property
    def line(self) -> str:
        """The finding in one line, with what to do."""
        return f"{self.kind}: {self.text}" + (f"; {self.advice}" if self.advice else "")


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings, most harmful first."""
    return sorted(findings, key=lambda finding: -finding.harm)


def short_findings(findings: Sequence[Finding], place: str) -> list[str]:
    """Write the most harmful findings, one line each, and the number of the others. place: where these are."""
    lines = [finding.line for finding in findings[:_MAX_SHORT]]
    rest = len(findings) - _MAX_SHORT
    return [*lines, f"{rest} more: {place}"] if rest > 0 else lines
