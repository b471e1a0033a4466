"""Gate for CI: is a new model shown to be not worse than an old one, on the same test examples?

Paired non-inferiority. The loss of the new strategy against the old one is estimated over test examples and seeds, and
its upper one-sided confidence limit must be within the margin (Blackwelder, 1982). "No significant loss" is no reason
to pass: on few examples almost no loss is significant.

# N test examples  S seeds  C classes  R resamples
"""

from collections import Counter, defaultdict, deque
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tuneoff.comparison.assemble import compare
from tuneoff.comparison.errors import Predictions
from tuneoff.comparison.groups import load_predictions, seeds_of_sources
from tuneoff.comparison.notes import is_of_positive
from tuneoff.comparison.rows import EXTERNAL, is_seeded, seeds_in_words
from tuneoff.data.dataset import is_multilabel, labels_of
from tuneoff.errors import ConfigError, DataError, StoreError, unknown
from tuneoff.formats import fixed, join_names, markdown_text, shorten, signed
from tuneoff.runs import OK, RunRecord, RunStore, StudyStore
from tuneoff.scoring import stats
from tuneoff.scoring.decision import DEFAULT_MARGIN
from tuneoff.scoring.metrics import (
    MetricOptions,
    check_metric,
    direction,
    display_name,
    has_points,
    is_own,
    metric_for,
    metric_options,
    per_class,
    points,
)
from tuneoff.spec.file import read_study
from tuneoff.spec.study import check_margin

NOT_WORSE, WORSE, UNDECIDED = "not worse", "worse", "undecided"  # by more than the margin
_LIMIT_LEVEL = 2 * stats.LEVEL - 1  # of the two-sided interval whose ends are one-sided 95 % limits
_MAX_CLASSES = 5  # of the largest changes
_EQUAL_PROBABILITIES = 1e-6  # models that differ less are the same one
_MARKS = {NOT_WORSE: "✅", WORSE: "❌", UNDECIDED: "❔"}


@dataclass(frozen=True)
class Decision:
    """Loss of a new strategy against an old one, and its standing at a margin. In the metric's units."""

    standing: str  # not worse | worse | undecided
    difference: float  # new minus old; above 0 if new is better, for log loss too
    interval: tuple[float, float]  # 95 % confidence interval of the difference, over examples and seeds
    loss_limits: tuple[float, float]  # lower and upper confidence limit of the loss, one-sided 95 % each
    # if undecided: test examples, or seeds, that would decide a true difference as large as the measured one
    required_examples: int | None = None
    required_seeds: int | None = None


@dataclass(frozen=True)
class ClassChange:
    """F1 of one class, the predictions of all seeds pooled."""

    label: str
    old: float
    new: float
    examples: int


