"""Analyses of a comparison beyond scores and verdict, each computed when it is first read.

The screen shows scores and the verdict, which need none of these; the report reads them all.
"""

from functools import cached_property

import numpy as np
import pandas as pd

from tuneoff.comparison.clean import CleanScores, clean_scores
from tuneoff.comparison.errors import Errors, analyse_errors, text_columns, text_lengths, texts_of
from tuneoff.comparison.groups import Groups, score_runs
from tuneoff.comparison.label_noise import LabelNoise, label_noise
from tuneoff.comparison.mistakes import Mistakes, analyse_mistakes
from tuneoff.comparison.phenomena import Phenomena, analyse_phenomena
from tuneoff.comparison.rows import Row, Verdict
from tuneoff.comparison.slices import score_slices
from tuneoff.comparison.variance import VarianceSources, variance_sources
from tuneoff.data.describe import DataDescription
from tuneoff.scoring import stats
from tuneoff.scoring.metrics import MetricOptions, bounds
from tuneoff.spec.study import StudySpec


class Analyses:
    """Analyses of the predictions of a Comparison, which inherits them."""

    groups: Groups
    rows: tuple[Row, ...]
    verdict: Verdict | None
    examples: pd.DataFrame | None
    metric: str
    options: MetricOptions
    data: DataDescription
    study: StudySpec

    @property
    def num_examples(self) -> int:
        """Number of scored examples: of the folds that are compared, in a race or an unfinished study."""
        return len(self.groups.labels) if self.groups.scores else self.data.splits[self.data.scored_split].examples

    @property
    def texts(self) -> list[str]:
        """One text per test example, the two texts of a pair joined; empty if they were not stored."""
        return texts_of(self.examples)

    @cached_property
    def _lengths(self) -> np.ndarray | None:
        return text_lengths(self.texts)[1] if self.texts else None

    @cached_property
    def errors(self) -> Errors | None:
        """Errors of each strategy and doubtful labels; None if no run succeeded."""
        non_learners = {row.group for row in self.rows if not row.learns}
        labels, predictions = self.groups.labels, self.groups.predictions
        return analyse_errors(labels, predictions, non_learners, self.texts) if self.rows else None

    @cached_property
    def mistakes(self) -> Mistakes | None:
        """Kinds of mistakes of each strategy; None if no run succeeded."""
        if self.errors is None:
            return None
        labels, predictions = self.groups.labels, self.groups.predictions
        return analyse_mistakes(labels, predictions, self.errors.learners, self._lengths, self.data.label_names)

    @cached_property
    def phenomena(self) -> Phenomena | None:
        """Error rates by phenomenon and length; None also if the test texts were not stored."""
        if self.errors is None or self._lengths is None:
            return None
        labels, predictions, columns = self.groups.labels, self.groups.predictions, text_columns(self.examples)
        return analyse_phenomena(labels, predictions, self.errors.learners, columns, self._lengths, self.study.tags)

    @cached_property
    def clean(self) -> CleanScores | None:
        """Scores without leaked and repeated texts; None if there are none."""
        return clean_scores(
            self.rows,
            self.groups.labels,
            self.groups.predictions,
            self.groups.scores,
            self.examples,
            self.metric,
            self.study.cost,
            self.study.margin,
            self.verdict.recommended if self.verdict else None,
            self.options.positive,
        )

    @cached_property
    def label_noise(self) -> LabelNoise | None:
        """Scores if doubtful labels are wrong; None without such labels."""
        if self.errors is None:
            return None
        return label_noise(
            self.rows,
            self.groups.labels,
            self.groups.predictions,
            self.groups.scores,
            self.errors.label_errors,
            self.metric,
            self.study.cost,
            self.study.margin,
            self.verdict.recommended if self.verdict else None,
            self.options.positive,
        )

    @cached_property
    def slices(self) -> pd.DataFrame:
        """Test scores on slices: score_slices()."""
        if self.examples is None:
            return pd.DataFrame()
        groups = self.groups
        return score_slices(
            groups.labels, groups.predictions, groups.scores, self.examples, self.metric, self.options.positive
        )

    @cached_property
    def estimates(self) -> dict[str, dict[str, tuple[float, float, float]]]:
        """Accuracy and F1 of each group, whatever metric ranks: metric -> group -> (score, low, high)."""
        groups = self.groups
        folds = next((scores.folds for scores in groups.scores.values() if scores.folds is not None), None)
        estimates = {}
        for name in ("accuracy", "micro_f1" if self.options.is_multilabel else "macro_f1"):
            scores = groups.scores
            if name != self.metric:
                scores = score_runs(groups.records, groups.labels, groups.predictions, name, self.options, False, folds)
            variance = stats.pooled_seed_variance(list(scores.values()))
            by_group = {g: stats.estimate_score(runs, self.num_examples, variance) for g, runs in scores.items()}
            estimates[name] = {g: (e.value, *stats.interval(e, bounds(name))) for g, e in by_group.items()}
        return estimates

    @cached_property
    def variance(self) -> VarianceSources | None:
        """Variance from seeds and from test examples; None if no run succeeded."""
        learners = [row.group for row in self.rows if row.learns]
        return variance_sources(self.groups.scores, learners, self.num_examples, self.groups.seed_variance)
