"""Encoder against data: pieces per word, unknown pieces, languages and scripts of the texts, and truncation.

A tokenizer cuts texts of the languages that it was made for into few pieces. For which these are is measured, on the
first article of the Universal Declaration of Human Rights in 27 languages (reference.json; the declaration has no
copyright): no list of encoders has to be kept up to date, and a tokenizer of the user's own is measured like any other.
"""

import functools
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

import numpy as np
import pyarrow as pa

from tuneoff.data.dataset import Dataset
from tuneoff.data.doctor.finding import Finding
from tuneoff.data.spec import TruncationPolicy
from tuneoff.data.tokens import TokenTable
from tuneoff.formats import join_names, shorten

_SAMPLE, _CHARACTERS = 2000, 5000  # texts that are measured, and characters of each
# a character of a script that is written without spaces counts as a word, and so does a punctuation mark; the vowel
# signs of Indian scripts belong to their word
_WORD = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]|\w[\w\u0900-\u0dff]*|[^\w\s]")
# a tokenizer is fit for a language that it cuts into at most this many times the pieces of its best language. For an
# English one they are 1.6 to 2.8 for other languages in Latin script, and 1.0 to 1.1 for English reviews and tweets
_MAX_RATIO = 1.5
_MAX_UNKNOWN = 0.01  # of the pieces
_MIN_SHARE = 0.05  # of the texts, below which a defect is no finding
_MIN_TEXTS = 10  # of a language
_MIN_WORDS, _MIN_PROBABILITY = 5, 0.9  # of a text whose language counts; of shorter ones the detector is not sure
_MAX_NAMES = 3
_LETTER_SCRIPTS = {"CJK": "Chinese", "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "HANGUL": "Korean"}


@dataclass(frozen=True)
class LanguageFit:
    """Texts of one language under a tokenizer."""

    name: str  # of the language
    share: float  # of the texts whose language is clear
    pieces_per_word: float
    unknown: float  # share of pieces


@dataclass(frozen=True)
class EncoderFit:
    """Texts under the tokenizer of an encoder, measured on a sample without truncation."""

    encoder: str
    texts: int  # in the sample
    lengths: np.ndarray  # tokens of each text with special tokens, all of them
    pieces_per_word: float
    unknown: float  # share of pieces
    texts_with_unknown: float  # share of texts
    unknown_words: tuple[str, ...]  # most frequent first
    scripts: dict[str, float]  # share of letters, most frequent first
    languages: tuple[LanguageFit, ...]  # most frequent first; empty where the detector is not installed
    reference: dict[str, float]  # language -> pieces per word, only of languages without unknown pieces; best first

    @property
    def best(self) -> tuple[str, float]:
        """The language that the tokenizer cuts into the fewest pieces per word, and their number."""
        return next(iter(self.reference.items()), ("English", 1.0))

    @property
    def made_for(self) -> tuple[str, ...]:
        """Languages of the reference that the tokenizer is fit for."""
        return tuple(name for name, pieces in self.reference.items() if pieces <= _MAX_RATIO * self.best[1])

    @property
    def text(self) -> str:
        """The numbers in one line."""
        unknown = f"{100 * self.unknown:.1f} % unknown pieces" if self.unknown else "no unknown pieces"
        shares: Iterable[tuple[str, float]] = [(part.name, part.share) for part in self.languages]
        shares = shares or [(f"{script} script", share) for script, share in self.scripts.items()]
        told = ", ".join(f"{name} {100 * share:.0f} %" for name, share in list(shares)[:_MAX_NAMES] if share >= 0.005)
        best, pieces = self.best
        return (
            f"{self.pieces_per_word:.1f} pieces a word ({best}: {pieces:.1f}), {unknown}; texts: {told or 'no letters'}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain data, without the lengths of single texts."""
        return {name: value for name, value in asdict(self).items() if name != "lengths"} | {"made_for": self.made_for}


def encoder_fit(dataset: Dataset, encoder: str, tokenizer: Any, seed: int = 0) -> EncoderFit:
    """Measure a sample of the texts of all splits under a tokenizer. encoder: its name."""
    texts, seconds = _sample(dataset, np.random.default_rng(seed))
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    encodings = backend.encode_batch(texts, add_special_tokens=False)
    words = np.array([len(_WORD.findall(text)) for text in texts])
    pieces = np.array([len(encoding.ids) for encoding in encodings])
    is_unknown = [np.array(encoding.ids) == tokenizer.unk_token_id for encoding in encodings]
    unknown = np.array([int(mask.sum()) for mask in is_unknown])
    special = backend.num_special_tokens_to_add(seconds is not None)
    second = [len(e.ids) for e in backend.encode_batch(seconds, add_special_tokens=False)] if seconds else 0
    return EncoderFit(
        encoder=encoder,
        texts=len(texts),
        lengths=pieces + second + special,
        pieces_per_word=float(pieces.sum() / max(1, words.sum())),
        unknown=float(unknown.sum() / max(1, pieces.sum())),
        texts_with_unknown=float((unknown > 0).mean()),
        unknown_words=_unknown_words(texts, encodings, is_unknown),
        scripts=_scripts(texts),
        languages=_languages(texts, words, pieces, unknown),
        reference=_reference(tokenizer),
    )


def _sample(dataset: Dataset, rng: np.random.Generator) -> tuple[list[str], list[str] | None]:
    """Return a random part of the texts of all splits, and of pairs the second texts."""
    total = sum(map(dataset.num_examples, dataset.splits))
    parts = []
    for split, table in dataset.splits.items():
        count = min(table.num_rows, -(-_SAMPLE * table.num_rows // total))
        rows = np.sort(rng.choice(table.num_rows, count, replace=False))
        columns = ["text", *(["text_pair"] if dataset.is_pair else [])]
        parts.append(dataset.splits[split].select(columns).take(pa.array(rows)))
    sample = pa.concat_tables(parts)
    cut = [[text[:_CHARACTERS] for text in sample[name].to_pylist()] for name in sample.column_names]
    return cut[0], cut[1] if dataset.is_pair else None


def _unknown_words(texts: list[str], encodings: list[Any], is_unknown: list[np.ndarray]) -> tuple[str, ...]:
    counts: Counter[str] = Counter()
    for text, encoding, mask in zip(texts, encodings, is_unknown, strict=True):
        counts.update(text[slice(*encoding.offsets[piece])] for piece in np.flatnonzero(mask))
    return tuple(word for word, _ in counts.most_common(5))


def _scripts(texts: list[str]) -> dict[str, float]:
    """Return the share of letters of each script, by the first word of a letter's Unicode name."""
    counts: Counter[str] = Counter()
    for letter, count in Counter("".join(texts)).items():
        if letter.isalpha():
            script = unicodedata.name(letter, "OTHER").split()[0]
            counts[_LETTER_SCRIPTS.get(script, script.capitalize())] += count
    total = max(1, counts.total())
    return {script: count / total for script, count in counts.most_common() if count >= 0.001 * total}


def _reference(tokenizer: Any) -> dict[str, float]:
    """Return the pieces per word of the reference in each language without unknown pieces, fewest first."""
    pieces = {}
    for name, text in _reference_texts().values():
        ids = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        if tokenizer.unk_token_id not in ids:
            pieces[name] = len(ids) / len(_WORD.findall(text))
    return dict(sorted(pieces.items(), key=lambda item: item[1]))


@functools.cache
def _reference_texts() -> dict[str, tuple[str, str]]:
    """Return the name and the text of each language, by its code."""
    stored = json.loads(resources.files(__package__).joinpath("reference.json").read_text(encoding="utf-8"))
    return {code: (name, text) for code, (name, text) in stored.items()}


def _languages(texts: list[str], words: np.ndarray, pieces: np.ndarray, unknown: np.ndarray) -> tuple[LanguageFit, ...]:
    """Return the languages of the texts whose language is clear; none without the detector."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier  # an extra; loads in a second
    except ImportError:
        return ()
    detector = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    codes = np.full(len(texts), "", object)
    for row in np.flatnonzero(words >= _MIN_WORDS):
        code, probability = detector.classify(texts[row][:300])
        codes[row] = code if probability >= _MIN_PROBABILITY else ""
    counts = Counter(codes[codes != ""])
    fits = []
    for code, count in counts.most_common():
        rows = np.flatnonzero(codes == code)
        fits.append(
            LanguageFit(
                _reference_texts().get(code, (f"language {code!r}", ""))[0],
                count / counts.total(),
                float(pieces[rows].sum() / words[rows].sum()),
                float(unknown[rows].sum() / pieces[rows].sum()),
            )
        )
    return tuple(fit for fit in fits if fit.share * counts.total() >= _MIN_TEXTS)


def fit_findings(fit: EncoderFit) -> list[Finding]:
    """Return findings where an encoder does not fit the texts: languages that it was not made for, unknown pieces."""
    return [*_language_findings(fit), *_unknown_findings(fit)]


def _language_findings(fit: EncoderFit) -> Iterator[Finding]:
    best, pieces = fit.best
    foreign = [
        part
        for part in fit.languages
        if (part.pieces_per_word > _MAX_RATIO * pieces or part.unknown > 0.1) and part.name not in fit.made_for
    ]
    share = sum(part.share for part in foreign)
    if share >= _MIN_SHARE:
        told = join_names([f"{part.name} ({100 * part.share:.0f} %)" for part in foreign[:_MAX_NAMES]])
        worst = sum(part.share * part.pieces_per_word for part in foreign) / share
        for_one = f", or one for {foreign[0].name}" if len(foreign) == 1 else ""
        yield Finding(
            kind="language of the encoder",
            text=(
                f"texts in {told}, and the tokenizer of {fit.encoder} cuts them into {worst:.1f} pieces a word; it was "
                f"made for {_made_for(fit)}, and cuts {best} into {pieces:.1f}"
            ),
            advice=f"try a multilingual encoder{for_one}, e.g. --model xlm-roberta-base",
            harm=share,
            details=fit.to_json(),
        )
    elif fit.pieces_per_word > _MAX_RATIO * pieces and not (fit.languages and foreign):
        yield Finding(
            kind="vocabulary of the encoder",
            text=(
                f"the tokenizer of {fit.encoder} cuts the texts into {fit.pieces_per_word:.1f} pieces a word, and "
                f"plain {best} into {pieces:.1f}{_script_note(fit)}"
            ),
            advice="try an encoder for the language or the field of the texts",
            harm=min(1.0, (fit.pieces_per_word / pieces - 1) / 4),
            details=fit.to_json(),
        )


def _made_for(fit: EncoderFit) -> str:
    """Name the languages that a tokenizer was made for."""
    names = fit.made_for
    if not names:
        return "none of the languages that it was tried on"
    return (
        join_names(list(names)) if len(names) <= _MAX_NAMES else f"{len(names)} languages of {len(_reference_texts())}"
    )


def _script_note(fit: EncoderFit) -> str:
    """Name the most frequent script of the texts, if it is not the Latin one."""
    script, share = next(iter(fit.scripts.items()), ("Latin", 1.0))
    return "" if script == "Latin" else f"; {100 * share:.0f} % of the letters are {script}"


def _unknown_findings(fit: EncoderFit) -> Iterator[Finding]:
    if fit.unknown < _MAX_UNKNOWN or fit.texts_with_unknown < _MIN_SHARE:
        return
    examples = ", ".join(f"“{shorten(word, 20)}”" for word in fit.unknown_words)
    yield Finding(
        kind="unknown pieces",
        text=(
            f"{100 * fit.unknown:.1f} % of the pieces are unknown to the tokenizer of {fit.encoder}, in "
            f"{100 * fit.texts_with_unknown:.0f} % of the texts: {examples}"
        ),
        advice="the encoder cannot read them; try one with a byte-level or a multilingual vocabulary",
        # an unknown piece in twenty changes few predictions; where half are unknown, the text is gone
        harm=min(fit.texts_with_unknown, 2 * fit.unknown),
        details=fit.to_json(),
    )


def truncation_findings(
    fit: EncoderFit, tokens: Mapping[str, TokenTable], policy: TruncationPolicy, longest: int | None
) -> list[Finding]:
    """Return a finding if more than a twentieth of a split's texts are truncated, with what a longer maximum costs.

    tokens: of each split, truncated by the policy. longest: sequence that the encoder reads; None without a limit.
    """
    shares = {split: float(table.is_truncated.mean()) for split, table in tokens.items()}
    split = max(shares, key=lambda name: (name == "test", shares[name])) if shares else ""
    worst = max(shares.values(), default=0.0)
    if worst <= _MIN_SHARE:
        return []
    told = ", ".join(f"{100 * share:.0f} % of {name}" for name, share in shares.items() if share > _MIN_SHARE)
    kept = np.minimum(fit.lengths, policy.max_length)
    lost = 1 - kept.sum() / fit.lengths.sum()
    lost_text = f", which loses {100 * lost:.0f} % of all tokens" if policy.long_texts != "windows" else ""
    return [
        Finding(
            kind="truncation",
            text=f"{told} is truncated to {policy.describe()} of {fit.encoder}{lost_text}",
            advice=_longer(fit, policy, longest),
            harm=shares[split],
            details={"truncated": shares, "lost_tokens": float(lost), "max_length": policy.max_length},
        )
    ]


def _longer(fit: EncoderFit, policy: TruncationPolicy, longest: int | None) -> str:
    """Advise a longer maximum and say what it costs: tokens, to which the time of a run is about proportional."""
    wanted = int(np.ceil(np.quantile(fit.lengths, 0.95) / 32) * 32)
    length = min(wanted, longest or wanted)
    if length <= policy.max_length or policy.long_texts == "windows":
        return "read long texts in windows (long_texts: windows), or keep both ends (long_texts: head_tail)"
    ratio = np.minimum(fit.lengths, length).sum() / np.minimum(fit.lengths, policy.max_length).sum()
    truncated = (fit.lengths > length).mean()
    return (
        f"max_length {length} truncates {100 * truncated:.0f} % and reads {ratio:.1f} times the tokens, "
        f"in about {ratio:.1f} times the time"
    )
