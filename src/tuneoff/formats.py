"""Values as text for readers: counts, times, sizes, names. Data in Markdown and LaTeX is escaped, never markup."""

import math
import re
from collections.abc import Iterable, Sequence


def encoder_names(encoders: Iterable[str]) -> dict[str, str]:
    """Return a short name for each encoder: the last part of its name, or where these are equal, all of it.

    >>> encoder_names(["packaged:minilm", "google/bert-base", "models/my-bert"])
    {'packaged:minilm': 'minilm', 'google/bert-base': 'bert-base', 'models/my-bert': 'my-bert'}
    >>> encoder_names(["a/bert", "b/bert"])
    {'a/bert': 'a/bert', 'b/bert': 'b/bert'}
    """
    short = {encoder: re.split(r"[/\\:]", encoder.rstrip("/\\"))[-1] for encoder in encoders}
    return {encoder: name if list(short.values()).count(name) == 1 else encoder for encoder, name in short.items()}


def show_control_characters(text: str) -> str:
    """Replace control characters, and those that reverse the direction of text, by visible ones.

    >>> show_control_characters("a\\x00b\\u202ec")
    'a␀b⟨U+202E⟩c'
    """
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]", _visible, text)


def _visible(match: re.Match[str]) -> str:
    code = ord(match.group())
    return chr(0x2400 + code) if code < 0x20 else f"⟨U+{code:04X}⟩"