@dataclass(frozen=True)
class Gate:
    """Result of a check: the decision, and the two strategies that it compares."""

    new: str  # "full of results/new"
    old: str
    metric: str
    margin: float
    new_score: float
    old_score: float
    decision: Decision
    examples: int
    noun: str  # test examples, or with folds labelled examples
    new_repeats: str  # "3 seeds", "5 folds" or "one run"
    old_repeats: str
    classes: tuple[ClassChange, ...]  # the largest falls first, at most five
    positive: str | None = None  # class of the metric, if it is of one
    has_sources: bool = False  # several sources of randomness vary apart in the new strategy's runs

    @property
    def passes(self) -> bool:
        """True if the new strategy is shown to be not worse."""
        return self.decision.standing == NOT_WORSE

    @property
    def lines(self) -> tuple[str, str, str]:
        """The result in three lines: the decision, the scores, the classes."""
        return self._decision_line(), self._scores_line(), self._classes_line()

    def _decision_line(self) -> str:
        low, high = (points(max(0.0, limit), self.metric) for limit in self.decision.loss_limits)
        margin, head = points(self.margin, self.metric), f"{self.decision.standing.capitalize()}: {self.new} loses"
        if self.decision.standing == NOT_WORSE:
            return f"{head} at most {high} against {self.old} (95 % confidence); the margin is {margin}."
        if self.decision.standing == WORSE:
            return f"{head} at least {low} against {self.old} (95 % confidence); the margin is {margin}."
        return (
            f"{head} up to {high} against {self.old} (95 % confidence), and the margin is {margin}: the evidence is "
            f"too thin. {self._remedy()}"
        )

    def _remedy(self) -> str:
        ways = []
        if self.decision.required_examples is not None:
            ways.append(f"about {_round_up(self.decision.required_examples - self.examples):,} more {self.noun}")
        if self.decision.required_seeds is not None:
            of_each = " of each source" if self.has_sources else ""
            ways.append(f"{self.decision.required_seeds:,} seeds{of_each} instead of {self.new_repeats}")
        if not ways:
            return f"The measured loss is so close to the margin that no number of {self.noun} decides."
        text = f"{' or '.join(ways)} would decide."
        return text[0].upper() + text[1:]

    @property
    def _metric_name(self) -> str:
        """Name of the metric, with its positive class."""
        return display_name(self.metric) + (f" of {self.positive}" if self.positive else "")

    def _scores_line(self) -> str:
        name, (low, high) = self._metric_name, self.decision.interval
        if not has_points(self.metric):
            gap = f"{signed(self.decision.difference)} (95 % interval {signed(low)} to {signed(high)}; + is better)"
        else:
            ends = f"{signed(100 * low, 1)} to {signed(100 * high, 1)}"
            gap = f"{signed(100 * self.decision.difference, 1)} points (95 % interval {ends})"
        repeats = self.new_repeats
        if self.new_repeats != self.old_repeats:
            repeats = f"{self.new_repeats} against {self.old_repeats}"
        return (
            f"{name[0].upper()}{name[1:]} {fixed(self.new_score)} against {fixed(self.old_score)}: {gap}; "
            f"{self.examples:,} {self.noun}, {repeats}."
        )

    def _classes_line(self) -> str:
        falls = [change for change in self.classes if change.new < change.old]
        if not falls:
            return "No class has a lower F1."
        texts = [f"{shorten(c.label, 40)} {fixed(c.old)} to {fixed(c.new)}" for c in falls[:3]]
        return f"Largest falls in F1 by class: {join_names(texts)}."

    @property
    def markdown(self) -> str:
        """The result as a comment for a code host. Names from data are escaped, never markup."""
        name, (low, high) = markdown_text(self._metric_name), self.decision.interval
        facts = [
            (f"new {name}", fixed(self.new_score)),
            (f"old {name}", fixed(self.old_score)),
            ("difference (95 % interval)", f"{signed(self.decision.difference)} ({signed(low)} to {signed(high)})"),
            ("largest loss (one-sided 95 % limit)", fixed(self.decision.loss_limits[1])),
            ("margin", f"{self.margin:g}"),
            (self.noun, f"{self.examples:,}"),
            ("runs, new", self.new_repeats),
            ("runs, old", self.old_repeats),
        ]
        lines = [f"{_MARKS[self.decision.standing]} **{markdown_text(self.lines[0])}**", ""]
        lines += ["| | |", "| --- | ---: |", *[f"| {title} | {value} |" for title, value in facts]]
        if self.classes:
            lines += ["", "| class | old F1 | new F1 | change | examples |", "| --- | ---: | ---: | ---: | ---: |"]
        for c in self.classes:
            label = markdown_text(shorten(c.label, 60))
            lines.append(f"| {label} | {fixed(c.old)} | {fixed(c.new)} | {signed(c.new - c.old)} | {c.examples:,} |")
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {**asdict(self), "passes": self.passes, "text": " ".join(self.lines)}


