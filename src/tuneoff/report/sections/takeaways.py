"""Takeaways: sentences on options, labels, lengths, phenomena and kinds of mistakes, each from a tested difference."""

from tuneoff.comparison.result import Comparison
from tuneoff.report.options import option_findings
from tuneoff.report.section import Bullets, Section, Text
from tuneoff.report.sections.mistakes import hardest_label, profile_conclusion
from tuneoff.report.sections.phenomena import length_sentence, significant_sentences

_MAX_PHENOMENA = 2  # those with the largest differences; all are in the section Phenomena


def section(comparison: Comparison) -> Section | None:
    """Return the takeaways as a list; None without any."""
    items = takeaways(comparison)
    text = "What tests show beyond the pick; the sections below have the numbers."
    return Section("takeaways", "Takeaways", [Text(text), Bullets(items)]) if items else None


def takeaways(comparison: Comparison) -> list[str]:
    """Return a sentence for every tested difference that says something about options, examples or mistakes."""
    items = option_findings(comparison)
    mistakes, phenomena = comparison.mistakes, comparison.phenomena
    if mistakes is not None:
        items.append(hardest_label(comparison, mistakes))
    items.append(length_sentence(comparison))
    if phenomena is not None:
        items += significant_sentences(comparison, phenomena)[:_MAX_PHENOMENA]
    if mistakes is not None and mistakes.profiles:
        items.append(profile_conclusion(comparison, mistakes))
    return [item for item in items if item]
