"""Options that commands share, and parsers of their values. Options of the data are made from DataSpec's fields."""

import functools
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperCommand

from tuneoff.costs import RATE_OPTIONS, Rates, choosable_costs
from tuneoff.data.spec import SPLITS, DataSpec
from tuneoff.errors import ConfigError, unknown
from tuneoff.studies import packaged_studies
from tuneoff.validation import is_list_field, parse_yaml, whole_number

OptionalText = Optional[str]  # noqa: UP045  typer reads Optional
TextList = Optional[list[str]]  # noqa: UP045  an option that adds up when it is repeated; see joined()
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Replace = Annotated[
    bool,
    typer.Option(
        "--replace", help="do not extend the stored study of this name: replace its settings (runs stay on disk)"
    ),
]
Devices = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(help="train each run on several GPUs, or processes on a CPU, together; the batch stays the same"),
]
On = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="run the jobs on a Ray cluster: the address of its head (host:port or ray://host:port), auto for the one "
        "that this machine belongs to, ray to start one here"
    ),
]
CopyTo = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        help="keep a copy of the study at an address, such as s3://bucket/study: each run as it ends; stored runs that "
        "this machine lacks come from there"
    ),
]
Keep = Annotated[
    OptionalText,
    typer.Option(
        metavar="all|recommended|none",
        help="trained models that stay on disk; by default those of the picked strategy, and small ones",
    ),
]
Race = Annotated[
    bool,
    typer.Option(
        "--race",
        help="strategies race: cheap ones first, and after each seed or fold those with a negligible chance to be "
        "picked stop",
    ),
]
Time = Annotated[
    OptionalText,
    typer.Option(
        metavar="TIME",
        help="time for the whole study, e.g. 10m, 90s or 1h, stored runs included: the best verdict within it, by a "
        "race; by default every run of the grid",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="print nothing but errors")]


