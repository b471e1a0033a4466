"""Studies, runs and jobs as plain data. YAML in; an unknown key is an error with one line."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tuneoff.cache import fingerprint
from tuneoff.costs import DEFAULT_COST, Rate, Rates, StatedCost, check_cost, check_is_stated
from tuneoff.data.spec import DataSpec, Evaluation, Fold, OtherTestSpec, Subset
from tuneoff.data.tags import parse_tags
from tuneoff.engine.recipe import Recipe
from tuneoff.errors import ConfigError, unknown
from tuneoff.formats import encoder_names
from tuneoff.scoring.decision import DEFAULT_MARGIN
from tuneoff.scoring.metrics import (
    COUNT_SCORES,
    MetricOptions,
    bounds,
    check_metric,
    depends_on_positive,
    is_own,
    metric_for,
    metric_options,
)
from tuneoff.scoring.selection import Selection
from tuneoff.search.record import SearchRecord
from tuneoff.search.space import (
    Range,
    SearchSpec,
    Space,
    check_spaces,
    own_options,
    parse_search,
    recipe_options,
    with_options,
)
from tuneoff.seeds import SPLIT, Seeds, cell_name, parse_seeds
from tuneoff.strategies import STRATEGIES, Strategy, StrategyConfig
from tuneoff.strategies.base import RECIPE
from tuneoff.studies import PACKAGED_STUDIES, packaged_studies
from tuneoff.track import TrackerOptions, dump_track, parse_track
from tuneoff.validation import Options, validated

DEFAULT_MODEL = "packaged:minilm"
NAME_PATTERN = re.compile(r"\w[\w.-]*")  # of studies, datasets and test sets: also names of folders and files
BASELINES = tuple(name for name, row in STRATEGIES.items() if row.is_baseline)
# the fewest that estimate a variance with any use
DEFAULT_SEEDS = (0, 1, 2)
MAX_MARGIN = 0.5  # more is a percentage, or makes every strategy equal
DEFAULT_STRATEGIES = tuple(name for name, row in STRATEGIES.items() if row.is_default)


def parse_strategy(given: Any) -> StrategyConfig:
    """Parse a strategy: a name ("lora"), a name with options ("lora:rank=16", {"lora": {"rank": 16}}) or a config."""
    if isinstance(given, StrategyConfig):
        return given
    if isinstance(given, dict) and len(given) == 1:
        name, options = next(iter(given.items()))
    elif isinstance(given, str):
        name, *pairs = (part.strip() for part in given.split(":"))
        options = dict(_parse_option(given, pair) for pair in pairs)
    else:
        raise ConfigError(
            f"strategy {given!r} is neither a name nor name: {{options}}; write lora or lora: {{rank: 16}}"
        )
    if name not in STRATEGIES:
        raise ConfigError(unknown("strategy", name, STRATEGIES))
    config = STRATEGIES[name].config
    if isinstance(options, dict) and config.model_config.get("extra") == "forbid":
        for key in options:
            if key in Recipe.model_fields and key not in config.model_fields:
                raise ConfigError(f"strategy {name}: {key} is an option of the recipe; write {RECIPE}{key}")
    return validated(config, options or {}, f"strategy {name}")


def _parse_option(given: str, pair: str) -> tuple[str, Any]:
    key, equals, value = pair.partition("=")
    if not equals:
        raise ConfigError(f"strategy {given!r}: {pair!r} is not option=value; write e.g. lora:rank=16")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"strategy {given!r}: {value!r} cannot be read; several values are written a+b") from None
    return key.strip(), parsed.split("+") if isinstance(parsed, str) and "+" in parsed else parsed


def _dump_strategy(config: StrategyConfig) -> dict[str, Any]:
    return {config.name: config.to_json()}


def recipe_of(strategy: StrategyConfig, recipe: Recipe) -> Recipe:
    """Return the recipe of a strategy: the study's, with the strategy's own options in place of its.

    Raises ConfigError, in one line, for an option that does not exist, is invalid, or changes nothing for the strategy.
    """
    changes = dict(strategy.recipe)
    if not changes:
        return recipe
    used = STRATEGIES[strategy.name].recipe_fields
    for key in changes:
        if key == "learning_rate":
            raise ConfigError(
                f"strategy {strategy.name}: learning_rate is its own option; leave out {RECIPE!r} before it"
            )
        if used is not None and key in Recipe.model_fields and key not in used:
            raise ConfigError(
                f"strategy {strategy.name} does not depend on {key} of the recipe; it uses {', '.join(sorted(used))}"
            )
    return validated(Recipe, {**recipe.model_dump(), **changes}, f"recipe of strategy {strategy.name}")


AnyStrategy = Annotated[StrategyConfig, BeforeValidator(parse_strategy), PlainSerializer(_dump_strategy)]


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


def _strategy_label(given: Any) -> Any:
    return parse_strategy(given).label if isinstance(given, str) and ":" in given else given


class Reported(BaseModel):
    """A published score, shown next to the measured one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: Annotated[str, BeforeValidator(_strategy_label)] = Field(
        description="as on the leaderboard (lora rank=16) or as in the study (lora:rank=16)"
    )
    model: str | None = Field(None, description="the encoder of the published run")
    score: float
    metric: Annotated[str, BeforeValidator(check_metric)] = "accuracy"
    source: str = Field(min_length=1, description="author and place")
    note: str = Field("", description="differences from this study: encoder, data, epochs")

    @model_validator(mode="after")
    def _is_within_bounds(self) -> "Reported":
        low, high = bounds(self.metric)
        if not low <= self.score <= high:
            allowed = f"from {low:g} to {high:g}; write 0.93 for 93 %"
            raise ConfigError(f"reported {self.metric} {self.score} is not {allowed}")
        return self


