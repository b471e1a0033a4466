"""What a user may ask for: a study, and the runs that it consists of. YAML in, unknown keys are errors."""

from pathlib import Path
from typing import Annotated, Any

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
from tuneoff.data.dataset import DataSpec
from tuneoff.data.splits import Subset
from tuneoff.engine.recipe import Recipe
from tuneoff.errors import ConfigError, unknown
from tuneoff.metrics import BOUNDS, check_metric
from tuneoff.runs import check_cost
from tuneoff.search import SearchSpec, Space, check_spaces, parse_search, with_options
from tuneoff.strategies import STRATEGIES, Strategy, StrategyConfig
from tuneoff.validated import validated

DEFAULT_MODEL = "packaged:minilm"
BASELINES = ("majority", "tfidf")
DEFAULT_STRATEGIES = ("majority", "tfidf", "probe", "head", "partial", "lora", "full")
_STUDIES = Path(__file__).parent / "studies"


def parse_strategy(given: Any) -> StrategyConfig:
    """A strategy as a name ("lora"), with options ("lora:rank=16", {"lora": {"rank": 16}}) or as its own config."""
    if isinstance(given, StrategyConfig):
        return given
    if isinstance(given, dict) and len(given) == 1:
        name, options = next(iter(given.items()))
    elif isinstance(given, str):
        name, *pairs = (part.strip() for part in given.split(":"))
        options = dict(_option(given, pair) for pair in pairs)
    else:
        raise ConfigError(
            f"strategy {given!r} is neither a name nor name: {{options}}; write lora or lora: {{rank: 16}}"
        )
    if name not in STRATEGIES:
        raise ConfigError(unknown("strategy", name, STRATEGIES))
    return validated(STRATEGIES[name].config, options or {}, f"strategy {name}")


def _option(given: str, pair: str) -> tuple[str, Any]:
    key, equals, value = pair.partition("=")
    if not equals:
        raise ConfigError(f"strategy {given!r}: {pair!r} is not option=value; write e.g. lora:rank=16")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"strategy {given!r}: {value!r} cannot be read; several values are written a+b") from None
    return key.strip(), parsed.split("+") if isinstance(parsed, str) and "+" in parsed else parsed


def _dump_strategy(config: StrategyConfig) -> dict[str, Any]:
    return {config.name: config.model_dump(mode="json")}


AnyStrategy = Annotated[StrategyConfig, BeforeValidator(parse_strategy), PlainSerializer(_dump_strategy)]


def _as_tuple(given: Any) -> Any:
    return (given,) if isinstance(given, (str, int, float)) and not isinstance(given, bool) else given


def _as_seeds(given: Any) -> Any:
    """3 means the seeds 0, 1 and 2."""
    return tuple(range(given)) if isinstance(given, int) and not isinstance(given, bool) else given


def _as_metric(given: Any) -> Any:
    return None if given is None else check_metric(given)


def _as_label(given: Any) -> Any:
    return parse_strategy(given).label if isinstance(given, str) and ":" in given else given