def check(
    new: str | Path,
    old: str | Path,
    margin: float = DEFAULT_MARGIN,
    metric: str | None = None,
    strategy: str | None = None,
    old_strategy: str | None = None,
    positive: str | None = None,
    ordered: bool = False,
) -> Gate:
    """Check that a new strategy is not worse than an old one by more than a margin, on the same test examples.

    new, old: folders of studies, of which the recommended strategy counts, or the best where the verdict picks none; or
    folders of runs of one strategy. strategy, old_strategy: labels of others, as on the leaderboard. margin: in the
    metric's units. metric: by default that of the new side; a function of your own only if it is named here. positive,
    ordered: roles of the labels, by default as in the new side's study.

    Raises DataError if the test examples or the labels differ, StoreError for a folder without runs.
    """
    margin = check_margin(margin)
    roles = (positive, ordered)
    candidate = _side(Path(new), metric and check_metric(metric), strategy, roles)
    is_of_class = is_of_positive(candidate.metric, candidate.options)
    old_roles = (candidate.options.positive_name if is_of_class else None, candidate.options.is_ordered)
    reference = _aligned(_side(Path(old), candidate.metric, old_strategy, old_roles), candidate)
    runs = _score(candidate, reference)
    return Gate(
        new=candidate.title,
        old=reference.title,
        metric=candidate.metric,
        margin=margin,
        new_score=float(runs[0].scores.mean()),
        old_score=float(runs[1].scores.mean()),
        decision=decide(*runs, candidate.metric, margin, len(candidate.labels))
        if not _is_same_model(candidate.predictions, reference.predictions)
        else Decision(NOT_WORSE, 0.0, (0.0, 0.0), (0.0, 0.0)),
        examples=len(candidate.labels),
        noun="test examples" if candidate.folds is None else "labelled examples",
        new_repeats=candidate.repeats,
        old_repeats=reference.repeats,
        classes=_class_changes(candidate, reference),
        positive=candidate.options.positive_name if is_of_class else None,
        has_sources=len(candidate.sources) > 1,
    )


def decide(new: stats.RunScores, old: stats.RunScores, metric: str, margin: float, num_examples: int) -> Decision:
    """Decide from the scores of two strategies on the same test examples, and on the same resamples of them.

    The ends of the 90 % interval are one-sided 95 % limits: an interval that lies within the margin is not worse, one
    that lies beyond it is worse, one that holds it is undecided. The sizes that would decide have 80 % power.
    """
    sign, gap = direction(metric), stats.difference(new, old, num_examples, stats.pooled_seed_variance([new, old]))
    low, high = _oriented(stats.interval(gap, level=_LIMIT_LEVEL), sign)
    standing = NOT_WORSE if -low <= margin else WORSE if -high > margin else UNDECIDED
    to_margin = replace(gap, value=sign * gap.value + margin)
    required = stats.required_size(to_margin, _LIMIT_LEVEL) if standing == UNDECIDED else None
    return Decision(
        standing=standing,
        difference=sign * gap.value,
        interval=_oriented(stats.interval(gap), sign),
        loss_limits=(-high, -low),
        required_examples=required.examples if required else None,
        required_seeds=required.seeds if required and new.folds is None else None,
    )


def _oriented(interval: tuple[float, float], sign: int) -> tuple[float, float]:
    """Return an interval of a difference with higher is better."""
    low, high = interval
    return (low, high) if sign > 0 else (-high, -low)


@dataclass(frozen=True)
class _Side:
    """The runs of one strategy, and the test examples that they predict, in their order."""

    folder: Path
    label: str
    metric: str
    label_names: tuple[str, ...]
    test: pa.Table
    records: tuple[RunRecord, ...]
    predictions: Predictions
    is_seeded: bool
    folds: np.ndarray | None  # (N,) fold of each example; None for one test split
    options: MetricOptions

    @property
    def title(self) -> str:
        return f"{self.label} of {self.folder}"

    @property
    def labels(self) -> np.ndarray:
        """(N,) ids, or (N, C) of 0 and 1."""
        return labels_of(self.test)

    @property
    def repeats(self) -> str:
        if self.folds is not None and len(self.records) > 1:
            return f"{len(self.records)} folds"
        return seeds_in_words(len(self.records), self.sources)

    @property
    def sources(self) -> dict[str, int]:
        """Seeds of each source of randomness that varies apart."""
        return seeds_of_sources(self.records) if self.records else {}  # of predictions from a file there is no record