class PredictionsSpec(BaseModel):
    """Predictions of the test examples by anything else, from a file, as a row of the comparison."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^\w[\w.-]*$", description="of the row")
    file: str = Field(
        min_length=1, description="csv, tsv, jsonl or parquet: a column example or text, and predicted labels"
    )
    cost: dict[StatedCost, Rate] = Field(
        {}, description="seconds and usd of one prediction; training_seconds and training_usd, 0 unless stated"
    )

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, given: Any) -> Any:
        """Parse name=file, with costs after colons: gpt=gpt.csv:seconds=0.8:usd=0.002."""
        if not isinstance(given, str):
            return given
        name, equals, rest = given.partition("=")
        if not equals:
            raise ConfigError(f"predictions {given!r} are not name=file; write e.g. gpt=gpt.csv")
        file, *costs = re.split(r":(?=\w+=)", rest)
        return {"name": name.strip(), "file": file.strip(), "cost": dict(cost.split("=", 1) for cost in costs)}


def merged_predictions(stored: Sequence[PredictionsSpec], given: Sequence[Any]) -> list[dict[str, Any]]:
    """Add predictions to those of a study; one with the same name is replaced, but keeps its costs unless stated."""
    merged = {entry.name: entry.model_dump(mode="json") for entry in stored}
    for entry in given:
        parsed = validated(PredictionsSpec, entry, "predictions").model_dump(mode="json")
        former = merged.get(parsed["name"], parsed)
        merged[parsed["name"]] = {**parsed, "cost": parsed["cost"] or former["cost"]}
    return list(merged.values())


class ImportedSpec(BaseModel):
    """A training log of HF Trainer, shown next to the runs of a study."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^\w[\w.-]*$", description="of the row")
    file: str = Field(min_length=1, description="trainer_state.json, a results JSON, or the folder that holds them")

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, given: Any) -> Any:
        """Parse name=file."""
        if not isinstance(given, str):
            return given
        name, equals, file = given.partition("=")
        if not equals:
            raise ConfigError(f"imported {given!r} is not name=file; write e.g. theirs=trainer_state.json")
        return {"name": name.strip(), "file": file.strip()}