def shorten(text: str, length: int) -> str:
    """Shorten text to a number of characters, the last one an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def short_names(names: Sequence[str], length: int = 32) -> list[str]:
    """Shorten names for a chart and keep them distinct.

    >>> short_names(["a long name", "a long nose", "short"], 8)
    ['a lon… 1', 'a lon… 2', 'short']
    """
    short = [shorten(show_control_characters(name), length) for name in names]
    if len(set(short)) == len(short):
        return short
    repeated = {name for name in short if short.count(name) > 1}
    distinct = []
    for number, (name, cut) in enumerate(zip(names, short, strict=True), start=1):
        stem = shorten(show_control_characters(name), length - 1 - len(str(number)))
        distinct.append(f"{stem} {number}" if cut in repeated else cut)
    return distinct


def number(value: float | None) -> str:
    """Format a count with thousands separators."""
    return "–" if value is None else f"{value:,.0f}"


def counted(count: int, noun: str, several: str = "") -> str:
    """Write a number with its noun. several: the plural, if it is not the noun with an s.

    >>> counted(1, "run"), counted(1200, "run"), counted(2, "search", "searches")
    ('1 run', '1,200 runs', '2 searches')
    """
    return f"{count:,} {noun if count == 1 else several or noun + 's'}"


def seconds(value: float | None) -> str:
    """Format a duration in the unit that suits it.

    >>> seconds(0.0123), seconds(0.1234), seconds(75.0), seconds(150.0), seconds(9000.0)
    ('12.3 ms', '123 ms', '75.0 s', '2.5 min', '2.5 h')
    """
    if value is None:
        return "–"
    if 0 < value < 0.9995:
        digits = 1 if value < 0.09995 else 0
        return f"{1000 * value:.{digits}f} ms" if value >= 0.00005 else "< 0.1 ms"
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def rough_seconds(value: float) -> str:
    """Format an estimated duration, no more exact than it is.

    >>> rough_seconds(8.3), rough_seconds(100.0), rough_seconds(400.0), rough_seconds(9000.0)
    ('10 s', '2 min', '7 min', '2.5 h')
    """
    if value < 55:
        return f"{max(5, 5 * round(value / 5))} s"
    return f"{max(1, round(value / 60))} min" if value < 5400 else f"{value / 3600:.1f} h"


def chance_text(chance: float) -> str:
    """Write a chance.

    >>> chance_text(0.314), chance_text(0.0), chance_text(0.004), chance_text(1.0)
    ('31 %', 'below 0.1 %', '0.4 %', 'above 99.9 %')
    """
    if chance < 0.001:
        return "below 0.1 %"
    if chance > 0.999:
        return "above 99.9 %"
    return f"{100 * chance:.1f} %" if chance < 0.02 or chance > 0.98 else f"{100 * chance:.0f} %"


def written_time(seconds: float) -> str:
    """Write a time as a user would give it, rounded up.

    >>> written_time(11.2), written_time(130), written_time(8000)
    ('12s', '3m', '3h')
    """
    if seconds <= 90:
        return f"{-(-seconds // 1):.0f}s"
    return f"{-(-seconds // 60):.0f}m" if seconds <= 5400 else f"{-(-seconds // 3600):.0f}h"


def size(value: float | None) -> str:
    """Format bytes in the unit that suits them (1 MB is 10^6 bytes)."""
    if value is None:
        return "–"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            return f"{value / factor:.1f} {unit}"
    return f"{value:.0f} B"


def operations(value: float | None) -> str:
    """Format a number of floating point operations.

    >>> operations(3.489e12), operations(None)
    ('3.49 T', '–')
    """
    if not value:
        return "–"
    unit, factor = next((u, f) for u, f in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("", 1.0)) if value >= f or f == 1)
    return f"{value / factor:.3g} {unit}".strip()


def money(value: float | None) -> str:
    """Format an amount of money; below 1 it has two significant digits.

    >>> money(1234.5), money(12.5), money(0.0123), money(0.00001), money(0.0)
    ('1,234', '12.50', '0.012', '< 0.0001', '0')
    """
    if value is None:
        return "–"
    if not value:
        return "0"
    if value < 1:
        return f"{value:.{1 - math.floor(math.log10(value))}f}" if value >= 0.0001 else "< 0.0001"
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def grams(value: float | None) -> str:
    """Format a mass in the unit that suits it.

    >>> grams(2500.0), grams(12.34), grams(0.0456)
    ('2.5 kg', '12.3 g', '45.6 mg')
    """
    return _with_unit(value, (("kg", 1e3), ("g", 1.0), ("mg", 1e-3)))


def energy(joules: float | None) -> str:
    """Format joules as watt hours in the unit that suits them.

    >>> energy(3.6e6), energy(7200.0), energy(36.0)
    ('1.0 kWh', '2.0 Wh', '10.0 mWh')
    """
    return _with_unit(joules, (("kWh", 3.6e6), ("Wh", 3.6e3), ("mWh", 3.6)))


def _with_unit(value: float | None, units: Sequence[tuple[str, float]]) -> str:
    """Format a value in the first unit that it has at least one of, else in the last. units: names and sizes."""
    if value is None:
        return "–"
    unit, factor = next((part for part in units if value >= part[1]), units[-1])
    return f"{value / factor:,.1f} {unit}"


def fixed(value: float, digits: int = 3) -> str:
    """Format a number with fixed decimals; what rounds to zero has no sign.

    >>> fixed(0.8126), fixed(-0.0002), fixed(-0.25, 1)
    ('0.813', '0.000', '-0.2')
    """
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def signed(value: float, digits: int = 3) -> str:
    """Format a difference with its sign; what rounds to zero has none.

    >>> signed(0.0126), signed(-0.25, 2), signed(-0.0002)
    ('+0.013', '-0.25', '0.000')
    """
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text


def p_value(p: float) -> str:
    """Format a p value.

    >>> p_value(0.0004), p_value(0.03)
    ('< 0.001', '0.030')
    """
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def equals_p(p: float) -> str:
    """Format a p value after "p" in a sentence.

    >>> equals_p(0.031), equals_p(0.00001)
    ('= 0.031', '< 0.001')
    """
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def join_names(names: Sequence[str]) -> str:
    """Join names in a sentence: 'a, b and c'."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def markdown_text(text: str) -> str:
    """Escape text for Markdown and HTML, and make control characters visible."""
    flat = show_control_characters(" ".join(text.split()))
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", flat) if not re.fullmatch(r"-+:?", flat) else flat


_LATEX = {
    "\\": r"\textbackslash{}",
    "–": "--",
    "…": r"\dots{}",
    "±": r"$\pm$",
    "¶": r"\P{}",
    "✓": "yes",
    "|": r"\textbar{}",
    "[": "{[}",  # after the end of a row, LaTeX would read these as its arguments
    "*": "{*}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def latex_text(text: str) -> str:
    """Escape text for LaTeX; characters that cannot be printed are dropped."""
    return "".join(_LATEX.get(c, c) for c in text if c.isprintable())
