"""The language of the package: plain engineering English in the field's nouns (docs/design.md, Words)."""

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "tuneoff"
DOCUMENTS = [SOURCE.parent.parent / name for name in ("README.md", "docs/design.md", "docs/recipe.md")]
CLAUSES = {"What", "How", "Whether", "Which", "Where", "Who", "When", "From", "Whatever", "Whoever"}
# literary or ambiguous words that the code once used, and plainer ones
LITERARY = {
    "lest": "so that ... not",
    "foretell": "estimate",
    "foretold": "estimated",
    "mended": "fixed",
    "luck": "seed variance",
    "nobody": "no one",
    "whoever": "any caller",
    "carved": "held out",
    "spoken": "display name",
}
FIELD_NOUNS = ["multi-label", "class imbalance", "hyperparameter", "tokenize", "confidence interval", "truncation"]


def trees():
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.rglob("*.py"))}


def docstrings():
    """The first word of every docstring of the package, with its place."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, kinds) and (words := (ast.get_docstring(node) or "").split()):
                yield words[0].rstrip(",.:;"), f"{path.name}:{getattr(node, 'lineno', 1)}"


def test_docstrings_open_with_a_statement_or_a_command():
    openings = list(docstrings())
    clauses = [place for word, place in openings if word in CLAUSES]
    assert len(openings) > 500
    assert len(clauses) / len(openings) < 0.02, clauses


def test_variables_are_named_after_their_content():
    stores = [
        f"{path.name}:{node.lineno}"
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id == "found" and isinstance(node.ctx, ast.Store)
    ]
    assert len(stores) <= 5, stores


@pytest.mark.parametrize(
    "path", [*sorted(SOURCE.rglob("*.py")), *sorted(SOURCE.rglob("*.j2")), *DOCUMENTS], ids=lambda path: path.name
)
def test_words_are_plain(path):
    text = path.read_text(encoding="utf-8")
    used = {word: plain for word, plain in LITERARY.items() if re.search(rf"\b{word}\b", text, re.IGNORECASE)}
    assert not used, f"{path.name}: write instead {used}"


@pytest.mark.parametrize("noun", FIELD_NOUNS)
def test_a_reader_finds_the_place_by_the_fields_noun(noun):
    holders = [path.name for path in SOURCE.rglob("*.py") if noun in path.read_text(encoding="utf-8").lower()]
    assert holders
