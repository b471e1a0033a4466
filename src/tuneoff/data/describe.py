"""Description of a dataset for reports: sizes, class balance, lengths, sample texts and findings of the checks."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter

from tuneoff.data.dataset import Dataset, is_member, label_counts, labels_of
from tuneoff.data.doctor.checks import examine
from tuneoff.data.doctor.copies import Copies
from tuneoff.data.doctor.finding import Finding
from tuneoff.data.lengths import Histogram, LengthProfile, character_profiles, token_profiles
from tuneoff.data.pieces import TokenExamples, tokenized_examples
from tuneoff.data.spec import TruncationPolicy
from tuneoff.data.tokens import TokenTable
from tuneoff.data.vocabulary import Vocabulary, describe_vocabulary, vocabulary_from_json
from tuneoff.formats import shorten

_BINS = 32  # of a length histogram
_MAX_SAMPLES = 30
_SAMPLE_LENGTH = 300  # characters


@dataclass(frozen=True)
class SplitSummary:
    """Size of one split."""

    examples: int
    labels: list[int]  # examples of each label


@dataclass(frozen=True)
class LengthSummary:
    """Tokens per example of one split, after truncation."""

    mean: float
    median: float
    p95: float
    max: int
    truncated: float  # share of examples
    box: list[float]  # lower whisker, quartiles, upper whisker
    histogram: Histogram
    before: LengthProfile | None = None  # truncation; None if an earlier version ran


@dataclass(frozen=True)
class DataDescription:
    """Everything that a report shows about the data. Stored as JSON."""

    name: str
    fingerprint: str
    label_names: tuple[str, ...]
    is_pair: bool
    is_multilabel: bool
    notes: tuple[str, ...]  # how splits and subsets were made
    splits: dict[str, SplitSummary]
    lengths: dict[str, dict[str, LengthSummary]]  # encoder -> split
    first_examples: tuple[dict[str, str], ...]  # label, text, perhaps text_pair
    findings: tuple[Finding, ...]  # most harmful first
    folds: int | None = None  # number of folds; None: one split
    text_columns: tuple[str, ...] = ()  # of the user's data, one or for pairs two; empty if an earlier version ran
    heads: dict[str, str] = field(default_factory=dict)  # encoder -> why its own head is not used
    # empty or None if an earlier version ran
    characters: dict[str, dict[str, LengthProfile]] = field(default_factory=dict)  # column (text, text_pair) -> split
    token_examples: TokenExamples | None = None  # of the first encoder
    vocabulary: Vocabulary | None = None

    @property
    def scored_split(self) -> str:
        """The split that strategies are scored on: test, or with folds all of train."""
        return "train" if self.folds else "test"

    def to_json(self) -> dict[str, Any]:
        """Return the description as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "DataDescription":
        """Rebuild a stored description; earlier versions lack some of its parts."""
        lengths = {
            model: {split: _length_summary(summary) for split, summary in splits.items() if "histogram" in summary}
            for model, splits in stored.get("lengths", {}).items()
        }
        return cls(
            name=stored["name"],
            fingerprint=stored["fingerprint"],
            label_names=tuple(stored["label_names"]),
            is_pair=stored["is_pair"],
            is_multilabel=stored.get("is_multilabel", False),
            notes=tuple(stored["notes"]),
            splits={split: SplitSummary(**summary) for split, summary in stored["splits"].items()},
            lengths={model: splits for model, splits in lengths.items() if splits},
            first_examples=tuple(stored.get("first_examples", ())),
            findings=tuple(_finding(finding) for finding in stored["findings"]),
            folds=stored.get("folds"),
            text_columns=tuple(stored.get("text_columns", ())),
            heads=stored.get("heads", {}),
            characters=TypeAdapter(dict[str, dict[str, LengthProfile]]).validate_python(stored.get("characters", {})),
            token_examples=TypeAdapter(TokenExamples | None).validate_python(stored.get("token_examples")),
            vocabulary=vocabulary_from_json(stored["vocabulary"]) if stored.get("vocabulary") else None,
        )


def _finding(stored: str | Mapping[str, Any]) -> Finding:
    """Rebuild a stored finding; earlier versions stored a sentence."""
    if isinstance(stored, str):
        kind, _, text = stored.partition(": ")
        return Finding(kind, text)
    return Finding(**stored)


def _length_summary(stored: Mapping[str, Any]) -> LengthSummary:
    return TypeAdapter(LengthSummary).validate_python(stored)


