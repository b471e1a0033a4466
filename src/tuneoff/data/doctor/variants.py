"""Label variants: spellings of one label that differ by case, space, punctuation or a typo.

Careful by design: names whose digits differ (label_1, label_2), names that differ in their first letter (anger, danger;
able, unable), short names, and names with as many examples as each other are never typos.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from difflib import SequenceMatcher

_SEPARATORS = re.compile(r"(?<=\w)[\s_\-/]+(?=\w)")  # inside a name; a minus at its end is part of it: A-
_PUNCTUATION = re.compile(
    r"(?<!\d)[.,:;!?'\"()\[\]]+|[.,:;!?'\"()\[\]]+(?!\d)"
)  # but not in 1.5; + and # are part of C++
# Longest name with no, and with one, edit that is a typo: (length, edits)
_EDITS = ((4, 0), (7, 1))
_MAX_EDITS = 2
_RARER = 0.05  # times the examples of the other spelling: a typo has fewer


def label_variants(counts: Mapping[str, int]) -> dict[str, str]:
    """Return the spelling to keep, the most frequent one, of each label that looks like a variant. counts: by label.

    >>> label_variants({"pos": 900, "Pos": 12, "neg": 800})
    {'Pos': 'pos'}
    >>> label_variants({"positive": 900, "positve": 3, "label_1": 90, "label_2": 1})
    {'positve': 'positive'}
    """
    order = sorted(counts, key=lambda name: -counts[name])  # stable: of equal counts the first
    by_form: dict[str, list[str]] = defaultdict(list)
    for name in order:
        by_form[_folded(name)].append(name)
    kept = {name: spellings[0] for spellings in by_form.values() for name in spellings[1:]}
    totals = {form: sum(counts[name] for name in spellings) for form, spellings in by_form.items()}
    for form, original in _typos(totals).items():
        kept |= dict.fromkeys(by_form[form], by_form[original][0])
    return {name: kept[name] for name in counts if name in kept}


def _folded(name: str) -> str:
    """Return a name without case, punctuation and kinds of separators; as it is if it has no letter."""
    if not any(character.isalpha() for character in name):
        return name
    folded = unicodedata.normalize("NFKC", name).casefold()
    return _PUNCTUATION.sub("", _SEPARATORS.sub(" ", folded)).strip() or name


def _typos(counts: Mapping[str, int]) -> dict[str, str]:
    """Return the name that is meant by each name that looks like a typo. counts: by folded name."""
    by_start: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in counts:
        by_start[name[:1], "".join(filter(str.isdigit, name))].append(name)
    typos: dict[str, str] = {}
    for names in by_start.values():
        for name in names:
            meant = [other for other in names if counts[name] < _RARER * counts[other] and _is_typo(name, other)]
            if meant:
                typos[name] = max(meant, key=counts.__getitem__)
    return {name: typos.get(meant, meant) for name, meant in typos.items()}


def _is_typo(name: str, other: str) -> bool:
    length = max(len(name), len(other))
    allowed = next((edits for longest, edits in _EDITS if length <= longest), _MAX_EDITS)
    if not allowed or abs(len(name) - len(other)) > allowed:
        return False
    parts = SequenceMatcher(None, name, other, autojunk=False).get_opcodes()
    # edits along difflib's alignment, which may be more than the edit distance and never fewer
    return sum(max(i2 - i1, j2 - j1) for tag, i1, i2, j1, j2 in parts if tag != "equal") <= allowed
