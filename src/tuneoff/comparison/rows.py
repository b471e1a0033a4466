"""Rows of a comparison: strategies with their scores, costs and standings; pairs of them; and the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tuneoff.comparison.display import row_text, verdict_html, verdict_text
from tuneoff.formats import encoder_names
from tuneoff.scoring import stats
from tuneoff.strategies import STRATEGIES

# standings of a strategy against the best measured one
BEST = "best"
EQUIVALENT = "equivalent"  # loses at most the margin, with 95 % confidence
WORSE = "worse"  # the difference is significant
UNDECIDED = "undecided"
STANDINGS = (BEST, EQUIVALENT, UNDECIDED, WORSE)
EXTERNAL = "external"  # strategy of a row that no run of the study made: predictions from a file


def is_seeded(strategy: str) -> bool:
    """Return True if the seed changes the predictions of a strategy."""
    return strategy != EXTERNAL and STRATEGIES[strategy].is_seeded


def seeds_in_words(num_runs: int, sources: Mapping[str, int]) -> str:
    """Write a number of runs without folds. sources: seeds of each source of randomness that varies apart.

    >>> seeds_in_words(3, {}), seeds_in_words(1, {}), seeds_in_words(4, {"head": 2, "order": 2})
    ('3 seeds', 'one run', '4 runs (2 head x 2 order seeds)')
    """
    if len(sources) > 1 and num_runs > 1:
        grid = " x ".join(f"{count} {source}" for source, count in sources.items())
        return f"{num_runs} runs ({grid} seeds)"
    return f"{num_runs} seeds" if num_runs > 1 else "one run"


@dataclass(frozen=True, repr=False)
class Row:
    """One strategy with one encoder, over its seeds or folds; or predictions from a file.

    With folds the score is that of all examples together.
    """

    group: str
    label: str
    strategy: str
    model: str | None
    seeds: tuple[int, ...]  # with folds, their indices
    score: float  # mean over seeds of the study's metric on test
    seed_sd: float | None  # standard deviation of the seeds' scores; None for one run and with folds
    interval: tuple[float, float]  # 95 % confidence interval, over examples and seeds
    sd_from_examples: float  # standard deviation of the mean score over draws of test examples
    sd_from_seeds: float | None  # the same over draws of seeds; 0 if seeds change nothing, None for one run otherwise
    validation: float | None  # mean over seeds of the study's metric on validation; None if external
    scores: dict[str, float]  # every metric on test, mean over seeds
    difference: float  # to the best row, 0 or negative: below 0 is worse, for log loss too
    difference_interval: tuple[float, float]  # 95 % confidence interval
    p_value: float  # of no difference to the best, after Holm's correction over all pairs
    standing: str  # against the best: best | equivalent | worse | undecided
    loss_bound: float  # upper confidence limit of the loss against the best, simultaneous for all rows
    costs: dict[str, float]  # mean over seeds; keys of costs.py
    parameters: dict[str, int]
    sources: dict[str, int] = field(default_factory=dict)  # seeds of each source that varies apart; empty: together
    fold_scores: tuple[float, ...] = ()  # the study's metric on each fold; empty without folds
    validation_scores: dict[str, float] = field(default_factory=dict)  # every metric on validation, mean over seeds

    def __repr__(self) -> str:
        return row_text(self)

    @property
    def repeats(self) -> str:
        """The number of runs in words: "5 folds", "3 seeds", "4 runs (2 head x 2 order seeds)" or "one run"."""
        if self.fold_scores:
            return f"{len(self.fold_scores)} folds"
        return seeds_in_words(len(self.seeds), self.sources)

    @property
    def is_class_prior(self) -> bool:
        """True for the baseline that predicts the most frequent class."""
        return not self.learns and not STRATEGIES[self.strategy].uses_encoder

    @property
    def learns(self) -> bool:
        """True if predictions depend on the text."""
        return self.is_external or STRATEGIES[self.strategy].learns

    @property
    def is_external(self) -> bool:
        """True for predictions from a file: no run of the study made them."""
        return self.strategy == EXTERNAL

    @property
    def is_seeded(self) -> bool:
        """True if the seed changes predictions."""
        return is_seeded(self.strategy)


@dataclass(frozen=True)
class Pair:
    """Two strategies on the same test examples, the better one first."""

    better: str  # group
    worse: str
    difference: float  # advantage of the better one, 0 or positive, for log loss too
    interval: tuple[float, float]  # 95 % confidence interval over examples and seeds, not corrected for other pairs
    p_value: float  # of no difference (Student's t)
    p_corrected: float  # after Holm's correction over all pairs
    mcnemar: float  # mid-p value of equal accuracy: median over seeds
    effect: float  # Cohen's g: mean over seeds
    required_examples: int | None  # to detect this difference with the present seeds; None if no number is enough
    required_seeds: int | None  # the same with the present test examples

    @property
    def is_significant(self) -> bool:
        """True if the difference is significant after Holm's correction."""
        return self.p_corrected < 1 - stats.LEVEL


@dataclass(frozen=True)
class CurvePoint:
    """One point of a learning curve: the test score of a strategy for one size of train."""

    label: str  # the strategy's
    model: str | None
    size: str  # subset of train: "5 %", "8 per class" or "all"
    examples: int  # training examples
    score: float  # mean over seeds; each seed draws its own subset
    interval: tuple[float, float]  # 95 % confidence interval, over examples and seeds
    seeds: int  # number of seeds


def row_names(rows: Sequence[Row]) -> dict[str, str]:
    """Return the display name of each group: its label, with the encoder if the rows have several encoders."""
    encoders = encoder_names({row.model: None for row in rows if row.model})
    is_named = len(encoders) > 1
    return {r.group: f"{r.label} on {encoders[r.model]}" if is_named and r.model else r.label for r in rows}


def has_several_encoders(rows: Sequence[Row]) -> bool:
    """Return True if the rows have more than one encoder."""
    return len({row.model for row in rows if row.model}) > 1


@dataclass(frozen=True, repr=False)
class Verdict:
    """Conclusion of a comparison."""

    best: str  # group with the best score
    recommended: str | None  # group to pick; None if no strategy is shown to be better than the most frequent class
    cost: str  # key of costs.py
    margin: float  # largest acceptable expected loss for a cheaper strategy, in the metric's units
    expected_loss: float | None = None  # of the pick, against the truly best strategy
    loss_bound: float | None = None  # exceeded with a probability of 5 %
    corrected_score: float | None = None  # of the pick: without the optimism of having been picked for its score
    thin: str = ""  # sentence on what the evidence lacks; then the pick is the best measured strategy
    summary: tuple[str, ...] = ()  # sentences for a reader who knows no statistics
    details: tuple[str, ...] = ()  # sentences on the standing of every strategy, and what would decide more

    def __repr__(self) -> str:
        return verdict_text(self)

    def _repr_html_(self) -> str:
        return verdict_html(self)

    @property
    def text(self) -> str:
        """Every sentence."""
        return " ".join([*self.summary, *self.details])
