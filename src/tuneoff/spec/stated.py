"""What a study states from elsewhere: published scores, predictions, training logs and test sets."""

import re
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from tuneoff.costs import Rate, StatedCost
from tuneoff.errors import ConfigError
from tuneoff.scoring.metrics import (
    bounds,
    check_metric,
)
from tuneoff.spec.strategy import parse_strategy
from tuneoff.validation import validated

NAME_PATTERN = re.compile(r"\w[\w.-]*")  # of studies, datasets and test sets: also names of folders and files


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
