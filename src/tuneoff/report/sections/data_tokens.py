"""Tokens of some examples: pieces over their ids, special and unknown ones marked, truncated ones struck through."""

from tuneoff.data.pieces import TokenExamples, TokenizedExample
from tuneoff.report.section import Block, Text, TokenStrip


def token_blocks(tokens: TokenExamples) -> list[Block]:
    """Return the tokens of each example."""
    text = (
        f"Tokens of some examples as {tokens.encoder} reads them, each over its id in the vocabulary. Framed in colour "
        "are special tokens and pieces that the vocabulary lacks. Struck through is what truncation cuts: of each text "
        f"the encoder reads {tokens.truncation}. {first_token_text(tokens)}"
    )
    strips = [TokenStrip(caption(example), example.pieces) for example in tokens.examples]
    return [Text(text, is_page_only=True), *strips]


def first_token_text(tokens: TokenExamples) -> str:
    """Return a sentence on the token at position 0."""
    place = f"{tokens.first_token} (id {tokens.first_id}) is at position 0 of"
    if tokens.first_share == 1:
        return f"{place} every sequence, checked in all splits."
    return f"{place} {100 * tokens.first_share:.1f} % of the sequences: they begin with no special token."


def caption(example: TokenizedExample) -> str:
    """Return the place, the label and the counts of an example."""
    parts = [f"{example.split} example {example.example:,}"]
    parts += [example.reason] if example.reason else []
    parts += [f"label {example.label}", f"{example.num_tokens:,} tokens"]
    parts += [f"{example.num_cut:,} cut"] if example.num_cut else []
    parts += [f"{example.num_unknown:,} unknown"] if example.num_unknown else []
    return " · ".join(parts)
