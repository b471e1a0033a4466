"""One run, and the job that an executor gets: the run, or the hyperparameter search before it."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
)

from tuneoff.cache import fingerprint
from tuneoff.data.spec import Fold, Subset
from tuneoff.engine.recipe import Recipe
from tuneoff.scoring.metrics import (
    depends_on_positive,
    metric_options,
)
from tuneoff.scoring.selection import Selection
from tuneoff.search.record import SearchRecord
from tuneoff.search.space import (
    Range,
    SearchSpec,
    Space,
    own_options,
    recipe_options,
    with_options,
)
from tuneoff.seeds import SPLIT, cell_name
from tuneoff.spec.strategy import AnyStrategy, dump_strategy
from tuneoff.strategies import STRATEGIES, Strategy, StrategyConfig
from tuneoff.validation import validated


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
        parts = [dump_strategy(self.config), self.model_fingerprint, self.data_fingerprint, recipe, self.metric]
        if self.subset:
            parts.append(self.subset.key)
        if self.searched_options:  # not the same as a strategy that was given these options by the user
            parts.append(dump_strategy(self.strategy))
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
    # of a search: seconds since 1970; a trial that would end later does not start, or is not stored
    deadline: float | None = None

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
