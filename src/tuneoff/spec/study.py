"""A study: data, encoders, strategies and everything that holds for all of its runs."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tuneoff.costs import DEFAULT_COST, Rates, check_cost, check_is_stated
from tuneoff.data.spec import DataSpec, Evaluation, OtherTestSpec, Subset
from tuneoff.data.tags import parse_tags
from tuneoff.engine.recipe import Recipe
from tuneoff.errors import ConfigError, unknown
from tuneoff.formats import encoder_names
from tuneoff.scoring.decision import DEFAULT_MARGIN
from tuneoff.scoring.metrics import (
    COUNT_SCORES,
    MetricOptions,
    check_metric,
    is_own,
    metric_for,
    metric_options,
)
from tuneoff.search.space import (
    SearchSpec,
    check_spaces,
    parse_search,
    parse_time,
)
from tuneoff.seeds import Seeds, parse_seeds
from tuneoff.spec.stated import ImportedSpec, PredictionsSpec, Reported, parse_tests
from tuneoff.spec.strategy import AnyStrategy, parse_strategy, recipe_of
from tuneoff.strategies import STRATEGIES, StrategyConfig
from tuneoff.track import TrackerOptions, dump_track, parse_track
from tuneoff.validation import Options

DEFAULT_MODEL = "packaged:minilm"
BASELINES = tuple(name for name, row in STRATEGIES.items() if row.is_baseline)
# the fewest that estimate a variance with any use
DEFAULT_SEEDS = (0, 1, 2)
MAX_MARGIN = 0.5  # more is a percentage, or makes every strategy equal
DEFAULT_STRATEGIES = tuple(name for name, row in STRATEGIES.items() if row.is_default)


def _as_tuple(given: Any) -> Any:
    return (given,) if isinstance(given, (str, int, float)) and not isinstance(given, bool) else given


def _parse_evaluate(given: Any) -> Any:
    """Parse an evaluation: split, or a mapping with folds."""
    if given == "split":
        return Evaluation(folds=None)
    if given is None or isinstance(given, Evaluation) or (isinstance(given, dict) and set(given) == {"folds"}):
        return given
    raise ConfigError(f"evaluate {given!r} is neither folds nor a split; write evaluate: {{folds: 5}}, or split")


def _dump_evaluate(evaluate: Evaluation | None) -> Any:
    return evaluate and ({"folds": evaluate.folds} if evaluate.folds else "split")


def _parse_metric(given: Any) -> Any:
    return None if given is None else check_metric(given)


def _as_label(given: Any) -> Any:
    """Return a label as a string: YAML reads 1 as a number and yes as true."""
    return str(given) if isinstance(given, (int, float)) and not isinstance(given, bool) else given


def _parse_threshold(given: Any) -> Any:
    """Parse a threshold: validation, or 0.5."""
    if given is None or given == "validation" or str(given) in ("0.5", ".5"):
        return "validation" if given == "validation" else None
    raise ConfigError(f"threshold {given!r} is neither validation nor 0.5; write threshold: validation")


def check_margin(given: Any) -> float:
    """Return a margin as a number. Raises ConfigError for one that is negative or in percent."""
    return _score_difference("margin", given, 0, "it is in the metric's units")


def check_difference(given: Any) -> float:
    """Return a difference to detect as a number. Raises ConfigError for one that is not above 0, or in percent."""
    return _score_difference("difference", given, 0.001, "it is of accuracy")


def _score_difference(name: str, given: Any, smallest: float, unit: str) -> float:
    try:
        value = float(given)
    except (TypeError, ValueError):
        raise ConfigError(f"{name} {given!r} is not a number; write 0.01 for one point of accuracy") from None
    if not smallest <= value <= MAX_MARGIN:
        allowed = f"from {smallest:g} to {MAX_MARGIN:g}; {unit}: write 0.01 for one point"
        raise ConfigError(f"{name} {value:g} is not {allowed}")
    return value


class StudySpec(Options):
    """A grid of runs: every strategy with every encoder and seed (or fold), on the same data, with the same recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    name: str = Field("study", pattern=r"^\w[\w.-]*$", description="also the folder's name under results/")
    data: DataSpec
    model: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        (DEFAULT_MODEL,),
        min_length=1,
        max_length=50,
        description="one or more encoders: a folder, packaged:NAME or a hub name",
    )
    baselines: bool = Field(True, description="add the baselines, majority and tfidf")
    strategies: tuple[AnyStrategy, ...] = Field(
        default_factory=lambda: tuple(map(parse_strategy, DEFAULT_STRATEGIES)),
        min_length=1,
        max_length=200,
        description="names, names with options (lora:rank=16) or configs",
    )
    recipe: Recipe = Field(default_factory=lambda: Recipe.model_validate({}))
    search: Annotated[SearchSpec | None, BeforeValidator(parse_search)] = Field(
        None, description="hyperparameter search on validation before the runs, with the same budget for every strategy"
    )
    fractions: Annotated[tuple[float, ...], BeforeValidator(_as_tuple)] = Field(
        (), max_length=50, description="learning curve: also train on these fractions of train, e.g. [0.05, 0.2]"
    )
    per_class: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_as_tuple)] = Field(
        (), max_length=50, description="learning curve: also train on this many examples per class, e.g. [8, 64]"
    )
    evaluate: Annotated[Evaluation | None, BeforeValidator(_parse_evaluate), PlainSerializer(_dump_evaluate)] = Field(
        None,
        description="{folds: 5}: every labelled example is a test example once; split: one test split; by default "
        "folds for small data without a test split, unless seeds are given",
    )
    seeds: Annotated[Seeds | None, BeforeValidator(parse_seeds)] = Field(
        None,
        description="of one split; by default 3; folds take their place. {head: 3, order: 3}: sources of randomness "
        "(head, order, dropout, split) that vary apart, every combination of their seeds; those not named stay at 0",
    )
    # for multi-label data, accuracy of all labels of an example at once is low for every classifier
    metric: Annotated[str | None, BeforeValidator(_parse_metric)] = Field(
        None,
        description="metric that selects epochs on validation and ranks strategies on test, or module:name of a "
        "function of your own; by default accuracy, for multi-label data micro_f1",
    )
    select_by: Annotated[str | None, BeforeValidator(_parse_metric)] = Field(
        None,
        description="metric that selects epochs and hyperparameters on validation, if it is not the one that ranks",
    )
    positive: Annotated[str | None, BeforeValidator(_as_label)] = Field(
        None,
        description="the class of the metrics f1, precision, recall and, of two classes, pr_auc; of two classes by "
        "default the second label",
    )
    ordered: bool = Field(
        False, description="labels are in order (worst to best): adds the metrics quadratic_kappa and mae"
    )
    threshold: Annotated[Literal["validation"] | None, BeforeValidator(_parse_threshold)] = Field(
        None,
        description="of two classes: 0.5 (the default) predicts the more probable one; validation: the second one from "
        "the probability that has the best score on validation",
    )
    cost: Annotated[str, BeforeValidator(check_cost)] = Field(
        DEFAULT_COST, description="cost that the verdict saves where a cheaper strategy is within the margin"
    )
    margin: float = Field(
        DEFAULT_MARGIN,
        description="largest acceptable loss for a cheaper strategy, in the metric's units: 0.01 is a point",
    )
    rates: Rates = Field(Rates(), description="prices and emissions, for the costs usd, usd_per_million and co2_grams")
    tests: Annotated[dict[str, OtherTestSpec], BeforeValidator(parse_tests)] = Field(
        {},
        description="test sets from elsewhere, by name: {twitter: tweets.csv}, which the trained models also predict; "
        "options as {source: tweets.csv, text: tweet, labels: {0: negative, 4: positive}, limit: 1000}",
    )
    predictions: tuple[PredictionsSpec, ...] = Field(
        (), description="predictions of the test examples from files, each a row of the comparison"
    )
    tags: Annotated[dict[str, str], BeforeValidator(parse_tags)] = Field(
        {}, description="phenomena of the test texts besides the built-in ones, as regular expressions: {late_but: ...}"
    )
    reported: tuple[Reported, ...] = Field((), description="published scores, shown next to the measured ones")
    imported: tuple[ImportedSpec, ...] = Field(
        (), description="training logs of HF Trainer: their scores and curves, shown next to the measured ones"
    )
    race: bool = Field(
        False,
        description="strategies race: cheap ones first, and after each seed or fold those with a negligible chance to "
        "be picked stop",
    )
    time: Annotated[float | None, BeforeValidator(parse_time)] = Field(
        None,
        description="time for the whole study, e.g. 10m, stored runs included: the best verdict within it, by a race",
    )
    workers: int | None = Field(
        None, ge=1, description="jobs at once; by default one per core, or several per GPU, as memory allows"
    )
    devices: int = Field(
        1, ge=1, description="GPUs, or processes on a CPU, that train each run together; the batch stays the recipe's"
    )
    keep: Literal["all", "recommended", "none"] = Field(
        "recommended",
        description="trained models that stay on disk; recommended: those of the strategy that the verdict picks, and "
        "small ones",
    )
    track: Annotated[dict[str, TrackerOptions], BeforeValidator(parse_track), PlainSerializer(dump_track)] = Field(
        {}, description="also store the finished study in these trackers: mlflow, tensorboard, wandb, trackio"
    )

    @model_validator(mode="before")
    @classmethod
    def _read_save_models(cls, given: Any) -> Any:
        """Read save_models, which studies of earlier versions have in place of keep."""
        if not isinstance(given, dict) or "save_models" not in given:
            return given
        rest = {key: value for key, value in given.items() if key != "save_models"}
        return {"keep": "all" if given["save_models"] else "none", **rest}

    @model_validator(mode="before")
    @classmethod
    def _seeds_mean_one_split(cls, given: Any) -> Any:
        has_seeds = isinstance(given, dict) and given.get("seeds") is not None
        return {**given, "evaluate": "split"} if has_seeds and given.get("evaluate") is None else given

    @model_validator(mode="after")
    def _check_seeds(self) -> "StudySpec":
        if self.seeds and self.num_folds:
            raise ConfigError(
                f"seeds do not go with {self.num_folds} folds, which take their place; leave out seeds, or evaluate on "
                "one split (evaluate: split, --folds none)"
            )
        if self.seed_grid and self.subsets:
            raise ConfigError(
                "seeds by source do not go with a learning curve (fractions, per_class), whose subsets are drawn from "
                "the one seed of a run; write seeds: 3, or leave out the learning curve"
            )
        return self

    @model_validator(mode="after")
    def _check_own_settings(self) -> "StudySpec":
        """Check the recipes and the encoders that strategies name."""
        short = encoder_names(self.model)
        for strategy in self.strategies:
            recipe_of(strategy, self.recipe)
            if strategy.encoders and not STRATEGIES[strategy.name].uses_encoder:
                raise ConfigError(f"strategy {strategy.name} uses no encoder; leave out encoders")
            for name in strategy.encoders:
                if name not in self.model and name not in short.values():
                    raise ConfigError(f"strategy {strategy.name}: {unknown('encoder', name, self.model)}")
        return self

    @model_validator(mode="after")
    def _check_race(self) -> "StudySpec":
        if not self.is_raced:
            return self
        option = "time" if self.time is not None else "race"
        if self.subsets:
            raise ConfigError(
                f"{option} does not go with a learning curve (fractions, per_class), whose runs decide no pick; leave "
                "one of them out"
            )
        if self.seed_grid:
            raise ConfigError(
                f"{option} does not go with seeds by source, of which every combination runs; write seeds: 3, or leave "
                f"out {option}"
            )
        return self

    @property
    def is_raced(self) -> bool:
        """True if strategies race; a time limit makes them."""
        return self.race or self.time is not None

    def encoders_of(self, strategy: StrategyConfig) -> tuple[str, ...]:
        """Return the encoders that a strategy runs on: all, unless it names some, by their full or short names."""
        short = encoder_names(self.model)
        return tuple(m for m in self.model if not strategy.encoders or {m, short[m]} & set(strategy.encoders))

    @classmethod
    def owner(cls) -> str:
        """Start of the error message."""
        return "study"

    def metric_options(self, label_names: Sequence[str], is_multilabel: bool) -> MetricOptions:
        """Return the roles of the labels. Raises ConfigError if the data does not have them."""
        return metric_options(label_names, is_multilabel, self.positive, self.ordered)

    def ranking_metric(self, options: MetricOptions) -> str:
        """Return the metric that ranks strategies on test. Raises ConfigError if the data does not allow it."""
        return metric_for(self.metric, options)

    def selection_metric(self, options: MetricOptions) -> str:
        """Return the metric that selects on validation. Raises ConfigError if the data does not allow it."""
        metric = metric_for(self.select_by or self.metric, options)
        if self.threshold and (options.is_multilabel or len(options.label_names) != 2):
            has = "has thresholds anyway" if options.is_multilabel else f"has {len(options.label_names)}"
            kind = "multi-label data" if options.is_multilabel else "the data"
            raise ConfigError(f"threshold: validation is for two classes, and {kind} {has}; leave it out")
        if self.threshold and metric not in COUNT_SCORES and not is_own(metric):
            raise ConfigError(
                f"threshold: validation is chosen by the metric that selects, and {metric} does not depend on it; "
                "select by another one (select_by: f1, --select-by f1)"
            )
        return metric

    @property
    def seed_grid(self) -> dict[str, tuple[int, ...]]:
        """Seeds of each source of randomness that varies apart; empty if all vary together."""
        return self.seeds if isinstance(self.seeds, dict) else {}

    @property
    def num_folds(self) -> int | None:
        """The number of folds; None for one split, or if the data decide."""
        return self.evaluate.folds if self.evaluate else None

    @property
    def num_seeds(self) -> int:
        """Number of runs of a strategy that depends on the seed, on one split."""
        return math.prod(map(len, self.seed_grid.values())) if self.seed_grid else len(self.seeds or DEFAULT_SEEDS)

    def resolved(self, num_folds: int | None) -> "StudySpec":
        """Return the spec with the evaluation and the seeds that the data decided."""
        seeds = None if num_folds else self.seeds or DEFAULT_SEEDS
        return self.model_copy(update={"evaluate": Evaluation(folds=num_folds), "seeds": seeds})

    @model_validator(mode="after")
    def _check_reported(self) -> "StudySpec":
        names = {name for strategy in self.strategies for name in (strategy.label, strategy.name)}
        for reported in self.reported:
            if reported.strategy not in names:
                labels = [strategy.label for strategy in self.strategies]
                raise ConfigError(f"reported {unknown('strategy', reported.strategy, labels)}")
        return self

    @field_validator("margin", mode="before")
    @classmethod
    def _check_margin(cls, given: Any) -> Any:
        return check_margin(given)

    @model_validator(mode="after")
    def _check_predictions(self) -> "StudySpec":
        # in lower case, as some file systems see them
        rows = [("predictions", entry.name) for entry in self.predictions]
        rows += [("imported logs", log.name) for log in self.imported]
        names = [name.lower() for _, name in rows]
        strategies = {*STRATEGIES, *(strategy.label.lower() for strategy in self.strategies)}
        for kind, name in rows:
            if name.lower() in strategies:
                raise ConfigError(f"{kind} {name!r} have the name of a strategy; choose another name")
            if names.count(name.lower()) > 1:
                raise ConfigError(f"{kind} {name!r} are given twice; give each row a name of its own")
        return self

    @model_validator(mode="after")
    def _check_rates(self) -> "StudySpec":
        check_is_stated(self.cost, self.rates)
        return self

    @field_validator("fractions", mode="before")
    @classmethod
    def _reject_percent(cls, given: Any) -> Any:
        shares = given if isinstance(given, (list, tuple)) else (given,)
        wrong = [share for share in shares if isinstance(share, str) and share.strip().endswith("%")]
        if wrong:
            raise ConfigError(f"fraction {wrong[0]!r} of train is not a number; write 0.05 for 5 %")
        return given

    @field_validator("fractions")
    @classmethod
    def _check_fractions(cls, given: tuple[float, ...]) -> tuple[float, ...]:
        wrong = [share for share in given if not 0 < share <= 1]
        if wrong:
            raise ConfigError(f"fraction {wrong[0]:g} of train is not above 0 and at most 1; write 0.05 for 5 %")
        return given

    @property
    def subsets(self) -> list[Subset]:
        """The points of the learning curve below all of train."""
        fractions = [Subset(fraction=share, per_class=None) for share in sorted(set(self.fractions)) if share < 1]
        return [Subset(fraction=None, per_class=count) for count in sorted(set(self.per_class))] + fractions

    @model_validator(mode="after")
    def _check_search(self) -> "StudySpec":
        if self.search:
            check_spaces(self.search, self.strategies, self.recipe)
        return self

    @field_validator("strategies")
    @classmethod
    def _add_baselines(cls, given: tuple[StrategyConfig, ...], info: ValidationInfo) -> tuple[StrategyConfig, ...]:
        """Add the missing baselines: a score means little without theirs."""
        present = {strategy.name for strategy in given}
        missing = [name for name in BASELINES if name not in present] if info.data.get("baselines") else []
        return (*map(parse_strategy, missing), *given)