class Reported(BaseModel):
    """A number that somebody published."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: Annotated[str, BeforeValidator(_as_label)] = Field(
        description="as the leaderboard names it (lora rank=16) or as it is asked for (lora:rank=16)"
    )
    model: str | None = Field(None, description="the encoder that it was measured with")
    score: float
    metric: Annotated[str, BeforeValidator(check_metric)] = "accuracy"
    source: str = Field(min_length=1, description="who reported it, and where")
    note: str = Field("", description="what was different: encoder, data, epochs")

    @model_validator(mode="after")
    def _is_within_bounds(self) -> "Reported":
        low, high = BOUNDS[self.metric]
        if not low <= self.score <= high:
            allowed = f"from {low:g} to {high:g}; write 0.93 for 93 %"
            raise ConfigError(f"reported {self.metric} {self.score} is not {allowed}")
        return self


class StudySpec(BaseModel):
    """A grid of runs: every strategy with every encoder and seed, on the same data, trained by the same recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    name: str = Field("study", pattern=r"^\w[\w.-]*$", description="also the folder's name under results/")
    data: DataSpec
    model: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = Field(
        (DEFAULT_MODEL,), min_length=1, description="one or several encoders: a folder, packaged:NAME or a hub name"
    )
    baselines: bool = Field(True, description="majority and tfidf beside whatever else is compared")
    strategies: tuple[AnyStrategy, ...] = Field(
        default_factory=lambda: tuple(map(parse_strategy, DEFAULT_STRATEGIES)), min_length=1
    )
    recipe: Recipe = Field(default_factory=lambda: Recipe.model_validate({}))
    search: Annotated[SearchSpec | None, BeforeValidator(parse_search)] = Field(
        None, description="what is tried on validation before the runs, with the same budget for every strategy"
    )
    fractions: Annotated[tuple[float, ...], BeforeValidator(_as_tuple)] = Field(
        (), description="learning curve: also trained on these shares of train, e.g. [0.05, 0.2]"
    )
    per_class: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_as_tuple)] = Field(
        (), description="learning curve: also trained on so many examples of each class, e.g. [8, 64]"
    )
    # three seeds are the fewest that show a spread
    seeds: Annotated[tuple[int, ...], BeforeValidator(_as_seeds)] = Field((0, 1, 2), min_length=1)
    # accuracy of all labels of an example at once says little where there are many
    metric: Annotated[str | None, BeforeValidator(_as_metric)] = Field(
        None,
        description="what chooses epochs on validation and ranks strategies on test; by default accuracy, or micro_f1 "
        "where an example may have several labels",
    )
    cost: Annotated[str, BeforeValidator(check_cost)] = Field(
        "train_seconds", description="by which the verdict chooses among what cannot be told apart"
    )
    reported: tuple[Reported, ...] = Field((), description="numbers published elsewhere, shown beside the measured")
    workers: int | None = Field(None, ge=1, description="runs at once; by default one a core, as memory allows")
    save_models: bool = Field(True, description="keep each run's model")

    @model_validator(mode="after")
    def _reports_what_it_compares(self) -> "StudySpec":
        known = {name for strategy in self.strategies for name in (strategy.label, strategy.name)}
        for found in self.reported:
            if found.strategy not in known:
                labels = [strategy.label for strategy in self.strategies]
                raise ConfigError(f"reported {unknown('strategy', found.strategy, labels)}")
        return self

    @field_validator("fractions", mode="before")
    @classmethod
    def _have_no_percent(cls, given: Any) -> Any:
        strange = [share for share in given if isinstance(share, str) and share.strip().endswith("%")]
        if strange:
            raise ConfigError(f"fraction {strange[0]!r} of train is not a number; write 0.05 for 5 %")
        return given

    @field_validator("fractions")
    @classmethod
    def _are_shares(cls, given: tuple[float, ...]) -> tuple[float, ...]:
        strange = [share for share in given if not 0 < share <= 1]
        if strange:
            raise ConfigError(f"fraction {strange[0]:g} of train is not above 0 and at most 1; write 0.05 for 5 %")
        return given

    @property
    def subsets(self) -> list[Subset]:
        """The points of the learning curve below all of train."""
        shares = [Subset(fraction=share, per_class=None) for share in sorted(set(self.fractions)) if share < 1]
        return [Subset(fraction=None, per_class=count) for count in sorted(set(self.per_class))] + shares

    @model_validator(mode="after")
    def _searches_what_there_is(self) -> "StudySpec":
        if self.search:
            check_spaces(self.search, self.strategies)
        return self

    @field_validator("strategies")
    @classmethod
    def _with_baselines(cls, given: tuple[StrategyConfig, ...], found: ValidationInfo) -> tuple[StrategyConfig, ...]:
        """A score says little without those of what needs no encoder."""
        present = {strategy.name for strategy in given}
        missing = [name for name in BASELINES if name not in present] if found.data.get("baselines") else []
        return (*map(parse_strategy, missing), *given)


