"""Word attributions: how much each word of a text moves the score of a label, and in which direction.

Algorithm: integrated gradients (Sundararajan, Taly & Yan, ICML 2017), by captum, on the word embeddings of transformers
models, and of an encoder with the linear classifier of a probe. The baseline is the same text with every token masked.
The attributions of all words sum to the difference of the label's score between the text and the baseline
(completeness), up to a small error, because the integral is a sum of STEPS terms. A linear model on TF-IDF needs no
integral: coefficient times value, with the empty text as the baseline; each n-gram's share is divided among its words.

Trade-off: scores are logits, of a probe margins; a word may have no attribution alone and a large one with another. An
attribution describes the model, not the world.

# T tokens  H hidden  C classes  S steps of the integral
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tuneoff.deliver.classifier import joined_texts, read_skops, restored_model
from tuneoff.deliver.saved import SavedModel
from tuneoff.errors import ConfigError, LibraryError
from tuneoff.strategies import STRATEGIES

STEPS = 64  # of the integral: an error below 1 % of the difference on short texts (tests/deliver/test_attribution.py)
_BATCH = 16  # steps that are computed at once, for memory


@dataclass(frozen=True)
class Word:
    """A word of a text with its attribution."""

    part: int  # 0: the text, 1: the second text of a pair
    start: int  # in characters
    end: int
    score: float  # above 0: towards the label


@dataclass(frozen=True)
class Attribution:
    """Attributions of the words of a text for one label, which sum to score - baseline."""

    words: tuple[Word, ...]
    score: float  # of the label for this text: a logit, of a probe or TF-IDF a margin
    baseline: float  # the same without the words


Explain = Callable[[pa.Table, int], Attribution]  # (one text, id of a label)


def load_attribution(folder: Path, saved: SavedModel, encoder: str | None = None) -> Explain:
    """Return the function that attributes the label of a text to its words, for the model in a folder.

    Raises ConfigError for a model that does not use the text; the function raises it for a text that the model reads in
    parts.
    """
    row = STRATEGIES[saved.strategy.name]
    if not row.learns:
        raise ConfigError(f"{saved.strategy.name} does not use the words of a text")
    return {"texts": _of_linear_model, "embeddings": _of_probe, "model": _of_model}[row.fits_on](folder, saved, encoder)


def _of_linear_model(folder: Path, saved: SavedModel, encoder: str | None) -> Explain:
    """Coefficient times value of each n-gram, divided among its occurrences and their words."""
    pipeline = read_skops(folder)
    vectorizer, linear = pipeline[0], pipeline[-1]
    coefficients, intercepts = _coefficients(linear)
    find_words, longest = vectorizer.build_tokenizer(), vectorizer.ngram_range[1]

    def explain(texts: pa.Table, label: int) -> Attribution:
        (text,) = joined_texts(texts)
        values = vectorizer.transform([text])
        shares = dict(zip(values.indices, values.data * coefficients[label][values.indices], strict=True))
        spans = _spans(text, find_words(text))
        tokens = [text[start:end].lower() for start, end in spans]
        ngrams = [
            (at, size, vectorizer.vocabulary_.get(" ".join(tokens[at : at + size])))
            for size in range(1, longest + 1)
            for at in range(len(tokens) - size + 1)
        ]
        counts = Counter(index for _, _, index in ngrams)
        scores = np.zeros(len(spans))
        for at, size, index in ngrams:
            scores[at : at + size] += shares.get(index, 0.0) / (size * counts[index])
        words = _in_parts(texts, spans, scores)
        return Attribution(words, float(intercepts[label] + sum(shares.values())), float(intercepts[label]))

    return explain


def _of_probe(folder: Path, saved: SavedModel, encoder: str | None) -> Explain:
    import torch

    from tuneoff.deliver.classifier import verified_encoder
    from tuneoff.encoder.config import load_tokenizer
    from tuneoff.encoder.load import load_model

    pipeline = read_skops(folder)
    scaler = pipeline[0] if len(pipeline) > 1 else None  # a probe without scaling has none
    name = verified_encoder(saved, encoder)
    model, pooling = load_model(name, ("0", "1"), seed=0).eval(), saved.strategy.pooling  # type: ignore[attr-defined]
    weights, intercepts = _coefficients(pipeline[-1])
    if scaler is not None:
        weights = weights / scaler.scale_
        intercepts = intercepts - weights @ scaler.mean_
    matrix, constants = torch.from_numpy(weights).float(), torch.from_numpy(intercepts).float()  # (C, H), (C,)

    def scores(**inputs: Any) -> torch.Tensor:
        states = model.base_model(**inputs).last_hidden_state  # (S, T, H)
        return (states.mean(1) if pooling == "mean" else states[:, 0]) @ matrix.T + constants

    return _integrated(model, load_tokenizer(name), saved, scores)


def _of_model(folder: Path, saved: SavedModel, encoder: str | None) -> Explain:
    from tuneoff.deliver.classifier import is_whole, verified_encoder
    from tuneoff.encoder.config import load_tokenizer

    model = restored_model(folder, saved, encoder).cpu()
    tokenizer = load_tokenizer(str(folder) if is_whole(folder) else verified_encoder(saved, encoder))
    return _integrated(model, tokenizer, saved, lambda **inputs: model(**inputs).logits)


def _integrated(model: Any, tokenizer: Any, saved: SavedModel, scores: Callable[..., Any]) -> Explain:
    """Integrated gradients of a model. scores: arguments of its forward -> (S, C)."""
    try:
        from captum.attr import IntegratedGradients
    except ImportError as error:
        raise LibraryError(
            f"captum cannot be imported ({error}); install it with pip install 'tuneoff[serve]'"
        ) from error
    import torch

    from tuneoff.compat import attention_implementation

    if attention_implementation(model.config) == "tuneoff_packed":
        model.set_attn_implementation("sdpa")  # the steps of the integral are a batch of texts of one length
    model.requires_grad_(False)
    embed, policy = model.get_input_embeddings(), saved.truncation

    def explain(texts: pa.Table, label: int) -> Attribution:
        pieces = [column[0].as_py() for column in texts.columns]
        is_short = policy.long_texts == "head" or len(tokenizer(*pieces)["input_ids"]) <= policy.max_length
        if not is_short:
            raise ConfigError(f"words are not shown for a text above {policy.max_length} tokens that is read in parts")
        encoded = tokenizer(
            *pieces,
            truncation="longest_first",
            max_length=policy.max_length,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
            return_tensors="pt",
        )
        ids, is_special = encoded["input_ids"], encoded["special_tokens_mask"][0].bool()
        masked = tokenizer.mask_token_id if tokenizer.mask_token_id is not None else tokenizer.pad_token_id
        baseline = torch.where(is_special, ids, masked)
        extra = {name: encoded[name] for name in ("token_type_ids",) if name in encoded and name in _arguments(model)}

        def forward(states: torch.Tensor) -> torch.Tensor:
            options = {name: value.expand(len(states), -1) for name, value in extra.items()}
            mask = torch.ones(states.shape[:2], dtype=torch.long)
            return scores(inputs_embeds=states, attention_mask=mask, **options)

        states, base = embed(ids), embed(baseline)
        by_token = IntegratedGradients(forward, multiply_by_inputs=True).attribute(
            states, base, target=label, n_steps=STEPS, internal_batch_size=_BATCH
        )
        by_token = by_token.sum(-1)[0].double().numpy()  # (T,)
        with torch.inference_mode():
            ends = [float(forward(value)[0, label]) for value in (states, base)]
        return Attribution(_words(encoded, by_token), *ends)

    return explain


def _arguments(model: Any) -> tuple[str, ...]:
    import inspect

    return tuple(inspect.signature(model.base_model.forward).parameters)


def _words(encoded: Any, by_token: np.ndarray) -> tuple[Word, ...]:
    """Sum the attributions of the tokens of each word. by_token: (T,)."""
    spans: dict[tuple[int, int], list[Any]] = {}
    offsets = encoded["offset_mapping"][0].tolist()
    for token, (part, word) in enumerate(zip(encoded.sequence_ids(), encoded.word_ids(), strict=True)):
        if part is None:
            continue  # special tokens are the same in the baseline, so that their attribution is 0
        start, end = offsets[token]
        known = spans.setdefault((part, word if word is not None else -token), [start, end, 0.0])
        known[0], known[1], known[2] = min(known[0], start), max(known[1], end), known[2] + float(by_token[token])
    return tuple(Word(part, *span) for (part, _), span in spans.items())


def _coefficients(linear: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the coefficients, (C, F), and intercepts, (C,), of a linear classifier: a margin for every class."""
    if hasattr(linear, "estimators_"):  # one classifier per label
        each = [_coefficients(one) for one in linear.estimators_]
        return np.stack([weights[1] for weights, _ in each]), np.array([intercepts[1] for _, intercepts in each])
    weights, intercepts = linear.coef_, linear.intercept_
    if len(weights) == 1:  # two classes: the margin of the second
        return np.concatenate([-weights, weights]), np.concatenate([-intercepts, intercepts])
    return weights, intercepts


def _spans(text: str, words: list[str]) -> list[tuple[int, int]]:
    """Return the places of words in a text, in order."""
    spans, at = [], 0
    for word in words:
        start = text.index(word, at)
        at = start + len(word)
        spans.append((start, at))
    return spans


def _in_parts(texts: pa.Table, spans: list[tuple[int, int]], scores: np.ndarray) -> tuple[Word, ...]:
    """Return the words of joined texts as words of the first or the second text."""
    length = len(texts["text"][0].as_py()) + 1 if texts.num_columns == 2 else None  # with the line break
    return tuple(
        Word(0, start, end, float(score))
        if length is None or start < length
        else Word(1, start - length, end - length, float(score))
        for (start, end), score in zip(spans, scores, strict=True)
    )