_Roles = tuple[str | None, bool]  # the positive class, and True for labels in order


def _side(folder: Path, metric: str | None, label: str | None, roles: _Roles) -> _Side:
    """Read one side of a check. label: of the strategy; None for the recommended or only one."""
    if (folder / "study.yaml").is_file():
        return _study_side(folder, metric, label, roles)
    run_folders = [path.parent for path in (folder / "run.json", *sorted(folder.glob("*/run.json"))) if path.is_file()]
    if not run_folders:
        raise StoreError(f"folder {str(folder)!r} holds neither a study nor runs; give a study's folder: results/NAME")
    return _runs_side(folder, run_folders, metric, label, roles)


def _study_side(folder: Path, metric: str | None, label: str | None, roles: _Roles) -> _Side:
    store, study = StudyStore(folder), read_study(str(folder / "study.yaml"))
    positive, ordered = roles
    study = study.model_copy(update={"positive": positive or study.positive, "ordered": ordered or study.ordered})
    comparison = compare(study, store, metric)
    if comparison.verdict is None:
        raise StoreError(f"study {str(folder)!r} holds no successful run; run it again: tuneoff run {folder}")
    by_name = {row.label: row.group for row in comparison.rows} | {n: g for g, n in comparison.names.items()}
    if label is not None and label not in by_name:
        raise ConfigError(f"{folder}: {unknown('strategy', label, comparison.names.values())}")
    learner = next((row.group for row in comparison.rows if row.learns), comparison.verdict.best)
    group = by_name[label] if label is not None else comparison.verdict.recommended or learner
    row = next(row for row in comparison.rows if row.group == group)
    records = sorted((r for r in comparison.records if r.group == group), key=lambda record: record.seed)
    side = _Side(
        folder=folder,
        label=comparison.names[group],
        metric=comparison.metric,
        label_names=comparison.label_names,
        test=store.test_table(),
        records=tuple(records),
        predictions=comparison.predictions[group],
        is_seeded=_depends_on_seeds(row.strategy, records, comparison.records),
        folds=load_predictions({group: records}, store.runs, len(comparison.label_names))[2] if records else None,
        options=comparison.options,
    )
    return _checked(side)


def _runs_side(
    folder: Path, run_folders: Sequence[Path], metric: str | None, label: str | None, roles: _Roles
) -> _Side:
    store = RunStore(run_folders[0].parent)
    stored = [store.record(path.name) for path in run_folders]
    every = [record for record in stored if record.status == OK and "test" in record.metrics and not record.is_subset]
    by_label = defaultdict(list)
    for record in every:
        by_label[record.label].append(record)
    if label is not None and label not in by_label:
        raise ConfigError(f"{folder}: {unknown('strategy', label, by_label)}")
    if not every:
        raise StoreError(f"folder {str(folder)!r} holds no successful run; give a study's folder: results/NAME")
    records = sorted(by_label[label] if label is not None else every, key=lambda record: record.seed)
    if len({record.group for record in records}) > 1:
        raise ConfigError(
            f"{folder} holds runs of {join_names(sorted(by_label))}; choose with --strategy, --old-strategy"
        )
    places = (folder, *folder.resolve().parents[:2])
    place = next((p for p in places if all((p / name).is_file() for name in ("test.parquet", "data.json"))), None)
    if place is None:
        raise StoreError(
            f"no test.parquet and data.json in or above {str(folder)!r}; copy them from the study's folder"
        )
    test, names = StudyStore(place).test_table(), StudyStore(place).read_data()[0].label_names
    stored_spec = records[0].spec
    positive, ordered = roles[0] or stored_spec.get("positive"), roles[1] or stored_spec.get("ordered", False)
    options = metric_options(names, is_multilabel(test), positive, ordered)
    if metric is None and is_own(stored_spec.get("metric") or ""):
        raise ConfigError(
            f"{folder} was selected by {stored_spec['metric']}, a Python function, which is not imported unless you "
            f"name it: --metric {stored_spec['metric']}; or check another metric: --metric accuracy"
        )
    _, predictions, folds = load_predictions({records[0].group: records}, store, len(names))
    side = _Side(
        folder=folder,
        label=records[0].label,
        metric=metric_for(metric or stored_spec.get("metric"), options),
        label_names=names,
        test=test,
        records=tuple(records),
        predictions=predictions[records[0].group],
        is_seeded=_depends_on_seeds(records[0].strategy, records, every),
        folds=folds,
        options=options,
    )
    return _checked(side)


