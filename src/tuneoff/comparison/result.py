"""Result of a comparison: rows, pairs, verdict, and everything else that a report shows."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pandas as pd

from tuneoff.comparison.analyses import Analyses
from tuneoff.comparison.display import comparison_html, comparison_text
from tuneoff.comparison.epochs import Epoch, LateGain
from tuneoff.comparison.errors import Predictions
from tuneoff.comparison.groups import Groups
from tuneoff.comparison.mistakes import Mistakes
from tuneoff.comparison.other_tests import Elsewhere
from tuneoff.comparison.phenomena import Phenomena
from tuneoff.costs import COSTS, Cost
from tuneoff.data.describe import DataDescription
from tuneoff.engine.recipe import Recipe
from tuneoff.errors import ConfigError, StoreError, unknown
from tuneoff.formats import encoder_names, join_names, size
from tuneoff.runs import RunRecord, Session
from tuneoff.scoring import stats
from tuneoff.scoring.calibration import Calibration
from tuneoff.scoring.decision import JointScores
from tuneoff.scoring.metrics import ClassScores, MetricOptions, depends_on_positive, direction, display_name, points
from tuneoff.search.race_record import RaceRecord
from tuneoff.search.record import SearchRecord
from tuneoff.spec.study import StudySpec
from tuneoff.strategies import STRATEGIES, GradientConfig

if TYPE_CHECKING:
    from tuneoff.comparison.imported import Imported
    from tuneoff.deliver.classifier import Classifier
from tuneoff.comparison.rows import CurvePoint, Pair, Row, Verdict, row_names

T = TypeVar("T")


class ByGroup(dict[str, T]):
    """Results by group of a row, which can also be read by the row's name: comparison.confusion["lora"]."""

    def __init__(self, results: Mapping[str, T], groups: Mapping[str, str]) -> None:
        super().__init__(results)
        self._groups = groups  # name -> group

    def __missing__(self, name: str) -> T:
        if self._groups.get(name) not in self:
            raise KeyError(name)
        return self[self._groups[name]]


@dataclass(frozen=True)
class Recommended:
    """The strategy that the verdict picks, with its stored models."""

    row: Row
    folder: Path  # of the model to use: of the seeds the best on validation
    folders: tuple[Path, ...]  # of the models of all seeds

    def load(self, ensemble: bool = False) -> "Classifier":
        """Load the model as a classifier. ensemble: average the probabilities of all seeds."""
        # the only import upwards: a comparison offers its winner
        from tuneoff.deliver.classifier import load_classifier

        return load_classifier(self.folders if ensemble else [self.folder])


