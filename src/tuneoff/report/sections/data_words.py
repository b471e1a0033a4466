"""Words of a dataset: size and variety of the vocabulary, words that train lacks, and words and bigrams by class."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from tuneoff.data.vocabulary import WINDOW, ClassVocabulary, Term, Vocabulary
from tuneoff.formats import short_names
from tuneoff.report.chart import COLOURS, WIDTH
from tuneoff.report.section import Block, Chart, ChartMenu, Figures, TableBlock, Text
from tuneoff.tables import COUNT, LONG_TEXT, SCORE, SHARE, TEXT, Column, Table

_MAX_CHARTS = 12  # classes with a chart of their words: the largest ones


def vocabulary_blocks(vocabulary: Vocabulary, has_charts: bool) -> list[Block]:
    """Return the tables of words by split and by class. has_charts: also a chart for each class, behind a menu."""
    text = (
        "Words in lower case, without punctuation; types are distinct words. The ratio of types to words falls with "
        f"the number of words, so that splits are compared by its mean over all windows of {WINDOW} running words "
        "(moving average, MATTR). "
        "Unseen are types and words that are not in train."
    )
    if vocabulary.is_sampled:
        text += " Of large splits a random sample of texts was read, which makes unseen shares larger than they are."
    blocks: list[Block] = [Text(text), TableBlock(words_by_split(vocabulary))]
    if not vocabulary.classes:
        return blocks
    blocks += _distinctive_blocks(vocabulary, has_charts)
    text = "The most frequent words and bigrams of each class, without English stop words other than negations."
    table = TableBlock(frequent_words(vocabulary), is_tall=True, is_page_only=True)
    return [*blocks, Text(text, is_page_only=True), table]


def _distinctive_blocks(vocabulary: Vocabulary, has_charts: bool) -> list[Block]:
    method = "log-odds with an informative Dirichlet prior, false discovery rate 5 %; a word counts once per text"
    if not any(part.distinctive_words or part.distinctive_bigrams for part in vocabulary.classes):
        text = f"No word or bigram is significantly more frequent in the training texts of a class ({method})."
        return [Text(text, is_page_only=True)]
    text = (
        "Words and bigrams that are significantly more frequent in the training texts of a class than in those of all "
    )
    text += f"others, most significant first ({method})."
    table = TableBlock(distinctive_words(vocabulary), is_tall=True, is_page_only=True)
    return [Text(text, is_page_only=True), *(_charts(vocabulary.classes) if has_charts else []), table]


def words_by_split(vocabulary: Vocabulary) -> Table:
    """Words, types, their ratios, and what train lacks, for each split."""
    columns = (
        Column("split", "split", TEXT),
        Column("texts", "texts", COUNT),
        Column("words", "words", COUNT),
        Column("types", "types", COUNT),
        Column("type_token_ratio", "types / words", SCORE),
        Column("moving_type_token_ratio", "moving average", SCORE),
        Column("unseen_types_share", "unseen types", SHARE),
        Column("unseen_words_share", "unseen words", SHARE),
    )
    return Table(
        "words-by-split", columns, [[split, *vars(part).values()] for split, part in vocabulary.splits.items()]
    )


def distinctive_words(vocabulary: Vocabulary) -> Table:
    """Words and bigrams that are significantly more frequent in each class."""
    rows = [
        [part.label, part.texts, _listed(part.distinctive_words), _listed(part.distinctive_bigrams)]
        for part in vocabulary.classes
    ]
    return Table("distinctive-words", _CLASS_COLUMNS, rows)


def frequent_words(vocabulary: Vocabulary) -> Table:
    """Words and bigrams that are in most texts of each class."""
    rows = [
        [part.label, part.texts, _listed(part.frequent_words), _listed(part.frequent_bigrams)]
        for part in vocabulary.classes
    ]
    return Table("frequent-words", _CLASS_COLUMNS, rows)


_CLASS_COLUMNS = (
    Column("label", "label", TEXT),
    Column("texts", "texts", COUNT),
    Column("words", "words", LONG_TEXT),
    Column("bigrams", "bigrams", LONG_TEXT),
)


def _listed(terms: Sequence[Term]) -> str | None:
    return ", ".join(term.text for term in terms) or None


def _charts(classes: Sequence[ClassVocabulary]) -> list[Block]:
    """Return a menu of charts, one for each of the largest classes."""
    names = short_names([part.label for part in classes])
    largest = sorted(
        (i for i, part in enumerate(classes) if part.distinctive_words or part.distinctive_bigrams),
        key=lambda i: -classes[i].texts,
    )[:_MAX_CHARTS]
    if not largest:
        return []
    charts = {f"words-class-{i}": word_chart(classes[i]) for i in sorted(largest)}
    entries = {f"words-class-{i}": names[i] for i in sorted(largest)}
    label = "class" if len(largest) == len(classes) else f"class (the {len(largest)} largest)"
    return [Figures({}, menu=ChartMenu(label, entries, charts, next(iter(charts))))]


def word_chart(part: ClassVocabulary) -> Chart:
    """Draw the log-odds of the distinctive words and bigrams of a class."""
    rows = pd.DataFrame(
        {"term": term.text, "kind": kind, "log-odds": term.log_odds, "texts": term.texts}
        for kind, terms in (("word", part.distinctive_words), ("bigram", part.distinctive_bigrams))
        for term in terms
    )
    kinds = ["word", "bigram"]
    bars = alt.Chart(rows).mark_bar(size=11)
    bars = bars.encode(
        y=alt.Y("term:N", sort=list(rows["term"]), title=None, axis=alt.Axis(labelLimit=220)),
        x=alt.X("log-odds:Q", title="log-odds ratio between the class and all others"),
        color=alt.Color("kind:N", title=None, sort=kinds, scale=alt.Scale(domain=kinds, range=list(COLOURS[:2]))),
        tooltip=["term", "kind", alt.Tooltip("log-odds", format=".2f"), "texts"],
    )
    return bars.properties(width=WIDTH, height=alt.Step(16))