class Command(TyperCommand):
    """A command that refuses an option of one value that is repeated; click takes the last one without a word."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments. Raises ConfigError for a repeated option."""
        if not ctx.resilient_parsing:  # that is tab completion
            _, _, used = self.make_parser(ctx).parse_args(args=list(args))
            for option in used:
                takes_one = getattr(option, "is_flag", None) is False and not option.multiple
                if takes_one and used.count(option) > 1:
                    raise ConfigError(f"{option.opts[0]} takes one value, but is given {used.count(option)} times")
        return super().parse_args(ctx, args)


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
FORMAT_HELP = (
    "merged (one transformers model), onnx, onnx-int8 (8-bit weights), safetensors (the weights as stored), adapterhub "
    "(a bottleneck adapter), skops (TF-IDF, majority, probe), or hub:OWNER/NAME to upload to the Hugging Face hub"
)
Cost = Annotated[OptionalText, typer.Option(help=COST_HELP, autocompletion=complete_cost)]
Margin = Annotated[
    OptionalText,
    typer.Option(help="largest acceptable loss for a cheaper strategy, in the metric's units: 0.01 is a point"),
]
SelectBy = Annotated[
    OptionalText,
    typer.Option(help="metric that selects epochs and hyperparameters on validation; by default the one that ranks"),
]
Positive = Annotated[
    OptionalText,
    typer.Option(
        metavar="LABEL",
        help="class of the metrics f1, precision, recall and pr_auc; of two classes by default the second label",
    ),
]
Ordered = Annotated[
    bool, typer.Option("--ordered", help="labels are in order: adds the metrics quadratic_kappa and mae")
]
Threshold = Annotated[
    OptionalText,
    typer.Option(
        metavar="0.5|validation",
        help="of two classes: 0.5 (default), or the probability of the second one with the best score on validation",
    ),
]
Predictions = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        metavar="NAME=FILE",
        help="predictions of the test examples by anything else, as a row: gpt=gpt.csv or gpt=gpt.csv:usd=0.002; a "
        "column example or text, and a column predicted; repeatable, or separated by commas",
    ),
]
Imported = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--import",
        metavar="NAME=PATH",
        help="a training log of HF Trainer, whose curves and scores the report shows: trainer_state.json, "
        "all_results.json or the output folder, as theirs=out/trainer_state.json; repeatable, or separated by commas",
    ),
]
TestSet = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        metavar="NAME=SOURCE",
        help="a test set from elsewhere, which the trained models also predict: twitter=tweets.csv, with options after "
        "colons as twitter=tweets.csv:text=tweet:label=mood:labels=0=negative+4=positive:limit=500; repeatable",
    ),
]
_RATE_HELP = {rate: field.description for rate, field in Rates.model_fields.items()}
Track = Annotated[
    TextList,
    typer.Option(
        help="also store the finished study in a tracker: mlflow, tensorboard, wandb or trackio; options after colons: "
        "mlflow:uri=http://localhost:5000; repeatable, or separated by commas"
    ),
]
Tags = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option(
        "--tag",
        metavar="NAME=PATTERN",
        help="also compare error rates on the test texts that match a regular expression: late_but='\\bbut\\b'; "
        "repeatable",
    ),
]
PricePerHour = Annotated[OptionalText, typer.Option("--price-per-hour", help=_RATE_HELP["usd_per_hour"])]
Watts = Annotated[OptionalText, typer.Option("--watts", help=_RATE_HELP["watts"])]
GramsPerKwh = Annotated[OptionalText, typer.Option("--grams-per-kwh", help=_RATE_HELP["grams_per_kwh"])]
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
        "limit", TextList, None, "examples at most: 2000 of train, or train=2000,validation=500,test=500"
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
    is_list = is_list_field(field)
    # a mapping of merge_labels is written in YAML; on the command line it is a flag
    is_plain = field.annotation in (bool, int, float) or isinstance(field.default, bool)
    kind = type(field.default) if is_plain else TextList if is_list else OptionalText
    default = field.default if is_plain else None
    description = field.description or ""
    if is_list:
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
    limit = joined(values.pop("limit"))
    for name, value in values.items():
        is_list = is_list_field(DataSpec.model_fields[name])
        spec[name] = split_list(joined(value)) if is_list and (value or name != "labels") else value
    return {**spec, "limits": parse_limits(limit)}


def joined(texts: list[str] | None) -> str:
    """Join the values of a repeated option: --limit train=400 --limit test=1000 is --limit train=400,test=1000."""
    return ",".join(texts or ())