@dataclass(frozen=True, repr=False)
class Comparison(Analyses):
    """Everything that a report shows. Rows are in order of score, best first."""

    name: str
    metric: str  # ranks the strategies on test
    label_names: tuple[str, ...]
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]  # every pair of rows, in their order
    verdict: Verdict | None  # None if no run succeeded
    failures: tuple[RunRecord, ...]  # failed and diverged runs
    records: tuple[RunRecord, ...]  # successful runs on all of train
    histories: dict[str, pd.DataFrame]  # run id -> steps and epochs
    confusion: dict[str, np.ndarray]  # group -> (C, C) on test, or multi-label (C, 2, 2), summed over seeds
    classes: dict[str, list[ClassScores]]  # group -> scores of each class, the predictions of all seeds pooled
    groups: Groups  # runs of each row, with their predictions and scores on test
    calibration: dict[str, Calibration]  # by group; without groups that have no probabilities
    examples: pd.DataFrame | None  # the test split: text, perhaps text_pair, label; None if it was not stored
    data: DataDescription
    study: StudySpec
    sessions: tuple[Session, ...] = ()
    subset_records: tuple[RunRecord, ...] = ()  # successful runs on subsets of train
    curve: tuple[CurvePoint, ...] = ()  # learning curves, all of train included
    advice: str = ""  # sentence on more labels against another strategy
    searches: tuple[SearchRecord, ...] = ()  # hyperparameter searches
    notes: tuple[str, ...] = ()  # for readers, about predictions from files
    folder: str = ""
    final: RunRecord | None = None  # with folds: the picked strategy, trained on all labelled examples
    stored_models: frozenset[str] = frozenset()  # ids of the runs whose model is stored
    elsewhere: tuple[Elsewhere, ...] = ()  # scores on test sets from elsewhere
    joint: JointScores | None = None  # of the true scores of the rows, in their order
    selection_metric: str = ""  # selected epochs and hyperparameters on validation; the study's own
    epochs: tuple[Epoch, ...] = ()  # of the runs on all of train, mean over seeds or folds
    late_gains: tuple[LateGain, ...] = ()  # strategies that still improved in their last epoch
    imported: tuple["Imported", ...] = ()  # training logs of others
    options: MetricOptions = field(default_factory=MetricOptions)  # roles of the labels
    race: RaceRecord | None = None  # of the study's strategies
    missing_runs: tuple[int, int] = (0, 0)  # of the grid: runs that are not stored, and all of them
    stored_runs: tuple[RunRecord, ...] = ()  # every run of the grid that succeeded, also on folds that are not compared

    def __post_init__(self) -> None:
        for name in ("confusion", "classes", "calibration"):
            object.__setattr__(self, name, self._by_group(getattr(self, name)))

    def _by_group(self, results: Mapping[str, T]) -> ByGroup[T]:
        return ByGroup(results, {name: group for group, name in self.names.items()})

    @cached_property
    def predictions(self) -> ByGroup[Predictions]:
        """Predictions on test of each group."""
        return self._by_group(self.groups.predictions)

    def __repr__(self) -> str:
        return comparison_text(self)

    def _repr_html_(self) -> str:
        return comparison_html(self)

    def __getitem__(self, name: str) -> Row:
        """Return the row of a strategy: "lora rank=16", of several encoders "lora on minilm", or a row's group.

        Raises ConfigError, with the nearest name.
        """
        for row in self.rows:
            if name in (row.group, self.names[row.group]):
                return row
        raise ConfigError(unknown("row", name, self.names.values()))

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the rows, best first, as over the keys of a dictionary."""
        return iter(self.names.values())

    @property
    def selection_note(self) -> str:
        """Sentence on what was selected by another metric than the one that ranks; empty if nothing was."""
        definitions = [STRATEGIES[row.strategy] for row in self.rows if not row.is_external]
        selected = {
            "epochs": any(issubclass(definition.config, GradientConfig) for definition in definitions),
            "searched hyperparameters": bool(self.searches),
            "a probe's C": any(definition.fits_on == "embeddings" for definition in definitions),
        }
        names = [name for name, is_selected in selected.items() if is_selected]
        by = display_name(self.selection_metric)
        if depends_on_positive(self.selection_metric):  # a report may be of another class
            classes = {record.spec.get("positive") for record in self.records} - {None, self.options.positive_name}
            by += "".join(f" of {name!r}" for name in classes)
        if by == display_name(self.metric) or not names:
            return ""
        subject, verb = join_names(names), "was" if names == ["a probe's C"] else "were"
        if self.study.select_by:
            return f"{subject[0].upper()}{subject[1:]} {verb} chosen by validation {by}, as the study says (select_by)."
        return (
            f"{subject[0].upper()}{subject[1:]} {verb} chosen by validation {by}, not "
            f"by {display_name(self.metric)}; to choose by it, run the study again with --metric {self.metric} and "
            "another --name."
        )

    @property
    def epochs_note(self) -> str:
        """Sentence on strategies that still improved in their last epoch; empty if none did."""
        by_group = {late.group: late for late in self.late_gains}
        late = [by_group[row.group] for row in self.rows if row.group in by_group]
        if not late:
            return ""
        gains = [f"{self.names[gain.group]} (by {points(gain.gain, self.selection_metric)})" for gain in late]
        remedy = f"more epochs may help (--epochs {2 * max(gain.epochs for gain in late)})"
        if self.study.recipe.max_steps:
            remedy = "more steps may help (max_steps of the recipe)"
        return f"Still improving in the last epoch, on validation: {join_names(gains)}; {remedy}."

    @property
    def num_resamples(self) -> int:
        """Bootstrap resamples of the test examples."""
        return stats.num_resamples(self.metric, self.num_examples, len(self.label_names))

    @property
    def recipe_note(self) -> str:
        """Sentence on recipes that differ between the rows; empty if all ran with the study's."""
        recipes = {row.group: self._own_recipe(row) for row in self.rows if not row.is_external}
        own = {group: options for group, options in recipes.items() if options}
        if not own:
            return ""
        names, study = self.names, self.study.recipe
        parts = [f"{names[g]} ({', '.join(f'{k} {v}' for k, v in options.items())})" for g, options in own.items()]
        fields = dict.fromkeys(key for options in own.values() for key in options)
        others = ", ".join(f"{key} {getattr(study, key)}" for key in fields)
        return (
            "Recipes differ, so that strategies are not compared under equal conditions, and a difference may come "
            f"from the recipe: {join_names(parts)}. The recipe of the study has {others}."
        )

    def _own_recipe(self, row: Row) -> dict[str, object]:
        """Return the options of the recipe with which a row ran and which differ from the study's."""
        spec = next((record.spec for record in self.records if record.group == row.group), {})
        used, stored = STRATEGIES[row.strategy].recipe_fields, spec.get("recipe") or {}
        ran = Recipe.model_validate(stored) if stored else self.study.recipe
        fields = [name for name in Recipe.model_fields if used is None or name in used]
        return {n: getattr(ran, n) for n in fields if getattr(ran, n) != getattr(self.study.recipe, n)}

    @property
    def repeat(self) -> str:
        """The word for what the runs of a strategy differ in: seed or fold."""
        return "fold" if self.data.folds else "seed"

    @property
    def names(self) -> dict[str, str]:
        """Display name of each group: its label, with the encoder if the rows have several encoders."""
        return row_names(self.rows)

    @property
    def encoders(self) -> dict[str, str]:
        """Encoders of the rows, each with its short name."""
        return encoder_names({row.model: None for row in self.rows if row.model})

    @property
    def study_encoders(self) -> dict[str, str]:
        """Encoders of the study, also those without a row yet, each with its short name."""
        return encoder_names(self.study.model)

    @property
    def is_final_picked(self) -> bool:
        """The run on all labelled examples is of the strategy that the verdict picks."""
        picked = [(row.label, row.model) for row in self.rows if self.verdict and row.group == self.verdict.recommended]
        return self.final is not None and (self.final.label, self.final.model) in picked

    @property
    def _runs_of_pick(self) -> list[RunRecord]:
        """The picked strategy's runs whose model is handed over: of its seeds; with folds that on all examples."""
        if self.data.folds:
            return [self.final] if self.final and self.is_final_picked else []
        return [record for record in self.records if self.verdict and record.group == self.verdict.recommended]

    @property
    def model_folder(self) -> str | None:
        """Folder of the picked strategy's model: of its seeds the best on validation; None if none is stored.

        With folds, of the run on all labelled examples.
        """
        stored = [record for record in self._runs_of_pick if record.run_id in self.stored_models]
        if not stored:
            return None
        sign = direction(self.metric)
        best = max(stored, key=lambda r: sign * r.metrics.get("validation", {}).get(self.metric, -sign * np.inf))
        return str(Path(self.folder) / "runs" / best.run_id / "model")

    @property
    def recommended(self) -> Recommended:
        """The strategy that the verdict picks. Raises StoreError if it picks none, or if its models were not stored."""
        row = next((row for row in self.rows if self.verdict and row.group == self.verdict.recommended), None)
        if row is None:
            reason = self.verdict.text if self.verdict else "no run succeeded"
            raise StoreError(f"{self.name} has no recommended strategy: {reason}")
        if self.model_folder is None:
            raise StoreError(self.models_note or f"no model of {row.label} is stored")
        stored = [record.run_id for record in self._runs_of_pick if record.run_id in self.stored_models]
        folders = tuple(Path(self.folder) / "runs" / run_id / "model" for run_id in stored)
        return Recommended(row, Path(self.model_folder), folders)

    @property
    def models_note(self) -> str:
        """Sentence on models that are not stored, and how to get them; empty if nothing is missing."""
        remedy = f"tuneoff run {shlex.quote(self.folder)} --keep all trains"
        if self._runs_of_pick and self.model_folder is None:
            return f"The model of the picked strategy was not kept; {remedy} it again."
        missing = [] if self.data.folds else [r for r in self.records if r.run_id not in self.stored_models]
        total = sum(record.costs.get("model_bytes", 0.0) for record in missing)
        return f"Models of other strategies were not kept ({size(total)}); {remedy} them again." if total else ""

    @property
    def costs(self) -> dict[str, Cost]:
        """The rows of COSTS to show; without those whose rate is neither stated nor measured."""
        return {key: cost for key, cost in COSTS.items() if not cost.rate or any(key in row.costs for row in self.rows)}

    @property
    def leaderboard(self) -> pd.DataFrame:
        """One row per strategy, best first."""
        return pd.DataFrame(
            {
                "strategy": row.label,
                "model": row.model,
                self.metric: row.score,
                "low": row.interval[0],
                "high": row.interval[1],
                "seed_sd": row.seed_sd,
                "difference": row.difference,
                "difference_low": row.difference_interval[0],
                "difference_high": row.difference_interval[1],
                "p_value": row.p_value,
                "standing": row.standing,
                "loss_bound": row.loss_bound,
                f"{self.repeat}s": len(row.seeds),
                "trainable": row.parameters.get("trainable"),
                **{
                    key: row.costs.get(key)
                    for key, cost in self.costs.items()
                    if cost.is_choosable and key != "trainable_parameters"
                },
                "calibration_error": self.calibration[row.group].error if row.group in self.calibration else None,
            }
            for row in self.rows
        )

    def to_json(self) -> dict[str, object]:
        """Return leaderboard, pairs, verdict, calibration, slices and searches as plain data."""
        return {
            "name": self.name,
            "metric": self.metric,
            "selection_metric": self.selection_metric,
            "level": stats.LEVEL,
            "positive": self.options.positive_name or None,
            "resamples": self.num_resamples,
            "verdict": {**asdict(self.verdict), "text": self.verdict.text} if self.verdict else None,
            "leaderboard": [asdict(row) for row in self.rows],
            "pairs": [asdict(pair) for pair in self.pairs],
            "calibration": {group: _summary(measured) for group, measured in self.calibration.items()},
            "failures": [{"run_id": r.run_id, "status": r.status, "error": r.error} for r in self.failures],
            "slices": self.slices.to_dict("records"),
            "clean": asdict(self.clean) if self.clean else None,
            "label_noise": asdict(self.label_noise) if self.label_noise else None,
            "mistakes": _mistakes_json(self.mistakes) if self.mistakes else None,
            "phenomena": _phenomena_json(self.phenomena) if self.phenomena else None,
            "curve": [asdict(point) for point in self.curve],
            "advice": self.advice,
            "searches": [asdict(search) for search in self.searches],
            "variance": asdict(self.variance) if self.variance else None,
            "elsewhere": [asdict(test) for test in self.elsewhere],
            "final": self.final.run_id if self.final else None,
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "late_gains": [asdict(late) for late in self.late_gains],
            "imported": [{"name": log.name, "file": log.file, "scores": log.log.scores} for log in self.imported],
            "race": asdict(self.race) if self.race else None,
            "data": {**self.data.to_json(), "sessions": [asdict(session) for session in self.sessions]},
        }


def _summary(calibration: Calibration) -> dict[str, float]:
    """Return the numbers of a calibration, without the bins of its reliability diagram."""
    return {name: value for name, value in vars(calibration).items() if name != "reliability"}


def _mistakes_json(mistakes: Mistakes) -> dict[str, object]:
    profiles = [asdict(pair) for pair in mistakes.profiles]
    return {"misclassified": mistakes.totals, "by_label": mistakes.by_label.to_dict("records"), "profiles": profiles}


def _phenomena_json(phenomena: Phenomena) -> dict[str, object]:
    counts = {tag: int(mask.sum()) for tag, mask in phenomena.masks.items()}
    rates, trends = phenomena.rates.to_dict("records"), phenomena.trends.to_dict("records")
    return {"texts": counts, "error_rates": rates, "length": trends, "notes": list(phenomena.notes)}