def merged_imports(stored: Sequence[ImportedSpec], given: Sequence[Any]) -> list[dict[str, Any]]:
    """Add training logs to those of a study; one with the same name is replaced."""
    entries = [*stored, *[validated(ImportedSpec, entry, "imported") for entry in given]]
    return list({entry.name: entry.model_dump(mode="json") for entry in entries}.values())


_OWN_SPLITS = ("train", "validation", "test")


def parse_tests(given: Any) -> Any:
    """Parse test sets: a mapping from names to sources, or texts name=source. Raises ConfigError for repeated names."""
    if isinstance(given, (list, tuple)):
        pairs = [str(text).partition("=") for text in given]
        for text, (_, equals, _) in zip(given, pairs, strict=True):
            if not equals:
                raise ConfigError(f"test set {text!r} is not name=source; write e.g. twitter=tweets.csv")
        _check_test_names([name.strip() for name, _, _ in pairs])
        return {name.strip(): source.strip() for name, _, source in pairs}
    if isinstance(given, dict):
        _check_test_names([str(name) for name in given])
    return given


def _check_test_names(names: Sequence[str]) -> None:
    """Raise ConfigError for a name of a test set that cannot be a file's name, or is given twice."""
    lower = [name.lower() for name in names]  # as some file systems see them
    for name in names:
        if not NAME_PATTERN.fullmatch(name) or name.lower() in _OWN_SPLITS:
            raise ConfigError(
                f"test set {name!r} has no valid name; use letters, digits, _, - and ., and no name of a split"
            )
        if lower.count(name.lower()) > 1:
            raise ConfigError(f"test set {name!r} is given twice; give each a name of its own")


class StudySpec(Options):
    """A grid of runs: every strategy with every encoder and seed (or fold), on the same data, with the same recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    name: str = Field("study", pattern=r"^\w[\w.-]*$", description="also the folder's name under results/")
    data: DataSpec
    model: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        (DEFAULT_MODEL,), min_length=1, description="one or more encoders: a folder, packaged:NAME or a hub name"
    )
    baselines: bool = Field(True, description="add the baselines, majority and tfidf")
    strategies: tuple[AnyStrategy, ...] = Field(
        default_factory=lambda: tuple(map(parse_strategy, DEFAULT_STRATEGIES)),
        min_length=1,
        description="names, names with options (lora:rank=16) or configs",
    )
    recipe: Recipe = Field(default_factory=lambda: Recipe.model_validate({}))
    search: Annotated[SearchSpec | None, BeforeValidator(parse_search)] = Field(
        None, description="hyperparameter search on validation before the runs, with the same budget for every strategy"
    )
    fractions: Annotated[tuple[float, ...], BeforeValidator(_as_tuple)] = Field(
        (), description="learning curve: also train on these fractions of train, e.g. [0.05, 0.2]"
    )
    per_class: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_as_tuple)] = Field(
        (), description="learning curve: also train on this many examples per class, e.g. [8, 64]"
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
    workers: int | None = Field(None, ge=1, description="jobs at once; by default one per core, as memory allows")
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


class Final(BaseModel):
    """Settings of a run on all labelled examples, without validation, as the runs of the folds chose them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int | None = None  # after which training ends, of the recipe's; None for a strategy without epochs
    thresholds: tuple[float, ...] | None = None  # of each label, for multi-label data; of two classes the second's
    options: dict[str, Any] = {}  # of the strategy, of which validation selects one of several values