def _depends_on_seeds(strategy: str, records: Sequence[RunRecord], every: Sequence[RunRecord]) -> bool:
    """Tell whether another seed would change the runs of a strategy. every: the runs of its study."""
    has_sources = any(record.sources for record in every)
    return any(record.sources for record in records) if has_sources else is_seeded(strategy)


def _checked(side: _Side) -> _Side:
    """Return a side. Raises StoreError if its runs do not predict the stored test examples."""
    if side.predictions.predicted.shape[1] != side.test.num_rows:
        raise StoreError(
            f"{side.title} predicts {side.predictions.predicted.shape[1]:,} examples, and {side.test.num_rows:,} are "
            "stored; run the study again"
        )
    return side


def _aligned(old: _Side, new: _Side) -> _Side:
    """Return the old side with the examples and the labels in the order of the new one.

    Examples are matched by content, the k-th of several equal ones with the k-th. Raises DataError if they differ.
    """
    if sorted(old.label_names) != sorted(new.label_names) or is_multilabel(old.test) != is_multilabel(new.test):
        raise DataError(
            f"{new.folder} has the labels {_names(new)}, and {old.folder} has {_names(old)}; compare studies of the "
            "same labels"
        )
    if old.records and new.records and (old.folds is None) != (new.folds is None):
        with_folds, with_split = (old, new) if new.folds is None else (new, old)
        raise DataError(
            f"{with_folds.folder} is evaluated on folds and {with_split.folder} on a test split; evaluate both alike "
            "(evaluate: split, or --folds none)"
        )
    old_keys, new_keys = _keys(old), _keys(new)
    if Counter(old_keys) != Counter(new_keys):
        raise DataError(_mismatch(old, new))
    places: dict[Hashable, deque[int]] = defaultdict(deque)
    for index, key in enumerate(old_keys):
        places[key].append(index)
    rows = [places[key].popleft() for key in new_keys]
    columns = [old.label_names.index(name) for name in new.label_names]  # place of each new class in the old order
    predicted = old.predictions.predicted[:, rows]
    predicted = predicted[..., columns] if predicted.ndim == 3 else np.argsort(columns)[predicted]
    probabilities = old.predictions.probabilities[:, rows][..., columns]
    folds = None if old.folds is None else old.folds[rows]
    return replace(
        old,
        label_names=new.label_names,
        test=new.test,
        predictions=replace(old.predictions, predicted=predicted, probabilities=probabilities),
        folds=folds,
        options=new.options,
    )


def _names(side: _Side) -> str:
    return shorten(", ".join(side.label_names), 200) + (" (multi-label)" if is_multilabel(side.test) else "")


