"""Propose the next trial of a hyperparameter search, and stop weak ones. Both by Optuna.

A sampler is rebuilt from the stored trials before each new one, so that a search can be resumed, and the same trials
always give the same next one. The first three are fixed: the strategy as it is, then its learning rate (or C) a
factor higher and a factor lower. After them TPE proposes (Bergstra et al., NeurIPS 2011).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tuneoff import compat
from tuneoff.errors import requires
from tuneoff.scoring.metrics import direction
from tuneoff.search.record import CUT, STOPPED, Trial
from tuneoff.search.space import Range, SearchSpec, Space, default_value
from tuneoff.strategies.base import StrategyConfig

_FIXED_TRIALS = 3


class Sampler:
    """Optuna's study of one search, and the trial that it proposed last."""

    def __init__(
        self,
        strategy: StrategyConfig,
        space: Space,
        search: SearchSpec,
        metric: str,
        done: Sequence[Trial],
        recipe: Mapping[str, Any] | None = None,
    ):
        """recipe: the study's values of the options of the recipe in the space."""
        with requires("optuna"):
            import optuna  # slow to import, and only here

        self._optuna, self._space, self._sign = optuna, space, direction(metric)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        halving = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
        self._study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=len(done), n_startup_trials=_FIXED_TRIALS),
            pruner=halving if search.halving else optuna.pruners.NopPruner(),
        )
        self._distributions = {name: self._distribution(values) for name, values in space.items()}
        for trial in done:
            self._study.add_trial(self._optuna_trial(trial))
        fixed = _fixed_options(strategy, space, len(done), recipe or {})
        self._study.enqueue_trial({name: self._to_optuna(name, value) for name, value in fixed.items()})

    def ask(self) -> Trial:
        """Propose the next trial."""
        self._asked = self._study.ask(self._distributions)
        return Trial({name: self._from_optuna(name, value) for name, value in self._asked.params.items()})

    def should_stop(self, scores: Sequence[float]) -> bool:
        """Return True if successive halving stops the proposed trial. scores: validation, after each epoch so far."""
        self._asked.report(self._sign * scores[-1], step=len(scores))
        return self._asked.should_prune()

    def attributes(self) -> dict[str, Any]:
        """Return Optuna's notes about the proposed trial, which pruning later trials depends on."""
        return compat.pruning_notes(self._study.get_trials(deepcopy=False)[self._asked.number])

    def _optuna_trial(self, trial: Trial) -> Any:
        states = self._optuna.trial.TrialState
        params = {name: self._to_optuna(name, value) for name, value in trial.options.items()}
        common: dict[str, Any] = {
            "params": params,
            "distributions": {name: self._distributions[name] for name in params},
            "notes": trial.attributes,
        }
        steps = {index + 1: self._sign * score for index, score in enumerate(trial.scores)}
        if trial.score is None:  # failed: pruned without a score, which TPE ranks below every other trial
            return compat.past_trial(state=states.PRUNED, **common)
        if trial.state in (STOPPED, CUT):
            return compat.past_trial(state=states.PRUNED, intermediate_values=steps, **common)
        return compat.past_trial(value=self._sign * trial.score, intermediate_values=steps, **common)

    def _distribution(self, values: Range | tuple[Any, ...]) -> Any:
        distributions = self._optuna.distributions
        if not isinstance(values, Range):
            return distributions.CategoricalDistribution(list(range(len(values))))
        if isinstance(values.low, int) and isinstance(values.high, int):
            return distributions.IntDistribution(values.low, values.high, log=values.log)
        return distributions.FloatDistribution(values.low, values.high, log=values.log)

    def _to_optuna(self, name: str, value: Any) -> Any:
        """Return a value as Optuna stores it: categorical choices by index, because they may be lists."""
        values = self._space[name]
        return value if isinstance(values, Range) else [_hashable(choice) for choice in values].index(_hashable(value))

    def _from_optuna(self, name: str, value: Any) -> Any:
        values = self._space[name]
        if not isinstance(values, Range):
            return values[value]
        return min(max(_rounded(value), values.low), values.high) if isinstance(value, float) else value


def _fixed_options(strategy: StrategyConfig, space: Space, number: int, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that trial `number`, counted from 0, must have; none from the fourth trial on."""
    if number >= _FIXED_TRIALS:
        return {}
    fixed = {name: default_value(strategy, name) for name in space if name in strategy.searched}
    if number > 0:
        fixed = {name: value * strategy.searched[name] ** (1 if number == 1 else -1) for name, value in fixed.items()}
        fixed = {name: _rounded(value) for name, value in fixed.items()}
    else:
        fixed |= {name: getattr(strategy, name) for name in space if name not in fixed and hasattr(strategy, name)}
        fixed |= recipe
    return {name: value for name, value in fixed.items() if _contains(space[name], value)}


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _contains(values: Range | tuple[Any, ...], value: Any) -> bool:
    if isinstance(values, Range):
        return value in values
    return _hashable(value) in [_hashable(choice) for choice in values]


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value
