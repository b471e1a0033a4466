"""What of each strategy is searched, by what budget, and which values are tried next. Optuna draws and stops trials."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tuneoff.errors import ConfigError, unknown
from tuneoff.metrics import direction
from tuneoff.runs import read_json, write_json
from tuneoff.strategies import StrategyConfig
from tuneoff.validated import validated

# cut: when a budget of time was over
DONE, STOPPED, CUT, FAILED = "done", "stopped", "cut", "failed"
_REACH = 2  # factors from a strategy's own value to either end of its range
_MODEL_FROM = 3  # trials from which Optuna's model of the score guides; before them stand the first values
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


class Range(BaseModel):
    """Every number between two; whole ones where both are whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    low: int | float
    high: int | float
    log: bool = Field(True, description="drawn by its logarithm")

    @model_validator(mode="after")
    def _is_not_inverted(self) -> "Range":
        if self.low >= self.high:
            raise ConfigError(f"search space from low {self.low:g} to high {self.high:g} is empty; swap or widen it")
        if self.log and self.low <= 0:
            raise ConfigError(
                f"search space from low {self.low:g} is drawn by its logarithm; start above 0 (log: false)"
            )
        return self

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{' (log)' if self.log else ''}"


def _values(given: Any) -> Any:
    if isinstance(given, Range):
        return given
    if isinstance(given, (list, tuple)) and given:
        return tuple(given)
    if isinstance(given, dict) and given:
        return validated(Range, given, "search space")
    raise ConfigError(f"search space {given!r} holds nothing to try; write values, [4, 8], or low and high")


Space = dict[str, Annotated[Range | tuple[Any, ...], BeforeValidator(_values)]]


def _seconds(given: Any) -> Any:
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([smh]?)\s*", given) if isinstance(given, str) else None
    return float(found[1]) * _UNITS[found[2]] if found else given