def _keys(side: _Side) -> list[Hashable]:
    """Content of each test example: its texts and the names of its labels."""
    texts = [side.test[name].to_pylist() for name in ("text", "text_pair") if name in side.test.column_names]
    labels = side.labels
    names = np.array(side.label_names, object)
    if labels.ndim == 2:
        named: list[Hashable] = [tuple(sorted(names[row.astype(bool)])) for row in labels]
    else:
        named = list(names[labels])
    return list(zip(*texts, named, strict=True))


def _mismatch(old: _Side, new: _Side) -> str:
    """Describe the difference between the test examples of two sides in one line."""
    missing = set(_keys(new)) - set(_keys(old)) or set(_keys(old)) - set(_keys(new))
    sizes = f"{new.folder} is tested on {new.test.num_rows:,} examples and {old.folder} on {old.test.num_rows:,}"
    if not missing:
        return f"{sizes}, some of them more often than in the other; run both on the same test split"
    first = shorten(" ".join(str(min(key[0] for key in missing)).split()), 40)  # type: ignore[index]
    return f"{sizes}, of which {len(missing):,} are in one only, such as {first!r}; run both on the same test split"


def _score(new: _Side, old: _Side) -> tuple[stats.RunScores, stats.RunScores]:
    """Score two sides on all examples, and on the same resamples of them."""
    predicted = [*new.predictions.predicted, *old.predictions.predicted]
    probabilities = [*new.predictions.probabilities, *old.predictions.probabilities]
    resampled = stats.resampled_scores(
        new.metric, new.labels, predicted, probabilities, 0, positive=new.options.positive
    )
    num_new = len(new.predictions.predicted)
    return _run_scores(new, resampled[:num_new]), _run_scores(old, resampled[num_new:])


def _run_scores(side: _Side, resampled: np.ndarray) -> stats.RunScores:
    """Return the scores of one side. resampled: (S, R)."""
    runs = zip(side.predictions.predicted, side.predictions.probabilities, strict=True)
    scores = np.array([stats.score_of(side.metric, side.labels, *run, side.options.positive) for run in runs])
    seeds: tuple[object, ...] = (0,)
    if side.folds is not None:
        resampled = stats.widened_for_folds(resampled, len(side.labels))
    else:
        seeds = tuple(tuple(record.sources.items()) or record.seed for record in side.records) or (EXTERNAL,)
    return stats.RunScores(
        scores,
        resampled,
        seeds,
        side.is_seeded,
        side.folds,
        stats.unit_of(side.metric, resampled, len(side.labels)),
        stats.deciding_examples(side.metric, side.labels, side.predictions.predicted, side.options.positive),
        None if side.folds is None else ~side.predictions.is_wrong(side.labels)[0],
    )


def _is_same_model(new: Predictions, old: Predictions) -> bool:
    """Tell whether two sides are the same models: their probabilities are equal, run by run."""
    first, second = new.probabilities, old.probabilities
    is_equal = first.shape == second.shape and bool(np.abs(first - second).max() < _EQUAL_PROBABILITIES)
    return is_equal and new.has_probabilities and np.array_equal(new.predicted, old.predicted)


def _class_changes(new: _Side, old: _Side) -> tuple[ClassChange, ...]:
    """Return the classes whose F1 changed most, the largest fall first."""
    pooled = [
        per_class(np.concatenate([side.labels] * len(runs)), np.concatenate(list(runs)), side.label_names)
        for side, runs in ((new, new.predictions.predicted), (old, old.predictions.predicted))
    ]
    num_new = len(new.predictions.predicted)
    changes = [
        ClassChange(after.label, before.f1, after.f1, after.examples // num_new)
        for after, before in zip(*pooled, strict=True)
        if after.f1 != before.f1
    ]
    return tuple(sorted(changes, key=lambda change: change.new - change.old)[:_MAX_CLASSES])


def _round_up(count: int) -> int:
    """Round up to two significant digits, because the estimate is no more exact than that."""
    step = 10 ** max(0, len(str(count)) - 2)
    return -(-count // step) * step