class RunSpec(BaseModel):
    """Everything that the result of one run depends on: strategy, data, encoder, recipe and seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: AnyStrategy
    subset: Subset | None = None  # of train; None is all of it
    searched_options: dict[str, Any] = {}  # found by a search; they replace the strategy's own
    model: str | None  # None for a strategy without an encoder
    model_fingerprint: str | None
    data_fingerprint: str
    recipe: Recipe
    metric: str
    seed: int  # for a run on a fold, the fold's index; where sources vary apart, the number of their combination
    sources: dict[str, int] = {}  # seed of each source of randomness that varies apart; empty: seed is that of all
    fold: Fold | None = None  # None: the stored splits
    final: Final | None = None  # for the run on all labelled examples, whose model is handed over
    tests: dict[str, str] = {}  # name -> fingerprint of the test sets that it also predicts; in no fingerprint of a run
    save_model: bool = True
    positive: str | None = None  # class of f1, precision, recall and pr_auc
    ordered: bool = False  # stored scores have those of ordered labels
    threshold: Literal["validation"] | None = None  # of the second of two classes; None for 0.5

    @property
    def definition(self) -> Strategy:
        """The strategy's row in STRATEGIES."""
        return STRATEGIES[self.strategy.name]

    @property
    def config(self) -> StrategyConfig:
        """The strategy's options, with those that a search found, and those that the folds chose."""
        searched = own_options(self.strategy, self.searched_options)
        options = {**searched, **(self.final.options if self.final else {})}
        return with_options(self.strategy, options) if options else self.strategy

    def searched(self, options: dict[str, Any]) -> "RunSpec":
        """Return this run with the options that a search found: of the strategy, and of the recipe."""
        changes: dict[str, Any] = {"searched_options": options}
        if own := recipe_options(self.strategy, options):
            changes["recipe"] = validated(Recipe, {**self.recipe.model_dump(), **own}, "search space of the recipe")
        return self.model_copy(update=changes)

    @property
    def is_seeded(self) -> bool:
        """True if the seed changes the result: of the strategy itself, or of the subset that it draws."""
        return self.definition.is_seeded or self.subset is not None

    @property
    def name(self) -> str:
        """The strategy's label, with the subset of train if there is one."""
        return f"{self.strategy.label} on {self.subset.label}" if self.subset else self.strategy.label

    def name_among(self, encoders: Mapping[str, str]) -> str:
        """Return the name with the encoder if there are several. encoders: of the study, with their short names."""
        return f"{self.name} on {encoders[self.model]}" if self.model and len(encoders) > 1 else self.name

    @property
    def repeat(self) -> str:
        """Name among the runs of its group: "seed 0", "seeds head 0, order 1" or "fold 0"."""
        if self.final:
            return "on all labelled examples"
        return cell_name(self.sources) if self.sources else f"{'fold' if self.fold else 'seed'} {self.seed}"

    def seed_of(self, source: str) -> int:
        """Return the seed of a source of randomness: head, order or dropout."""
        return self.sources.get(source, 0) if self.sources else self.seed

    @property
    def division(self) -> int:
        """Seed of the division into train and validation; 0 is the stored one."""
        return self.sources.get(SPLIT, 0)

    @property
    def group(self) -> str:
        """Id shared by the runs of all seeds or folds: '<strategy>-<8 hex digits>'."""
        recipe = self.recipe.key(self.definition.recipe_fields)
        parts = [_dump_strategy(self.config), self.model_fingerprint, self.data_fingerprint, recipe, self.metric]
        if self.subset:
            parts.append(self.subset.key)
        if self.searched_options:  # not the same as a strategy that was given these options by the user
            parts.append(_dump_strategy(self.strategy))
        if self.fold:  # which examples are in a fold is part of the data's fingerprint
            parts.append({"folds": self.fold.settings})
        if self.sources:
            parts.append({"sources": sorted(self.sources)})
        if self.positive and depends_on_positive(self.metric):
            parts.append({"positive": self.positive})
        if self.threshold:
            parts.append({"threshold": self.threshold})
        if self.final:
            parts.append({"final": self.final.model_dump(mode="json")})
        return f"{self.strategy.name}-{fingerprint(*parts)[:8]}"

    def selection(self, label_names: Sequence[str], is_multilabel: bool) -> Selection:
        """Return how the run selects on validation."""
        options = metric_options(label_names, is_multilabel, self.positive, self.ordered, own=(self.metric,))
        # the most frequent class is predicted whatever its share: no threshold
        return Selection(self.metric, options, self.threshold is not None and self.definition.learns)

    @property
    def run_id(self) -> str:
        """'<strategy>-<8 hex digits of everything but the seed>-s<seed or fold>'."""
        return f"{self.group}-s{self.seed}"