class RunSpec(BaseModel):
    """One run: strategy x dataset x encoder x seed, with all that its result depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: AnyStrategy
    subset: Subset | None = None  # of train; None is all of it
    found: dict[str, Any] = {}  # options that a search chose instead of the strategy's own
    model: str | None  # None where the strategy reads texts alone
    model_fingerprint: str | None
    data_fingerprint: str
    recipe: Recipe
    metric: str
    seed: int
    save_model: bool = True

    @property
    def kind(self) -> Strategy:
        """The strategy's row in STRATEGIES."""
        return STRATEGIES[self.strategy.name]

    @property
    def config(self) -> StrategyConfig:
        """The strategy with the options that a search chose."""
        return with_options(self.strategy, self.found) if self.found else self.strategy

    @property
    def title(self) -> str:
        """What people call it."""
        return f"{self.name} seed {self.seed}"

    @property
    def name(self) -> str:
        """The strategy, and the part of train that it sees if that is not all."""
        return f"{self.strategy.label} on {self.subset.label}" if self.subset else self.strategy.label

    @property
    def group(self) -> str:
        """What the runs of all seeds have in common: '<strategy>-<8 hex>'."""
        texts = {"max_length", "long_texts", "overlap", "max_windows"}
        features, all_of_it = {*texts, "precision", "class_weights"}, set(Recipe.model_fields)
        used = {"text": {"class_weights"}, "features": features, "gradient": all_of_it}[self.kind.kind]
        if self.strategy.name == "untrained":
            used = texts
        recipe = self.recipe.model_dump(include=used)
        parts = [_dump_strategy(self.config), self.model_fingerprint, self.data_fingerprint, recipe, self.metric]
        if self.subset:
            parts.append(self.subset.label)
        if self.found:  # a strategy that asks for the same options by itself is another one
            parts.append(_dump_strategy(self.strategy))
        return f"{self.strategy.name}-{fingerprint(*parts)[:8]}"

    @property
    def run_id(self) -> str:
        """'<strategy>-<8 hex of all but the seed>-s<seed>'."""
        return f"{self.group}-s{self.seed}"


class SearchJob(BaseModel):
    """One search: a run whose options are still to be found. It never sees the test split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: RunSpec
    search: SearchSpec

    @property
    def run_id(self) -> str:
        """'search-<strategy>-<8 hex of all but the budget>': a larger budget goes on where a smaller one ended."""
        space = {
            name: values.model_dump() if isinstance(values, BaseModel) else values
            for name, values in self.space.items()
        }
        return f"search-{self.run.strategy.name}-{fingerprint(self.run.run_id, space, self.search.halving)[:8]}"

    @property
    def strategy(self) -> StrategyConfig:
        """Whose options are searched."""
        return self.run.strategy

    @property
    def model(self) -> str | None:
        """The encoder, if there is one."""
        return self.run.model

    @property
    def seed(self) -> int:
        """With which every trial trains."""
        return self.run.seed

    @property
    def title(self) -> str:
        """What people call it."""
        return f"{self.run.name} search"

    @property
    def space(self) -> Space:
        """What is searched; empty if nothing is."""
        return self.search.space_of(self.run.strategy)


Job = RunSpec | SearchJob


def read_study(name: str) -> StudySpec:
    """A study from a YAML file, or a packaged one: studies:NAME. Raises ConfigError, in one line."""
    if name.startswith("studies:"):
        path = _STUDIES / f"{name.removeprefix('studies:')}.yaml"
        if not path.is_file():
            raise ConfigError(unknown("study", name.removeprefix("studies:"), packaged_studies()))
    else:
        path = Path(name)
        if not path.is_file():
            hint = (
                f"; did you mean studies:{name}?"
                if name in packaged_studies()
                else "; give a YAML file or studies:NAME"
            )
            raise ConfigError(f"study file {name!r} does not exist{hint}")
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"study file {path.name!r} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(given, dict):
        raise ConfigError(
            f"study file {path.name!r} holds {type(given).__name__}, not keys such as data: and strategies:"
        )
    return study_from({"name": path.stem, **given}, f"study file {path.name!r}")


def study_from(given: dict[str, Any], where: str = "study") -> StudySpec:
    """A study from plain data. Raises ConfigError, in one line, with the nearest right name for a wrong one."""
    return validated(StudySpec, given, where)


def packaged_studies() -> dict[str, str]:
    """Names of the studies that come with Tuneoff, and the first comment line of each."""
    return {
        path.stem: path.read_text().splitlines()[0].lstrip("# ").strip() for path in sorted(_STUDIES.glob("*.yaml"))
    }


def write_study(spec: StudySpec, path: Path) -> None:
    """Write a study with every default spelled out."""
    path.write_text(yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True), encoding="utf-8")