def describe(
    dataset: Dataset,
    tokens: Mapping[str, Mapping[str, TokenTable]],
    tokenizers: Mapping[str, Any] | None = None,
    truncation: TruncationPolicy | None = None,
    rows: Sequence[tuple[str, int]] = (),
    copies: Copies | None = None,
) -> DataDescription:
    """Describe a dataset. tokens: encoder -> split -> tokens; lengths are left out for an empty mapping.

    tokenizers: of the encoders, and truncation: of the tokens; without them, lengths before truncation and tokens of
    examples are left out. rows: examples whose tokens are shown, by default typical ones. copies: of the dataset, if
    they are computed already.
    """
    tokenizers = tokenizers or {}
    splits = {}
    for split, table in dataset.splits.items():
        counts = label_counts(labels_of(table), dataset.num_labels)
        splits[split] = SplitSummary(table.num_rows, counts.tolist())
    return DataDescription(
        name=dataset.name,
        fingerprint=dataset.fingerprint,
        label_names=dataset.label_names,
        is_pair=dataset.is_pair,
        is_multilabel=dataset.is_multilabel,
        notes=dataset.notes,
        splits=splits,
        lengths={model: _lengths(dataset, tables, tokenizers.get(model)) for model, tables in tokens.items()},
        first_examples=_first_examples(dataset),
        findings=tuple(examine(dataset, copies)),
        folds=dataset.folds,
        text_columns=tuple(dataset.columns[name] for name in ("text", "text_pair") if name in dataset.columns),
        characters=character_profiles(dataset),
        token_examples=_token_examples(dataset, tokens, tokenizers, truncation, rows),
        vocabulary=describe_vocabulary(dataset),
    )


def _token_examples(
    dataset: Dataset,
    tokens: Mapping[str, Mapping[str, TokenTable]],
    tokenizers: Mapping[str, Any],
    truncation: TruncationPolicy | None,
    rows: Sequence[tuple[str, int]],
) -> TokenExamples | None:
    """Tokenize some examples with the first encoder; None without one."""
    if not tokenizers or not truncation:
        return None
    encoder, tokenizer = next(iter(tokenizers.items()))
    return tokenized_examples(dataset, encoder, tokenizer, tokens[encoder], truncation, rows)


def _lengths(dataset: Dataset, tokens: Mapping[str, TokenTable], tokenizer: Any | None) -> dict[str, LengthSummary]:
    """Summarise the tokens of each split, after truncation and, with a tokenizer, before it."""
    before = token_profiles(dataset, tokens, tokenizer) if tokenizer else {}
    edges = _bin_edges(tokens)
    return {
        split: replace(summarise_lengths(table, edges), before=before.get(split)) for split, table in tokens.items()
    }


def summarise_lengths(table: TokenTable, edges: np.ndarray) -> LengthSummary:
    """Summarise tokens per example and the share of truncated ones. edges: of the histogram's bins."""
    lengths = table.lengths
    low, median, high = np.quantile(lengths, [0.25, 0.5, 0.75])
    reach = 1.5 * (high - low)  # Tukey (1977): a whisker ends at the last example within it
    return LengthSummary(
        mean=float(lengths.mean()),
        median=float(median),
        p95=float(np.quantile(lengths, 0.95)),
        max=int(lengths.max()),
        truncated=float(table.is_truncated.mean()),
        box=[
            int(lengths[lengths >= low - reach].min()),
            *map(float, (low, median, high)),
            int(lengths[lengths <= high + reach].max()),
        ],
        histogram=Histogram(edges.tolist(), np.histogram(lengths, edges)[0].tolist()),
    )


def _bin_edges(tables: Mapping[str, TokenTable]) -> np.ndarray:
    """Return integer edges of bins of equal width that cover the lengths of all splits."""
    longest = max(int(table.lengths.max()) for table in tables.values())
    width = -(-longest // _BINS)
    return np.arange(0, longest + 1 + width, width)


def _first_examples(dataset: Dataset) -> tuple[dict[str, str], ...]:
    """Return the first training examples of each label, long texts shortened."""
    train, examples = dataset.splits["train"], []
    labels, texts = labels_of(train), ["text", *(["text_pair"] if dataset.is_pair else [])]
    each = max(1, min(3, _MAX_SAMPLES // dataset.num_labels))
    for index, name in enumerate(dataset.label_names[:_MAX_SAMPLES]):
        rows = np.flatnonzero(is_member(labels, index))[:each]
        for row in train.select(texts).take(pa.array(rows)).to_pylist():
            examples.append({"label": name, **{column: shorten(text, _SAMPLE_LENGTH) for column, text in row.items()}})
    return tuple(examples)
