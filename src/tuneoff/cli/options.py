"""Options that commands share, and parsers of their values. Options of the data are made from DataSpec's fields."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Optional

import typer
import yaml

from tuneoff.costs import choosable_costs
from tuneoff.data.spec import SPLITS, DataSpec
from tuneoff.errors import ConfigError, unknown
from tuneoff.studies import packaged_studies
from tuneoff.validation import is_list_field

OptionalText = Optional[str]  # noqa: UP045  typer reads Optional
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="print nothing but errors")]


def complete_study() -> list[str]:
    """Return the names of the packaged studies, for tab completion."""
    return [f"studies:{name}" for name in packaged_studies()]


def complete_cost() -> list[tuple[str, str]]:
    """Return the costs that --cost takes, each with its name in reports, for tab completion."""
    return [(key, cost.name) for key, cost in choosable_costs().items()]


StudyName = Annotated[
    str,
    typer.Argument(
        metavar="STUDY", help="a YAML file, a study's folder, or studies:NAME", autocompletion=complete_study
    ),
]
COST_HELP = "cost that the verdict saves where a cheaper strategy is within the margin: " + ", ".join(
    f"{key} ({name})" for key, name in complete_cost()
)
Cost = Annotated[OptionalText, typer.Option(help=COST_HELP, autocompletion=complete_cost)]
Margin = Annotated[
    OptionalText,
    typer.Option(help="largest acceptable loss for a cheaper strategy, in the metric's units: 0.01 is a point"),
]
Source = Annotated[
    OptionalText,
    typer.Argument(
        metavar="DATA",
        help="a file (csv, tsv, jsonl, parquet), a folder with one file per split, packaged:NAME or hf:NAME",
    ),
]
# an example of each option of the data that is a list
_LIST_EXAMPLES = {"label_columns": "toxic,insult", "labels": "negative,positive", "slices": "source,language"}


def with_data_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an argument DATA and an option for each field of DataSpec.

    The command receives them as one dictionary of DataSpec's fields, as its first argument `data`. Splits are options
    of their own (--train FILE), and --limit stands for limits.
    """
    options = [_option(name) for name in DataSpec.model_fields if name not in ("source", "splits", "limits")]
    splits = [
        _parameter(split, OptionalText, None, f"file of the {split} split, or the source's name for it")
        for split in SPLITS
    ]
    limit = _parameter(
        "limit", OptionalText, None, "examples at most: 2000 of train, or train=2000,validation=500,test=500"
    )
    source = inspect.Parameter("source", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=Source)
    own = [parameter for name, parameter in inspect.signature(command).parameters.items() if name != "data"]
    data_parameters = [source, *options, *splits, limit]
    names = [parameter.name for parameter in data_parameters]

    @functools.wraps(command)
    def with_data(**values: Any) -> None:
        data = _data_spec({name: values.pop(name) for name in names})
        command(data, **values)

    parameters = [source, *own, *options, *splits, limit]
    with_data.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_data.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del with_data.__wrapped__  # typer would read its signature
    return with_data


def _option(name: str) -> inspect.Parameter:
    field = DataSpec.model_fields[name]
    kind = field.annotation if field.annotation in (bool, int, float) else OptionalText
    default = field.default if kind is not OptionalText else None
    description = field.description or ""
    if is_list_field(field):
        description += f"; separated by commas, e.g. {_LIST_EXAMPLES[name]}"
    return _parameter(name, kind, default, description)


def _parameter(name: str, kind: Any, default: Any, description: str) -> inspect.Parameter:
    option = typer.Option(f"--{name.replace('_', '-')}", help=description)
    annotation = Annotated[kind, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _data_spec(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of data options as DataSpec's fields."""
    splits = {split: values.pop(split) for split in SPLITS}
    if values["source"] is None and splits["train"] is None:
        raise ConfigError("no data given; name a file, a folder, packaged:NAME or hf:NAME, or --train FILE")
    spec: dict[str, Any] = {"splits": {split: file for split, file in splits.items() if file}}
    limit = values.pop("limit")
    for name, value in values.items():
        is_list = is_list_field(DataSpec.model_fields[name])
        spec[name] = split_list(value or "") if is_list and (value or name != "labels") else value
    return {**spec, "limits": parse_limits(limit)}


def split_list(text: str) -> list[str]:
    """Split text at commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_recipe(text: str | None) -> dict[str, Any]:
    """Parse key=value,key=value; values as YAML reads them."""
    options = {}
    for part in split_list(text or ""):
        key, equals, value = part.partition("=")
        if not equals:
            raise ConfigError(f"--recipe {text!r}: {part!r} is not key=value; write e.g. class_weights=balanced")
        try:
            options[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"--recipe {text!r}: value {value!r} cannot be read; write e.g. clip=1.0") from None
    return options


def parse_cost(text: str) -> str:
    """Return the key of a cost; its name in reports stands for the key: "memory" for peak_bytes."""
    return {name: key for key, name in complete_cost()}.get(text.strip().lower(), text)


def parse_limits(text: str | None) -> dict[str, Any]:
    """Parse 2000, or train=2000,test=500, into numbers by split."""
    limits = {}
    for part in text.split(",") if text else ():
        split, equals, count = part.rpartition("=")
        if not count.strip().isdigit():
            raise ConfigError(f"--limit {text!r} is not a number or split=number; write e.g. train=2000,test=500")
        split = split.strip() if equals else "train"
        if split not in SPLITS:
            raise ConfigError(f"--limit {text!r}: {unknown('split', split, SPLITS)}")
        limits[split] = int(count)
    return limits


def parse_folds(text: str) -> Any:
    """Parse 5, or none for one test split, into the evaluation of a study."""
    if text.strip().lower() == "none":
        return "split"
    if not text.strip().isdigit() or int(text) < 2:
        raise ConfigError(f"--folds {text!r} is neither a number of folds, 2 or more, nor none; write 5 or none")
    return {"folds": int(text)}


def parse_seeds(text: str) -> int | list[int] | dict[str, Any]:
    """Parse 3, or 1,2,42, or head=3,order=3 (or head=1+2+42), into a number, numbers or a mapping of them."""
    parts = text.split(",")
    if "=" in text:
        by_source = {source.strip(): value.split("+") for source, _, value in (part.partition("=") for part in parts)}
        if all(number.strip().isdigit() for values in by_source.values() for number in values):
            return {source: _numbers(values) for source, values in by_source.items()}
    elif all(part.strip().isdigit() for part in parts):
        return _numbers(parts)
    raise ConfigError(
        f"--seeds {text!r} is not a number or numbers separated by commas, nor source=number; write 3, 1,2,42 or "
        "head=3,order=3"
    )


def _numbers(parts: list[str]) -> int | list[int]:
    return int(parts[0]) if len(parts) == 1 else [int(part) for part in parts]