class SearchSpec(BaseModel):
    """The same budget for every strategy: so many trials, or so many seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    trials: int | None = Field(None, ge=1, description="of every strategy")
    budget: Annotated[float, BeforeValidator(_seconds)] | None = Field(
        None, gt=0, description="of every strategy, instead of trials: seconds, 10m or 1h"
    )
    # Jamieson & Talwalkar, AISTATS 2016; asynchronous as in Li et al., MLSys 2020
    halving: bool = Field(True, description="stop a trial that is not in the better half at 1, 2, 4, ... epochs")
    spaces: dict[str, Space] = Field(
        {}, description="strategy -> option -> values, or low and high; by default each one's own rate or C"
    )

    @model_validator(mode="after")
    def _has_one_budget(self) -> "SearchSpec":
        if (self.trials is None) == (self.budget is None):
            raise ConfigError("search needs either trials or a budget; write trials: 4, or budget: 10m")
        return self

    def space_of(self, strategy: StrategyConfig) -> Space:
        """What is searched of a strategy: its own rate or C, unless the study sets it, and what the study names."""
        own = {name: _around(strategy, name) for name in strategy.searched if name not in strategy.changed}
        return {**own, **self.spaces.get(strategy.name, {}), **self.spaces.get(strategy.label, {})}


def parse_search(given: Any) -> Any:
    """4 and "4" mean four trials, "10m" ten minutes of each strategy, "none" no search."""
    if isinstance(given, str):
        if given.strip().lower() == "none":
            return None
        if given.strip().isdigit():
            return {"trials": int(given)}
        if not isinstance(_seconds(given), float):
            raise ConfigError(f"search {given!r} is neither trials nor a time; write 4, 10m or none")
        return {"budget": given}
    if isinstance(given, (bool, float)):
        raise ConfigError(f"search {given!r} is neither trials nor a time; write 4, 10m or none")
    if isinstance(given, dict) and (strange := [key for key in given if key not in SearchSpec.model_fields]):
        raise ConfigError(unknown("key of search", str(strange[0]), SearchSpec.model_fields))
    return {"trials": given} if isinstance(given, int) else given


def _start(strategy: StrategyConfig, option: str) -> float:
    """The value from which a search of an option starts; of several, their middle on a log scale."""
    value = getattr(strategy, option)
    return float(np.exp(np.log(value).mean())) if isinstance(value, tuple) else value


def _around(strategy: StrategyConfig, option: str) -> Range:
    start, factor = _start(strategy, option), strategy.searched[option] ** _REACH
    high = start * factor
    return Range(low=start / factor, high=min(1.0, high) if option == "learning_rate" else high, log=True)


@dataclass
class Trial:
    """One try: some values of the options, and what validation said of them."""

    options: dict[str, Any]
    scores: list[float] = field(default_factory=list)  # after each epoch
    score: float | None = None  # of the epoch whose weights were kept; None for one that failed
    state: str = DONE
    seconds: float = 0.0
    error: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)  # what Optuna notes of it


@dataclass
class SearchRecord:
    """What a search was and tried. Everything here is JSON."""

    search_id: str
    strategy: str
    label: str  # the strategy with its options, for people
    model: str | None
    seed: int
    metric: str  # of validation, by which it chooses
    epochs: int  # of a trial that goes to its end
    space: dict[str, Any]  # option -> choices, or low, high and log
    part: str | None = None  # of train, on which it was made; None for all
    trials: list[Trial] = field(default_factory=list)

    @property
    def best(self) -> Trial | None:
        """The trial that validation likes best, the earlier of equals; None if all failed."""
        scored = [trial for trial in self.trials if trial.score is not None]
        return max(scored, key=lambda trial: direction(self.metric) * (trial.score or 0.0), default=None)

    def within(self, search: SearchSpec) -> "SearchRecord":
        """The trials that a budget allows of those that are stored: an earlier budget may have been larger."""
        if search.trials is not None:
            return replace(self, trials=[trial for trial in self.trials if trial.state != CUT][: search.trials])
        before = itertools.accumulate((trial.seconds for trial in self.trials), initial=0.0)
        kept = [trial for trial, spent in zip(self.trials, before, strict=False) if spent < (search.budget or 0)]
        return replace(self, trials=kept)

    @classmethod
    def read(cls, path: Path) -> "SearchRecord":
        """A stored search."""
        found = read_json(path)
        return cls(**{**found, "trials": [Trial(**trial) for trial in found["trials"]]})

    def write(self, path: Path) -> None:
        """Store it, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(self))