class Job(BaseModel):
    """A unit of work for an executor: a run, or the hyperparameter search before it (which never reads test)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: RunSpec
    search: SearchSpec | None = None  # None for the run itself

    @property
    def is_search(self) -> bool:
        """True for a hyperparameter search, False for a run."""
        return self.search is not None

    @property
    def job_id(self) -> str:
        """The run's id, or 'search-<strategy>-<8 hex digits of everything but the budget>'.

        Without the budget, so that a larger budget continues a search instead of starting another one.
        """
        if self.search is None:
            return self.run.run_id
        space = {
            name: values.model_dump() if isinstance(values, BaseModel) else values
            for name, values in self.space.items()
        }
        return f"search-{self.run.strategy.name}-{fingerprint(self.run.run_id, space, self.search.halving)[:8]}"

    @property
    def title(self) -> str:
        """Name in progress and plans."""
        return self.title_among({})

    def title_among(self, encoders: Mapping[str, str]) -> str:
        """Return the name in progress and plans of a study: with the encoder if there are several. encoders: names."""
        return f"{self.run.name_among(encoders)} {'search' if self.is_search else self.run.repeat}"

    @property
    def space(self) -> Space:
        """The search space; empty for a run, and for a strategy without hyperparameters to search."""
        return self.search.space_of(self.run.strategy) if self.search else {}

    @property
    def new_search(self) -> SearchRecord:
        """The record of this search before its first trial."""
        run = self.run
        return SearchRecord(
            search_id=self.job_id,
            strategy=run.strategy.name,
            label=run.strategy.label,
            model=run.model,
            seed=run.seed,
            metric=run.metric,
            epochs=run.recipe.epochs,
            space={name: v.model_dump() if isinstance(v, Range) else list(v) for name, v in self.space.items()},
            part=run.subset.label if run.subset else None,
        )


class _UniqueKeys(yaml.SafeLoader):
    """A loader that refuses a key that is given twice; of two test sets of one name YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping. Raises ConfigError for a repeated key."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        repeated = [key for key in keys if keys.count(key) > 1]
        if repeated:
            line = node.start_mark.line + 1
            raise ConfigError(f"the study file has {repeated[0]!r} twice (from line {line}); give each key once")
        return super().construct_mapping(node, deep)


def read_study(name: str) -> StudySpec:
    """Read a study from a YAML file, or a packaged one: studies:NAME. Raises ConfigError, in one line."""
    if name.startswith("studies:"):
        path = PACKAGED_STUDIES / f"{name.removeprefix('studies:')}.yaml"
        if not path.is_file():
            raise ConfigError(unknown("study", name.removeprefix("studies:"), packaged_studies()))
    else:
        path = Path(name)
        if not path.is_file():
            is_packaged = name in packaged_studies()
            hint = f"; did you mean studies:{name}?" if is_packaged else "; give a YAML file or studies:NAME"
            raise ConfigError(f"study file {name!r} does not exist{hint}")
    given = load_yaml(path)
    if isinstance(given, dict) and "datasets" in given:
        raise ConfigError(
            f"study file {path.name!r} is of several datasets, which only tuneoff run reads; afterwards, give the "
            "folder of one of them"
        )
    if not isinstance(given, dict):
        raise ConfigError(
            f"study file {path.name!r} holds {type(given).__name__}, not keys such as data: and strategies:"
        )
    return study_from({"name": path.stem, **given}, f"study file {path.name!r}")


def load_yaml(path: Path) -> Any:
    """Read a YAML file. Raises ConfigError, in one line."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"study file {path.name!r} is not YAML: {' '.join(str(error).split())}") from error


def study_from(given: dict[str, Any], where: str = "study") -> StudySpec:
    """Build a study from plain data. Raises ConfigError, in one line, with the nearest valid name for a wrong one."""
    return validated(StudySpec, given, where)


def write_study(spec: StudySpec, path: Path) -> None:
    """Write a study with every default."""
    path.write_text(yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True), encoding="utf-8")