def split_list(text: str) -> list[str]:
    """Split text at commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def split_lists(texts: list[str] | None) -> list[str]:
    """Split the texts of a repeated option at commas."""
    return [part for text in texts or () for part in split_list(text)]


def parse_recipe(text: str | None) -> dict[str, Any]:
    """Parse key=value,key=value; values as YAML reads them."""
    options = {}
    for part in split_list(text or ""):
        key, equals, value = part.partition("=")
        if not equals:
            raise ConfigError(f"--recipe {text!r}: {part!r} is not key=value; write e.g. class_weights=balanced")
        if key.strip() in options:
            raise ConfigError(f"--recipe {text!r} names {key.strip()} twice; give it once")
        try:
            options[key.strip()] = parse_yaml(value, "value")
        except ConfigError:
            raise ConfigError(f"--recipe {text!r}: value {value!r} cannot be read; write e.g. clip=1.0") from None
    return options


def with_spaces(search: str, texts: list[str] | None) -> Any:
    """Return a search, 4, 10m or none, with the search spaces of the command line."""
    if not texts:
        return search
    from tuneoff.search.space import parse_search, parse_spaces

    spaces, budget = parse_spaces(texts), parse_search(search)
    if budget is None:
        raise ConfigError("--search-space needs a search; write e.g. --search 8, or leave out --search none")
    return {**budget, "spaces": spaces}


def without_encoders(strategies: list[dict[str, Any]], models: list[str]) -> list[dict[str, Any]]:
    """Return strategies, as plain data, without the encoders that they name if none of these is among the models."""
    from tuneoff.formats import encoder_names

    present = {*models, *encoder_names(models).values()}
    kept = []
    for strategy in strategies:
        ((name, options),) = strategy.items()
        encoders = options.get("encoders") or ()
        is_gone = encoders and not present & set(encoders)
        kept.append({name: {key: value for key, value in options.items() if not (is_gone and key == "encoders")}})
    return kept


def parse_cost(text: str) -> str:
    """Return the key of a cost; its name in reports stands for the key: "memory" for peak_bytes."""
    return {name.lower(): key for key, name in complete_cost()}.get(text.strip().lower(), text)


def parse_rates(price_per_hour: str | None, watts: str | None, grams_per_kwh: str | None) -> dict[str, float]:
    """Return the rates that the command line states, by the fields of Rates."""
    texts = zip(RATE_OPTIONS, (price_per_hour, watts, grams_per_kwh), strict=True)
    return {rate: _parse_rate(RATE_OPTIONS[rate], text) for rate, text in texts if text is not None}


def _parse_rate(option: str, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 <= rate < math.inf:
        raise ConfigError(f"{option} {text!r} is not a number of at least 0; write e.g. {option} 0.5")
    return rate


def parse_limits(text: str | None) -> dict[str, Any]:
    """Parse 2000, or train=2000,test=500, into numbers by split."""
    limits: dict[str, Any] = {}
    for part in text.split(",") if text else ():
        split, equals, count = part.rpartition("=")
        number = whole_number(count)
        if number is None:
            raise ConfigError(f"--limit {text!r} is not a number or split=number; write e.g. train=2000,test=500")
        split = split.strip() if equals else "train"
        if split not in SPLITS:
            raise ConfigError(f"--limit {text!r}: {unknown('split', split, SPLITS)}")
        if split in limits:
            raise ConfigError(f"--limit {text!r} names {split} twice; give it once")
        limits[split] = number
    return limits


def parse_folds(text: str) -> Any:
    """Parse 5, or none for one test split, into the evaluation of a study."""
    if text.strip().lower() == "none":
        return "split"
    number = whole_number(text)
    if number is None or number < 2:
        raise ConfigError(f"--folds {text!r} is neither a number of folds, 2 or more, nor none; write 5 or none")
    return {"folds": number}


def parse_seeds(text: str) -> int | list[int] | dict[str, Any]:
    """Parse 3, or 1,2,42, or head=3,order=3 (or head=1+2+42), into a number, numbers or a mapping of them."""
    parts = text.split(",")
    if "=" in text:
        by_source = {source.strip(): value.split("+") for source, _, value in (part.partition("=") for part in parts)}
        if all(whole_number(number) is not None for values in by_source.values() for number in values):
            return {source: _numbers(values) for source, values in by_source.items()}
    elif all(whole_number(part) is not None for part in parts):
        return _numbers(parts)
    raise ConfigError(
        f"--seeds {text!r} is not a number or numbers separated by commas, nor source=number; write 3, 1,2,42 or "
        "head=3,order=3"
    )


def _numbers(parts: list[str]) -> int | list[int]:
    return int(parts[0]) if len(parts) == 1 else [int(part) for part in parts]


def checked_path(name: str, option: str = "--report", example: str = "data.html") -> Path:
    """Return the path of a file to write. Raises ConfigError, before any work, if it cannot be written there."""
    path = Path(name).expanduser()
    if path.is_dir():
        raise ConfigError(f"{option} {name!r} is a folder; name a file in it, e.g. {path / example}")
    if not path.parent.is_dir():
        raise ConfigError(f"{option} {name!r}: folder {str(path.parent)!r} does not exist; create it first")
    return path