class Sampler:
    """The trials of one search so far, and the next. The same trials give the same next one."""

    def __init__(self, strategy: StrategyConfig, space: Space, search: SearchSpec, metric: str, done: Sequence[Trial]):
        import optuna  # slow to import, and only here

        self._optuna, self._space, self._sign = optuna, space, direction(metric)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        halving = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
        self._study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=len(done), n_startup_trials=_MODEL_FROM),
            pruner=halving if search.halving else optuna.pruners.NopPruner(),
        )
        self._distributions = {name: self._distribution(values) for name, values in space.items()}
        for trial in done:
            self._study.add_trial(self._frozen(trial))
        fixed = _first(strategy, space, len(done))
        self._study.enqueue_trial({name: self._coded(name, value) for name, value in fixed.items()})

    def ask(self) -> Trial:
        """The next trial, with its options."""
        self._asked = self._study.ask(self._distributions)
        return Trial({name: self._decoded(name, value) for name, value in self._asked.params.items()})

    def is_weak(self, scores: Sequence[float]) -> bool:
        """Whether the trial that was asked for is to be stopped. scores: validation's, of its epochs so far."""
        self._asked.report(self._sign * scores[-1], step=len(scores))
        return self._asked.should_prune()

    def attributes(self) -> dict[str, Any]:
        """What Optuna notes of the trial that was asked for, and needs to judge later ones."""
        noted = self._study.get_trials(deepcopy=False)[self._asked.number].system_attrs
        return {key: value for key, value in noted.items() if key.startswith("completed_rung")}

    def _frozen(self, trial: Trial) -> Any:
        states = self._optuna.trial.TrialState
        params = {name: self._coded(name, value) for name, value in trial.options.items()}
        distributions = {name: self._distributions[name] for name in params}
        known: Any = {"params": params, "distributions": distributions, "system_attrs": trial.attributes}
        steps = {index + 1: self._sign * score for index, score in enumerate(trial.scores)}
        if trial.score is None:  # diverged, or worse: the worst there is, so that Optuna keeps away
            return self._optuna.trial.create_trial(state=states.PRUNED, **known)
        if trial.state in (STOPPED, CUT):
            return self._optuna.trial.create_trial(state=states.PRUNED, intermediate_values=steps, **known)
        value = self._sign * trial.score
        return self._optuna.trial.create_trial(value=value, intermediate_values=steps, **known)

    def _distribution(self, values: Range | tuple[Any, ...]) -> Any:
        distributions = self._optuna.distributions
        if not isinstance(values, Range):
            return distributions.CategoricalDistribution(list(range(len(values))))
        if isinstance(values.low, int) and isinstance(values.high, int):
            return distributions.IntDistribution(values.low, values.high, log=values.log)
        return distributions.FloatDistribution(values.low, values.high, log=values.log)

    def _coded(self, name: str, value: Any) -> Any:
        """A value as Optuna holds it: choices by their place, for they may be lists."""
        values = self._space[name]
        return value if isinstance(values, Range) else [_plain(choice) for choice in values].index(_plain(value))

    def _decoded(self, name: str, value: Any) -> Any:
        values = self._space[name]
        if not isinstance(values, Range):
            return values[value]
        return min(max(_rounded(value), values.low), values.high) if isinstance(value, float) else value


def _first(strategy: StrategyConfig, space: Space, number: int) -> dict[str, Any]:
    """What the first trials fix: the strategy as it is, then its own rate or C a factor up, then down."""
    if number >= _MODEL_FROM:
        return {}
    own = {name: _start(strategy, name) for name in space if name in strategy.searched}
    if number > 0:
        own = {name: value * strategy.searched[name] ** (1 if number == 1 else -1) for name, value in own.items()}
        own = {name: _rounded(value) for name, value in own.items()}
    else:
        own |= {name: getattr(strategy, name) for name in space if name not in own and hasattr(strategy, name)}
    return {name: value for name, value in own.items() if _is_in(value, space[name])}


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _is_in(value: Any, values: Range | tuple[Any, ...]) -> bool:
    return value in values if isinstance(values, Range) else _plain(value) in [_plain(choice) for choice in values]


def _plain(value: Any) -> Any:
    """Lists and tuples alike."""
    return tuple(value) if isinstance(value, (list, tuple)) else value


def check_spaces(search: SearchSpec, strategies: Sequence[StrategyConfig]) -> None:
    """Raise ConfigError for a space of a strategy, option or value that there is not."""
    for name, space in search.spaces.items():
        named = [strategy for strategy in strategies if name in (strategy.name, strategy.label)]
        if not named:
            labels = dict.fromkeys(known for s in strategies for known in (s.name, s.label))
            raise ConfigError(f"search space for {unknown('strategy', name, labels)}")
        for option, values in space.items():
            tried = (values.low, values.high) if isinstance(values, Range) else values
            for value in tried:
                for strategy in named:
                    with_options(strategy, {option: value})


def with_options(strategy: StrategyConfig, options: dict[str, Any]) -> StrategyConfig:
    """A strategy with some options set. Raises ConfigError, in one line, for what it does not take."""
    given = {**strategy.model_dump(exclude_none=True), **options}
    return validated(type(strategy), given, f"search space of {strategy.name}")
