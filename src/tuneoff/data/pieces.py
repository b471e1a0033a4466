"""Tokens of single examples: pieces and their ids, special tokens, unknown pieces, and tokens that truncation cuts.

# T tokens of an example
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuneoff.data.dataset import Dataset
from tuneoff.data.lengths import full_lengths
from tuneoff.data.spec import TruncationPolicy
from tuneoff.data.tokens import TokenTable, windows_reach
from tuneoff.errors import ConfigError, unknown
from tuneoff.formats import shorten
from tuneoff.validation import whole_number

_TEXT_LENGTH = 300  # characters
_SHOWN_ENDS = (60, 20)  # tokens of a long example that are kept at its start and its end
_SHOWN_AROUND = 12  # tokens that are kept on each side of a place where truncation begins or ends

SPECIAL, UNKNOWN, CUT = "special", "unknown", "cut"


@dataclass(frozen=True)
class Piece:
    """A token: a piece of a word, or a special token."""

    position: int  # in the sequence before truncation
    text: str  # as the vocabulary writes it
    id: int
    marks: tuple[str, ...] = ()  # of SPECIAL, UNKNOWN, CUT


@dataclass(frozen=True)
class TokenizedExample:
    """The tokens of one example before truncation; of a long one, those at its ends and where it is cut."""

    split: str
    example: int  # its index in the split
    reason: str  # why it is shown
    label: str
    text: str  # shortened
    text_pair: str | None
    num_tokens: int
    num_cut: int
    num_unknown: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class TokenExamples:
    """The tokens of some examples, and the token that every sequence begins with."""

    encoder: str
    truncation: str  # in words
    first_token: str | None  # the most frequent first token
    first_id: int | None
    first_share: float  # of the sequences of all splits that begin with it
    examples: tuple[TokenizedExample, ...]


_MAX_ROWS = 1000  # that are shown token by token


def parse_rows(text: str) -> list[tuple[str, int]]:
    """Parse train:5,test:17-20 into splits and rows. Raises ConfigError for anything else."""
    rows: list[tuple[str, int]] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        split, colon, numbers = part.partition(":")
        first, dash, last = (number.strip() for number in numbers.partition("-"))
        last = last if dash else first
        start, end = whole_number(first), whole_number(last)
        if not colon or start is None or end is None or start > end:
            raise ConfigError(f"rows {part!r} are not split:row or split:first-last; write e.g. train:5,test:17-20")
        if len(rows) + end - start >= _MAX_ROWS:
            raise ConfigError(f"rows {part!r} are more than {_MAX_ROWS:,}; name fewer")
        rows += [(split.strip(), row) for row in range(start, end + 1)]
    return rows


def check_rows(dataset: Dataset, rows: Sequence[tuple[str, int]]) -> None:
    """Raise ConfigError for a row that is not in the dataset."""
    for split, row in rows:
        if split not in dataset.splits:
            raise ConfigError(unknown("split", split, dataset.splits))
        if row >= (count := dataset.num_examples(split)):
            raise ConfigError(
                f"row {row} is not in {split}, which has {count:,} examples; give a row from 0 to {count - 1}"
            )


def tokenized_examples(
    dataset: Dataset,
    encoder: str,
    tokenizer: Any,
    tokens: Mapping[str, TokenTable],
    policy: TruncationPolicy,
    rows: Sequence[tuple[str, int]] = (),
) -> TokenExamples:
    """Tokenize some examples for readers: those of `rows`, or typical training examples.

    Without rows: the shortest, a median and the longest, and the first one with an unknown piece. tokens: split ->
    tokens after truncation.
    """
    chosen = [(*row, "") for row in rows] or _typical(dataset, tokens["train"], tokenizer)
    first_id, first_share = _first_token(tokens)
    return TokenExamples(
        encoder=encoder,
        truncation=policy.describe(),
        first_token=tokenizer.convert_ids_to_tokens(first_id),
        first_id=first_id,
        first_share=first_share,
        examples=tuple(_tokenized(dataset, *row, tokenizer, policy) for row in chosen),
    )


def _typical(dataset: Dataset, train: TokenTable, tokenizer: Any) -> list[tuple[str, int, str]]:
    """Choose training examples: split, row and the reason."""
    order = np.argsort(full_lengths(dataset.splits["train"], train, tokenizer), kind="stable")
    rows = {int(order[0]): "shortest", int(order[len(order) // 2]): "median length", int(order[-1]): "longest"}
    if tokenizer.unk_token_id is not None:
        token = int(np.argmax(train.ids == tokenizer.unk_token_id))  # 0 if there is none
        if train.ids[token] == tokenizer.unk_token_id:
            sequence = int(np.searchsorted(train.offsets, token, side="right")) - 1
            windows = np.arange(len(train) + 1) if train.windows is None else train.windows
            rows.setdefault(int(np.searchsorted(windows, sequence, side="right")) - 1, "has an unknown piece")
    return [("train", row, reason) for row, reason in rows.items()]


def _first_token(tokens: Mapping[str, TokenTable]) -> tuple[int, float]:
    """Return the most frequent first token of all sequences, and its share."""
    first = np.concatenate([table.ids[table.offsets[:-1]] for table in tokens.values()])
    ids, counts = np.unique(first, return_counts=True)
    return int(ids[counts.argmax()]), float(counts.max() / len(first))


def _tokenized(
    dataset: Dataset, split: str, row: int, reason: str, tokenizer: Any, policy: TruncationPolicy
) -> TokenizedExample:
    example = dataset.splits[split].slice(row, 1).to_pylist()[0]
    texts = [example[name] for name in ("text", "text_pair") if name in example]
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    encoding = backend.encode(*texts)
    is_kept = kept_tokens(tokenizer, texts, policy)
    is_special = np.array(encoding.special_tokens_mask, bool)
    is_unknown = (np.array(encoding.ids) == tokenizer.unk_token_id) & ~is_special
    masks = {SPECIAL: is_special, UNKNOWN: is_unknown, CUT: ~is_kept}
    pieces = [
        Piece(p, encoding.tokens[p], encoding.ids[p], tuple(mark for mark, mask in masks.items() if mask[p]))
        for p in _shown(is_kept)
    ]
    label = example["label"]
    names = (
        [dataset.label_names[label]]
        if isinstance(label, int)
        else [name for name, value in zip(dataset.label_names, label, strict=True) if value]
    )
    return TokenizedExample(
        split=split,
        example=row,
        reason=reason,
        label=", ".join(names) or "no label",
        text=shorten(texts[0], _TEXT_LENGTH),
        text_pair=shorten(texts[1], _TEXT_LENGTH) if len(texts) == 2 else None,
        num_tokens=len(encoding.ids),
        num_cut=int((~is_kept).sum()),
        num_unknown=int(is_unknown.sum()),
        pieces=tuple(pieces),
    )


def kept_tokens(tokenizer: Any, texts: Sequence[str], policy: TruncationPolicy) -> np.ndarray:
    """Mask of the tokens of an example that the encoder reads, of all before truncation. (T,) bool.

    texts: one, or the two of a pair. The tokenizer itself truncates, as in training; its tokens of each text are the
    first (or, truncated from the left, the last) ones of that text.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    encoding = backend.encode(*texts)
    num_tokens = len(encoding.ids)
    is_kept = np.ones(num_tokens, bool)
    if num_tokens <= policy.max_length:
        return is_kept
    if policy.long_texts == "head_tail":
        is_kept[policy.head_tokens : num_tokens - (policy.max_length - policy.head_tokens)] = False
        return is_kept
    sequences = np.array([-1 if text is None else text for text in encoding.sequence_ids])  # -1: special tokens
    if policy.long_texts == "windows":
        is_kept[np.flatnonzero(sequences == 0)[windows_reach(backend, policy) :]] = False
        return is_kept
    direction = "left" if policy.long_texts == "tail" else tokenizer.truncation_side
    backend.enable_truncation(policy.max_length, strategy="longest_first", direction=direction)
    truncated = backend.encode(*texts).sequence_ids
    backend.no_truncation()
    for text in range(len(texts)):
        positions, num_kept = np.flatnonzero(sequences == text), truncated.count(text)
        cut = positions[: len(positions) - num_kept] if direction == "left" else positions[num_kept:]
        is_kept[cut] = False
    return is_kept


def _shown(is_kept: np.ndarray) -> list[int]:
    """Choose the positions that are shown: all of a short example, else its ends and where it is cut. is_kept: (T,)."""
    start, end = _SHOWN_ENDS
    if len(is_kept) <= start + end + 4 * _SHOWN_AROUND:
        return list(range(len(is_kept)))
    is_shown = np.zeros(len(is_kept), bool)
    is_shown[:start] = is_shown[-end:] = True
    for place in np.flatnonzero(np.diff(is_kept)) + 1:
        is_shown[max(0, place - _SHOWN_AROUND) : place + _SHOWN_AROUND] = True
    return np.flatnonzero(is_shown).tolist()
